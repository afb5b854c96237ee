import { copyOf } from "../../core/copy-bytes.ts";
import { HostError } from "../../core/errors.ts";
import type { Deliver, StreamCoding } from "../../core/stream-coding.ts";
import type { Loop, Timer } from "../loop.ts";
import type { ByteStream } from "./byte-stream.ts";
import { ListenedStream } from "./byte-stream.ts";

const NOTHING = new Uint8Array(0);
/**
 * Time in which data is expected that can go together with the bytes before it. If the target speaks first, it learns of the connection
 * with this delay.
 */
const FIRST_DATA_MS = 20;

/** This thread's memory for bytes decoded from one read of a descriptor, lent until the event for it returns. */
let lent = new Uint8Array(65_536);

/**
 * A byte stream whose bytes travel coded over another stream, which it owns. All bytes decoded from one read arrive in one event; with an
 * event for each chunk, they would also be answered chunk by chunk.
 */
export class CodedByteStream extends ListenedStream {
  readonly #inner: ByteStream;
  readonly #coding: StreamCoding;
  /** A stream that is coded twice would read and write the same memory. */
  readonly #mayLend: boolean;
  readonly #timer: Timer;
  #failure: Error | undefined;
  /** Whether the bytes before any data are lent to the stream below; what follows them waits. */
  #isOpening = false;
  #waiting: Uint8Array | undefined;
  #isEnding = false;
  /** The bytes decoded from the current read: one run in place, or several one after the other. */
  #decoded: Uint8Array = NOTHING;
  #length = 0;
  #runs = 0;

  constructor(loop: Loop, inner: ByteStream, coding: StreamCoding) {
    super();
    this.#inner = inner;
    this.#coding = coding;
    this.#mayLend = inner.reusesMemory && !(inner instanceof CodedByteStream);
    inner.handTo({
      onBytes: (chunk, length) => this.#handleCoded(chunk, length),
      onEnd: () => {
        if (coding.mayEnd) this.handleEnd();
        else this.#fail(new HostError("ERR_CONNECTION_LOST", "the coded stream was cut off"));
      },
      onWritten: () => this.#handleInnerWritten(),
      onClose: (error) => {
        this.#timer.cancel();
        this.handleClose(this.#failure ?? error);
      },
    });
    this.#timer = loop.after(FIRST_DATA_MS, () => this.#open());
  }

  get isClosed(): boolean {
    return this.#isEnding || this.#inner.isClosed;
  }

  get localIp(): string | undefined {
    return this.#inner.localIp;
  }

  get remoteIp(): string | undefined {
    return this.#inner.remoteIp;
  }

  get remotePort(): number | undefined {
    return this.#inner.remotePort;
  }

  get reusesMemory(): boolean {
    return this.#inner.reusesMemory;
  }

  write(bytes: Uint8Array, hasMore = false, isBorrowed = false): boolean {
    if (this.#isOpening) {
      this.#waiting = isBorrowed ? copyOf(bytes) : bytes;
      return false;
    }
    this.#timer.cancel();
    const coded = this.#coding.encode(bytes);
    return coded.length === 0 || this.#inner.write(coded, hasMore, isBorrowed && coded === bytes);
  }

  end(): void {
    if (this.isClosed) return;
    this.#open();
    this.#isEnding = true;
    if (!this.#isOpening) this.#inner.end();
  }

  destroy(): void {
    this.#timer.cancel();
    this.#inner.destroy();
  }

  reset(): void {
    this.#timer.cancel();
    this.#inner.reset();
  }

  tune(heartbeatMs: number): void {
    this.#inner.tune(heartbeatMs);
  }

  limitReads(readBytes: number, bufferBytes: number): void {
    this.#inner.limitReads?.(readBytes, bufferBytes);
  }

  protected override setReading(isReading: boolean): void {
    if (isReading) this.#inner.resume();
    else this.#inner.pause();
  }

  /** Sends the bytes before any data. */
  #open(): void {
    this.#timer.cancel();
    if (this.#coding.hasStarted || this.isClosed) return;
    const coded = this.#coding.encode(NOTHING);
    this.#isOpening = coded.length > 0 && !this.#inner.write(coded);
  }

  #handleInnerWritten(): void {
    if (!this.#isOpening) {
      this.handleWritten();
      return;
    }
    this.#isOpening = false;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting !== undefined) {
      if (this.write(waiting)) this.handleWritten();
    } else if (this.#isEnding) this.#inner.end();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.destroy();
  }

  #handleCoded(chunk: Uint8Array, length: number): void {
    const error = this.#coding.decode(chunk, 0, length, this.#gather);
    const decoded = this.#decoded;
    const count = this.#length;
    this.#decoded = NOTHING;
    this.#length = 0;
    this.#runs = 0;
    if (count > 0) this.handleBytes(decoded, count);
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
