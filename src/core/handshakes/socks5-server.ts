import type { Dialect } from "../../wire/dialects/dialect.ts";
import { utf8Bytes } from "../../wire/http/http-head.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { makeAddress } from "../../wire/socket-address.ts";
import type { Decoded } from "../../wire/socks5.ts";
import {
  COMMAND_CONNECT,
  COMMAND_UDP_ASSOCIATE,
  decodeGreeting,
  decodeMessage,
  decodeUserPassword,
  encodeMessage,
  METHOD_NONE,
  METHOD_UNACCEPTABLE,
  METHOD_USER_PASSWORD,
  REPLY_COMMAND_UNSUPPORTED,
  REPLY_SUCCEEDED,
  SOCKS_VERSION,
} from "../../wire/socks5.ts";
import { ProtocolError } from "../errors.ts";
import { constantTimeEqual } from "./credentials.ts";

/** Longest time from the connection to the request. */
const HANDSHAKE_MS = 10_000;
/** Most bytes that a client may send after a CONNECT before it is answered. */
const MAX_SURPLUS_BYTES = 65_536;

export interface Socks5Credentials {
  readonly user: string;
  readonly password: string;
}

export type Socks5ServerOutput =
  | { readonly kind: "write"; readonly bytes: Uint8Array }
  | {
      readonly kind: "request";
      readonly command: "connect" | "udp-associate";
      readonly address: AddressBytes;
    }
  /** A request for UDP on this connection; answer it, then the dialect's frames follow. */
  | {
      readonly kind: "request";
      readonly command: "dialect";
      readonly dialect: Dialect;
      readonly address: AddressBytes;
    }
  | { readonly kind: "closed"; readonly error: ProtocolError | undefined };

/**
 * The server's side of one SOCKS5 control connection. States only advance: greeting → password (if required) → request →
 * waiting (for {@link reply}) → done. No command is read before the client is authenticated.
 */
export class Socks5ServerConnection {
  readonly #credentials: { readonly user: Uint8Array; readonly password: Uint8Array } | undefined;
  readonly #dialects: readonly Dialect[];
  readonly #outputs: Socks5ServerOutput[] = [];
  #state: "greeting" | "password" | "request" | "waiting" | "done" | "closed" = "greeting";
  #buffer: Uint8Array = new Uint8Array(0);
  #deadline: number;

  /**
   * @param now       milliseconds of a monotonic clock
   * @param dialects  dialects whose requests are accepted
   */
  constructor(now: number, credentials: Socks5Credentials | undefined, dialects: readonly Dialect[] = []) {
    this.#dialects = dialects;
    this.#deadline = now + HANDSHAKE_MS;
    this.#credentials =
      credentials === undefined
        ? undefined
        : { user: utf8Bytes(credentials.user), password: utf8Bytes(credentials.password) };
  }

  /** Bytes after the request, which belong to the target of a CONNECT. */
  get surplus(): Uint8Array {
    return this.#buffer;
  }

