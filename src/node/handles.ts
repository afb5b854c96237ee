import type { EventEmitter } from "node:events";

/** `in`: from a tunnel; `out`: into a tunnel. Counts are since the start; bytes are UDP payload. */
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
  /** Smoothed round-trip time of the tunnel in milliseconds; undefined before the first heartbeat is answered. */
  readonly rttMs: number | undefined;
  /** Sessions that were resumed by a new connection. */
  readonly resumed: number;
  /** Sessions with receipts, whose datagrams are spread over lanes. */
  readonly spread: {
    /** Sessions now by how they find their rate: `start`, not known yet; `delay`; or `compete`, against others that fill queues. */
    readonly modes: Readonly<Record<string, number>>;
    /** What they may send now, together. */
    readonly bitsPerSecond: number;
    /** Lanes that are held up now. */
    readonly lanesLate: number;
    /**
     * Since the start: how often a lane became `late`; datagrams sent in a second copy (`copies`) and once more because they were
     * stuck (`hedges`); copies that came and were dropped (`duplicates`), by which nothing is lost.
     */
    readonly counts: Readonly<Record<string, number>>;
  };
  /** Datagrams dropped, by reason. */
  readonly drops: Readonly<Record<string, number>>;
  /** What was refused or evicted, by reason. */
  readonly refused: Readonly<Record<string, number>>;
  /** Reports of datagrams that did not get through, by kind, and reports suppressed by the rate limit (`limited`). */
  readonly unreachable: Readonly<Record<string, number>>;
}

/**
 * A running udp-local. Emits `session-up`, `session-down`, `session-resumed`, `session-renewed` and `error`; an `error`
 * without a listener is not thrown.
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

/** Statistics of a running tun2socks; `in` and `out` are those of udp-local: towards and from the applications. */
export interface Tun2SocksStats extends TunnelStats {
  /** TCP flows now, and those of them that have not completed their handshake. */
  readonly flows: number;
  readonly halfOpenFlows: number;
  /** IP packets from and to the device. */
  readonly packetsIn: number;
  readonly packetsOut: number;
  readonly associationsOpened: number;
  readonly flowsOpened: number;
}

/**
 * A running tun2socks. Emits `end` when its device is gone, and, if it uses the tunnel, the events of {@link UdpLocal}.
 */
export interface Tun2SocksHandle extends EventEmitter {
  readonly address: {
    /** `tun:NAME` or similar, with the actual name. */
    readonly device: string;
    /** What goes where, one line each, without secrets. */
    readonly plan: readonly string[];
  };
  stats(): Tun2SocksStats;
  /** Ends everything that it carries, and removes the device if it created it. May be called again. */
  close(): Promise<void>;
}
