import type { ProtocolError } from "./errors.ts";

/** A client's handshake with a proxy, until the stream behind it is the target's. */
export interface ConnectHandshake {
  /** The first bytes to write. */
  start(): Uint8Array;
  /**
   * Bytes from the proxy, cut anywhere; borrowed.
   *
   * @returns bytes to write; `"need"` for more; a result once it is over
   */
  handleStream(bytes: Uint8Array): Uint8Array | "need" | ConnectResult;
}

/** How a handshake ended. `surplus` came behind it and is the target's. */
export type ConnectResult =
  | { readonly kind: "connected"; readonly surplus: Uint8Array }
  | { readonly kind: "failed"; readonly error: ProtocolError };
