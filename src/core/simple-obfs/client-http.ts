import { encodeBase64 } from "../../wire/base64.ts";
import { asciiBytes, decodeHead, statusOf } from "../../wire/http/http-head.ts";
import type { ProtocolError } from "../errors.ts";
import { HeadBuffer } from "../handshakes/head-buffer.ts";
import type { Deliver, StreamCoding } from "../stream-coding.ts";
import { obfsError } from "./obfs-error.ts";

export interface ObfsHttpOptions {
  /** The value of the Host field: a name, with `:PORT` unless that is 80. */
  readonly authority: string;
  /** Method and path of the request. */
  readonly method: string;
  readonly path: string;
}

/** simple-obfs `http` at the client. The first bytes follow the head of a WebSocket handshake; all others are unchanged. */
export class ObfsHttpClient implements StreamCoding {
  readonly #options: ObfsHttpOptions;
  readonly #random: (length: number) => Uint8Array;
  #hasStarted = false;
  /** Undefined once the head of the answer has arrived. */
  #head: HeadBuffer | undefined = new HeadBuffer();
  #error: ProtocolError | undefined;

  constructor(options: ObfsHttpOptions, random: (length: number) => Uint8Array) {
    this.#options = options;
    this.#random = random;
  }

  get hasStarted(): boolean {
    return this.#hasStarted;
  }

  get mayEnd(): boolean {
    return this.#head === undefined || this.#head.length === 0;
  }

  encode(bytes: Uint8Array): Uint8Array {
    if (this.#hasStarted || bytes.length === 0) return bytes;
    this.#hasStarted = true;
    const { authority, method, path } = this.#options;
    const [minor, patch] = this.#random(2);
    const head = asciiBytes(
      `${method} ${path} HTTP/1.1\r\nHost: ${authority}\r\nUser-Agent: curl/7.${minor % 51}.${patch % 2}\r\n` +
        `Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ${encodeBase64(this.#random(16))}\r\n` +
        `Content-Length: ${bytes.length}\r\n\r\n`,
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
      const status = head === undefined ? undefined : statusOf(head);
      if (status !== 101) {
        this.#error = obfsError(status === undefined ? "no HTTP head" : `status ${status}`);
        return this.#error;
      }
      this.#head = undefined;
    }
    if (at < end) deliver(bytes, at, end);
    return undefined;
  }
}
