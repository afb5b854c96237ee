import type { ProtocolError } from "../errors.ts";

export type DialectServerOutput =
  /** A flow begins, which has a UDP port of its own. */
  | { readonly kind: "open"; readonly flow: number }
  /** The flow has ended. */
  | { readonly kind: "release"; readonly flow: number }
  /** Write the remaining batches of `connection`, then close it. @param error  the client's, if it is one */
  | { readonly kind: "close"; readonly connection: number; readonly error: ProtocolError | undefined }
  /** Look up a name and call `DialectServer.handleResolved`. */
  | { readonly kind: "resolve"; readonly query: number; readonly name: string; readonly port: number };
