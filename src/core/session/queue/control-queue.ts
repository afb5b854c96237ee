const FIRST_BLOCK_BYTES = 512;
const MAX_BLOCK_BYTES = 16_384;

/** Control capsules that wait for a connection, packed into blocks, because separate arrays would take many times their size. */
export class ControlQueue {
  /** Bytes that wait. */
  bytes = 0;

  readonly #blocks: Uint8Array[] = [];
  /** Bytes used in the last block; the others are full. */
  #lastLength = 0;

  get isEmpty(): boolean {
    return this.bytes === 0;
  }

  /** Adds a capsule, which is copied. */
  push(capsule: Uint8Array): void {
    const blocks = this.#blocks;
    let last = blocks.at(-1);
    if (last === undefined || this.#lastLength + capsule.length > last.length) {
      let size = FIRST_BLOCK_BYTES;
      if (last !== undefined) {
        size = Math.min(MAX_BLOCK_BYTES, 2 * last.length);
        blocks[blocks.length - 1] = last.subarray(0, this.#lastLength);
      }
      last = new Uint8Array(Math.max(size, capsule.length));
      blocks.push(last);
      this.#lastLength = 0;
    }
    last.set(capsule, this.#lastLength);
    this.#lastLength += capsule.length;
    this.bytes += capsule.length;
  }

  /** The capsules to send next, valid until {@link shift}. There must be some. */
  get first(): Uint8Array {
    const [first] = this.#blocks;
    return this.#blocks.length === 1 ? first.subarray(0, this.#lastLength) : first;
  }

  /** Removes the capsules that {@link first} returns. */
  shift(): void {
    this.bytes -= this.first.length;
    this.#blocks.shift();
  }
}
