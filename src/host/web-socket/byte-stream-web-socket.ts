import { copyOf } from "../../core/copy-bytes.ts";
import { HostError } from "../../core/errors.ts";
import { WebSocketReader } from "../../core/web-socket/reader.ts";
import { MESSAGE_BYTES, WebSocketWriter } from "../../core/web-socket/writer.ts";
import {
  CLOSE_ABNORMAL,
  CLOSE_GOING_AWAY,
  CLOSE_NONE,
  CLOSE_NORMAL,
  maskBytes,
} from "../../wire/http/websocket-frame.ts";
import type { Timer } from "../loop.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import { ListenedStream } from "../stream/byte-stream.ts";
import type { System } from "../system.ts";

/** Time limit for the peer's close frame, and for the end of the connection below. */
const CLOSE_MS = 2_000;
const ORDERLY: readonly number[] = [CLOSE_NORMAL, CLOSE_GOING_AWAY, CLOSE_NONE];
const NOTHING = new Uint8Array(0);

/** This thread's memory for payloads, lent until the event for them returns. */
let lent = new Uint8Array(65_536);

/** The phase of this end of a WebSocket. */
type Phase =
  | "open"
  /** This end has closed the WebSocket, or found it broken: the close frame and the end of the connection below are in progress. */
  | "closing"
  | "destroyed";

/** A byte stream in the binary messages of a WebSocket (RFC 6455), over another one, which it owns. It has no half-closed state. */
export class WebSocketByteStream extends ListenedStream {
  readonly #system: System;
  readonly #inner: ByteStream;
  readonly #reader: WebSocketReader;
  readonly #writer: WebSocketWriter;
  #phase: Phase = "open";
  /** The peer has closed it in an orderly way. */
  #isOver = false;
  #isInnerClosed = false;
  #failure: Error | undefined;
  /** Whether a frame is lent to the stream below; what follows it waits in the three fields below. */
  #isLent = false;
  /** The rest of a write, and whether the writer waits. */
  #rest: Uint8Array = NOTHING;
  #isAwaited = false;
  #pong: Uint8Array | undefined;
  #closeCode: number | undefined;
  /** The close frame is the last. */
  #hasSentClose = false;
  #timer: Timer | undefined;

  /**
   * @param inner     after the handshake
   * @param isServer  whether this end is the server
   * @param opening   to be written first
   */
  constructor(system: System, inner: ByteStream, isServer: boolean, opening: Uint8Array = NOTHING) {
    super();
    this.#system = system;
    this.#inner = inner;
    const mask = system.maskBytes ?? maskBytes;
    this.#reader = new WebSocketReader(isServer, mask);
    this.#writer = new WebSocketWriter(isServer, (length) => system.cryptography.random(length), mask);
    inner.handTo({
      onBytes: (chunk, length) => this.#handleFrames(chunk, length),
      onEnd: () => this.#handleInnerEnd(),
      onWritten: () => {
        this.#isLent = false;
        this.#flush();
      },
      onClose: (error) => this.#handleInnerClosed(error),
    });
    if (opening.length > 0) this.#isLent = !inner.write(opening);
  }

