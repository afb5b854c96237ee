import type { Deliver, StreamCoding } from "../core/stream-coding.ts";
import type { ByteStream, ByteStreamEvents } from "./byte-stream.ts";
import { DescriptorStream } from "./byte-stream-native.ts";
import { truncated } from "./coded-stream.ts";

const NOTHING = new Uint8Array(0);

/** Memory of this thread for what is decoded from one read of a descriptor, and lent until the event for it returns. */
let lent = new Uint8Array(65_536);

/**
 * A byte stream whose bytes are coded on their way over another one. What is decoded from one read comes in one event: with
 * one for each chunk, it would be answered chunk by chunk.
 */
export class CodedByteStream implements ByteStream {
  readonly #inner: ByteStream;
  readonly #coding: StreamCoding;
  readonly #surplus: Uint8Array | undefined;
  /** Datagrams are sent before the event for them returns. */
  readonly #mayLend: boolean;
  #events: ByteStreamEvents | undefined;
  #failure: Error | undefined;
  /** What is decoded of the current read: one run where it is, or several one after the other. */
  #decoded: Uint8Array = NOTHING;
  #length = 0;
  #runs = 0;

  /** @param surplus  what is already decoded */
  constructor(inner: ByteStream, coding: StreamCoding, surplus: Uint8Array | undefined) {
    this.#inner = inner;
    this.#coding = coding;
    this.#surplus = surplus;
    this.#mayLend = inner instanceof DescriptorStream;
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
      onBytes: (chunk, length) => this.#handleBytes(chunk, length),
      onEnd: () => {
        if (this.#coding.mayEnd) events.onEnd();
        else this.#fail(truncated());
      },
      onWritten: () => events.onWritten(),
      onClose: (error) => events.onClose(this.#failure ?? error),
    });
  }

  write(bytes: Uint8Array, hasMore?: boolean): boolean {
    return this.#inner.write(this.#coding.encode(bytes), hasMore);
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

  #handleBytes(chunk: Uint8Array, length: number): void {
    const error = this.#coding.decode(chunk, 0, length, this.#gather);
    const decoded = this.#decoded;
    const count = this.#length;
    this.#decoded = NOTHING;
    this.#length = 0;
    this.#runs = 0;
    if (count > 0) this.#events!.onBytes(decoded, count);
    if (error !== undefined) this.#fail(error);
  }

  readonly #gather: Deliver = (bytes, offset, end) => {
    const run = offset === 0 && end === bytes.length ? bytes : bytes.subarray(offset, end);
    const before = this.#length;
    this.#length += run.length;
    this.#runs++;
    if (this.#runs === 1) {
      this.#decoded = run;
      return;
    }
    if (this.#runs === 2 || this.#decoded.length < this.#length) {
      const first = this.#decoded;
      this.#decoded = this.#memory(this.#length);
      this.#decoded.set(first.subarray(0, before));
    }
    this.#decoded.set(run, before);
  };

  #memory(length: number): Uint8Array {
    const size = 2 ** Math.ceil(Math.log2(length));
    if (!this.#mayLend) return new Uint8Array(Math.max(size, 65_536));
    if (lent.length < size) lent = new Uint8Array(size);
    return lent;
  }
}
