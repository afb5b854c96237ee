import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { WebSocket } from "ws";
import { HostError } from "../../core/errors.ts";
import type { NativeModule } from "../../host/io/native-module.ts";
import type { ByteStream } from "../../host/stream/byte-stream.ts";
import { tuneDescriptor } from "../../host/stream/tcp-tuning.ts";
import { ByteStreamDuplex } from "../byte-stream-duplex.ts";
import { descriptorOf } from "../socket-descriptor.ts";

/** For both ends. A peer that exceeds one loses its connection. */
export const WEB_SOCKET_LIMITS = {
  perMessageDeflate: false,
  /** Bytes of a message; ours is a batch of at most 256 KiB. */
  maxPayload: 1_048_576,
  maxFragments: 1_024,
  /** Pieces in which a frame is read. */
  maxBufferedChunks: 16_384,
  /** Pongs that the system has not accepted yet. */
  maxPendingAutoPongs: 60,
  /** How long the peer's close frame is waited for, in milliseconds. */
  closeTimeout: 2_000,
} as const;

const CODE_NORMAL = 1000;
const CODE_GOING_AWAY = 1001;
const CODE_UNSUPPORTED_DATA = 1003;
const CODE_NONE = 1005;
const ORDERLY: readonly number[] = [CODE_NORMAL, CODE_GOING_AWAY, CODE_NONE];
const BINARY = { binary: true } as const;

/** What the holder of a WebSocket hears. */
export interface WebSocketEvents {
  /** A binary message, in memory that nobody changes. */
  onMessage(data: Uint8Array): void;
  /** Once, and nothing after it. @param error  undefined for an orderly end, or when this end has closed it */
  onClose(error: Error | undefined): void;
}

/** An open WebSocket and the stream below it. */
export class WebSocketLink {
  readonly #webSocket: WebSocket;
  readonly #carrier: Duplex;
  readonly #native: NativeModule | undefined;
  #events: WebSocketEvents | undefined;
  #failure: Error | undefined;
  #isClosing = false;

  /**
   * Pauses it until {@link start}.
   *
   * @param carrier  which the WebSocket owns
   * @param native   sets options of the socket that node:net cannot set
   */
  constructor(webSocket: WebSocket, carrier: Duplex, native: NativeModule | undefined) {
    this.#webSocket = webSocket;
    this.#carrier = carrier;
    this.#native = native;
    webSocket.pause();
    webSocket.on("message", (data, isBinary) => {
      if (this.#isClosing) return;
      // One message is one Buffer, as binaryType is "nodebuffer".
      if (isBinary) this.#events!.onMessage(data as Buffer);
      else this.#refuseText();
    });
    const keepFailure = (error: Error) => {
      this.#failure ??= error;
    };
    // The WebSocket itself reports only what it finds wrong with frames.
    for (const emitter of [webSocket, carrier]) emitter.on("error", keepFailure);
    webSocket.on("close", (code) => {
      const isOrderly = this.#isClosing || ORDERLY.includes(code);
      const lost = isOrderly ? undefined : new HostError("ERR_CONNECTION_LOST", `WebSocket: code ${code}`);
      this.#isClosing = true;
      this.#events?.onClose(this.#failure ?? lost);
    });
  }

  get isClosed(): boolean {
    return this.#isClosing || this.#webSocket.readyState !== this.#webSocket.OPEN;
  }

  /** The addresses of the connection below. */
  get addresses(): Pick<ByteStream, "localIp" | "remoteIp" | "remotePort"> | undefined {
    const carrier = this.#carrier;
    if (carrier instanceof ByteStreamDuplex) return carrier.stream;
    if (!(carrier instanceof Socket)) return undefined;
    const { localAddress, remoteAddress, remotePort } = carrier;
    return { localIp: localAddress, remoteIp: remoteAddress, remotePort };
  }

  /** See {@link ByteStream.tune}. */
  tune(heartbeatMs: number): void {
    const carrier = this.#carrier;
    if (carrier instanceof ByteStreamDuplex) carrier.stream.tune(heartbeatMs);
    else tuneDescriptor(descriptorOf(carrier), this.#native, heartbeatMs);
  }

  /** True if the system has accepted all that was sent. */
  get isDrained(): boolean {
    return this.#carrier.writableLength === 0;
  }

  /** Begins to read, or has another holder hear what comes from now on. */
  start(events: WebSocketEvents): void {
    this.#events = events;
    this.#webSocket.resume();
  }

  pause(): void {
    this.#webSocket.pause();
  }

  resume(): void {
    this.#webSocket.resume();
  }

  /** Sends one message. `onSent` is called, never at once, when `bytes` are no longer needed. */
  send(bytes: Uint8Array, onSent: (error?: Error | null) => void): void {
    this.#webSocket.send(bytes, BINARY, onSent);
  }

  /** Ends both directions, once what was sent is through. */
  end(): void {
    if (this.isClosed) return;
    this.#isClosing = true;
    this.#webSocket.close(CODE_NORMAL);
    // A paused one would not read the peer's answer.
    this.#webSocket.resume();
  }

  destroy(): void {
    this.#isClosing = true;
    this.#webSocket.terminate();
  }

  #refuseText(): void {
    this.#isClosing = true;
    this.#failure = new HostError("ERR_CONNECTION_LOST", "WebSocket: the peer sends text");
    this.#webSocket.close(CODE_UNSUPPORTED_DATA);
  }
}
