// Stresses the TUN devices and connections of the native module argv[2]: malformed packets, invalid rows, devices that
// close inside their own callback, connections that fail. sanitized.test.ts runs it under sanitizers in a network
// namespace. Prints one JSON object.

import { createSocket } from "node:dgram";
import { readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { connect as connectNet, createServer } from "node:net";
import { Worker } from "node:worker_threads";
import { seededIntegers } from "../../support/seeded-integers.mjs";

const native = createRequire(import.meta.url)(process.argv[2]);
const arena = new Uint8Array(1 << 20);
const offsets = new Int32Array(256);
const lengths = new Int32Array(256);
const seen = {
  packets: 0,
  bad: 0,
  dropped: 0,
  opened: 0,
  ends: 0,
  connected: 0,
  refused: 0,
  late: 0,
  leaked: 0,
  thrown: 0,
  aborted: 0,
  ended: 0,
  endedAgain: 0,
  local: /** @type {boolean[]} */ ([]),
};

const random = seededIntegers(20_261_125);
const turn = () => new Promise((done) => setImmediate(done));

/** Opens a device. @param {boolean} closes  whether it closes itself in its first callback */
function open(closes) {
  const [fd, name, hasFamily] = native.tunOpen(`san${seen.opened++ % 4}`, random(2) === 0);
  native.interfaceAddress(name, Uint8Array.of(10, 9, 0, 1), 24);
  native.interfaceAddress(name, Uint8Array.from([0xfd, ...new Array(14).fill(0), 1]), 64);
  native.interfaceUp(name, 1500);
  native.tunWatch(fd, hasFamily, arena, offsets, lengths, (/** @type {number} */ count) => {
    if (count <= 0) seen.ends++;
    for (let i = 0; i < count; i++) {
      seen.packets++;
      const isGood = offsets[i] >= 0 && lengths[i] > 0 && offsets[i] + lengths[i] <= arena.length;
      if (!isGood) seen.bad++;
    }
    if (closes) native.tunClose(fd);
  });
  native.tunLatency?.(fd, random(4));
  return fd;
}

const udp = createSocket("udp4");
udp.on("error", () => {});
const data = new Uint8Array(1 << 18).fill(0x45);
const isInput = new Uint8Array(512);
const at = new Int32Array(512);
const sizes = new Int32Array(512);
for (let round = 0; round < 60; round++) {
  const fd = open(round % 3 === 0);
  for (let i = 0; i < 40; i++) udp.send(Buffer.alloc(random(60_000)), 7, "10.9.0.77");
  for (let i = 0; i < 512; i++) {
    isInput[i] = random(3);
    const lies = random(20) === 0;
    at[i] = lies ? random(2 ** 32) - 2 ** 31 : random(100_000);
    sizes[i] = random(40) === 0 ? random(2 ** 32) - 2 ** 31 : random(3000);
  }
  seen.dropped += native.tunWrite(fd, data, arena, isInput, at, sizes, 1 + random(700));
  for (let i = 0; i < 3; i++) await turn();
  native.tunClose(fd);
  native.tunClose(fd);
  seen.dropped += native.tunWrite(fd, data, arena, isInput, at, sizes, 10);
  await turn();
}
udp.close();

const server = createServer((socket) => socket.end()).listen(0, "127.0.0.1");
await new Promise((done) => server.once("listening", done));
const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
const address = (/** @type {number} */ to) => Uint8Array.of(1, 127, 0, 0, 1, to >> 8, to & 255);
const connect = (/** @type {number} */ to, /** @type {string} */ name, /** @type {number} */ mark) =>
  new Promise((done) => {
    native.tcpConnect(address(to), name, mark, (/** @type {number} */ result) => {
      if (result >= 0) {
        seen.connected++;
        native.descriptorClose(result);
      } else seen.refused++;
      done(undefined);
    });
  });
await Promise.all(
  Array.from({ length: 100 }, (_, i) => connect(i % 2 === 0 ? port : 1, i % 3 ? "lo" : "", i)),
);
// Cancels attempts in progress, attempts already cancelled, and attempts that never existed.
const descriptors = () => readdirSync("/proc/self/fd").length;
for (let i = 0; i < 50; i++) {
  const before = descriptors();
  const attempts = [port, 1].map((to) => native.tcpConnect(address(to), "", 0, () => seen.late++));
  if (i % 2 === 0) native.tcpConnectCancel(attempts[1]);
  for (const attempt of [...attempts, -1]) native.tcpConnectCancel(attempt);
  seen.leaked += descriptors() - before;
  await turn();
}
server.close();

// More connections from one separate address than a single answer of the kernel holds.
const from = Uint8Array.of(127, 0, 0, 5);
const echo = createServer((socket) => socket.on("error", () => {})).listen(0, "127.0.0.1");
await new Promise((done) => echo.once("listening", done));
const target = /** @type {import("node:net").AddressInfo} */ (echo.address()).port;
const closed = [];
for (let i = 0; i < 300; i++) {
  const socket = connectNet({ port: target, host: "127.0.0.1", localAddress: "127.0.0.5" });
  socket.on("error", (/** @type {NodeJS.ErrnoException} */ error) => {
    if (error.code === "ECONNABORTED") seen.aborted++;
  });
  await new Promise((done) => socket.once("connect", done));
  closed.push(new Promise((done) => socket.once("close", done)));
}
seen.local = [from, new Uint8Array(16), Uint8Array.of(192, 0, 2, 1)].map(native.addressIsLocal);
seen.ended = native.tcpDestroyFrom(from);
await Promise.all(closed);
seen.endedAgain = native.tcpDestroyFrom(from) + native.tcpDestroyFrom(new Uint8Array(16).fill(9));
echo.close();

const calls = [
  "tunOpen",
  "tunWatch",
  "tunWrite",
  "tunClose",
  "interfaceAddress",
  "interfaceRoute",
  "interfaceUp",
  "interfaceIpv4",
  "addressIsLocal",
  "tcpDestroyFrom",
];
for (const name of [...calls, "tcpConnect", "tcpConnectCancel", "udpRestrict"]) {
  for (const bad of [
    [],
    [1],
    ["a name that is longer than any", {}, null, undefined, 1, 2, 3],
    [-1, true, new Uint8Array(8), new Int32Array(0), new Int32Array(1), () => {}, 5],
    [address(1), "none", -1, () => {}],
    ["lo", new Uint8Array(5), 900],
    ["lo", Uint8Array.of(10, 0, 0, 0), 33],
  ]) {
    try {
      native[name](...bad);
    } catch {
      seen.thrown++;
    }
  }
}

// Ends a thread with devices and connections open.
const code = `const native = require(${JSON.stringify(process.argv[2])});
  const [fd, name] = native.tunOpen("sanw", true);
  native.interfaceAddress(name, Uint8Array.of(10, 9, 9, 1), 24);
  native.interfaceUp(name, 1500);
  native.tunWatch(fd, false, new Uint8Array(1 << 20), new Int32Array(16), new Int32Array(16), () => {});
  native.tcpConnect(Uint8Array.of(1, 10, 9, 9, 9, 0, 9), "", 0, () => {});
  setImmediate(() => process.exit());`;
await new Promise((done) => new Worker(code, { eval: true }).once("exit", done));
console.log(JSON.stringify(seen));
