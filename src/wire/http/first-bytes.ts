/** Whether a connection's first bytes belong to a protocol; `more` if that is not known until more have arrived. */
export type Sniffed = "yes" | "no" | "more";

/** A protocol that a listener recognises by the first bytes of its clients. */
export interface FirstBytesProtocol {
  readonly name: string;
  /** Examines `bytes[0..length)`, everything that has arrived, at most {@link MAX_SNIFFED_BYTES}. Keeps no reference to it. */
  sniff(bytes: Uint8Array, length: number): Sniffed;
}

/** Number of bytes within which every protocol answers yes or no. */
export const MAX_SNIFFED_BYTES = 512;

/**
 * The first protocol that answers yes; `more` while an earlier one still may; undefined if all answer no.
 *
 * @param isLate  true if no more bytes are awaited, so that `more` counts as no
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
