import { createSocket } from "node:dgram";
import { once } from "node:events";
import type { AddressInfo, Socket } from "node:net";
import { connect as connectTcp, createServer } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { startUdpLocal, startUdpServer } from "../../support/start.ts";
import {
  CLIENT_HTTP1,
  CLIENT_HTTP2,
  CLIENT_HTTP2_REFUSED,
  PROXY_HTTP1_REFUSAL,
  PROXY_HTTP1_TUNNEL,
  PROXY_HTTP2,
} from "../peers/h2o-exchange.ts";

const PREFACE_BYTES = 24;
const FRAME_DATA = 0;
const FRAME_HEADERS = 1;
const TARGET = { ip: "127.83.17.9", port: 18_053 };
const bytesOf = (hex: string) => Buffer.from(hex, "hex");

const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A proxy that replays h2o's bytes. @returns its address */
async function replay(onConnection: (socket: Socket) => void): Promise<string> {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    cleanups.push(() => socket.destroy());
    onConnection(socket);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(() => server.close());
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Types of the HTTP/2 frames in a client's stream, cut anywhere. */
function onFrames(socket: Socket, onFrame: (type: number) => void): void {
  let received = Buffer.alloc(0);
  let at = PREFACE_BYTES;
  socket.on("data", (data) => {
    received = Buffer.concat([received, data]);
    while (received.length >= at + 9) {
      const end = at + 9 + received.readUIntBE(at, 3);
      if (received.length < end) return;
      onFrame(received[at + 3]);
      at = end;
    }
  });
}

describe("h2o as the proxy, replayed", () => {
  async function useProxy(proxy: string, fragment: string): Promise<void> {
    const local = await startUdpLocal({
      masque: `http://${proxy}/.well-known/masque/udp/{target_host}/{target_port}/${fragment}`,
      forwards: [`${TARGET.ip}:${TARGET.port}`, "10.0.0.1:9"].map((target) => ({
        listen: "127.0.0.1:0",
        target,
      })),
    });
    cleanups.push(() => local.close());
    const ports = local.address.forwards.map(({ listen }) => Number(listen.split(":")[1]));
    const app = createSocket("udp4");
    cleanups.push(() => app.close());
    app.bind(0, "127.0.0.1");
    await once(app, "listening");
    const answer = once(app, "message");
    app.send("hello", ports[0], "127.0.0.1");
    expect((await answer)[0].toString()).toBe("re:hello");
    const refused = new Promise<Error>((done) => local.once("error", done));
    app.send("hello", ports[1], "127.0.0.1");
    expect((await refused).message).toMatch(
      /status 403, Proxy-Status: h2o; error=destination_ip_prohibited$/,
    );
    expect(local.stats().unreachable.prohibited).toBe(1);
  }

  it("over HTTP/1.1 opens an unbound tunnel and refuses a target", async () => {
    const proxy = await replay((socket) => {
      let steps: string[] | undefined;
      socket.on("data", (data) => {
        steps ??= [...(data.includes("10.0.0.1") ? PROXY_HTTP1_REFUSAL : PROXY_HTTP1_TUNNEL)];
        socket.write(bytesOf(steps.shift()!));
      });
    });
    await useProxy(proxy, "");
  });

  it("over HTTP/2 opens an unbound tunnel and refuses a target on the same connection", async () => {
    let connections = 0;
    const proxy = await replay((socket) => {
      connections++;
      const [settings, update, answer, datagram, secondUpdate, refusal] = PROXY_HTTP2.map(bytesOf);
      socket.write(settings);
      const answers = [Buffer.concat([update, answer]), Buffer.concat([secondUpdate, refusal])];
      onFrames(socket, (type) => {
        if (type === FRAME_HEADERS) socket.write(answers.shift()!);
        else if (type === FRAME_DATA && answers.length === 1) socket.write(datagram);
      });
    });
    await useProxy(proxy, "#http=2");
    expect(connections).toBe(1);
  });
});

describe("h2o-httpclient as the client, replayed", () => {
  /** Sends each step after an answer to the one before. @returns all bytes received, once they contain `text` */
  async function talk(steps: readonly string[], text: string): Promise<Buffer> {
    const echo = createSocket("udp4");
    cleanups.push(() => echo.close());
    echo.on("message", (data, remote) => echo.send(`re:${data}`, remote.port, remote.address));
    echo.bind(TARGET.port, TARGET.ip);
    await once(echo, "listening");
    const server = await startUdpServer({ listen: ["127.0.0.1:0"], allow: [`${TARGET.ip}/32`] });
    cleanups.push(() => server.close());
    const socket = connectTcp(Number(server.address.listen[0].split(":")[1]), "127.0.0.1");
    socket.on("error", () => {});
    cleanups.push(() => socket.destroy());
    const closed = new Promise<never>((_, failed) => {
      socket.once("close", () => failed(new Error("closed by the server")));
    });
    closed.catch(() => {});
    let received = Buffer.alloc(0);
    const [first, ...others] = steps.map(bytesOf);
    socket.write(first);
    while (!received.includes(text)) {
      const [data] = (await Promise.race([once(socket, "data"), closed])) as [Buffer];
      received = Buffer.concat([received, data]);
      // Status 101, or 200 as an entry of HPACK's static table.
      const isAnswered =
        received.includes("HTTP/1.1 101") || received.includes(Buffer.of(1, 4, 0, 0, 0, 1, 0x88));
      if (isAnswered) for (const step of others.splice(0)) socket.write(step);
    }
    return received;
  }

  it("over HTTP/1.1 gets its tunnel", async () => {
    const received = await talk(CLIENT_HTTP1, "re:hello");
    expect(received.subarray(-11).toString("hex")).toBe("00090072653a68656c6c6f");
  });

  it("over HTTP/2 gets its tunnel", async () => {
    const received = await talk(CLIENT_HTTP2, "re:hello");
    expect(received.includes(bytesOf("00000b00000000000100090072653a68656c6c6f"))).toBe(true);
  });

  it("over HTTP/2 gets its refusal", async () => {
    await talk(CLIENT_HTTP2_REFUSED, "<title>403 Forbidden</title>");
  });
});
