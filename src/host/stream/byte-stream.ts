/** Events for the owner of a byte stream. */
export interface ByteStreamEvents {
  /**
   * Bytes that arrived: the first `length` of `chunk`, which is borrowed until the call returns. Never called while the stream is paused.
   */
  onBytes(chunk: Uint8Array, length: number): void;
  /**
   * The other end has ended, and no more bytes arrive. Writing continues until {@link ByteStream.end}. Never called while the stream is
   * paused; always called before an orderly close by both ends.
   */
  onEnd(): void;
  /** The bytes that {@link ByteStream.write} did not accept at once are accepted now, and no longer lent. */
  onWritten(): void;
  /**
   * Called once, as the last event.
   *
   * @param error  undefined if both ends have ended, or this end has closed or reset the stream; otherwise the connection was lost, and
   *   bytes of either direction may be missing
   */
  onClose(error: Error | undefined): void;
}

/**
 * A connection: bytes both ways. It is TCP, a Unix socket, or carried by another one in TLS, a WebSocket, a request of HTTP/2, or
 * in the coded form of shadowsocks.
 *
 * - **Reading.** A stream begins paused. A chunk is borrowed, and a reader that cannot accept more pauses the stream before it returns.
 *   Nothing more is read then, so the other end has to wait. The loss of a connection that is paused may be noticed only once it is resumed
 *   or written to.
 * - **Writing.** Bytes that are not accepted at once are lent until `onWritten`, and the writer waits until then.
 * - **Ending.** Each direction ends separately: `end` ends the written direction, `onEnd` reports the end of the other. When both have
 *   ended, the stream closes by itself. If the carrier has no half-closed state, the other end's close is `onEnd`, and bytes written
 *   from then on are lost.
 * - **Handing on.** The owner of the stream may give it to another listener at any time, along with surplus bytes already read
 *   ({@link unread}). The former listener gets no more events, not even the close.
 */
export interface ByteStream {
  /** True once {@link end} was called or the stream is closed: nothing can be written any more. */
  readonly isClosed: boolean;
  /** IP text with its zone, if known. */
  readonly localIp: string | undefined;
  readonly remoteIp: string | undefined;
  readonly remotePort: number | undefined;
  /** Whether the memory of a chunk is reused for the next one. If not, a listener may keep it. */
  readonly reusesMemory: boolean;
  /** Whether another program relays it onward, so that it shares a path with others even if that program runs on this machine. */
  leadsOn?: boolean;
  /** The descriptor in the native module, if it carries the stream's own bytes; undefined once the stream is closed. */
  readonly descriptor?: number | undefined;
  /**
   * Passes the stream to another listener, and pauses it. Allowed only while nothing is lent. Events that the former listener did not get
   * are kept for the new one: bytes, the end, or, if the stream is closed already, the close.
   */
  handTo(events: ByteStreamEvents): void;
  /** {@link handTo} and {@link resume}. */
  start(events: ByteStreamEvents): void;
  /** Returns bytes, which are copied, to the stream, and pauses it. They are delivered again, before any others, once it is resumed. */
  unread(bytes: Uint8Array): void;
  pause(): void;
  /** Limits the bytes of one read, and the unread bytes that the system keeps, if the carrier supports that; 0 and 0 for no limits. */
  limitReads?(readBytes: number, bufferBytes: number): void;
  /** Starts reading. Kept bytes, and then a kept end, are delivered before the call returns. */
  resume(): void;
  /**
   * Writes. Do not call it while bytes are lent, nor after {@link end}. It does nothing on a stream that is closed or about to close.
   *
   * @param hasMore     more is to be written than the path takes, so received bytes may be acknowledged with that
   * @param isBorrowed  `bytes` change once the call returns, so bytes that are not accepted at once are copied
   * @returns false if not all bytes were accepted at once: write nothing more until onWritten; until then `bytes` stay lent
   */
  write(bytes: Uint8Array, hasMore?: boolean, isBorrowed?: boolean): boolean;
  /** Ends writing; the stream closes once the other end has ended as well. Allowed only while nothing is lent. */
  end(): void;
  /** Closes at once, in both directions. Accepted bytes are still sent; lent bytes are not. */
  destroy(): void;
  /**
   * Closes at once and makes the other end's connection fail (a RST in TCP) if the carrier supports that; otherwise like {@link destroy}.
   */
  reset(): void;
  /** Sets the deadlines and the queue of the TCP connection below, for a tunnel with this heartbeat interval. */
  tune(heartbeatMs: number): void;
}

/** The common part of byte streams: the listener, and the events that are kept for the next listener. */
export abstract class ListenedStream implements ByteStream {
  abstract readonly isClosed: boolean;
  abstract readonly localIp: string | undefined;
  abstract readonly remoteIp: string | undefined;
  abstract readonly remotePort: number | undefined;
  abstract readonly reusesMemory: boolean;
  #events: ByteStreamEvents | undefined;
  #isPaused = true;
  #unread: Uint8Array | undefined;
  /** Whether the other end has ended; `kept` until the listener may be told. */
  #end: "none" | "kept" | "heard" = "none";
  /** Set once the stream is closed. */
  #close: { readonly error: Error | undefined } | undefined;

  abstract write(bytes: Uint8Array, hasMore?: boolean, isBorrowed?: boolean): boolean;
  abstract end(): void;
  abstract destroy(): void;
  abstract reset(): void;
  abstract tune(heartbeatMs: number): void;
  /** Starts or stops reading from the carrier. Called only on a change, and never once the stream is closed. */
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
    // The listener may pause the stream again, hand it on, or close it.
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

  /** Whether the listener has been told. */
  protected get hasHeardEnd(): boolean {
    return this.#end === "heard";
  }

  protected get isReading(): boolean {
    return !this.#isPaused;
  }

  protected handleBytes(chunk: Uint8Array, length: number): void {
    if (!this.#isPaused) this.#events!.onBytes(chunk, length);
    // Carriers may still deliver bytes that they read before they paused.
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

  /** The kept bytes, for the code that takes the carrier over. */
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
