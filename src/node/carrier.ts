import type { Duplex } from "node:stream";

/** A socket that reads into the caller's buffer, as net.connect's option `onread` has it. */
export interface OnRead {
  /** Gives the buffer for the next read. */
  readonly buffer: () => Uint8Array;
  /** @returns true to go on reading */
  readonly callback: (length: number, buffer: Uint8Array) => boolean;
}

/** A stream on which the server is reached. */
export interface Connection {
  readonly stream: Duplex;
  /** True when what is read goes to the `onread` that was given, and no data event comes. */
  readonly onread: boolean;
  /** False for a stream of the embedding program's, which may do with it what it likes. */
  readonly isOurs: boolean;
}

/** How a lane's connection is made. */
export interface Carrier {
  /** For logs; without credentials. */
  readonly description: string;
  /** The server's `HOST:PORT`, for the Host field. */
  readonly authority: string;
  /**
   * Connects.
   *
   * @param signal  gives it up, and destroys what there is
   * @throws HostError ERR_CONNECT that names the step
   */
  connect(signal: AbortSignal, onread?: OnRead): Promise<Connection>;
}
