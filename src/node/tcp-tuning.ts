import type { Duplex } from "node:stream";
import type { Io } from "./io.ts";

/** The kernel takes no more than so much that it cannot send yet: the queue that drops by age is ours. */
const NOT_SENT_LOW_WATER_BYTES = 131_072;
const DEAD_AFTER_HEARTBEATS = 4;

/** Sets what node:net cannot, on a TCP connection whose descriptor is known. */
export function tuneSocket(stream: Duplex, { native }: Io, heartbeatMs: number): void {
  const fd = descriptorOf(stream);
  if (native?.tcpTune === undefined || fd === undefined) return;
  native.tcpTune(fd, NOT_SENT_LOW_WATER_BYTES, DEAD_AFTER_HEARTBEATS * heartbeatMs);
}

/** A socket's descriptor: not documented, but in every release of Node. Undefined for other streams. */
export function descriptorOf(stream: Duplex): number | undefined {
  const fd = (stream as { _handle?: { fd?: number } })._handle?.fd;
  return fd === undefined || fd < 0 ? undefined : fd;
}
