import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:net";
import { describe, expect, it } from "vitest";
import { startUdpServer } from "../../support/start.ts";

const KEY = Buffer.alloc(32, "k");

const WEB_SOCKET = [
  "GET /tunnel HTTP/1.1",
  "Host: server.example",
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  `Sec-WebSocket-Key: ${randomBytes(16).toString("base64")}\r\n\r\n`,
].join("\r\n");
const STRANGER = "GET / HTTP/1.1\r\nHost: server.example\r\n\r\n";
const HTTP2_PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/** A connection that the server has accepted; everything that it sends back is ignored. */
async function accepted(port: number) {
  const client = connect(port, "127.0.0.1").on("error", () => {});
  await once(client, "connect");
  // Connections are accepted in order, so the server has this one when a later one is answered.
  const later = connect(port, "127.0.0.1", () => later.end(STRANGER));
  await once(later.resume(), "close");
  return client.resume();
}

describe("a server that closes before a client has sent its request", () => {
  it.each([
    ["asks for a WebSocket", WEB_SOCKET],
    ["speaks HTTP/2", HTTP2_PREFACE],
    ["is a stranger", STRANGER],
    ["sends nothing", ""],
  ])("ends, with the connection of one that then %s", async (_, request) => {
    const server = await startUdpServer({ listen: ["127.0.0.1:0"], psk: KEY, wsPath: "/tunnel" });
    const client = await accepted(Number(server.address.listen[0].split(":")[1]));
    const ends = [server.close(), new Promise((done) => client.once("close", done))];
    client.write(request);
    await expect(Promise.all(ends)).resolves.toHaveLength(2);
  });
});
