import type { Endpoint } from "../addresses/endpoint.ts";
import type { Bound } from "../addresses/listen-hosts.ts";
import type { Outgoing } from "../addresses/outgoing.ts";
import type { Logger } from "../log.ts";
import type { ByteStream } from "./byte-stream.ts";

/** Accepts connections on one IP, or on a Unix socket, which has port 0. */
export interface StreamListener extends Bound {
  /** `192.0.2.1:3456`, `[::1]:3456` or `unix:/path`, with the actual port; `fd:N` for a Unix socket that was given. */
  readonly address: string;
  /** Resolves when the listener is closed; its connections stay. */
  close(): Promise<void>;
}

export interface ListenOptions {
  /** True if other threads listen on the same port. Only with native I/O. */
  readonly sharesPort?: boolean;
  /** Idle time after which a connection is probed. Default: the system's. */
  readonly keepAliveMs?: number;
  readonly onStream: (stream: ByteStream) => void;
  /** Accepting failed. @param isFinal  true if the system accepts nothing more on the listener, which is still to be closed */
  readonly onError: (error: Error, isFinal: boolean) => void;
}

/** Connections over TCP and Unix sockets, as byte streams. */
export interface Tcp {
  /**
   * Starts connecting.
   *
   * @param endpoint  an IP with its zone, not a name; or the path of a Unix socket
   * @param outgoing  interface or mark for the connection, which does not apply to loopback and Unix sockets
   * @param onDone    called once, asynchronously, with the connection or with the reason for its failure
   * @returns a function that cancels the attempt; `onDone` is not called after that
   * @throws Error when the attempt fails at once; HostError ERR_NATIVE if `outgoing` needs native I/O
   */
  connect(
    endpoint: Endpoint,
    outgoing: Outgoing | undefined,
    onDone: (result: ByteStream | string) => void,
  ): () => void;
  /** A stream over a connected descriptor, which it owns. Only with native I/O. */
  adopt?(descriptor: number): ByteStream;
  /** Listens on one IP, on IPv6 without IPv4; or on a Unix socket, replacing one that a killed process left. */
  listen(endpoint: Endpoint, options: ListenOptions): Promise<StreamListener>;
  /** Accepts on a listening socket that the process was given, which it owns from then on. */
  listenOn(descriptor: number, options: ListenOptions): Promise<StreamListener>;
}

/** Probes of connections that this process makes start after this idle time. */
export const KEEP_ALIVE_MS = 30_000;
/** Connections that wait to be accepted. */
export const BACKLOG = 1024;
/** Permissions of Unix sockets. */
export const UNIX_MODE = 0o660;

/** Logs the errors of a listener. @param onFailed  called if it accepts nothing more */
export function acceptErrors(log: Logger, onFailed: (error: Error) => void): ListenOptions["onError"] {
  return (error, isFinal) => {
    log[isFinal ? "error" : "warn"]({ error: error.message }, "cannot accept");
    if (isFinal) onFailed(error);
  };
}

/** Combines several listeners on one port, under the address of the first. */
export function joinListeners(listeners: readonly StreamListener[]): StreamListener {
  return {
    ...listeners[0],
    close: async () => void (await Promise.all(listeners.map((listener) => listener.close()))),
  };
}
