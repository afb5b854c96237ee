const NONCE_BYTES = 12;

/** The nonce of one direction: a little-endian counter from 0. */
export class Nonce {
  readonly bytes = new Uint8Array(NONCE_BYTES);
  #isZero = true;

  /** Whether the key has not been used yet. */
  get isZero(): boolean {
    return this.#isZero;
  }

  advance(): void {
    this.#isZero = false;
    for (let i = 0; i < NONCE_BYTES; i++) {
      this.bytes[i]++;
      // Only a byte that wraps to 0 carries into the next.
      if (this.bytes[i] !== 0) return;
    }
  }
}
