import { encodeBase64 } from "../wire/base64.ts";
import { asciiBytes, decodeHead, utf8Bytes } from "../wire/http-head.ts";
import { copyOf } from "../wire/socket-address.ts";
import type { ConnectHandshake, ConnectResult } from "./connect-handshake.ts";
import { ProtocolError } from "./errors.ts";
import { HeadBuffer } from "./head-buffer.ts";
import type { Socks5Credentials } from "./socks5-server.ts";

/** HTTP/1.1 CONNECT (RFC 9110 §9.3.6) as the client, with basic credentials (RFC 7617). */
export class HttpConnect implements ConnectHandshake {
  readonly #authority: string;
  readonly #credentials: Socks5Credentials | undefined;
  readonly #head = new HeadBuffer();

  /** @param authority  `HOST:PORT`, IPv6 in brackets */
  constructor(authority: string, credentials: Socks5Credentials | undefined) {
    this.#authority = authority;
    this.#credentials = credentials;
  }

  start(): Uint8Array {
    let text = `CONNECT ${this.#authority} HTTP/1.1\r\nHost: ${this.#authority}\r\n`;
    if (this.#credentials !== undefined) {
      const pair = utf8Bytes(`${this.#credentials.user}:${this.#credentials.password}`);
      text += `Proxy-Authorization: Basic ${encodeBase64(pair)}\r\n`;
    }
    return asciiBytes(`${text}\r\n`);
  }

  handleStream(bytes: Uint8Array): "need" | ConnectResult {
    const headEnd = this.#head.take(bytes, 0, bytes.length);
    if (headEnd === -1) return "need";
    if (headEnd === -2) {
      return { kind: "failed", error: new ProtocolError("ERR_HEAD_TOO_LARGE", "from the proxy") };
    }
    const head = decodeHead(this.#head.bytes, this.#head.length);
    const status = /^HTTP\/1\.[01] ([0-9]{3})/.exec(head?.startLine ?? "")?.[1];
    if (status === undefined) {
      return { kind: "failed", error: new ProtocolError("ERR_HEAD_MALFORMED", "is this an HTTP proxy?") };
    }
    if (!status.startsWith("2")) {
      return { kind: "failed", error: new ProtocolError("ERR_PROXY_REFUSED", `status ${status}`) };
    }
    return { kind: "connected", surplus: copyOf(bytes, headEnd, bytes.length - headEnd) };
  }
}
