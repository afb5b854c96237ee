import { spawn } from "node:child_process";
import type { Socket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { expect, it } from "vitest";
import { programCommand } from "../../support/hosts.ts";
import { startUdpLocal } from "../../support/start.ts";

const LIMIT = 200;
const QUERIES = 1_000;

/** Sends a query every second until an answer arrives, as resolvers do. */
async function ask(socket: Socket, port: number, text: string): Promise<string> {
  const answer = once(socket, "message") as Promise<[Buffer]>;
  const send = () => socket.send(text, port, "127.0.0.1");
  send();
  const again = setInterval(send, 1_000);
  const [data] = await answer;
  clearInterval(again);
  return data.toString();
}

it(`answers ${QUERIES} one-shot queries with ${LIMIT} descriptors and keeps an ongoing flow`, async () => {
  const echo = createSocket("udp4");
  echo.on("message", (data, { port }) => echo.send(`${data} from ${port}`, port, "127.0.0.1"));
  echo.bind(0, "127.0.0.1");
  await once(echo, "listening");
  const options = [
    "--listen",
    "127.0.0.1:0",
    "--allow",
    "127.0.0.1/32",
    "--workers",
    "1",
    "--log-format",
    "json",
  ];
  const argv = ["-c", `ulimit -n ${LIMIT}; exec "$@"`, "sh", ...programCommand("udp-server"), ...options];
  const child = spawn("sh", argv, { stdio: ["ignore", "ignore", "pipe"] });
  try {
    const [ready] = await once(child.stderr, "data");
    let said = "";
    child.stderr.on("data", (text) => {
      said += text;
    });
    const local = await startUdpLocal({
      server: JSON.parse(ready.toString().split("\n")[0]).listen[0],
      forwards: [{ listen: "127.0.0.1:0", target: `127.0.0.1:${echo.address().port}` }],
    });
    const port = Number(local.address.forwards[0].listen.split(":")[1]);
    const call = createSocket("udp4");
    const say = () => ask(call, port, "call");
    const first = await say();
    await say();
    for (let asked = 0; asked < QUERIES; ) {
      const batch = Array.from({ length: 20 }, () => `query ${asked++}`);
      const sockets = batch.map(() => createSocket("udp4"));
      const answers = await Promise.all(batch.map((text, i) => ask(sockets[i], port, text)));
      for (const socket of sockets) socket.close();
      expect(answers.map((text) => text.split(" from ")[0])).toEqual(batch);
    }
    expect(await say()).toBe(first);
    call.close();
    await local.close();
    expect(said).not.toContain("cannot open a UDP socket");
  } finally {
    echo.close();
    child.kill();
    if (child.exitCode === null) await once(child, "exit");
  }
});
