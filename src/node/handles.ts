import type { EventEmitter } from "node:events";

/** `in`: out of a tunnel; `out`: into a tunnel. Counts are since the start; bytes are UDP payload. */
export interface TunnelStats {
  /** Sessions now. */
  readonly sessions: number;
  /** Tunnels that are up now. */
  readonly lanes: number;
  /** Associations now. */
  readonly associations: number;
  /** Contexts now. */
  readonly contexts: number;
  readonly datagramsIn: number;
  readonly datagramsOut: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Smoothed round-trip time of the tunnel in milliseconds; undefined before the first heartbeat came back. */
  readonly rttMs: number | undefined;
  /** Sessions that went on after a new connection. */
  readonly resumed: number;
  /** Datagrams dropped, by reason. */
  readonly drops: Readonly<Record<string, number>>;
  /** What was refused or evicted, by reason. */
  readonly refused: Readonly<Record<string, number>>;
  /** What was told of datagrams that did not get through, by kind, and how many were too many to tell (`limited`). */
  readonly unreachable: Readonly<Record<string, number>>;
}

/**
 * A running udp-local. Emits `session-up`, `session-down`, `session-resumed`, `session-renewed` and `error`; an `error` that nobody
 * listens to is not thrown.
 */
export interface UdpLocal extends EventEmitter {
  /** Addresses as they are: a port 0 that was asked for is a real one here. */
  readonly address: {
    /** Where SOCKS5 listens; undefined when it is off. */
    readonly socks5: string | undefined;
    readonly forwards: { readonly listen: string; readonly target: string }[];
    readonly server: string;
  };
  stats(): TunnelStats;
  /** Ends the session in an orderly way, and closes all sockets. May be called again. */
  close(): Promise<void>;
}

/** A running udp-server, with the events of {@link UdpLocal}. */
export interface UdpServer extends EventEmitter {
  /** Addresses as they are: a port 0 that was asked for is a real one here. */
  readonly address: { readonly listen: string[] };
  stats(): TunnelStats;
  /** Ends all tunnels in an orderly way, and closes all sockets. May be called again. */
  close(): Promise<void>;
}

/** Of a running tun2socks; `in` and `out` are seen from the device's applications, as udp-local sees them. */
export interface Tun2SocksStats extends TunnelStats {
  /** TCP flows now, and how many of them have not finished their handshake. */
  readonly flows: number;
  readonly halfOpenFlows: number;
  /** IP packets from and to the device. */
  readonly packetsIn: number;
  readonly packetsOut: number;
  readonly associationsOpened: number;
  readonly flowsOpened: number;
}

/**
 * A running tun2socks. Emits `end` when its device is gone, and, where it uses the tunnel, the events of
 * {@link UdpLocal}.
 */
export interface Tun2SocksHandle extends EventEmitter {
  readonly address: {
    /** `tun:NAME` and the like, with the name as it is. */
    readonly device: string;
    /** What goes where, a line each, without secrets. */
    readonly plan: readonly string[];
  };
  stats(): Tun2SocksStats;
  /** Ends all that it carries, and removes the device where it made it. May be called again. */
  close(): Promise<void>;
}
