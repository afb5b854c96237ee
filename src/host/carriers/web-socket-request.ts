import type { HeaderField } from "../../core/handshakes/http-connect.ts";
import type { TlsOptions } from "./tls-options.ts";

/** A client's request to a web server, except the address. */
export interface WebSocketRequest {
  /** Absolute, without a query. */
  readonly path: string;
  /** Value of Host. */
  readonly host: string;
  readonly fields: readonly HeaderField[];
  /** For `wss://`. */
  readonly tls: TlsOptions | undefined;
}
