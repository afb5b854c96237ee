import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { ByteStream, ByteStreamEvents } from "./byte-stream.ts";

/** A byte stream over any stream of Node. */
export class PlainStream implements ByteStream {
  readonly #stream: Duplex;
  readonly #hasOnRead: boolean;
  /** A stream that is not a socket may keep the memory that it was given. */
  readonly #mustCopy: boolean;
  #events: ByteStreamEvents | undefined;
  #isWaiting = false;
  #failure: Error | undefined;

  /** @param hasOnRead  true if an `onread` callback gets what is read */
  constructor(stream: Duplex, hasOnRead: boolean) {
    this.#stream = stream;
    this.#hasOnRead = hasOnRead;
    this.#mustCopy = !(stream instanceof Socket);
  }

  get isClosed(): boolean {
    return this.#stream.destroyed || this.#stream.writableEnded;
  }

  get localIp(): string | undefined {
    return this.#stream instanceof Socket ? this.#stream.localAddress : undefined;
  }

  start(events: ByteStreamEvents): void {
    const stream = this.#stream;
    this.#events = events;
    stream.on("error", this.#onError);
    // Else Node ends its side as well.
    stream.allowHalfOpen = true;
    stream.on("end", this.#onEnd);
    stream.on("close", this.#onClose);
    if (!this.#hasOnRead) stream.on("data", this.#onData);
    stream.resume();
  }

  /** Gives the open stream away, without `onread`. @returns undefined when it is closed */
  release(): Duplex | undefined {
    const stream = this.#stream;
    if (this.isClosed) return undefined;
    stream.pause();
    stream
      .off("error", this.#onError)
      .off("end", this.#onEnd)
      .off("close", this.#onClose)
      .off("data", this.#onData);
    return stream;
  }

  write(bytes: Uint8Array): boolean {
    this.#isWaiting = true;
    this.#stream.write(this.#mustCopy ? bytes.slice() : bytes, this.#onWritten);
    if (this.#stream.writableLength === 0) this.#isWaiting = false;
    return !this.#isWaiting;
  }

  end(): void {
    const stream = this.#stream;
    if (stream.writableEnded) return;
    // Not every kind of stream closes by itself.
    stream.end(() => {
      if (stream.readableEnded) stream.destroy();
    });
  }

  destroy(): void {
    this.#stream.destroy();
  }

  readonly #onError = (error: Error): void => {
    this.#failure = error;
  };

  readonly #onEnd = (): void => {
    if (this.#stream.writableEnded) this.#stream.destroy();
    else this.#events!.onEnd();
  };

  readonly #onClose = (): void => {
    this.#events!.onClose(this.#failure);
  };

  readonly #onData = (chunk: Uint8Array): void => {
    this.#events!.onBytes(chunk, chunk.length);
  };

  readonly #onWritten = (): void => {
    // Called on the next tick for a write that was done at once, too: only an empty stream ends the wait.
    if (!this.#isWaiting || this.#stream.writableLength > 0) return;
    this.#isWaiting = false;
    this.#events?.onWritten();
  };
}
