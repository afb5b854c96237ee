import type { Readable, Writable } from "node:stream";
import type { PacketBatch } from "../../core/tun2socks/packet-batch.ts";
import type { OnPackets } from "../../core/tun2socks/packet-stream-reader.ts";
import { PacketStreamReader } from "../../core/tun2socks/packet-stream-reader.ts";
import type { Device, DeviceEvents } from "../../host/devices/device.ts";
import { joinPackets, MAX_WAITING_BYTES } from "../../host/devices/packet-stream.ts";
import type { Logger } from "../../host/log.ts";

/** Writes packets, one after another. @returns how many were dropped */
export function writePackets(stream: Writable | undefined, packets: PacketBatch): number {
  const { count } = packets;
  if (stream === undefined || stream.destroyed || stream.writableEnded) return count;
  const data = joinPackets(packets);
  if (stream.writableLength + data.length > MAX_WAITING_BYTES) return count;
  stream.write(data);
  return 0;
}

/** Whether a stream has not yet accepted the last write. */
function isBlocked(stream: Writable | undefined): boolean {
  return stream?.writableNeedDrain === true;
}

/** Reads packets from a stream. Destroys the stream if it contains anything else. */
export function readPackets(stream: Readable, onPackets: OnPackets, log: Logger): void {
  const reader = new PacketStreamReader(onPackets);
  stream.on("data", (chunk: Uint8Array) => {
    if (stream.destroyed || reader.handleStream(chunk, chunk.length)) return;
    log.warn({}, "received something other than an IP packet; closing the stream");
    stream.destroy();
  });
}

/** Uses the standard input and output of the process. */
export function openPipe(events: DeviceEvents, log: Logger): Device {
  const { stdin, stdout } = process;
  stdout.on("error", () => {});
  stdin.on("error", () => {});
  stdout.on("drain", events.onWritable);
  stdin.once("close", () => events.onEnd(undefined));
  stdin.once("end", () => stdin.destroy());
  readPackets(stdin, events.onPackets, log);
  return {
    description: "pipe:",
    virtio: false,
    uso: false,
    hasKernel: false,
    isBlocked: () => isBlocked(stdout),
    write: (packets) => writePackets(stdout, packets),
    close: async () => void stdin.destroy(),
  };
}
