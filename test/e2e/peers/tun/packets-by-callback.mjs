// An application that embeds tun2socks and exchanges packets with it by callbacks; the packets come from a Unix socket and return there.
// `node packets-by-callback.mjs UNIX-PATH MTU`. TCP is connected directly. Prints "ready".
import { rmSync } from "node:fs";
import { createServer } from "node:net";
import { PacketStreamReader } from "../../../../dist/core/tun2socks/packet-stream-reader.js";
import { startTun2Socks } from "../../../../dist/index.js";

const [path, mtu] = process.argv.slice(2);

/** @type {import("../../../../dist/index.js").OnPackets | undefined} */
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

const listener = createServer((accepted) => {
  socket = accepted;
  const reader = new PacketStreamReader((...packets) => onPackets?.(...packets));
  accepted.on("error", () => {});
  accepted.on("data", (chunk) => {
    if (!reader.handleStream(chunk, chunk.length)) accepted.destroy();
  });
}).listen(path, () => console.log("ready"));

process.once("SIGTERM", async () => {
  socket?.destroy();
  listener.close();
  await tun.close();
  rmSync(path, { force: true });
});
