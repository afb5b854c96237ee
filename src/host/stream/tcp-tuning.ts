import type { NativeModule } from "../io/native-module.ts";

/** Limits what the kernel accepts before it can send it, so that data waits in our queue, which drops by age. */
const NOT_SENT_LOW_WATER_BYTES = 131_072;
const DEAD_AFTER_HEARTBEATS = 4;

/** Sets the options of a TCP connection that node:net cannot set. Does nothing without native I/O or a descriptor. */
export function tuneDescriptor(
  descriptor: number | undefined,
  native: NativeModule | undefined,
  heartbeatMs: number,
): void {
  if (descriptor === undefined) return;
  native?.tcpTune?.(descriptor, NOT_SENT_LOW_WATER_BYTES, DEAD_AFTER_HEARTBEATS * heartbeatMs);
}
