import { encodeBase64 } from "../../wire/base64.ts";
import type { HttpHead } from "../../wire/http/http-head.ts";
import {
  authenticationSchemes,
  decodeHead,
  isInterim,
  statusOf,
  utf8Bytes,
} from "../../wire/http/http-head.ts";
import { copyOf } from "../../wire/socket-address.ts";
import type { ErrorCode } from "../errors.ts";
import { ProtocolError } from "../errors.ts";
import type { ConnectHandshake, ConnectResult } from "./connect-handshake.ts";
import { HeadBuffer } from "./head-buffer.ts";
import type { Socks5Credentials } from "./socks5-server.ts";

/** An additional field of the request: a token, and a value without control characters. */
export type HeaderField = readonly [name: string, value: string];

/** The client's side of HTTP/1.1 CONNECT (RFC 9110 §9.3.6), with basic credentials (RFC 7617). */
export class HttpConnect implements ConnectHandshake {
  readonly #authority: string;
  readonly #credentials: Socks5Credentials | undefined;
  readonly #fields: readonly HeaderField[];
  readonly #head = new HeadBuffer();

  /** @param authority  `HOST:PORT`, IPv6 in brackets */
  constructor(
    authority: string,
    credentials: Socks5Credentials | undefined,
    fields: readonly HeaderField[] = [],
  ) {
    this.#authority = authority;
    this.#credentials = credentials;
    this.#fields = fields;
  }

  start(): Uint8Array {
    let text = `CONNECT ${this.#authority} HTTP/1.1\r\nHost: ${this.#authority}\r\n`;
    if (this.#credentials !== undefined) {
      const pair = utf8Bytes(`${this.#credentials.user}:${this.#credentials.password}`);
      text += `Proxy-Authorization: Basic ${encodeBase64(pair)}\r\n`;
    }
    for (const [name, value] of this.#fields) text += `${name}: ${value}\r\n`;
    return utf8Bytes(`${text}\r\n`);
  }

  handleStream(bytes: Uint8Array): "need" | ConnectResult {
    for (let at = 0; ; ) {
      at = this.#head.take(bytes, at, bytes.length);
      if (at === -1) return "need";
      if (at === -2) return failed("ERR_HEAD_TOO_LARGE", "from the proxy");
      const head = decodeHead(this.#head.bytes, this.#head.length);
      const status = head === undefined ? undefined : statusOf(head);
      if (status === undefined) return failed("ERR_HEAD_MALFORMED", "is this an HTTP proxy?");
      if (status >= 200 && status < 300) {
        return { kind: "connected", surplus: copyOf(bytes, at, bytes.length - at) };
      }
      if (!isInterim(status))
        return failed("ERR_PROXY_REFUSED", this.#describeRefusal(status, head!), status);
      if (!this.#head.clearInterim()) return failed("ERR_HEAD_TOO_LARGE", "too many interim responses");
    }
  }

  #describeRefusal(status: number, head: HttpHead): string {
    if (status !== 407) return `status ${status}`;
    const schemes = authenticationSchemes(head, "proxy-authenticate");
    const offer = schemes.length === 0 ? "" : ` (${schemes.join(", ")})`;
    if (schemes.length > 0 && !schemes.some((scheme) => scheme.toLowerCase() === "basic")) {
      return `status 407: the proxy does not accept Basic credentials${offer}: use http://HOST:PORT?header=Proxy-Authorization:%20...`;
    }
    return this.#credentials === undefined
      ? `status 407: the proxy wants credentials${offer}: use http://USER:PASSWORD@HOST:PORT`
      : `status 407: the proxy refused the user and password${offer}`;
  }
}

function failed(code: ErrorCode, detail: string, status?: number): ConnectResult {
  const answer = status === undefined ? undefined : { status };
  return { kind: "failed", error: new ProtocolError(code, detail, { answer }) };
}
