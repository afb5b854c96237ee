import type { Duplex } from "node:stream";
import type { NativeModule } from "./native-module.ts";

/** The kernel takes no more than so much that it cannot send yet: the queue that drops by age is ours. */
const NOT_SENT_LOW_WATER_BYTES = 131_072;
const DEAD_AFTER_HEARTBEATS = 4;

/** Sets on a TCP connection whose descriptor is known what node:net cannot. */
export function tuneDescriptor(
  connection: Duplex | number,
  native: NativeModule | undefined,
  heartbeatMs: number,
): void {
  const fd = typeof connection === "number" ? connection : descriptorOf(connection);
  if (fd !== undefined) native?.tcpTune?.(fd, NOT_SENT_LOW_WATER_BYTES, DEAD_AFTER_HEARTBEATS * heartbeatMs);
}

/** A socket's descriptor: not documented, but in every release of Node. Undefined for other streams. */
export function descriptorOf(stream: Duplex): number | undefined {
  const fd = (stream as { _handle?: { fd?: number } })._handle?.fd;
  return fd === undefined || fd < 0 ? undefined : fd;
}
