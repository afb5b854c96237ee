/**
 * Every error code of the library. A published name or number is never reused: one that is no longer needed is marked as retired in its
 * place.
 * `peer`: the other end broke the protocol; `caller`: this end was used wrongly; `host`: the environment failed.
 */
export const ERROR_CODES = {
  ERR_CAPSULE_LENGTH: { number: 1, fault: "peer", text: "a capsule is longer than its type allows" },
  ERR_CAPSULE_MALFORMED: { number: 2, fault: "peer", text: "a capsule's fields do not fit its length" },
  ERR_CONTEXT_MALFORMED: { number: 3, fault: "peer", text: "the registration of a context is invalid" },
  ERR_HEAD_TOO_LARGE: { number: 4, fault: "peer", text: "the HTTP head exceeds its limit" },
  ERR_HEAD_MALFORMED: { number: 5, fault: "peer", text: "the HTTP head cannot be read" },
  ERR_UPGRADE_REFUSED: { number: 6, fault: "peer", text: "the server did not answer 101" },
  ERR_SERVER_PROOF: { number: 7, fault: "peer", text: "the server did not prove that it has the key" },
  ERR_HANDSHAKE_TIMEOUT: { number: 8, fault: "peer", text: "the handshake did not end in time" },
  ERR_HEARTBEAT_LOST: { number: 9, fault: "peer", text: "no heartbeat was answered in time" },
  ERR_CONTROL_OVERFLOW: { number: 10, fault: "peer", text: "the peer does not read its control capsules" },
  ERR_PEER_SHUTDOWN: { number: 11, fault: "peer", text: "the peer shut down the tunnel" },
  ERR_KEY_REFUSED: { number: 13, fault: "peer", text: "the server does not accept this key" },
  ERR_STREAM_TRUNCATED: { number: 12, fault: "peer", text: "the stream ended inside a capsule" },
  ERR_SOCKS_VERSION: { number: 20, fault: "peer", text: "not SOCKS version 5" },
  ERR_SOCKS_METHOD: { number: 21, fault: "peer", text: "no acceptable SOCKS5 method" },
  ERR_SOCKS_AUTH: { number: 22, fault: "peer", text: "the SOCKS5 user or password was refused" },
  ERR_SOCKS_COMMAND: { number: 23, fault: "peer", text: "the SOCKS5 command is not supported" },
  ERR_SOCKS_MALFORMED: { number: 24, fault: "peer", text: "a SOCKS5 message cannot be read" },
  ERR_SOCKS_REPLY: { number: 25, fault: "peer", text: "the SOCKS5 server refused the request" },
  ERR_PROXY_REFUSED: { number: 26, fault: "peer", text: "the HTTP proxy refused the CONNECT" },
  ERR_SHADOWSOCKS_TAG: {
    number: 27,
    fault: "peer",
    text: "data of the shadowsocks peer failed authentication",
  },
  ERR_SHADOWSOCKS_MALFORMED: { number: 28, fault: "peer", text: "the shadowsocks peer broke the protocol" },
  ERR_OBFS_MALFORMED: { number: 29, fault: "peer", text: "the peer does not follow simple-obfs" },
  ERR_SHADOWSOCKS_REPLAY: {
    number: 30,
    fault: "peer",
    text: "the shadowsocks client sent a salt that was used before",
  },
  ERR_DIALECT_MALFORMED: { number: 31, fault: "peer", text: "the peer's data does not match its dialect" },
  ERR_MASQUE_REFUSED: { number: 32, fault: "peer", text: "the MASQUE proxy refused the request" },
  ERR_WEB_SOCKET_REFUSED: { number: 33, fault: "peer", text: "the web server did not open a WebSocket" },
  ERR_WEB_SOCKET_MALFORMED: { number: 34, fault: "peer", text: "the WebSocket's peer broke the protocol" },
  ERR_TLS: { number: 35, fault: "peer", text: "TLS failed after its handshake" },
  ERR_OPTION: { number: 40, fault: "caller", text: "an option is missing or wrong" },
  ERR_STATE: { number: 41, fault: "caller", text: "called in a state that does not allow it" },
  // 42 is retired.
  ERR_LISTEN: { number: 60, fault: "host", text: "cannot listen" },
  ERR_CONNECT: { number: 61, fault: "host", text: "cannot connect" },
  ERR_CONNECTION_LOST: { number: 62, fault: "host", text: "the connection ended" },
  ERR_NATIVE: { number: 64, fault: "host", text: "the native module is not available" },
  ERR_FILE: { number: 63, fault: "host", text: "a file cannot be read or written" },
  ERR_DEVICE: { number: 65, fault: "host", text: "a device cannot be used" },
  ERR_UNSUPPORTED: { number: 66, fault: "host", text: "not available in this program" },
  ERR_RESOURCE: { number: 67, fault: "host", text: "memory, threads or descriptors have run out" },
  ERR_KEPT_SESSIONS: { number: 69, fault: "host", text: "the state of sessions cannot be read" },
  ERR_INTERNAL: { number: 68, fault: "host", text: "an internal error of this library" },
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

/** The answer with which a peer or a proxy has refused a request. */
export interface PeerAnswer {
  /** The HTTP status, or the reply or method of SOCKS5. */
  readonly status: number;
  /** Its meaning, if known, such as `other-key` (core/handshakes/refusal-hint). */
  readonly kind?: string;
  /** How the peer names itself, in its own words; at most 100 characters. */
  readonly server?: string | undefined;
}

interface Details {
  readonly cause?: unknown;
  readonly answer?: PeerAnswer | undefined;
}

/** Base of all typed errors. `status` is the negative number, which the C library uses for the same code. */
class CodedError extends Error {
  readonly code: ErrorCode;
  readonly status: number;
  /** Set if the peer has answered with a refusal. */
  readonly answer: PeerAnswer | undefined;

  constructor(code: ErrorCode, detail: string, { answer, ...options }: Details = {}) {
    super(`${ERROR_CODES[code].text}: ${detail}`, options);
    this.code = code;
    this.status = -ERROR_CODES[code].number;
    this.answer = answer;
  }
}

/** The peer broke the protocol: close that connection, keep the process. Core returns it as a value and does not throw it. */
export class ProtocolError extends CodedError {
  override readonly name = "ProtocolError";
}

/** The caller broke the rules of this library. Always thrown. */
export class UsageError extends CodedError {
  override readonly name = "UsageError";
}

/** The environment failed: an address in use, an unreachable server, a missing file. */
export class HostError extends CodedError {
  override readonly name = "HostError";
}
