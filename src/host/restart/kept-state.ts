import type { KeptSession } from "../../core/server/restart/kept-sessions.ts";
import type { NativeModule } from "../io/native-module.ts";

/** The state that one thread of a server leaves for the next process. */
export interface KeptState {
  /** Time of saving, see `System.sharedMs`. */
  readonly clock: number;
  readonly sessions: readonly KeptSession[];
  /** Descriptors of the UDP sockets of their associations, in any order: a socket is identified by its port. */
  readonly sockets: readonly number[];
}

/** Native I/O that can hand sockets on to another process. */
export type HandingOnModule = NativeModule &
  Required<Pick<NativeModule, "udpAdopt" | "udpDescriptor" | "socketName" | "descriptorClose">>;

/** Sockets that were handed on, until they are taken. */
export class KeptSockets {
  readonly #native: HandingOnModule;
  readonly #byPort = new Map<string, number>();

  constructor(native: HandingOnModule, descriptors: readonly number[]) {
    this.#native = native;
    for (const descriptor of descriptors) {
      const [ip, port] = native.socketName(descriptor, false) ?? [];
      const name = ip === undefined ? undefined : nameOf(ip.includes(":"), port!);
      if (name === undefined || this.#byPort.has(name)) native.descriptorClose(descriptor);
      else this.#byPort.set(name, descriptor);
    }
  }

  /** The descriptor of the socket with that port, which the caller then owns. */
  take(isIpv6: boolean, port: number): number | undefined {
    const name = nameOf(isIpv6, port);
    const descriptor = this.#byPort.get(name);
    this.#byPort.delete(name);
    return descriptor;
  }

  /** Closes the sockets that were not taken. @returns how many */
  close(): number {
    const { size } = this.#byPort;
    for (const descriptor of this.#byPort.values()) this.#native.descriptorClose(descriptor);
    this.#byPort.clear();
    return size;
  }
}

function nameOf(isIpv6: boolean, port: number): string {
  return `${isIpv6 ? 6 : 4} ${port}`;
}

/** The highest number in the names of sessions, which other sessions must not get; 0 if there are none. */
export function highestNumber(states: readonly KeptState[]): number {
  return states.flatMap(({ sessions }) => sessions).reduce((most, { number }) => Math.max(most, number), 0);
}

/** Gives each of `count` workers its share: the sessions whose id names it, and their sockets. */
export function distribute(
  native: HandingOnModule,
  states: readonly KeptState[],
  count: number,
): KeptState[][] {
  const parts: KeptState[][] = Array.from({ length: count }, () => []);
  const sockets = new KeptSockets(
    native,
    states.flatMap((state) => state.sockets),
  );
  for (const { clock, sessions } of states) {
    for (let worker = 0; worker < count; worker++) {
      const own = sessions.filter(({ id }) => id[0] % count === worker);
      if (own.length === 0) continue;
      const ports = own.flatMap(({ associations }) => associations.map((each) => each.ports));
      const descriptors = ports.flatMap(([port4, port6]) => [
        (port4 > 0 ? sockets.take(false, port4) : undefined) ?? [],
        (port6 > 0 ? sockets.take(true, port6) : undefined) ?? [],
      ]);
      parts[worker].push({ clock, sessions: own, sockets: descriptors.flat() });
    }
  }
  sockets.close();
  return parts;
}
