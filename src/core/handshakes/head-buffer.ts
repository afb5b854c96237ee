import { findHeadEnd, MAX_HEAD_BYTES } from "../../wire/http/http-head.ts";

const LF = 10;
const CR = 13;
/** Most interim responses that are accepted before a final one. */
const MAX_INTERIM = 16;

/** Collects an HTTP head of at most 8 KiB from chunks of any size. Skips empty lines before it (RFC 9112 §2.2). */
export class HeadBuffer {
  bytes = new Uint8Array(512);
  length = 0;
  /** Bytes of empty lines before the head; they count towards its limit. */
  #skipped = 0;
  #interim = 0;

  /**
   * Takes bytes up to the end of the head and none after it.
   *
   * @returns the end offset of the head in `chunk`; -1 if more is needed; -2 if the head exceeds its limit
   */
  take(chunk: Uint8Array, offset: number, end: number): number {
    const from = this.#skipEmptyLines(chunk, offset, end);
    const before = this.length;
    const room = Math.max(0, MAX_HEAD_BYTES - this.#skipped);
    const taken = Math.min(end - from, room - before);
    if (before + taken > this.bytes.length) {
      const larger = new Uint8Array(2 ** Math.ceil(Math.log2(before + taken)));
      larger.set(this.bytes.subarray(0, before));
      this.bytes = larger;
    }
    this.bytes.set(chunk.subarray(from, from + taken), before);
    this.length = before + taken;
    const headEnd = findHeadEnd(this.bytes, before - 2, this.length);
    if (headEnd >= 0) {
      this.length = headEnd;
      return from + headEnd - before;
    }
    return this.length >= room ? -2 : -1;
  }

  /** Prepares for the head of another message. */
  clear(): void {
    this.length = 0;
    this.#skipped = 0;
    this.#interim = 0;
  }

  /** Prepares for the response after an interim one. @returns false if there were too many interim ones */
  clearInterim(): boolean {
    this.length = 0;
    this.#skipped = 0;
    this.#interim++;
    return this.#interim <= MAX_INTERIM;
  }

  /** @returns the end offset of the empty lines */
  #skipEmptyLines(chunk: Uint8Array, offset: number, end: number): number {
    let at = offset;
    // The previous chunk ended between CR and LF.
    if (this.length === 1 && this.bytes[0] === CR && at < end && chunk[at] === LF) {
      this.length = 0;
      at++;
      this.#skipped += 2;
    }
    while (this.length === 0 && at < end) {
      const lineBytes =
        chunk[at] === LF ? 1 : chunk[at] === CR && at + 1 < end && chunk[at + 1] === LF ? 2 : 0;
      if (lineBytes === 0) break;
      at += lineBytes;
      this.#skipped += lineBytes;
    }
    return at;
  }
}
