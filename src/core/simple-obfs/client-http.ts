import { encodeBase64 } from "../../wire/base64.ts";
import type { HttpHead } from "../../wire/http/http-head.ts";
import { asciiBytes, statusOf } from "../../wire/http/http-head.ts";
import { ObfsHttp } from "./obfs-http.ts";

export interface ObfsHttpOptions {
  /** The value of the Host field: a name, with `:PORT` unless that is 80. */
  readonly authority: string;
  /** Method and path of the request. */
  readonly method: string;
  readonly path: string;
}

/** simple-obfs `http` at the client. */
export class ObfsHttpClient extends ObfsHttp {
  readonly #options: ObfsHttpOptions;
  readonly #random: (length: number) => Uint8Array;

  constructor(options: ObfsHttpOptions, random: (length: number) => Uint8Array) {
    super();
    this.#options = options;
    this.#random = random;
  }

  get hasStarted(): boolean {
    return this.hasSent;
  }

  get mayEnd(): boolean {
    return this.head === undefined || this.head.length === 0;
  }

  protected override makeHead(length: number): Uint8Array {
    const { authority, method, path } = this.#options;
    const [minor, patch] = this.#random(2);
    return asciiBytes(
      `${method} ${path} HTTP/1.1\r\nHost: ${authority}\r\nUser-Agent: curl/7.${minor % 51}.${patch % 2}\r\n` +
        `Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ${encodeBase64(this.#random(16))}\r\n` +
        `Content-Length: ${length}\r\n\r\n`,
    );
  }

  protected override findFault(head: HttpHead | undefined): string | undefined {
    const status = head === undefined ? undefined : statusOf(head);
    if (status === 101) return undefined;
    return status === undefined ? "no HTTP head" : `status ${status}`;
  }
}
