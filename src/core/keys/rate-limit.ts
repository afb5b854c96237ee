/** Size of a burst, in seconds at the rate. */
const BURST_S = 0.25;
/** Smallest burst, so that the largest datagram passes at any rate. */
const MIN_BURST_BYTES = 65_535;

/** Limits bytes and datagrams with two token buckets, each with bursts of a quarter of a second's worth. */
export class RateLimit {
  readonly #bytesPerMs: number;
  readonly #datagramsPerMs: number;
  readonly #maxBytes: number;
  readonly #maxDatagrams: number;
  #bytes: number;
  #datagrams: number;
  #refilledAt = Number.NEGATIVE_INFINITY;

  /** @param bitsPerSecond  undefined for no limit, like `datagramsPerSecond` */
  constructor(bitsPerSecond = Number.POSITIVE_INFINITY, datagramsPerSecond = Number.POSITIVE_INFINITY) {
    this.#bytesPerMs = bitsPerSecond / 8_000;
    this.#datagramsPerMs = datagramsPerSecond / 1_000;
    this.#maxBytes = Math.max(MIN_BURST_BYTES, (BURST_S * bitsPerSecond) / 8);
    this.#maxDatagrams = Math.max(1, BURST_S * datagramsPerSecond);
    this.#bytes = this.#maxBytes;
    this.#datagrams = this.#maxDatagrams;
  }

  /** Takes one datagram. @param now  in milliseconds @returns false, taking nothing, if it exceeds a rate */
  take(now: number, length: number): boolean {
    if (now > this.#refilledAt) {
      const elapsed = now - this.#refilledAt;
      this.#bytes = Math.min(this.#maxBytes, this.#bytes + elapsed * this.#bytesPerMs);
      this.#datagrams = Math.min(this.#maxDatagrams, this.#datagrams + elapsed * this.#datagramsPerMs);
      this.#refilledAt = now;
    }
    if (this.#bytes < length || this.#datagrams < 1) return false;
    this.#bytes -= length;
    this.#datagrams--;
    return true;
  }
}
