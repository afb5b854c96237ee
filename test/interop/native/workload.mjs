// Stresses the native module argv[2]: random batches, invalid rows, sockets that close in the middle, a link that accepts
// nothing. sanitized.test.ts runs it under sanitizers. argv[3], if given, is an IPv4 address behind a slow link. Prints
// one JSON object.
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { seededIntegers } from "../../support/seeded-integers.mjs";

const native = createRequire(import.meta.url)(process.argv[2]);
const slow = process.argv[3];
/** Every payload consists of this byte. */
const FILL = 0x5a;
const [arenaBytes, rowCount, addressBytes, sendRows, errorRows] = native.udpSizes();
const arena = new Uint8Array(arenaBytes);
const rows = new Int32Array(rowCount * 6);
const addresses = new Uint8Array(addressBytes);
const errors = new Int32Array(errorRows * 9);
const seen = {
  ...{ datagrams: 0, bytes: 0, bad: 0, numbered: 0, errors: 0 },
  ...{ accepted: 0, echoed: 0, writable: 0 },
  ...{ unix: 0, paused: 0, reset: 0, left: 0 },
};

const random = seededIntegers(20_261_124);
const ipv4 = (/** @type {number} */ port, ip = "127.0.0.1") =>
  Uint8Array.from([1, ...ip.split(".").map(Number), port >> 8, port & 255]);

/** @type {number[]} */
let sockets = [];
/** Checks error rows; some name closed sockets. The address follows four ints. */
const takeErrors = (/** @type {number} */ count) => {
  if (count > errorRows) seen.bad++;
  for (let i = 0; i < count; i++) {
    const [socket, kind, mtu, length, address] = errors.subarray(i * 9, i * 9 + 5);
    seen.errors++;
    // An IPv4 address starts with the byte 1, the lowest byte of the int.
    const isGood = socket >= -1 && kind >= 0 && kind <= 3 && mtu >= 0 && mtu <= 65_535;
    if (!isGood || length !== 7 || (address & 255) !== 1) seen.bad++;
  }
  if (random(20) === 0 && sockets.length > 0) native.udpClose(sockets.splice(random(sockets.length), 1)[0]);
};
const onBatch = (/** @type {number} */ count) => {
  for (let i = 0; i < count; i++) {
    const [, offset, length, address, addressLength, local] = rows.subarray(i * 6, i * 6 + 6);
    seen.datagrams++;
    seen.bytes += length;
    if (local > 0) seen.numbered++;
    const isGood =
      offset >= 0 &&
      offset + length <= arenaBytes &&
      address >= 0 &&
      address + addressLength <= addressBytes &&
      local >= 0 &&
      local <= 255;
    if (!isGood) seen.bad++;
    else if (length > 0 && (arena[offset] !== FILL || arena[offset + length - 1] !== FILL)) seen.bad++;
  }
  // Closes a socket that may still have rows in this batch.
  if (random(50) === 0 && sockets.length > 0) native.udpClose(sockets.splice(random(sockets.length), 1)[0]);
};
native.udpSetup(arena, rows, addresses, onBatch, errors, takeErrors);
const sendBytes = slow === undefined ? 1 << 20 : 4096;
const open = () => {
  const id = native.udpOpen(ipv4(0, "0.0.0.0"), random(2) === 0, 1 << 20, sendBytes, random(2) === 0);
  if (random(2) === 0) native.udpTellErrors?.(id);
  native.udpLatency?.(id, random(4));
  return id;
};
const turn = () => new Promise((done) => setImmediate(done));

