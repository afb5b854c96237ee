/** Events for the owner of a byte stream. */
export interface ByteStreamEvents {
  /** Bytes that arrived: the first `length` of `chunk`, which is borrowed until the call returns. Never while it is paused. */
  onBytes(chunk: Uint8Array, length: number): void;
  /**
   * The other end has ended, and no more bytes come. What is written still goes, until {@link ByteStream.end}. Never while it is
   * paused, and always before an orderly close by both ends.
   */
  onEnd(): void;
  /** What {@link ByteStream.write} did not take at once is taken, and no longer lent. */
  onWritten(): void;
  /**
   * Once, and nothing after it.
   *
   * @param error  undefined when both ends have ended, or this one has closed or reset it; otherwise the connection was lost, and
   *   bytes of either direction may be missing
   */
  onClose(error: Error | undefined): void;
}

/**
 * A connection: bytes both ways. It is TCP, a Unix socket, or carried by another one in TLS, a WebSocket, a request of HTTP/2, or
 * in the coded form of shadowsocks.
 *
 * - **Reading.** It begins paused. A chunk is borrowed, and a reader that cannot go on pauses the stream before it returns.
 *   Nothing more is read then, so the other end has to wait. The loss of a connection that is paused may be noticed only once it is
 *   resumed or written to.
 * - **Writing.** Bytes that are not taken at once are lent until `onWritten`, and the writer waits until then.
 * - **Ending.** Each direction ends separately: `end` ends the written direction, `onEnd` reports the end of the other. When both have
 *   ended, the stream closes by itself. If the carrier has no half-closed state, the other end's close is `onEnd`, and bytes written
 *   from then on are lost.
 * - **Handing on.** The owner of the stream may give it to another listener at any time, along with surplus bytes already read
 *   ({@link unread}). The former listener gets no more events, not even the close.
 */
export interface ByteStream {
  /** True once {@link end} was called or it is closed: nothing can be written any more. */
  readonly isClosed: boolean;
  /** IP text, with its zone, where it is known. */
  readonly localIp: string | undefined;
  readonly remoteIp: string | undefined;
  readonly remotePort: number | undefined;
  /** Whether the memory of a chunk is used again for the next one. If not, a listener may keep it. */
  readonly reusesMemory: boolean;
  /** That of the native module, if its bytes are those of the stream; undefined once it is closed. */
  readonly descriptor?: number | undefined;
  /**
   * Has another listener hear what happens from now on, and pauses. Only while nothing is lent. What the former one has not heard is kept for it: bytes, the
   * end, or, if the stream is closed already, the close.
   */
  handTo(events: ByteStreamEvents): void;
  /** {@link handTo} and {@link resume}. */
  start(events: ByteStreamEvents): void;
  /** Gives bytes back, which are copied: they come again before any others, when it is resumed. Pauses. */
  unread(bytes: Uint8Array): void;
  pause(): void;
  /** Limits what one read takes, and what the system keeps that is not read, where the carrier can; 0 and 0 for no limits. */
  limitReads?(readBytes: number, bufferBytes: number): void;
  /** Reads. What has been kept is delivered before the call returns: bytes, then the end. */
  resume(): void;
  /**
   * Writes. Not before what was lent is taken, nor after {@link end}. On a stream that is closed, or about to be, it does nothing.
   *
   * @param hasMore     more is to be written than the path takes: what came may be acknowledged with that
   * @param isBorrowed  `bytes` change once the call returns: what is not taken at once is copied
   * @returns false when not all is taken at once: nothing more is written, and `bytes` stay lent, until onWritten
   */
  write(bytes: Uint8Array, hasMore?: boolean, isBorrowed?: boolean): boolean;
  /** Nothing more is written; closes once the other end has ended as well. Only while nothing is lent. */
  end(): void;
  /** Closes at once, in both directions. What was taken still goes; what is lent does not. */
  destroy(): void;
  /** Closes at once, and has the other end's connection fail, where the carrier can: a RST of TCP. Otherwise as {@link destroy}. */
  reset(): void;
  /** Sets the deadlines and the queue of a TCP connection below for a tunnel with such heartbeats. */
  tune(heartbeatMs: number): void;
}

