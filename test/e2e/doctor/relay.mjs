// Hops, each with a fault: listens on the address argv[2], once for each further argument KIND PORT UPSTREAM-HOST UPSTREAM-PORT. Prints
// "ready". Kinds:
//   deaf       passes the answer to the upgrade, and then nothing from the server
//   unmeasured takes the capsule MEASURE out, as an old server ignores it
//   stalling   holds what the server sends for 250 ms in every 500
//   altering   changes the first byte of all that the server sends
//   cutting    ends a connection after 0.7 s, if there is another one that was answered
import { connect, createServer } from "node:net";

const [host, ...hops] = process.argv.slice(2);
/** PROTOCOL.md §4.9, after the prefix of a varint of 4 bytes. */
const MEASURE = Buffer.from([0x80, 0x55, 0x50, 0x0a]);
const ACCEPTED = "HTTP/1.1 101";

const kinds = {
  deaf(client, server) {
    client.pipe(server);
    let isDeaf = false;
    server.on("data", (bytes) => {
      if (!isDeaf) client.write(bytes);
      isDeaf ||= bytes.includes(ACCEPTED);
    });
  },

  unmeasured(client, server) {
    server.pipe(client);
    let isUp = false;
    server.on("data", (bytes) => {
      isUp ||= bytes.includes(ACCEPTED);
    });
    let waiting = Buffer.alloc(0);
    client.on("data", (bytes) => {
      if (!isUp) {
        server.write(bytes);
        return;
      }
      waiting = Buffer.concat([waiting, bytes]);
      for (let length = capsuleLength(waiting); length > 0; length = capsuleLength(waiting)) {
        if (!waiting.subarray(0, 4).equals(MEASURE)) server.write(waiting.subarray(0, length));
        waiting = waiting.subarray(length);
      }
    });
  },

  stalling(client, server) {
    client.pipe(server);
    server.on("data", (bytes) => client.write(bytes));
    const timer = setInterval(() => (server.isPaused() ? server.resume() : server.pause()), 250);
    client.on("close", () => clearInterval(timer));
  },

  altering(client, server) {
    client.pipe(server);
    server.on("data", (bytes) => {
      bytes[0] ^= 1;
      client.write(bytes);
    });
  },

  cutting(client, server, state) {
    client.pipe(server);
    server.pipe(client);
    server.once("data", () => {
      if (state.up > 0) setTimeout(() => client.destroy(), 700);
      state.up++;
      client.on("close", () => state.up--);
    });
  },
};

/** @returns 0 for an incomplete one */
function capsuleLength(bytes) {
  const type = varint(bytes, 0);
  const length = type && varint(bytes, type.end);
  const end = length ? length.end + length.value : 0;
  return end <= bytes.length ? end : 0;
}

/** RFC 9000 §16. */
function varint(bytes, at) {
  if (at >= bytes.length) return undefined;
  const size = 1 << (bytes[at] >> 6);
  if (at + size > bytes.length) return undefined;
  let value = bytes[at] & 0x3f;
  for (let i = 1; i < size; i++) value = value * 256 + bytes[at + i];
  return { value, end: at + size };
}

const listening = hops.map((hop) => {
  const [kind, port, upstreamHost, upstreamPort] = hop.split(" ");
  const state = { up: 0 };
  const listener = createServer({ noDelay: true, allowHalfOpen: false }, (client) => {
    const server = connect({ host: upstreamHost, port: Number(upstreamPort), noDelay: true });
    for (const [one, other] of [
      [client, server],
      [server, client],
    ]) {
      one.on("error", () => {});
      one.on("close", () => other.destroy());
    }
    kinds[kind](client, server, state);
  });
  return new Promise((done) => listener.listen(Number(port), host, done));
});
await Promise.all(listening);
console.log("ready");
