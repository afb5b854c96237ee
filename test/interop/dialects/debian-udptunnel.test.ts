import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import type { Socket as UdpSocket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { afterEach, beforeEach, expect, it } from "vitest";
import { startUdpLocal, startUdpServer } from "../../support/start.ts";
import { startUdpEcho } from "../../support/udp-echo.ts";
import { describeWith, freePort } from "../peers/peer-program.ts";

/**
 * Columbia's udptunnel, packaged by Debian, uses the frames of the dialect mullvad. It sends to and listens on the same UDP
 * port, so the other end must have that port on another address.
 */
describeWith(["udptunnel"], "Debian's udptunnel", () => {
  const open: { close(): unknown }[] = [];
  let child: ChildProcess | undefined;
  let far: UdpSocket;

  beforeEach(async () => {
    far = createSocket({ type: "udp4", reuseAddr: true });
    open.push(far);
    far.bind(0, "127.0.0.2");
    await once(far, "listening");
  });

  afterEach(async () => {
    if (child !== undefined && child.exitCode === null) {
      child.kill("SIGKILL");
      await once(child, "exit");
    }
    for (const each of open.splice(0).reverse()) await each.close();
  });

  /** Resolves once its output matches. */
  async function start(args: readonly string[], until: RegExp): Promise<void> {
    child = spawn("udptunnel", args, { stdio: ["ignore", "ignore", "pipe"] });
    let said = "";
    while (!until.test(said)) {
      const [data] = await once(child.stderr!, "data");
      said += data;
    }
  }

  it("as a client reaches the target of udp-server --listen mullvad:// and gets its answers", async () => {
    const echo = await startUdpEcho();
    open.push(echo);
    const server = await startUdpServer({
      listen: ["mullvad://127.0.0.1:0"],
      dialectTarget: `127.0.0.1:${echo.address().port}`,
      allow: ["127.0.0.1/32"],
    });
    open.push(server);
    const port = server.address.listen[0].split(":").at(-1);
    const udp = far.address().port;
    await start(["-c", `127.0.0.1/${port}`, "-vv", `127.0.0.2/${udp}`], /Connected/);
    // It connects before it listens for datagrams.
    const again = setInterval(() => far.send("hello", udp, "127.0.0.1"), 50);
    const [answer] = await once(far, "message");
    clearInterval(again);
    expect(answer.toString()).toBe("hello");
  });

  it("as a server passes datagrams of udp-local --dialect mullvad to its target, and its answers back", async () => {
    // It does not send from the port that it listens on.
    far.on("message", (data) => far.send(data, far.address().port, "127.0.0.1"));
    const port = await freePort();
    child = spawn("udptunnel", ["-s", String(port), "-vv", `127.0.0.2/${far.address().port}`], {
      stdio: "ignore",
    });
    const target = `127.0.0.2:${far.address().port}`;
    const local = await startUdpLocal({
      server: `127.0.0.1:${port}`,
      dialect: "mullvad",
      forwards: [{ listen: "127.0.0.1:0", target }],
    });
    open.push(local);
    const app = createSocket("udp4");
    open.push(app);
    const [, forward] = local.address.forwards[0].listen.split(":");
    const again = setInterval(() => app.send("hello", Number(forward), "127.0.0.1"), 200);
    const [answer] = await once(app, "message");
    clearInterval(again);
    expect(answer.toString()).toBe("hello");
  });
});
