/** The UDP ports of the SOCKS5 server, as an option has them. */
export interface UdpPortsOption {
  readonly first: number;
  readonly last: number;
  /** Whether it is one port for all associations. */
  readonly isShared: boolean;
}

/** Reads `PORT`, which all share, or `FROM-TO`, of which each association has its own. @returns undefined for other text */
export function parseUdpPorts(text: string): UdpPortsOption | undefined {
  const [, from, to] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text) ?? [];
  const first = Number(from);
  const last = Number(to ?? from);
  if (from === undefined || first < 1 || last < first || last > 65_535) return undefined;
  return { first, last, isShared: to === undefined };
}

/** A range of ports, given out in turns, so that one that was given back is not used again soon. */
export class PortRange {
  readonly size: number;
  readonly #first: number;
  readonly #taken = new Set<number>();
  #next: number;

  /** @param start  which one, from 0 on, is given out first */
  constructor(first: number, last: number, start: number) {
    this.#first = first;
    this.size = last - first + 1;
    this.#next = start % this.size;
  }

  /** @returns undefined when all are taken */
  take(): number | undefined {
    for (let tries = 0; tries < this.size; tries++) {
      const port = this.#first + this.#next;
      this.#next = (this.#next + 1) % this.size;
      if (this.#taken.has(port)) continue;
      this.#taken.add(port);
      return port;
    }
    return undefined;
  }

  release(port: number): void {
    this.#taken.delete(port);
  }
}
