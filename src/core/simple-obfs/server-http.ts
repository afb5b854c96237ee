import { encodeBase64 } from "../../wire/base64.ts";
import { asciiBytes, decodeHead, fieldHasToken } from "../../wire/http/http-head.ts";
import type { ProtocolError } from "../errors.ts";
import { HeadBuffer } from "../handshakes/head-buffer.ts";
import type { Deliver, StreamCoding } from "../stream-coding.ts";
import { obfsError } from "./obfs-error.ts";

/** simple-obfs `http` at the server. */
export class ObfsHttpServer implements StreamCoding {
  readonly hasStarted = true;
  readonly #random: (length: number) => Uint8Array;
  readonly #httpDate: () => string;
  #hasAnswered = false;
  /** Undefined once the head of the request has arrived. */
  #head: HeadBuffer | undefined = new HeadBuffer();
  #error: ProtocolError | undefined;

  /** @param httpDate  returns the time as in a Date field */
  constructor(random: (length: number) => Uint8Array, httpDate: () => string) {
    this.#random = random;
    this.#httpDate = httpDate;
  }

  get mayEnd(): boolean {
    return this.#head === undefined;
  }

  encode(bytes: Uint8Array): Uint8Array {
    if (this.#hasAnswered || bytes.length === 0) return bytes;
    this.#hasAnswered = true;
    const head = asciiBytes(
      `HTTP/1.1 101 Switching Protocols\r\nServer: nginx\r\nDate: ${this.#httpDate()}\r\nUpgrade: websocket\r\n` +
        `Connection: Upgrade\r\nSec-WebSocket-Accept: ${encodeBase64(this.#random(16))}\r\n\r\n`,
    );
    const first = new Uint8Array(head.length + bytes.length);
    first.set(head);
    first.set(bytes, head.length);
    return first;
  }

  decode(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): ProtocolError | undefined {
    if (this.#error !== undefined) return this.#error;
    let at = offset;
    if (this.#head !== undefined) {
      at = this.#head.take(bytes, offset, end);
      if (at === -1) return undefined;
      const head = at < 0 ? undefined : decodeHead(this.#head.bytes, this.#head.length);
      if (head === undefined || !fieldHasToken(head, "upgrade", "websocket")) {
        this.#error = obfsError("no request for a WebSocket");
        return this.#error;
      }
      this.#head = undefined;
    }
    if (at < end) deliver(bytes, at, end);
    return undefined;
  }
}
