import { HostError } from "../../core/errors.ts";
import type { Logger } from "../log.ts";
import type { Tcp } from "../stream/tcp.ts";
import { acceptErrors } from "../stream/tcp.ts";
import type { Device, DeviceEvents } from "./device.ts";
import { PacketStream } from "./packet-stream.ts";

/**
 * A device whose other end connects to a Unix socket; the latest connection replaces an earlier one.
 *
 * @throws HostError ERR_LISTEN
 */
export async function openPacketListener(
  path: string,
  tcp: Tcp,
  events: DeviceEvents,
  log: Logger,
): Promise<Device> {
  let current: PacketStream | undefined;
  const listener = await tcp
    .listen(
      { path },
      {
        onStream: (stream) => {
          current?.close();
          const onEnd = (reason: string) => {
            log.debug({ reason }, "a packet connection ended");
            if (current !== packets) return;
            current = undefined;
            events.onWritable();
          };
          const packets = new PacketStream(stream, events.onPackets, onEnd, events.onWritable);
          current = packets;
        },
        onError: acceptErrors(log, events.onListenerFailed),
      },
    )
    .catch((cause: Error) => {
      throw new HostError("ERR_LISTEN", `unix:${path}: ${cause.message}`, { cause });
    });
  return {
    description: listener.address,
    virtio: false,
    uso: false,
    hasKernel: false,
    isBlocked: () => current?.isBlocked === true,
    write: (packets) => current?.write(packets) ?? packets.count,
    close: () => {
      current?.close();
      return listener.close();
    },
  };
}