/** The common part of byte streams: the listener, and what is kept for the next one. */
export abstract class ListenedStream implements ByteStream {
  abstract readonly isClosed: boolean;
  abstract readonly localIp: string | undefined;
  abstract readonly remoteIp: string | undefined;
  abstract readonly remotePort: number | undefined;
  abstract readonly reusesMemory: boolean;
  #events: ByteStreamEvents | undefined;
  #isPaused = true;
  #unread: Uint8Array | undefined;
  /** Whether the other end has ended: `kept` until it may be heard. */
  #end: "none" | "kept" | "heard" = "none";
  /** Set once it is closed. */
  #close: { readonly error: Error | undefined } | undefined;

  abstract write(bytes: Uint8Array, hasMore?: boolean, isBorrowed?: boolean): boolean;
  abstract end(): void;
  abstract destroy(): void;
  abstract reset(): void;
  abstract tune(heartbeatMs: number): void;
  /** Has the carrier read, or not. Called only on a change, and not once it is closed. */
  protected abstract setReading(isReading: boolean): void;

  handTo(events: ByteStreamEvents): void {
    this.pause();
    this.#events = events;
    if (this.#end === "heard") this.#end = "kept";
    const close = this.#close;
    if (close === undefined) return;
    void Promise.resolve().then(() => {
      if (this.#events === events) events.onClose(close.error);
    });
  }

  start(events: ByteStreamEvents): void {
    this.handTo(events);
    this.resume();
  }

  unread(bytes: Uint8Array): void {
    this.pause();
    if (bytes.length > 0) this.#unread = joined(bytes, this.#unread);
  }

  pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    if (this.#close === undefined) this.setReading(false);
  }

  resume(): void {
    if (!this.#isPaused || this.#close !== undefined) return;
    this.#isPaused = false;
    const bytes = this.#unread;
    this.#unread = undefined;
    // Whoever hears of them may pause again, hand it on, or close it.
    if (bytes !== undefined) this.#events!.onBytes(bytes, bytes.length);
    if (this.#isPaused || this.#close !== undefined) return;
    if (this.#end === "kept") {
      this.#end = "heard";
      this.#events!.onEnd();
      if (this.#isPaused || this.#close !== undefined) return;
    }
    this.setReading(true);
  }

  /** Whether the other end has ended. */
  protected get hasPeerEnded(): boolean {
    return this.#end !== "none";
  }

  /** Whether the listener knows of that. */
  protected get hasHeardEnd(): boolean {
    return this.#end === "heard";
  }

  protected get isReading(): boolean {
    return !this.#isPaused;
  }

  protected handleBytes(chunk: Uint8Array, length: number): void {
    if (!this.#isPaused) this.#events!.onBytes(chunk, length);
    // Carriers may still deliver what they had read before they paused.
    else if (this.#close === undefined) this.#unread = joined(this.#unread, chunk.subarray(0, length));
  }

  protected handleEnd(): void {
    if (this.#close !== undefined) return;
    this.#end = this.#isPaused ? "kept" : "heard";
    if (!this.#isPaused) this.#events!.onEnd();
  }

  protected handleWritten(): void {
    if (this.#close === undefined) this.#events?.onWritten();
  }

  protected handleClose(error: Error | undefined): void {
    if (this.#close !== undefined) return;
    this.#close = { error };
    this.#unread = undefined;
    this.#events?.onClose(error);
  }

  /** What is kept of the bytes, for whoever takes the carrier away. */
  protected takeUnread(): Uint8Array | undefined {
    const bytes = this.#unread;
    this.#unread = undefined;
    return bytes;
  }
}

function joined(first: Uint8Array | undefined, second: Uint8Array | undefined): Uint8Array {
  const bytes = new Uint8Array((first?.length ?? 0) + (second?.length ?? 0));
  if (first !== undefined) bytes.set(first);
  if (second !== undefined) bytes.set(second, bytes.length - second.length);
  return bytes;
}
