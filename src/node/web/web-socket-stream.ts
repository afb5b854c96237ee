import type { Socket } from "node:net";
import { Duplex } from "node:stream";
import type { WrappedStream } from "../coded-stream.ts";
import type { WebSocketLink } from "./web-socket-link.ts";

/** A WebSocket as a stream, for the carriers behind it. */
export class WebSocketStream extends Duplex implements WrappedStream {
  readonly #link: WebSocketLink;
  #hasEnded = false;

  constructor(link: WebSocketLink) {
    super({ allowHalfOpen: false });
    this.#link = link;
    link.start({
      onMessage: (data) => {
        if (!this.push(data)) link.pause();
      },
      onClose: (error) => {
        this.#hasEnded = true;
        if (error !== undefined) this.destroy(error);
        else this.push(null);
      },
    });
    link.pause();
    // Whoever has the stream may not listen yet; `errored` keeps the reason.
    this.on("error", () => {});
  }

  get remoteAddress(): string | undefined {
    return this.#link.socket.remoteAddress;
  }

  get socket(): Socket {
    return this.#link.socket;
  }

  setTimeout(milliseconds: number): this {
    this.#link.socket.setTimeout(milliseconds);
    return this;
  }

  /** A WebSocket has no reset. */
  resetAndDestroy(): this {
    return this.destroy();
  }

  /** Gives away what the stream is made of, unless something is still to be written. @returns `surplus` was not read */
  release(): { readonly link: WebSocketLink; readonly surplus: Uint8Array | undefined } | undefined {
    if (this.destroyed || this.writableLength > 0 || this.writableEnded || this.#hasEnded) return undefined;
    const surplus = (this.read() as Uint8Array | null) ?? undefined;
    this.#link.pause();
    return { link: this.#link, surplus };
  }

  override _read(): void {
    this.#link.resume();
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#link.send(chunk, done);
  }

  override _final(done: () => void): void {
    this.#link.end();
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#link.destroy();
    done(error);
  }
}
