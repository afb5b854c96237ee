import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { copyOf } from "../../core/copy-bytes.ts";
import type { NativeModule } from "../../host/io/native-module.ts";
import { ListenedStream } from "../../host/stream/byte-stream.ts";
import { tuneDescriptor } from "../../host/stream/tcp-tuning.ts";
import { opensslReason } from "../../host/system-error.ts";
import { descriptorOf } from "./socket-descriptor.ts";

/** A byte stream over any stream of Node. */
export class PlainStream extends ListenedStream {
  readonly reusesMemory = false;
  readonly #stream: Duplex;
  readonly #native: NativeModule | undefined;
  /** A stream that is not a socket may keep the memory that it gets. */
  readonly #mustCopy: boolean;
  #isWaiting = false;
  #isReleased = false;
  #failure: Error | undefined;

  /** @param native  sets socket options that node:net cannot set */
  constructor(stream: Duplex, native?: NativeModule) {
    super();
    this.#stream = stream;
    this.#native = native;
    this.#mustCopy = !(stream instanceof Socket);
    stream.pause();
    // Otherwise Node also ends our side.
    stream.allowHalfOpen = true;
    stream
      .on("data", this.#onData)
      .on("end", this.#onEnd)
      .on("error", this.#onError)
      .on("close", this.#onClose);
    if (stream.destroyed) void Promise.resolve().then(this.#onClose);
  }

  get isClosed(): boolean {
    return this.#isReleased || this.#stream.destroyed || this.#stream.writableEnded;
  }

  get localIp(): string | undefined {
    return this.#stream instanceof Socket ? this.#stream.localAddress : undefined;
  }

  get remoteIp(): string | undefined {
    return this.#stream instanceof Socket ? this.#stream.remoteAddress : undefined;
  }

  get remotePort(): number | undefined {
    return this.#stream instanceof Socket ? this.#stream.remotePort : undefined;
  }

  write(bytes: Uint8Array, _hasMore = false, isBorrowed = false): boolean {
    if (this.isClosed) return true;
    this.#isWaiting = true;
    this.#stream.write(this.#mustCopy || isBorrowed ? copyOf(bytes) : bytes, this.#onWritten);
    if (this.#stream.writableLength === 0) this.#isWaiting = false;
    return !this.#isWaiting;
  }

  end(): void {
    if (this.isClosed) return;
    this.#stream.end(() => this.#closeIfOver());
  }

  destroy(): void {
    if (!this.#isReleased) this.#stream.destroy();
  }

  reset(): void {
    const stream = this.#stream;
    if (this.#isReleased) return;
    if (stream instanceof Socket && !isTls(stream) && !stream.destroyed && hasTcp(stream)) {
      stream.resetAndDestroy();
    } else stream.destroy();
  }

  tune(heartbeatMs: number): void {
    tuneDescriptor(descriptorOf(this.#stream), this.#native, heartbeatMs);
  }

  /** Gives the open stream away, paused. @returns undefined if it is closed */
  release(): Duplex | undefined {
    const stream = this.#stream;
    if (this.isClosed) return undefined;
    this.pause();
    this.#isReleased = true;
    stream.off("data", this.#onData).off("end", this.#onEnd).off("close", this.#onClose);
    const unread = this.takeUnread();
    if (unread !== undefined) stream.unshift(unread);
    // A socket that was paused as soon as it was connected has not begun to read, and HTTP/2 would wait for that.
    stream.read(0);
    void Promise.resolve().then(() => this.handleClose(undefined));
    return stream;
  }

  protected override setReading(isReading: boolean): void {
    if (this.#isReleased) return;
    if (isReading) {
      this.#stream.resume();
      this.#closeIfOver();
    } else this.#stream.pause();
  }

  /** Some kinds of streams do not close by themselves. */
  #closeIfOver(): void {
    const stream = this.#stream;
    if (stream.readableEnded && stream.writableEnded && this.hasHeardEnd) stream.destroy();
  }

  readonly #onData = (chunk: Uint8Array): void => {
    this.handleBytes(chunk, chunk.length);
  };

  readonly #onEnd = (): void => {
    this.handleEnd();
    this.#closeIfOver();
  };

  readonly #onError = (error: Error): void => {
    const reason = opensslReason(error.message);
    this.#failure ??= reason === error.message ? error : new Error(reason, { cause: error });
  };

  readonly #onClose = (): void => {
    this.handleClose(this.#failure);
  };

  readonly #onWritten = (error?: Error | null): void => {
    // Also called on the next tick for a write that completed at once; only an empty stream ends the wait.
    if (error || !this.#isWaiting || this.#stream.writableLength > 0) return;
    this.#isWaiting = false;
    this.handleWritten();
  };
}

/** Does not load node:tls, to save its memory in a program without TLS. */
function isTls(socket: Socket): boolean {
  return "encrypted" in socket;
}

/** Whether a socket is a TCP socket; Unix sockets have no reset. */
function hasTcp(socket: Socket): boolean {
  return socket.remoteAddress !== undefined;
}
