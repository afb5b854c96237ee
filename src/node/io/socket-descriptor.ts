import type { Duplex } from "node:stream";

/** A socket's descriptor, which is undocumented but present in every release of Node. Undefined for other streams. */
export function descriptorOf(stream: Duplex): number | undefined {
  const fd = (stream as { _handle?: { fd?: number } })._handle?.fd;
  return fd === undefined || fd < 0 ? undefined : fd;
}
