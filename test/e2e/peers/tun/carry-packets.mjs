// Carries the packets of a TUN device in this network namespace to a Unix socket and back, so that the kernel's TCP is the peer of a stack
// elsewhere. `node carry-packets.mjs UNIX-PATH NAME MTU IPv4/PREFIX IPv6/PREFIX [SEED LOSS DUPLICATES REORDERED]`, the last three in
// thousandths of the packets. Prints "ready", and at SIGTERM how many packets were lost, duplicated and reordered.
import { createRequire } from "node:module";
import { connect } from "node:net";

const [path, name, mtu, ...rest] = process.argv.slice(2);
const addresses = rest.slice(0, 2);
const [seed, loss, duplicates, reordered] = [0, 0, 0, 0].map((none, i) => Number(rest[2 + i] ?? none));
const native = createRequire(import.meta.url)("../../../../native/build/Release/underpass.node");

/** Bytes of an IP text. @param {string} ip */
function bytesOf(ip) {
  if (!ip.includes(":")) return Uint8Array.from(ip.split(".").map(Number));
  const [head, tail = ""] = ip.split("::");
  const words = (/** @type {string} */ text) =>
    text === "" ? [] : text.split(":").map((word) => Number.parseInt(word, 16));
  const all = [...words(head)];
  const end = words(tail);
  if (ip.includes("::")) while (all.length + end.length < 8) all.push(0);
  return Uint8Array.from([...all, ...end].flatMap((word) => [word >> 8, word & 255]));
}

let state = seed * 2654435761 + 1;
/** mulberry32 */
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
}

const counts = { lost: 0, doubled: 0, moved: 0, carried: 0 };

/** Loses, duplicates and reorders packets; each direction has its own instance. @param {(packet: Uint8Array) => void} send */
function impaired(send) {
  if (loss + duplicates + reordered === 0) return send;
  /** @type {Uint8Array[]} */
  const late = [];
  return (/** @type {Uint8Array} */ packet) => {
    counts.carried++;
    if (random() * 1000 < loss) {
      counts.lost++;
      return;
    }
    if (random() * 1000 < reordered) {
      counts.moved++;
      late.push(Uint8Array.from(packet));
      if (late.length === 1) setTimeout(() => late.splice(0).forEach(send), 3);
      return;
    }
    send(packet);
    if (random() * 1000 >= duplicates) return;
    counts.doubled++;
    send(packet);
  };
}

const [descriptor, realName] = native.tunOpen(name, false);
native.interfaceUp(realName, Number(mtu));
for (const address of addresses) {
  const [ip, prefix] = address.split("/");
  native.interfaceAddress(realName, bytesOf(ip), Number(prefix));
}

const socket = connect(path);
socket.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});
socket.once("close", () => process.exit(0));

const toSocket = impaired((packet) => socket.write(Buffer.from(packet)));
const arena = new Uint8Array(4 * 1024 * 1024);
const offsets = new Int32Array(512);
const lengths = new Int32Array(512);
const isPlain = loss + duplicates + reordered === 0;
native.tunWatch(descriptor, false, arena, offsets, lengths, (/** @type {number} */ count) => {
  if (count < 0) process.exit(0);
  if (!isPlain) {
    for (let i = 0; i < count; i++) toSocket(arena.subarray(offsets[i], offsets[i] + lengths[i]));
    return;
  }
  let bytes = 0;
  for (let i = 0; i < count; i++) bytes += lengths[i];
  const all = Buffer.allocUnsafe(bytes);
  let at = 0;
  for (let i = 0; i < count; i++) {
    all.set(arena.subarray(offsets[i], offsets[i] + lengths[i]), at);
    at += lengths[i];
  }
  socket.write(all);
});

const none = new Uint8Array(0);
const isInput = new Uint8Array(1);
const zero = new Int32Array(1);
const length = new Int32Array(1);
const toTun = impaired((packet) => {
  length[0] = packet.length;
  native.tunWrite(descriptor, none, packet, isInput, zero, length, 1);
});
let part = Buffer.alloc(0);
socket.on("data", (chunk) => {
  let data = part.length === 0 ? chunk : Buffer.concat([part, chunk]);
  while (data.length >= 6) {
    const bytes = data[0] >> 4 === 4 ? data.readUInt16BE(2) : 40 + data.readUInt16BE(4);
    if (data.length < bytes) break;
    toTun(data.subarray(0, bytes));
    data = data.subarray(bytes);
  }
  part = Buffer.from(data);
});
socket.once("connect", () => console.log(`ready ${realName}`));
process.once("SIGTERM", () => {
  console.log(JSON.stringify(counts));
  process.exit(0);
});
