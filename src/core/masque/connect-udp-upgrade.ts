import type { HttpHead } from "../../wire/http/http-head.ts";
import {
  asciiBytes,
  authenticationSchemes,
  decodeHead,
  isInterim,
  singleField,
  statusOf,
} from "../../wire/http/http-head.ts";
import { decodeUpgradeResponse } from "../../wire/http/upgrade.ts";
import { copyOf } from "../../wire/socket-address.ts";
import type { ErrorCode } from "../errors.ts";
import { ProtocolError } from "../errors.ts";
import type { ConnectHandshake, ConnectResult } from "../handshakes/connect-handshake.ts";
import { HeadBuffer } from "../handshakes/head-buffer.ts";
import type { HeaderField } from "../handshakes/http-connect.ts";

/** Most characters of a Proxy-Status that an error quotes. */
const MAX_PROXY_STATUS = 200;

/** A request of RFC 9298 to a proxy. */
export interface ConnectUdpRequest {
  /** `HOST[:PORT]` of the proxy. */
  readonly authority: string;
  /** The expanded URI template (RFC 9298 §2). */
  readonly path: string;
  /** Whether the client asks to bind (draft-ietf-masque-connect-udp-listen). */
  readonly bind: boolean;
  readonly fields: readonly HeaderField[];
}

/** The client's side of one request over HTTP/1.1 (RFC 9298 §3.2). Capsules follow the handshake. */
export class ConnectUdpUpgrade implements ConnectHandshake {
  /** Whether the proxy lets the client bind. Valid once connected. */
  isBound = false;
  readonly #request: ConnectUdpRequest;
  readonly #head = new HeadBuffer();

  constructor(request: ConnectUdpRequest) {
    this.#request = request;
  }

  start(): Uint8Array {
    const { authority, path, bind, fields } = this.#request;
    let text = `GET ${path} HTTP/1.1\r\nHost: ${authority}\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n`;
    text += "Capsule-Protocol: ?1\r\n";
    if (bind) text += "Connect-UDP-Bind: ?1\r\n";
    for (const [name, value] of fields) text += `${name}: ${value}\r\n`;
    return asciiBytes(`${text}\r\n`);
  }

  handleStream(bytes: Uint8Array): "need" | ConnectResult {
    for (let at = 0; ; ) {
      at = this.#head.take(bytes, at, bytes.length);
      if (at === -1) return "need";
      if (at === -2) return failed("ERR_HEAD_TOO_LARGE", "from the MASQUE proxy");
      const head = decodeHead(this.#head.bytes, this.#head.length);
      const status = head === undefined ? undefined : statusOf(head);
      if (head === undefined || status === undefined)
        return failed("ERR_HEAD_MALFORMED", "is this a MASQUE proxy?");
      if (!isInterim(status)) return this.#judge(status, head, copyOf(bytes, at, bytes.length - at));
      if (!this.#head.clearInterim()) return failed("ERR_HEAD_TOO_LARGE", "too many interim responses");
    }
  }

  #judge(status: number, head: HttpHead, surplus: Uint8Array): ConnectResult {
    if (status !== 101) return { kind: "failed", error: masqueRefusal(status, head) };
    const answer = decodeUpgradeResponse(head);
    if (answer === undefined) return failed("ERR_MASQUE_REFUSED", "its 101 is not for connect-udp");
    this.isBound = this.#request.bind && answer.bind;
    return { kind: "connected", surplus };
  }
}

/** Makes the error for an unsuccessful answer. @param head  the answer's fields, in any version of HTTP */
export function masqueRefusal(status: number, head: HttpHead): ProtocolError {
  const details = [`status ${status}`];
  const proxyStatus = singleField(head, "proxy-status");
  if (proxyStatus !== undefined) details.push(`Proxy-Status: ${proxyStatus.slice(0, MAX_PROXY_STATUS)}`);
  const field = status === 407 ? "proxy-authenticate" : status === 401 ? "www-authenticate" : undefined;
  if (field !== undefined) {
    const schemes = authenticationSchemes(head, field);
    const option = status === 407 ? "#header=Proxy-Authorization:%20..." : "https://USER:PASSWORD@HOST/...";
    details.push(
      `the proxy wants credentials${schemes.length === 0 ? "" : ` (${schemes.join(", ")})`}: use ${option}`,
    );
  }
  return new MasqueRefusal(status, details.join(", "));
}

/** The proxy has answered a request, but not with a tunnel. */
export class MasqueRefusal extends ProtocolError {
  readonly httpStatus: number;

  constructor(httpStatus: number, detail: string) {
    super("ERR_MASQUE_REFUSED", detail);
    this.httpStatus = httpStatus;
  }
}

function failed(code: ErrorCode, detail: string): ConnectResult {
  return { kind: "failed", error: new ProtocolError(code, detail) };
}
