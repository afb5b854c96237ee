// An application that embeds tun2socks, and gives and takes its packets by callbacks: they come from a Unix socket, and go there.
// `node packets-by-callback.mjs UNIX-PATH MTU`. TCP is connected directly. Prints "ready".
import { rmSync } from "node:fs";
import { createServer } from "node:net";
import { startTun2Socks } from "../../../dist/index.js";

const [path, mtu] = process.argv.slice(2);
const MAX_BATCH = 512;

/** @type {import("../../../dist/index.js").OnPackets | undefined} */
let onPackets;
/** @type {import("node:net").Socket | undefined} */
let socket;

const tun = await startTun2Socks({
  device: {
    start: (given) => {
      onPackets = given;
    },
    write: (packets) => {
      for (let i = 0; i < packets.count; i++) {
        const at = packets.offset[i];
        // The memory is borrowed.
        socket?.write(Buffer.from(packets.buffer(i).subarray(at, at + packets.length[i])));
      }
    },
  },
  mtu: Number(mtu),
  tcpVia: "direct",
  udpVia: "reject",
});

/** Gives the packets that are whole. @param {Buffer} data @returns what is left */
function give(data) {
  const offsets = new Int32Array(MAX_BATCH);
  const lengths = new Int32Array(MAX_BATCH);
  let at = 0;
  for (let count = 0; ; count++) {
    const isShort = data.length - at < 6;
    const bytes = isShort
      ? 0
      : data[at] >> 4 === 4
        ? data.readUInt16BE(at + 2)
        : 40 + data.readUInt16BE(at + 4);
    const isLast = isShort || data.length - at < bytes;
    if (count > 0 && (isLast || count === MAX_BATCH)) {
      onPackets?.(data, offsets, lengths, count);
      count = 0;
    }
    if (isLast) return data.subarray(at);
    offsets[count] = at;
    lengths[count] = bytes;
    at += bytes;
  }
}

const listener = createServer((accepted) => {
  socket = accepted;
  /** @type {Buffer} */
  let part = Buffer.alloc(0);
  accepted.on("error", () => {});
  accepted.on("data", (chunk) => {
    part = Buffer.from(give(part.length === 0 ? chunk : Buffer.concat([part, chunk])));
  });
}).listen(path, () => console.log("ready"));

process.once("SIGTERM", async () => {
  socket?.destroy();
  listener.close();
  await tun.close();
  rmSync(path, { force: true });
});