  get isClosed(): boolean {
    return this.#phase !== "open" || (this.#isInnerClosed && !this.#isOver);
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
    if (this.isClosed || this.#isOver) return true;
    this.#rest = bytes;
    this.#flush(hasMore);
    if (this.#rest.length > 0 && isBorrowed) this.#rest = copyOf(this.#rest);
    this.#isAwaited = this.#isLent;
    return !this.#isLent;
  }

  end(): void {
    if (this.#phase !== "open") return;
    this.#phase = "closing";
    if (this.#isInnerClosed) this.#closeLater();
    else if (!this.#isOver) this.#close(CLOSE_NORMAL);
  }

  destroy(): void {
    if (this.#phase === "destroyed") return;
    this.#phase = "destroyed";
    this.#timer?.cancel();
    if (this.#isInnerClosed) this.#closeLater();
    else this.#inner.destroy();
  }

  /** WebSockets have no reset. */
  reset(): void {
    this.destroy();
  }

  tune(heartbeatMs: number): void {
    this.#inner.tune(heartbeatMs);
  }

  limitReads(readBytes: number, bufferBytes: number): void {
    this.#inner.limitReads?.(readBytes, bufferBytes);
  }

  protected override setReading(isReading: boolean): void {
    // The peer's close frame is read even if nobody listens.
    if (isReading || this.#hasClosed) this.#inner.resume();
    else this.#inner.pause();
  }

  get #hasClosed(): boolean {
    return this.#closeCode !== undefined || this.#hasSentClose;
  }

  #handleFrames(chunk: Uint8Array, length: number): void {
    const reader = this.#reader;
    if (this.#isInnerClosed || reader.isOver) return;
    const to = this.#memory(length);
    const count = reader.read(chunk, length, to);
    if (count > 0 && this.#phase === "open") this.handleBytes(to, count);
    this.#pong = reader.takePing() ?? this.#pong;
    if (reader.fault !== undefined) this.#fail(reader.fault.error, reader.fault.code);
    else if (reader.closeCode !== undefined) this.#handlePeerClose(reader.closeCode);
    else this.#flush();
  }

  #memory(length: number): Uint8Array {
    if (!this.#inner.reusesMemory) return new Uint8Array(length);
    if (lent.length < length) lent = new Uint8Array(2 ** Math.ceil(Math.log2(length)));
    return lent;
  }

  #handlePeerClose(code: number): void {
    if (this.#phase === "open") {
      if (ORDERLY.includes(code)) this.#isOver = true;
      else this.#failure = lost(code);
    }
    this.#close(code);
    if (this.#isOver) this.handleEnd();
  }

  #handleInnerEnd(): void {
    if (this.#phase === "open" && !this.#isOver) this.#failure ??= lost(CLOSE_ABNORMAL);
    this.#inner.destroy();
  }

  #handleInnerClosed(error: Error | undefined): void {
    this.#isInnerClosed = true;
    this.#timer?.cancel();
    if (this.#failure === undefined && this.#phase === "open") {
      // The WebSocket stays open until the owner has closed it too.
      if (this.#isOver) return;
      this.#failure = error ?? lost(CLOSE_ABNORMAL);
    }
    if (this.#phase === "closing" && this.#failure === undefined && !this.hasPeerEnded) this.handleEnd();
    this.handleClose(this.#phase === "destroyed" ? undefined : this.#failure);
  }

  #fail(error: Error, code: number): void {
    if (this.#phase === "destroyed") return;
    this.#failure ??= error;
    this.#phase = "closing";
    this.#close(code);
  }

  /** Sends the close frame, unless it was sent, and ends the connection below. */
  #close(code: number): void {
    if (this.#isInnerClosed || this.#phase === "destroyed") return;
    if (!this.#hasClosed) this.#closeCode = code;
    this.#timer ??= this.#system.after(CLOSE_MS, () => this.#inner.destroy(), true);
    this.#rest = NOTHING;
    this.#flush();
    if (!this.#isInnerClosed) this.#inner.resume();
  }

  /** Writes waiting bytes, as long as the stream below accepts them. */
  #flush(hasMore = false): void {
    const writer = this.#writer;
    while (!this.#isLent && !this.#isInnerClosed) {
      if (this.#pong !== undefined && !this.#hasSentClose) {
        this.#isLent = !this.#inner.write(writer.pong(this.#pong));
        this.#pong = undefined;
      } else if (this.#rest.length > 0) {
        const count = Math.min(this.#rest.length, MESSAGE_BYTES);
        this.#isLent = !this.#inner.write(writer.message(this.#rest, 0, count), hasMore);
        this.#rest = this.#rest.subarray(count);
      } else if (this.#closeCode !== undefined) {
        this.#isLent = !this.#inner.write(writer.close(this.#closeCode));
        this.#closeCode = undefined;
        this.#hasSentClose = true;
      } else break;
    }
    if (this.#isLent) return;
    if (this.#isAwaited) {
      this.#isAwaited = false;
      this.handleWritten();
    }
    // Ends the stream below once both ends have closed the WebSocket, or it is broken.
    const { fault, closeCode } = this.#reader;
    if (
      this.#hasSentClose &&
      (fault ?? closeCode) !== undefined &&
      !this.#isInnerClosed &&
      !this.#inner.isClosed
    ) {
      this.#inner.end();
    }
  }

  #closeLater(): void {
    void Promise.resolve().then(() => this.handleClose(undefined));
  }
}

function lost(code: number): HostError {
  return new HostError("ERR_CONNECTION_LOST", `WebSocket: code ${code}`);
}
