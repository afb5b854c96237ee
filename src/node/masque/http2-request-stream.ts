import type { OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { copyOf } from "../../core/copy-bytes.ts";
import { HeadBuffer } from "../../core/handshakes/head-buffer.ts";
import { ListenedStream } from "../../host/stream/byte-stream.ts";
import { answerOfHttp1 } from "../../wire/http/extended-connect.ts";
import { decodeHead } from "../../wire/http/http-head.ts";
import { NGHTTP2_CANCEL, NGHTTP2_NO_ERROR } from "./http2-settings.ts";

const STATUS_OK = 200;

/**
 * One HTTP/2 request as a byte stream that begins like an HTTP/1.1 connection: with the head of the request, and an answer to it. The
 * stream's own bytes follow. Nothing is read from the client before the answer, so flow control bounds what it sends until then.
 */
export class Http2RequestStream extends ListenedStream {
  readonly #stream: ServerHttp2Stream;
  readonly reusesMemory = false;
  readonly #isHead: boolean;
  /** The head of the answer; undefined once it is sent. */
  #answer: HeadBuffer | undefined = new HeadBuffer();
  #isWaiting = false;
  #failure: Error | undefined;

  /**
   * @param request  see `encodeRequestOfHttp2`
   * @param isHead   whether it is a HEAD, whose answer has no content
   */
  constructor(stream: ServerHttp2Stream, request: Uint8Array, isHead: boolean) {
    super();
    this.#stream = stream;
    this.#isHead = isHead;
    this.unread(request);
    stream.on("error", this.#onError);
    stream.on("close", this.#onClose);
  }

  get isClosed(): boolean {
    const { destroyed, closed, writableEnded } = this.#stream;
    // Node ends the answer's side of a HEAD before there is an answer. A stream that the client has reset may not be destroyed yet.
    return destroyed || closed || (writableEnded && !this.#isHead);
  }

  get localIp(): string | undefined {
    return this.#stream.session?.socket.localAddress;
  }

  get remoteIp(): string | undefined {
    return this.#stream.session?.socket.remoteAddress;
  }

  get remotePort(): number | undefined {
    return this.#stream.session?.socket.remotePort;
  }

  write(bytes: Uint8Array): boolean {
    const from = this.#answer === undefined ? 0 : this.#takeAnswer(this.#answer, bytes);
    if (from === bytes.length || this.isClosed) return true;
    // The stream may keep the memory after it called back.
    return this.#send(copyOf(bytes.subarray(from)));
  }

  end(): void {
    if (this.isClosed) return;
    // The stream closes by itself once both sides have ended. Without an answer, there is nothing to end.
    if (this.#answer === undefined) this.#stream.end();
    else this.destroy();
  }

  destroy(): void {
    const stream = this.#stream;
    const code = stream.writableFinished ? NGHTTP2_NO_ERROR : NGHTTP2_CANCEL;
    if (!stream.closed) stream.close(code);
    stream.destroy();
  }

  /** Resets a request without its connection. */
  reset(): void {
    this.destroy();
  }

  /** Does nothing: the connection is shared, and was tuned before. */
  tune(): void {}

  protected override setReading(isReading: boolean): void {
    if (this.#answer !== undefined) return;
    if (isReading) this.#stream.resume();
    else this.#stream.pause();
  }

  /** @returns the offset after the head of the answer, or after all bytes */
  #takeAnswer(answer: HeadBuffer, bytes: Uint8Array): number {
    const end = answer.take(bytes, 0, bytes.length);
    if (end === -1) return bytes.length;
    const head = end < 0 ? undefined : decodeHead(answer.bytes, answer.length);
    const found = head && answerOfHttp1(head);
    if (found === undefined || this.isClosed) {
      this.destroy();
      return bytes.length;
    }
    this.#answer = undefined;
    const { status, fields } = found;
    const headers = { ...(fields as OutgoingHttpHeaders), ":status": status };
    this.#stream.respond(headers, { endStream: this.#isHead });
    if (this.#isHead) return bytes.length;
    if (status === STATUS_OK) this.#read();
    else this.#stream.resume();
    return end;
  }

  #read(): void {
    this.#stream.pause();
    this.#stream.on("data", this.#onData);
    this.#stream.on("end", this.#onEnd);
    this.setReading(this.isReading);
  }

  #send(bytes: Uint8Array): boolean {
    this.#isWaiting = true;
    this.#stream.write(bytes, this.#onWritten);
    if (this.#stream.writableLength === 0) this.#isWaiting = false;
    return !this.#isWaiting;
  }

  readonly #onData = (chunk: Uint8Array): void => {
    this.handleBytes(chunk, chunk.length);
  };

  readonly #onEnd = (): void => {
    this.handleEnd();
  };

  readonly #onError = (error: Error): void => {
    this.#failure = error;
  };

  readonly #onClose = (): void => {
    this.handleClose(this.#failure);
  };

  readonly #onWritten = (error?: Error | null): void => {
    if (error || !this.#isWaiting || this.#stream.writableLength > 0) return;
    this.#isWaiting = false;
    this.handleWritten();
  };
}
