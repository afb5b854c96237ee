import type { Socket } from "node:net";
import type { Readable, Writable } from "node:stream";
import { HostError } from "../../core/errors.ts";
import type { PacketBatch } from "../../core/tun2socks/packet-batch.ts";
import type { OnPackets } from "../../core/tun2socks/packet-stream-reader.ts";
import { PacketStreamReader } from "../../core/tun2socks/packet-stream-reader.ts";
import type { Device, DeviceEvents } from "../../host/devices/device.ts";
import type { Logger } from "../../host/log.ts";
import { listenForSockets } from "../tcp-plain.ts";

/** Bytes that may wait in a stream that the other end does not read; further packets are dropped. */
const MAX_WAITING_BYTES = 4 * 1024 * 1024;

/** Writes packets one after another. @returns how many were dropped */
export function writePackets(stream: Writable | undefined, packets: PacketBatch): number {
  const { count, offset, length } = packets;
  if (stream === undefined || stream.destroyed || stream.writableEnded) return count;
  let bytes = 0;
  for (let i = 0; i < count; i++) bytes += length[i];
  if (stream.writableLength + bytes > MAX_WAITING_BYTES) return count;
  const data = Buffer.allocUnsafe(bytes);
  let at = 0;
  for (let i = 0; i < count; i++) {
    data.set(packets.buffer(i).subarray(offset[i], offset[i] + length[i]), at);
    at += length[i];
  }
  stream.write(data);
  return 0;
}

/** Reads packets from a stream, which is destroyed if it contains anything else. */
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
  stdin.once("close", () => events.onEnd(undefined));
  stdin.once("end", () => stdin.destroy());
  readPackets(stdin, events.onPackets, log);
  return {
    description: "pipe:",
    virtio: false,
    uso: false,
    hasKernel: false,
    write: (packets) => writePackets(stdout, packets),
    close: async () => void stdin.destroy(),
  };
}

/** Listens on a Unix socket; the latest connection replaces an earlier one. @throws HostError ERR_LISTEN */
export async function openPacketListener(path: string, events: DeviceEvents, log: Logger): Promise<Device> {
  let current: Socket | undefined;
  const accept = (socket: Socket) => {
    current?.destroy();
    current = socket;
    socket.allowHalfOpen = false;
    socket.on("error", () => socket.destroy());
    socket.once("close", () => {
      if (current === socket) current = undefined;
    });
    readPackets(socket, events.onPackets, log);
  };
  const listener = await listenForSockets(
    { path },
    { onSocket: accept, onError: (error) => log.warn({ error: error.message }, "cannot accept") },
  ).catch((cause: Error) => {
    throw new HostError("ERR_LISTEN", `unix:${path}: ${cause.message}`, { cause });
  });
  return {
    description: listener.address,
    virtio: false,
    uso: false,
    hasKernel: false,
    write: (packets) => writePackets(current, packets),
    close: () => {
      current?.destroy();
      return listener.close();
    },
  };
}
