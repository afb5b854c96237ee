/** Who reads a buffer; its `events` may change. */
interface Reader {
  readonly events: { onRead(now: number, chunk: Uint8Array, length: number): void };
}

/** The bytes that an application has written and the application of the other end has not read. */
export class SendBuffer {
  /** Number of all bytes written so far. */
  end = 0;
  #ring = new Uint8Array(65_536);
  #read = 0;

  write(bytes: Uint8Array, offset: number, length: number): void {
    const needed = this.end + length - this.#read;
    if (needed > this.#ring.length) {
      let size = this.#ring.length;
      while (size < needed) size *= 2;
      const ring = new Uint8Array(size);
      for (let at = this.#read; at < this.end; at++)
        ring[at & (size - 1)] = this.#ring[at & (this.#ring.length - 1)];
      this.#ring = ring;
    }
    const mask = this.#ring.length - 1;
    const from = this.end & mask;
    const first = Math.min(length, this.#ring.length - from);
    this.#ring.set(bytes.subarray(offset, offset + first), from);
    if (first < length) this.#ring.set(bytes.subarray(offset + first, offset + length), 0);
    this.end += length;
  }

  /** Passes the bytes up to `end` to the other end's application. */
  deliver(now: number, reader: Reader, end: number): void {
    if (this.#read >= this.end) {
      this.skip(end);
      return;
    }
    const mask = this.#ring.length - 1;
    let at = this.#read;
    while (at < end) {
      const from = at & mask;
      const length = Math.min(end - at, this.#ring.length - from);
      // Copies, because a read may lead to a write that moves the ring.
      const chunk = this.#ring.slice(from, from + length);
      at += length;
      this.#read = at;
      reader.events.onRead(now, chunk, length);
    }
  }

  /** Counts the bytes up to `end` as read. */
  skip(end: number): void {
    this.#read = end;
  }
}
