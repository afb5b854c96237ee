import type { ProtocolError } from "../errors.ts";

/** A client's handshake with a proxy, after which the stream leads to the target. */
export interface ConnectHandshake {
  /** The first bytes to write. */
  start(): Uint8Array;
  /**
   * Bytes from the proxy, cut anywhere; borrowed.
   *
   * @returns bytes to write; `"need"` when it needs more; the result once it is over
   */
  handleStream(bytes: Uint8Array): Uint8Array | "need" | ConnectResult;
}

/** How a handshake ended. `surplus` arrived behind it and belongs to the target. */
export type ConnectResult =
  | { readonly kind: "connected"; readonly surplus: Uint8Array }
  | { readonly kind: "failed"; readonly error: ProtocolError };