  /** Handles a chunk of the connection, of any size, which is borrowed. Bytes after a UDP ASSOCIATE are ignored. */
  handleStream(_now: number, bytes: Uint8Array): void {
    if (this.#state === "done" || this.#state === "closed") return;
    const joined = new Uint8Array(this.#buffer.length + bytes.length);
    joined.set(this.#buffer);
    joined.set(bytes, this.#buffer.length);
    this.#buffer = joined;
    let isMoving = true;
    while (isMoving) isMoving = this.#step();
    // Before the request, the buffer holds at most one incomplete message, whose length is limited by its own fields.
    if (this.#state === "waiting" && this.#buffer.length > MAX_SURPLUS_BYTES) {
      this.#close("ERR_SOCKS_MALFORMED", "too much before the answer");
    }
  }

  handleTimeout(now: number): void {
    if (now >= this.#deadline && this.#state !== "closed") this.#close("ERR_HANDSHAKE_TIMEOUT", "SOCKS5");
  }

  /** When to call {@link handleTimeout}; Infinity for never. */
  nextTimeout(): number {
    return this.#deadline;
  }

  pollOutput(): Socks5ServerOutput | undefined {
    return this.#outputs.shift();
  }

  /**
   * Answers the request.
   *
   * @param code   REP of RFC 1928 §6; anything but 0 closes
   * @param bound  BND.ADDR and BND.PORT
   */
  reply(code: number, bound: AddressBytes): void {
    if (this.#state !== "waiting") return;
    this.#state = "done";
    this.#outputs.push({ kind: "write", bytes: encodeMessage(code, bound) });
    if (code === REPLY_SUCCEEDED) return;
    this.#state = "closed";
    this.#outputs.push({ kind: "closed", error: undefined });
  }

  /** @returns true if a message was consumed and another one may follow */
  #step(): boolean {
    switch (this.#state) {
      case "greeting":
        return this.#take(decodeGreeting(this.#buffer, this.#buffer.length), (methods) => {
          const wanted = this.#credentials === undefined ? METHOD_NONE : METHOD_USER_PASSWORD;
          if (!methods.includes(wanted)) {
            this.#write(Uint8Array.of(SOCKS_VERSION, METHOD_UNACCEPTABLE));
            this.#close("ERR_SOCKS_METHOD", `the client offers ${methods.join(", ")}`);
            return;
          }
          this.#write(Uint8Array.of(SOCKS_VERSION, wanted));
          this.#state = wanted === METHOD_NONE ? "request" : "password";
        });
      case "password":
        return this.#take(decodeUserPassword(this.#buffer, this.#buffer.length), ({ user, password }) => {
          const isUser = constantTimeEqual(user, this.#credentials!.user);
          const isPassword = constantTimeEqual(password, this.#credentials!.password);
          this.#write(Uint8Array.of(1, isUser && isPassword ? 0 : 1));
          if (isUser && isPassword) this.#state = "request";
          else this.#close("ERR_SOCKS_AUTH", "wrong user or password");
        });
      case "request":
        return this.#take(decodeMessage(this.#buffer, this.#buffer.length), ({ code, address }) => {
          this.#deadline = Number.POSITIVE_INFINITY;
          this.#state = "waiting";
          const dialect = this.#dialects.find(
            ({ opening }) =>
              opening.kind === "socks5" && opening.command === code && opening.matches(address),
          );
          if (dialect !== undefined) {
            this.#outputs.push({ kind: "request", command: "dialect", dialect, address });
          } else if (code === COMMAND_CONNECT)
            this.#outputs.push({ kind: "request", command: "connect", address });
          else if (code === COMMAND_UDP_ASSOCIATE) {
            this.#outputs.push({ kind: "request", command: "udp-associate", address });
          } else {
            this.#write(encodeMessage(REPLY_COMMAND_UNSUPPORTED, makeAddress("0.0.0.0", 0)!));
            this.#close("ERR_SOCKS_COMMAND", `command ${code}`);
          }
        });
      default:
        return false;
    }
  }

  #take<Value>(decoded: Decoded<Value>, use: (value: Value) => void): boolean {
    if (decoded === "malformed") {
      this.#close(
        this.#buffer[0] === SOCKS_VERSION ? "ERR_SOCKS_MALFORMED" : "ERR_SOCKS_VERSION",
        this.#state,
      );
      return false;
    }
    if ("need" in decoded) return false;
    this.#buffer = this.#buffer.slice(decoded.length);
    use(decoded.value);
    return true;
  }

  #write(bytes: Uint8Array): void {
    this.#outputs.push({ kind: "write", bytes });
  }

  #close(code: "ERR_HANDSHAKE_TIMEOUT" | `ERR_SOCKS_${string}`, detail: string): void {
    this.#state = "closed";
    this.#deadline = Number.POSITIVE_INFINITY;
    this.#outputs.push({
      kind: "closed",
      error: new ProtocolError(code as ConstructorParameters<typeof ProtocolError>[0], detail),
    });
  }
}
