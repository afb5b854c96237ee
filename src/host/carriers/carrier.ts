import type { Cancellation } from "../cancellation.ts";
import type { ByteStream } from "../stream/byte-stream.ts";

/** A stream that leads to the server. */
export interface Connection {
  /** To be handed on. */
  readonly stream: ByteStream;
  /** For a request to a MASQUE proxy: true if the proxy lets it bind. */
  readonly isBound?: boolean;
}

/** How a lane's connection is made. */
export interface Carrier {
  /** For logs; without credentials. */
  readonly description: string;
  /** The server's `HOST:PORT`, for the Host field. */
  readonly authority: string;
  /** True if it connects to this machine, where either the server or a relay listens. */
  readonly isLocal: boolean;
  /**
   * Connects.
   *
   * @param cancellation  ends the attempt and destroys its streams
   * @param lane          the lane that it is for
   * @throws HostError ERR_CONNECT that names the step
   */
  connect(cancellation: Cancellation, lane?: number): Promise<Connection>;
  /** Ends what it started. */
  close(): Promise<void>;
}
