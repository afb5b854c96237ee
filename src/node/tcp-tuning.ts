import type { Duplex } from "node:stream";
import type { NativeModule } from "./native-module.ts";

/** The kernel takes no more than so much that it cannot send yet: the queue that drops by age is ours. */
const NOT_SENT_LOW_WATER_BYTES = 131_072;
const DEAD_AFTER_HEARTBEATS = 4;

/** Sets on the descriptor of a TCP connection what node:net cannot. Nothing without native I/O, or a descriptor. */
export function tuneDescriptor(
  descriptor: number | undefined,
  native: NativeModule | undefined,
  heartbeatMs: number,
): void {
  if (descriptor === undefined) return;
  native?.tcpTune?.(descriptor, NOT_SENT_LOW_WATER_BYTES, DEAD_AFTER_HEARTBEATS * heartbeatMs);
}

/** A socket's descriptor: not documented, but in every release of Node. Undefined for other streams. */
export function descriptorOf(stream: Duplex): number | undefined {
  const fd = (stream as { _handle?: { fd?: number } })._handle?.fd;
  return fd === undefined || fd < 0 ? undefined : fd;
}
