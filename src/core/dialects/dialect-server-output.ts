import type { ProtocolError } from "../errors.ts";

export type DialectServerOutput =
  /** Give a new flow a UDP port of its own. */
  | { readonly kind: "open"; readonly flow: number }
  /** Close the port of a flow that has ended. */
  | { readonly kind: "release"; readonly flow: number }
  /** Write the remaining batches of `connection`, then close it. `error` is set if the client caused the end. */
  | { readonly kind: "close"; readonly connection: number; readonly error: ProtocolError | undefined }
  /** Look up a name and call `DialectServer.handleResolved`. `client` names the connection among all clients, see `LookupTurns`. */
  | {
      readonly kind: "resolve";
      readonly client: string;
      readonly query: number;
      readonly name: string;
      readonly port: number;
    };
