/** An error as the checks judge it: that of the innermost cause that has a code. */
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
  // OpenSSL's texts: NUMBER:error:...:REASON:FILE:LINE:
  const text = message.replace(/^[0-9A-F]+:error:[0-9A-F]+:[^:]*:[^:]*:([^:]*):.*/s, "$1").trim();
  return { code, status: answer?.status, kind: answer?.kind, server: answer?.server, text };
}
