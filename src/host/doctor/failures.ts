import { ERROR_CODES } from "../../core/errors.ts";
import { opensslReason } from "../system-error.ts";

/** Errors in parts of a connection. If they end the connection, only their text is left. */
const LOST_FOR = ["ERR_SHADOWSOCKS_TAG", "ERR_SHADOWSOCKS_MALFORMED", "ERR_OBFS_MALFORMED"] as const;
/** Replaces OpenSSL's code, which differs for each alert. */
export const TLS_ALERT = "ERR_SSL_ALERT";

/** An error as the checks judge it: the innermost cause that has a code. */
export interface CodedFailure {
  readonly code: string;
  /** What a peer answered instead: HTTP status, SOCKS5 reply. */
  readonly status: number | undefined;
  readonly kind: string | undefined;
  readonly server: string | undefined;
  readonly text: string;
}

interface Coded extends Error {
  readonly code?: string;
  readonly answer?: { readonly status: number; readonly kind?: string; readonly server?: string };
}

export function asFailure(error: unknown): CodedFailure {
  let inner = error as Coded;
  while (inner.cause instanceof Error) inner = inner.cause as Coded;
  const { code = "", answer, message } = inner;
  const text = opensslReason(message);
  return {
    code: lostFor(message) ?? code,
    status: answer?.status,
    kind: answer?.kind,
    server: answer?.server,
    text,
  };
}

function lostFor(message: string): string | undefined {
  if (!message.startsWith(ERROR_CODES.ERR_CONNECTION_LOST.text)) return undefined;
  // OpenSSL before 3.2 says "sslv3" where later versions say "ssl/tls".
  if (/: (sslv\d+|tlsv\d+|ssl\/tls) alert /.test(message)) return TLS_ALERT;
  return LOST_FOR.find((code) => message.includes(ERROR_CODES[code].text));
}
