import type { ProtocolError } from "../errors.ts";

/** A client's handshake with a proxy, after which the stream leads to the target. */
export interface ConnectHandshake {
  /** The first bytes to write. */
  start(): Uint8Array;
  /**
   * Handles a chunk from the proxy, of any size, which is borrowed.
   *
   * @returns bytes to write; `"need"` if more is needed; the result once the handshake is over
   */
  handleStream(bytes: Uint8Array): Uint8Array | "need" | ConnectResult;
}

/** How a handshake ended. `surplus` arrived after it and belongs to the stream from the target. */
export type ConnectResult =
  | { readonly kind: "connected"; readonly surplus: Uint8Array }
  | { readonly kind: "failed"; readonly error: ProtocolError };
