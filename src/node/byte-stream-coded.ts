import type { Deliver, StreamCoding } from "../core/stream-coding.ts";
import type { ByteStream, ByteStreamEvents } from "./byte-stream.ts";
import { truncated } from "./coded-stream.ts";

/** A byte stream whose bytes are coded on their way over another one. */
export class CodedByteStream implements ByteStream {
  readonly #inner: ByteStream;
  readonly #coding: StreamCoding;
  readonly #surplus: Uint8Array | undefined;
  #events: ByteStreamEvents | undefined;
  #failure: Error | undefined;

  /** @param surplus  what is already decoded */
  constructor(inner: ByteStream, coding: StreamCoding, surplus: Uint8Array | undefined) {
    this.#inner = inner;
    this.#coding = coding;
    this.#surplus = surplus;
  }

  get isClosed(): boolean {
    return this.#inner.isClosed;
  }

  get localIp(): string | undefined {
    return this.#inner.localIp;
  }

  start(events: ByteStreamEvents): void {
    this.#events = events;
    if (this.#surplus !== undefined) events.onBytes(this.#surplus, this.#surplus.length);
    this.#inner.start({
      onBytes: (chunk, length) => {
        const error = this.#coding.decode(chunk, 0, length, this.#deliver);
        if (error !== undefined) this.#fail(error);
      },
      onEnd: () => {
        if (this.#coding.mayEnd) events.onEnd();
        else this.#fail(truncated());
      },
      onWritten: () => events.onWritten(),
      onClose: (error) => events.onClose(this.#failure ?? error),
    });
  }

  write(bytes: Uint8Array): boolean {
    return this.#inner.write(this.#coding.encode(bytes));
  }

  end(): void {
    this.#inner.end();
  }

  destroy(): void {
    this.#inner.destroy();
  }

  #fail(error: Error): void {
    if (this.#inner.isClosed) return;
    this.#failure = error;
    this.#inner.destroy();
  }

  readonly #deliver: Deliver = (bytes, offset, end) => {
    if (this.#inner.isClosed) return;
    const isWhole = offset === 0;
    this.#events!.onBytes(isWhole ? bytes : bytes.subarray(offset, end), end - offset);
  };
}
