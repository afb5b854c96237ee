import type { ByteStream, ByteStreamEvents } from "../byte-stream.ts";
import type { WebSocketLink } from "./web-socket-link.ts";

/** A byte stream over a WebSocket: each write is one message. It has no half-closed state. */
export class WebSocketByteStream implements ByteStream {
  readonly #link: WebSocketLink;
  readonly #surplus: Uint8Array | undefined;
  #events: ByteStreamEvents | undefined;
  #isWaiting = false;

  /** @param surplus  what was already read */
  constructor(link: WebSocketLink, surplus: Uint8Array | undefined) {
    this.#link = link;
    this.#surplus = surplus;
  }

  get isClosed(): boolean {
    return this.#link.isClosed;
  }

  get localIp(): string | undefined {
    return this.#link.socket.localAddress;
  }

  start(events: ByteStreamEvents): void {
    this.#events = events;
    if (this.#surplus !== undefined) events.onBytes(this.#surplus, this.#surplus.length);
    this.#link.start({
      onMessage: (data) => events.onBytes(data, data.length),
      onClose: (error) => events.onClose(error),
    });
  }

  write(bytes: Uint8Array): boolean {
    this.#link.send(bytes, this.#onSent);
    this.#isWaiting = !this.#link.isDrained;
    return !this.#isWaiting;
  }

  end(): void {
    this.#link.end();
  }

  destroy(): void {
    this.#link.destroy();
  }

  readonly #onSent = (error?: Error | null): void => {
    // Called on the next tick for a message that was sent at once, too: only an empty stream ends the wait.
    if (error || !this.#isWaiting || !this.#link.isDrained) return;
    this.#isWaiting = false;
    this.#events?.onWritten();
  };
}
