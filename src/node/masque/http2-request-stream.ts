import type { OutgoingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { constants } from "node:http2";
import { HeadBuffer } from "../../core/head-buffer.ts";
import { answerOfHttp1 } from "../../wire/extended-connect.ts";
import { decodeHead } from "../../wire/http-head.ts";
import type { ByteStream, ByteStreamEvents } from "../byte-stream.ts";

const STATUS_OK = 200;

/**
 * One request of HTTP/2 as a byte stream that begins like a connection of HTTP/1.1: with the head of the request, and an answer to
 * it. What follows are the stream's own bytes. Nothing is read from the client before the answer, so that flow control bounds
 * what it sends until then.
 */
export class Http2RequestStream implements ByteStream {
  readonly #stream: ServerHttp2Stream;
  readonly #request: Uint8Array;
  readonly #isHead: boolean;
  /** The head of the answer; undefined once that is sent. */
  #answer: HeadBuffer | undefined = new HeadBuffer();
  #events: ByteStreamEvents | undefined;
  #isWaiting = false;
  #failure: Error | undefined;

  /**
   * @param request  see `encodeRequestOfHttp2`
   * @param isHead   whether it is a HEAD, whose answer has no content
   */
  constructor(stream: ServerHttp2Stream, request: Uint8Array, isHead: boolean) {
    this.#stream = stream;
    this.#isHead = isHead;
    this.#request = request;
  }

  get isClosed(): boolean {
    // Node ends the side of the answer to a HEAD before there is one.
    return this.#stream.destroyed || (this.#stream.writableEnded && !this.#isHead);
  }

  get localIp(): string | undefined {
    return this.#stream.session?.socket.localAddress;
  }

  start(events: ByteStreamEvents): void {
    this.#events = events;
    this.#stream.on("error", this.#onError);
    this.#stream.on("close", this.#onClose);
    events.onBytes(this.#request, this.#request.length);
  }

  write(bytes: Uint8Array): boolean {
    const from = this.#answer === undefined ? 0 : this.#takeAnswer(this.#answer, bytes);
    if (from === bytes.length || this.isClosed) return true;
    // The stream may keep the memory after it has called back.
    return this.#send(bytes.slice(from));
  }

  end(): void {
    if (this.isClosed) return;
    // The stream closes by itself once both sides have ended. Without an answer there is nothing to end.
    if (this.#answer === undefined) this.#stream.end();
    else this.destroy();
  }

  destroy(): void {
    const stream = this.#stream;
    const code = stream.writableFinished ? constants.NGHTTP2_NO_ERROR : constants.NGHTTP2_CANCEL;
    if (!stream.closed) stream.close(code);
    stream.destroy();
  }

  /** @returns the offset behind the head of the answer, or behind all */
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
    this.#stream.on("data", this.#onData);
    this.#stream.on("end", this.#onEnd);
  }

  #send(bytes: Uint8Array): boolean {
    this.#isWaiting = true;
    this.#stream.write(bytes, this.#onWritten);
    if (this.#stream.writableLength === 0) this.#isWaiting = false;
    return !this.#isWaiting;
  }

  readonly #onData = (chunk: Uint8Array): void => {
    this.#events!.onBytes(chunk, chunk.length);
  };

  readonly #onEnd = (): void => {
    if (!this.#stream.writableEnded) this.#events!.onEnd();
  };

  readonly #onError = (error: Error): void => {
    this.#failure = error;
  };

  readonly #onClose = (): void => {
    this.#events!.onClose(this.#failure);
  };

  readonly #onWritten = (error?: Error | null): void => {
    if (error || !this.#isWaiting || this.#stream.writableLength > 0) return;
    this.#isWaiting = false;
    this.#events!.onWritten();
  };
}