const data = new Uint8Array(1 << 20).fill(FILL);
const table = new Int32Array(sendRows * 7);
const targets = new Uint8Array(64 * 19);
const headers = new Uint8Array(4096).fill(FILL);
for (let round = 0; round < 400; round++) {
  while (sockets.length < 20) sockets.push(open());
  for (let i = 0; i < 64; i++)
    targets.set(ipv4(native.udpPort(sockets[random(sockets.length)]), `127.0.${random(2)}.${1 + i}`), i * 19);
  // These ports have no listener, and broadcasts are not permitted.
  for (let i = 1; i < 64; i += 8) targets.set(ipv4(1 + random(20)), i * 19);
  targets.set(ipv4(9, "127.255.255.255"), 5 * 19);
  if (slow !== undefined) for (let i = 0; i < 64; i += 2) targets.set(ipv4(9, slow), i * 19);
  native.udpLatency?.(sockets[random(sockets.length)], random(4));
  const count = 1 + random(round % 40 === 0 ? sendRows : 300);
  let at = 0;
  let size = 1 + random(2000);
  for (let i = 0; i < count; i++) {
    if (random(8) === 0) size = random(4) === 0 ? random(65_508) : random(1500);
    const header = random(4) === 0 && size > 10 ? 10 : 0;
    if (at + size > data.length) at = 0;
    const local = random(3) === 0 ? random(300) : 0;
    table.set([sockets[random(sockets.length)], 0, header, at, size - header, random(64) * 19, local], i * 7);
    at += size;
    // One row in fifty is invalid.
    if (random(50) === 0)
      table[i * 7 + random(7)] = random(3) === 0 ? -1 - random(1 << 20) : random(2 ** 31 - 1);
  }
  native.udpSend(data, table, count, targets, headers);
  if (random(10) === 0) native.udpClose(sockets.splice(random(sockets.length), 1)[0]);
  native.udpClose(random(1000) - 500 < 0 ? -5 : 100_000);
  native.udpTellErrors?.(random(1000) - 500);
  if (random(4) === 0) takeErrors(native.udpErrors());
  await turn();
}
for (const bad of [[], [1], [new Uint8Array(3), 0, 0, 0], ["x", {}, null, undefined]]) {
  for (const name of [
    ...["udpOpen", "udpSend", "udpSetup", "udpTellErrors"],
    ...["tcpListen", "streamOpen", "streamWrite", "streamClose", "streamPause", "streamReset", "socketName"],
    ...["tcpTune", "tcpKeepAlive", "unixConnect", "socketAddress", "descriptorDuplicate"],
  ]) {
    try {
      native[name](...bad);
    } catch {
      // Expected.
    }
  }
}
const listener = native.tcpListen(ipv4(0), true, 64, (/** @type {number} */ fd) => {
  seen.accepted++;
  const copy = native.descriptorDuplicate(fd);
  native.tcpTune(fd, 65_536, 5_000);
  new Socket({ fd }).destroy();
  const buffer = new Uint8Array(65_536);
  // Echoes, and releases the connection in every possible way, sometimes in the middle of a callback.
  const way = seen.accepted % 3;
  let end = () => native.streamClose(copy);
  native.streamOpen(
    copy,
    buffer,
    (/** @type {number} */ count) => {
      if (count <= 0) return end();
      let at = 0;
      while (at < count) {
        const written = native.streamWrite(copy, buffer.subarray(at), count - at, seen.accepted % 2 === 0);
        if (written <= 0) break;
        at += written;
      }
      if (way === 0) return native.streamEnd(copy);
      if (way === 2) {
        native.streamRelease(copy);
        const socket = new Socket({ fd: copy });
        end = () => socket.destroy();
      }
      end();
    },
    () => {
      seen.writable++;
      end();
    },
  );
  // The socket buffer cannot hold all of this; the rest is dropped with the connection.
  if (seen.accepted % 10 === 0) native.streamWrite(copy, data, data.length, false);
});
const address = native.socketAddress(listener);
const port = address[5] * 256 + address[6];
await Promise.all(
  Array.from(
    { length: 50 },
    () =>
      new Promise((done) => {
        const socket = new Socket().connect(port, "127.0.0.1");
        socket.end("x");
        socket.once("data", () => seen.echoed++).resume();
        socket.on("close", done);
        socket.on("error", done);
      }),
  ),
);
native.tcpUnlisten(listener);
native.tcpUnlisten(listener);

// Streams over a Unix socket: each writes while its peer is paused, then ends or resets.
const path = join(tmpdir(), `underpass-workload-${process.pid}`);
const shared = new Uint8Array(4096);
const unixListener = native.unixListen(path, 0o600, 64, (/** @type {number} */ fd) => {
  const number = seen.unix++;
  native.tcpKeepAlive(fd, 30);
  if (native.socketName(fd, false) !== undefined) seen.bad++;
  let isPaused = true;
  native.streamOpen(
    fd,
    shared,
    (/** @type {number} */ count) => {
      if (isPaused) seen.bad++;
      if (count > 0) return;
      if (number % 2 === 0) native.streamClose(fd);
      else native.streamReset(fd);
    },
    () => {},
  );
  native.streamPause(fd, true);
  setImmediate(() => {
    seen.paused++;
    isPaused = false;
    native.streamPause(fd, false);
  });
});
const ended = Array.from(
  { length: 40 },
  (_, i) =>
    new Promise((done) => {
      const attempt = native.unixConnect(path, (/** @type {number} */ fd) => {
        native.streamOpen(
          fd,
          new Uint8Array(64),
          (/** @type {number} */ count) => {
            if (count > 0) return;
            native.streamClose(fd);
            done(undefined);
          },
          () => {},
        );
        native.streamWrite(fd, data, 3000, false);
        if (i % 4 !== 0) return native.streamEnd(fd);
        native.streamReset(fd);
        seen.reset++;
        done(undefined);
      });
      if (i % 10 === 9) {
        native.tcpConnectCancel(attempt);
        done(undefined);
      }
    }),
);
await Promise.all(ended);
native.tcpUnlisten(unixListener);
if (existsSync(path)) seen.left++;
const counts = new Float64Array(6);
native.udpCounts(counts);
for (const socket of sockets) native.udpClose(socket);
sockets = [];
await turn();
console.log(JSON.stringify({ ...seen, counts: [...counts] }));
