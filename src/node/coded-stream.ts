import { Socket } from "node:net";
import { Duplex } from "node:stream";
import { HostError } from "../core/errors.ts";
import type { Deliver, StreamCoding } from "../core/stream-coding.ts";

/** A stream over a socket, in another form than its bytes. */
export interface WrappedStream extends Duplex {
  readonly remoteAddress: string | undefined;
  /** The socket at the bottom. */
  readonly socket: Socket;
  setTimeout(milliseconds: number): this;
  resetAndDestroy(): this;
}

/** A connection to a target. */
export type TcpStream = Socket | WrappedStream;

/**
 * Time within which data is expected that can go together with what precedes it. Where the target speaks first, this is how
 * much later it hears of the connection.
 */
const FIRST_DATA_MS = 20;
const NOTHING = new Uint8Array(0);

/** A stream whose bytes are coded on their way over another one, which it owns. */
export class CodedStream extends Duplex implements WrappedStream {
  readonly #inner: TcpStream;
  readonly #coding: StreamCoding;
  #timer: NodeJS.Timeout | undefined;
  #hasPeerEnded = false;

  /**
   * @param inner  paused
   * @param early  what was read from it and decoded already, in memory of its own
   */
  constructor(inner: TcpStream, coding: StreamCoding, early: readonly Uint8Array[] = []) {
    super({ allowHalfOpen: true });
    this.#inner = inner;
    this.#coding = coding;
    inner.on("data", this.#handleData);
    inner.on("end", this.#handleEnd);
    inner.on("error", this.#handleError);
    inner.on("close", this.#handleClose);
    inner.on("timeout", this.#handleTimeout);
    // Listening for data has made it flow.
    inner.pause();
    inner.allowHalfOpen = true;
    // Whoever has the stream may not listen yet; `errored` keeps the reason.
    this.on("error", () => {});
    for (const bytes of early) this.push(bytes);
    this.#timer = setTimeout(() => this.#startCoding(), FIRST_DATA_MS);
  }

  get remoteAddress(): string | undefined {
    return this.#inner.remoteAddress;
  }

  get socket(): Socket {
    return socketOf(this.#inner);
  }

  setTimeout(milliseconds: number): this {
    this.#inner.setTimeout(milliseconds);
    return this;
  }

  resetAndDestroy(): this {
    this.#inner.resetAndDestroy();
    return this.destroy();
  }

  /**
   * Gives away what the stream is made of, unless something is still to be written.
   *
   * @returns `surplus` was decoded, but not read
   */
  release():
    | { readonly inner: TcpStream; readonly coding: StreamCoding; readonly surplus: Uint8Array | undefined }
    | undefined {
    if (this.destroyed || this.writableLength > 0 || this.writableEnded || this.#hasPeerEnded)
      return undefined;
    const surplus = (this.read() as Uint8Array | null) ?? undefined;
    this.#forget();
    this.#inner.pause();
    return { inner: this.#inner, coding: this.#coding, surplus };
  }

  override _read(): void {
    this.#inner.resume();
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    const coded = this.#coding.encode(chunk);
    if (coded.length === 0) {
      done();
      return;
    }
    let isDone = false;
    const finish = (error?: Error | null) => {
      if (isDone) return;
      isDone = true;
      done(error);
    };
    this.#inner.write(coded, finish);
    // What the system took at once is called back in the next tick, but the writer of batches need not wait for that.
    if (this.#inner.writableLength === 0 && !this.#inner.destroyed) finish();
  }

  override _final(done: (error?: Error | null) => void): void {
    clearTimeout(this.#timer);
    if (!this.#coding.hasStarted) this.#inner.write(this.#coding.encode(NOTHING));
    this.#inner.end(() => done());
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#forget();
    this.#inner.on("error", () => {});
    this.#inner.destroy();
    done(error);
  }

  #startCoding(): void {
    if (!this.#coding.hasStarted && this.writable) this.write(NOTHING);
  }

  #forget(): void {
    clearTimeout(this.#timer);
    this.#inner.off("data", this.#handleData);
    this.#inner.off("end", this.#handleEnd);
    this.#inner.off("error", this.#handleError);
    this.#inner.off("close", this.#handleClose);
    this.#inner.off("timeout", this.#handleTimeout);
  }

  readonly #handleData = (chunk: Uint8Array): void => {
    const error = this.#coding.decode(chunk, 0, chunk.length, this.#deliver);
    if (error !== undefined) this.destroy(error);
  };

  readonly #deliver: Deliver = (bytes, offset, end) => {
    if (this.destroyed) return;
    const isWhole = offset === 0 && end === bytes.length;
    if (!this.push(isWhole ? bytes : bytes.subarray(offset, end))) this.#inner.pause();
  };

  readonly #handleEnd = (): void => {
    this.#hasPeerEnded = true;
    if (this.#coding.mayEnd) this.push(null);
    else this.destroy(truncated());
  };

  readonly #handleError = (error: Error): void => {
    this.destroy(error);
  };

  readonly #handleClose = (): void => {
    if (!this.#hasPeerEnded || !this.writableFinished) this.destroy();
  };

  readonly #handleTimeout = (): void => {
    this.emit("timeout");
  };
}

/** The socket at the bottom. */
export function socketOf(stream: TcpStream): Socket {
  return stream instanceof Socket ? stream : stream.socket;
}

/** The error of a coded stream that ends where it may not. */
export function truncated(): HostError {
  return new HostError("ERR_CONNECTION_LOST", "the coded stream was cut off");
}
