import { EventEmitter } from "node:events";
import type { Listeners } from "../host/listeners.ts";
import type { KeyOption } from "../host/options/keys.ts";
import type { EndpointStatus, FlowStatus } from "../host/stats/status.ts";
import type { Tun2SocksStats, TunnelStats } from "../host/stats/tunnel-stats.ts";
import type { Tun2SocksAddress } from "../host/tun2socks.ts";
import type { UdpLocalAddress } from "../host/udp-local.ts";

/**
 * A running udp-local. Emits `session-up`, `session-down`, `session-resumed`, `session-renewed`, `error`, and `listener-failed` if the
 * system accepts nothing more on one of its addresses; an `error` without a listener is not thrown.
 */
export interface UdpLocal extends EventEmitter {
  /** The actual addresses, with the port that the system chose instead of port 0. */
  readonly address: UdpLocalAddress;
  stats(): TunnelStats;
  /** The current sessions and their lanes. */
  status(): Promise<EndpointStatus>;
  /** The current associations, with addresses. */
  flows(): Promise<FlowStatus>;
  /** Ends the session in an orderly way and closes all sockets. May be called more than once. */
  close(): Promise<void>;
}

/** A running udp-server, with the events of {@link UdpLocal}. */
export interface UdpServer extends EventEmitter {
  /**
   * Replaces the keys of single clients. Sessions whose name keeps its key continue, with its new limits; all others end at once.
   *
   * @throws UsageError ERR_OPTION if a key is wrong, ERR_STATE if the server was started without keys; the old keys then stay
   */
  replaceKeys(keys: readonly KeyOption[]): void;
  /** The actual addresses, with the port that the system chose instead of port 0. */
  readonly address: { readonly listen: string[] };
  stats(): TunnelStats;
  /** The current sessions and their lanes. */
  status(): Promise<EndpointStatus>;
  /** The current associations, with addresses. */
  flows(): Promise<FlowStatus>;
  /** Ends all tunnels in an orderly way and closes all sockets. May be called more than once. */
  close(): Promise<void>;
}

/**
 * A running tun2socks. Emits `end` when its device is gone, `listener-failed`, and, if it uses the tunnel, the other events of {@link UdpLocal}.
 */
export interface Tun2SocksHandle extends EventEmitter {
  readonly address: Tun2SocksAddress;
  stats(): Tun2SocksStats;
  /** The session of its tunnel, and that session's lanes. */
  status(): Promise<EndpointStatus>;
  /** The current associations, with addresses. */
  flows(): Promise<FlowStatus>;
  /** Ends everything that it carries and removes the device if it created it. May be called more than once. */
  close(): Promise<void>;
}

/** The part of a host that its handle passes on. */
interface Host<Events extends object, Address, Stats> {
  readonly events: Listeners<Events>;
  readonly address: Address;
  stats(): Stats;
  status(): Promise<EndpointStatus>;
  flows(): Promise<FlowStatus>;
  close(): Promise<void>;
}

/** Makes a host available to a Node program, with Node's events. */
export class HostHandle<Events extends object, Address, Stats> extends EventEmitter {
  readonly #host: Host<Events, Address, Stats>;

  /** @param events  the names of all events of the host */
  constructor(host: Host<Events, Address, Stats>, events: Record<keyof Events & string, true>) {
    super();
    this.#host = host;
    for (const name of Object.keys(events) as (keyof Events & string)[]) {
      host.events.on(name, (value) => emitOn(this, name, value));
    }
  }

  get address(): Address {
    return this.#host.address;
  }

  stats(): Stats {
    return this.#host.stats();
  }

  status(): Promise<EndpointStatus> {
    return this.#host.status();
  }

  flows(): Promise<FlowStatus> {
    return this.#host.flows();
  }

  close(): Promise<void> {
    return this.#host.close();
  }
}

/** Emits an event; an error without a listener is not thrown. */
export function emitOn(handle: EventEmitter, name: string, value: unknown): void {
  if (name !== "error" || handle.listenerCount("error") > 0) handle.emit(name, value);
}

/** All events of handles. */
const EVENTS = [
  "session-up",
  "session-down",
  "session-resumed",
  "session-renewed",
  "session-ended",
  "listener-failed",
  "error",
];

/** Calls `listener` for each event of a handle. @returns a function that removes it */
export function onEvents(handle: EventEmitter, listener: (name: string, value: unknown) => void): () => void {
  const listeners = EVENTS.map((name) => [name, (value: unknown) => listener(name, value)] as const);
  for (const [name, one] of listeners) handle.on(name, one);
  return () => {
    for (const [name, one] of listeners) handle.off(name, one);
  };
}
