import { copyOf } from "../../core/copy-bytes.ts";
import { ListenedStream } from "../../host/stream/byte-stream.ts";
import type { WebSocketLink } from "./web-socket-link.ts";

/** A byte stream over a WebSocket: each write is one message. It has no half-closed state. */
export class WebSocketByteStream extends ListenedStream {
  readonly reusesMemory = false;
  readonly #link: WebSocketLink;
  #isWaiting = false;
  /** How this end has closed it. */
  #closing: "no" | "ended" | "destroyed" = "no";
  /** The other end has closed it. */
  #isOver = false;

  /** @param link  not started */
  constructor(link: WebSocketLink) {
    super();
    this.#link = link;
    link.start({
      onMessage: (data) => this.handleBytes(data, data.length),
      onClose: (error) => this.#handleLinkClosed(error),
    });
    link.pause();
  }

  get isClosed(): boolean {
    return this.#closing !== "no" || (this.#link.isClosed && !this.#isOver);
  }

  get localIp(): string | undefined {
    return this.#link.addresses?.localIp;
  }

  get remoteIp(): string | undefined {
    return this.#link.addresses?.remoteIp;
  }

  get remotePort(): number | undefined {
    return this.#link.addresses?.remotePort;
  }

  write(bytes: Uint8Array, _hasMore = false, isBorrowed = false): boolean {
    if (this.isClosed || this.#isOver) return true;
    this.#link.send(isBorrowed ? copyOf(bytes) : bytes, this.#onSent);
    this.#isWaiting = !this.#link.isDrained;
    return !this.#isWaiting;
  }

  end(): void {
    if (this.#closing !== "no") return;
    this.#closing = "ended";
    if (this.#isOver) this.#closeLater();
    else this.#link.end();
  }

  destroy(): void {
    if (this.#closing === "destroyed") return;
    this.#closing = "destroyed";
    if (this.#isOver) this.#closeLater();
    else this.#link.destroy();
  }

  /** A WebSocket has no reset. */
  reset(): void {
    this.destroy();
  }

  tune(heartbeatMs: number): void {
    this.#link.tune(heartbeatMs);
  }

  protected override setReading(isReading: boolean): void {
    if (isReading) this.#link.resume();
    else this.#link.pause();
  }

  #handleLinkClosed(error: Error | undefined): void {
    if (error !== undefined || this.#closing === "destroyed") {
      this.handleClose(error);
      return;
    }
    this.#isOver = true;
    this.handleEnd();
    if (this.#closing !== "no") this.handleClose(undefined);
  }

  #closeLater(): void {
    void Promise.resolve().then(() => this.handleClose(undefined));
  }

  readonly #onSent = (error?: Error | null): void => {
    // Called on the next tick for a message that was sent at once, too: only an empty stream ends the wait.
    if (error || !this.#isWaiting || !this.#link.isDrained) return;
    this.#isWaiting = false;
    this.handleWritten();
  };
}
