/** Whether a connection's first bytes are of a protocol; `more`: they may be, once more have come. */
export type Sniffed = "yes" | "no" | "more";

/** A protocol that a listener tells by the first bytes of its clients. */
export interface FirstBytesProtocol {
  readonly name: string;
  /** Judges `bytes[0..length)`, the whole of what came; at most {@link MAX_SNIFFED_BYTES}. Keeps nothing of it. */
  sniff(bytes: Uint8Array, length: number): Sniffed;
}

/** Bytes within which every protocol says yes or no. */
export const MAX_SNIFFED_BYTES = 512;

/**
 * The first protocol that says yes, `more` while an earlier one may yet, or undefined when all say no.
 *
 * @param isLate  true when no more bytes are awaited: who needs more then says no
 */
export function judgeFirstBytes<Protocol extends FirstBytesProtocol>(
  protocols: readonly Protocol[],
  bytes: Uint8Array,
  length: number,
  isLate: boolean,
): Protocol | "more" | undefined {
  const isWhole = isLate || length >= MAX_SNIFFED_BYTES;
  for (const protocol of protocols) {
    const sniffed = protocol.sniff(bytes, Math.min(length, MAX_SNIFFED_BYTES));
    if (sniffed === "yes") return protocol;
    if (sniffed === "more" && !isWhole) return "more";
  }
  return undefined;
}
