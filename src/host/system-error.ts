/** The system's name of an error, such as EADDRINUSE; undefined for errors without one. */
export function systemErrorCode(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | undefined)?.code;
  return typeof code === "string" ? code : undefined;
}

/** Errors of opening a socket on any port, when the system has no more descriptors, memory or free ports. */
const NO_MORE_SOCKETS: ReadonlySet<string | undefined> = new Set([
  "EMFILE",
  "ENFILE",
  "ENOBUFS",
  "ENOMEM",
  "EADDRINUSE",
]);

/** Whether a socket on any port could not be opened because the system has no more. */
export function hasNoMoreSockets(error: Error | undefined): boolean {
  return NO_MORE_SOCKETS.has(systemErrorCode(error));
}

/** Shortens OpenSSL's messages, which have the form NUMBER:error:...:REASON:FILE:LINE: and a line break. */
export function opensslReason(message: string): string {
  return message.replace(/[0-9A-F]+:error:[0-9A-F]+:[^:]*:[^:]*:([^:]*):.*/s, "$1").trim();
}
