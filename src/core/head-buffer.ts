import { findHeadEnd, MAX_HEAD_BYTES } from "../wire/http-head.ts";

/** Gathers an HTTP head of at most 8 KiB from a stream cut anywhere. */
export class HeadBuffer {
  bytes = new Uint8Array(512);
  length = 0;

  /**
   * Takes bytes up to the end of the head and none behind it.
   *
   * @returns the offset in `chunk` behind the head; -1 when more is needed; -2 when the head is over its limit
   */
  take(chunk: Uint8Array, offset: number, end: number): number {
    const before = this.length;
    const taken = Math.min(end - offset, MAX_HEAD_BYTES - before);
    if (before + taken > this.bytes.length) {
      const larger = new Uint8Array(2 ** Math.ceil(Math.log2(before + taken)));
      larger.set(this.bytes.subarray(0, before));
      this.bytes = larger;
    }
    this.bytes.set(chunk.subarray(offset, offset + taken), before);
    this.length = before + taken;
    const headEnd = findHeadEnd(this.bytes, before - 3, this.length);
    if (headEnd >= 0) {
      this.length = headEnd;
      return offset + headEnd - before;
    }
    return this.length >= MAX_HEAD_BYTES ? -2 : -1;
  }

  clear(): void {
    this.length = 0;
  }
}
