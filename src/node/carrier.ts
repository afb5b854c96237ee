import type { Duplex } from "node:stream";

/** Lets a socket read into the caller's buffer, like the option `onread` of net.connect. */
export interface OnRead {
  /** Returns the buffer for the next read. */
  readonly buffer: () => Uint8Array;
  /** @returns true to go on reading */
  readonly callback: (length: number, buffer: Uint8Array) => boolean;
}

/** A stream that leads to the server. */
export interface Connection {
  readonly stream: Duplex;
  /** True if the given `onread` gets what is read, without data events. */
  readonly onread: boolean;
  /** False for a stream of the embedding program, which may do anything with it. */
  readonly isOurs: boolean;
  /** Of a request to a MASQUE proxy: the proxy lets it bind. */
  readonly isBound?: boolean;
}

/** How a lane's connection is made. */
export interface Carrier {
  /** For logs; without credentials. */
  readonly description: string;
  /** The server's `HOST:PORT`, for the Host field. */
  readonly authority: string;
  /** It connects to this machine, where either the server or a relay listens. */
  readonly isLocal: boolean;
  /**
   * Connects.
   *
   * @param signal  aborts the attempt and destroys its streams
   * @param lane    the lane that it is for
   * @throws HostError ERR_CONNECT that names the step
   */
  connect(signal: AbortSignal, onread?: OnRead, lane?: number): Promise<Connection>;
  /** Ends what it has started. */
  close(): Promise<void>;
}
