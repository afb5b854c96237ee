/** The option for the UDP ports of the SOCKS5 server, parsed. */
export interface UdpPortsOption {
  readonly first: number;
  readonly last: number;
  /** True if all associations use one port. */
  readonly isShared: boolean;
}

/** Reads `PORT`, shared by all associations, or `FROM-TO`, with one for each. @returns undefined for other text */
export function parseUdpPorts(text: string): UdpPortsOption | undefined {
  const [, from, to] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text) ?? [];
  const first = Number(from);
  const last = Number(to ?? from);
  if (from === undefined || first < 1 || last < first || last > 65_535) return undefined;
  return { first, last, isShared: to === undefined };
}

/** A range of ports, taken in turn, so that a released port is not reused soon. */
export class PortRange {
  readonly size: number;
  readonly #first: number;
  readonly #taken = new Set<number>();
  #next: number;

  /** @param start  index of the port that is taken first */
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
