import { utf8Bytes } from "../../wire/http/http-head.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import {
  COMMAND_CONNECT,
  decodeMessage,
  decodeMethod,
  decodeUserPasswordStatus,
  encodeGreeting,
  encodeMessage,
  encodeUserPassword,
  METHOD_NONE,
  METHOD_USER_PASSWORD,
  REPLY_SUCCEEDED,
  REPLY_TEXTS,
} from "../../wire/socks5.ts";
import type { ErrorCode } from "../errors.ts";
import { ProtocolError } from "../errors.ts";
import type { ConnectHandshake, ConnectResult } from "./connect-handshake.ts";
import type { Socks5Credentials } from "./socks5-server.ts";

/** The client's side of SOCKS5 CONNECT or UDP ASSOCIATE, RFC 1928. Names are left to the proxy. */
export class Socks5Client implements ConnectHandshake {
  readonly #target: AddressBytes;
  readonly #credentials: Socks5Credentials | undefined;
  readonly #command: number;
  #state: "method" | "status" | "reply" = "method";
  #buffer: Uint8Array = new Uint8Array(0);
  #bound: AddressBytes | undefined;

  /**
   * @param target   for UDP ASSOCIATE: where datagrams will come from, all 0 if unknown
   * @param command  COMMAND_CONNECT or COMMAND_UDP_ASSOCIATE of wire/socks5
   */
  constructor(
    target: AddressBytes,
    credentials: Socks5Credentials | undefined,
    command: number = COMMAND_CONNECT,
  ) {
    this.#target = target;
    this.#credentials = credentials;
    this.#command = command;
  }

  /** BND.ADDR and BND.PORT of the reply, once connected: the relay of a UDP ASSOCIATE. */
  get bound(): AddressBytes | undefined {
    return this.#bound;
  }

  start(): Uint8Array {
    return encodeGreeting(
      this.#credentials === undefined ? [METHOD_NONE] : [METHOD_NONE, METHOD_USER_PASSWORD],
    );
  }

  handleStream(bytes: Uint8Array): Uint8Array | "need" | ConnectResult {
    const buffer = new Uint8Array(this.#buffer.length + bytes.length);
    buffer.set(this.#buffer);
    buffer.set(bytes, this.#buffer.length);
    this.#buffer = buffer;
    switch (this.#state) {
      case "method":
        return this.#handleMethod();
      case "status": {
        const decoded = decodeUserPasswordStatus(buffer, buffer.length);
        if (decoded === "malformed") return failed("ERR_SOCKS_MALFORMED", "status of the password");
        if ("need" in decoded) return "need";
        if (decoded.value !== 0) return failed("ERR_SOCKS_AUTH", "by the proxy");
        return this.#request(decoded.length);
      }
      case "reply": {
        const decoded = decodeMessage(buffer, buffer.length);
        if (decoded === "malformed") return failed("ERR_SOCKS_MALFORMED", "reply");
        if ("need" in decoded) return "need";
        const { code } = decoded.value;
        if (code === REPLY_SUCCEEDED) {
          this.#bound = decoded.value.address;
          return { kind: "connected", surplus: buffer.slice(decoded.length) };
        }
        return failed("ERR_SOCKS_REPLY", `reply ${code} (${REPLY_TEXTS[code] ?? "unknown"})`, code);
      }
    }
  }

  #handleMethod(): Uint8Array | "need" | ConnectResult {
    const decoded = decodeMethod(this.#buffer, this.#buffer.length);
    if (decoded === "malformed") return failed("ERR_SOCKS_VERSION", "is this a SOCKS5 proxy?");
    if ("need" in decoded) return "need";
    if (decoded.value === METHOD_NONE) return this.#request(decoded.length);
    if (decoded.value !== METHOD_USER_PASSWORD || this.#credentials === undefined) {
      return failed("ERR_SOCKS_METHOD", `the proxy wants method ${decoded.value}`, decoded.value);
    }
    this.#buffer = this.#buffer.slice(decoded.length);
    this.#state = "status";
    return encodeUserPassword(utf8Bytes(this.#credentials.user), utf8Bytes(this.#credentials.password));
  }

  #request(consumed: number): Uint8Array {
    this.#buffer = this.#buffer.slice(consumed);
    this.#state = "reply";
    return encodeMessage(this.#command, this.#target);
  }
}

function failed(code: ErrorCode, detail: string, status?: number): ConnectResult {
  const answer = status === undefined ? undefined : { status };
  return { kind: "failed", error: new ProtocolError(code, detail, { answer }) };
}
