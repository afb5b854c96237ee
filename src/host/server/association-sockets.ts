import type { UdpSocket } from "../io/udp-io.ts";

/** The sockets of udp-server's associations, opened on first use, one per address family, up to a limit. */
export class AssociationSockets {
  readonly #limit: number;
  readonly #sockets4: (UdpSocket | undefined)[] = [];
  readonly #sockets6: (UdpSocket | undefined)[] = [];
  #count = 0;

  /** @param limit  how many sockets may be open at the same time */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** How many sockets are open. */
  get count(): number {
    return this.#count;
  }

  get isFull(): boolean {
    return this.#count >= this.#limit;
  }

  find(association: number, isIpv6: boolean): UdpSocket | undefined {
    return (isIpv6 ? this.#sockets6 : this.#sockets4)[association];
  }

  add(association: number, isIpv6: boolean, socket: UdpSocket): void {
    (isIpv6 ? this.#sockets6 : this.#sockets4)[association] = socket;
    this.#count++;
  }

  /** The ports of an association's sockets, IPv4 and IPv6; 0 for none. */
  ports(association: number): [number, number] {
    return [this.find(association, false)?.port ?? 0, this.find(association, true)?.port ?? 0];
  }

  /** Closes all sockets, and leaves their ports to descriptors for another process. */
  releaseAll(): number[] {
    const sockets = [...this.#sockets4.splice(0), ...this.#sockets6.splice(0)];
    this.#count = 0;
    return sockets.flatMap((socket) => socket?.release?.() ?? []);
  }

  /** Closes one socket of an association, if it is open. */
  remove(association: number, isIpv6: boolean): void {
    const sockets = isIpv6 ? this.#sockets6 : this.#sockets4;
    if (sockets[association] === undefined) return;
    sockets[association].close();
    sockets[association] = undefined;
    this.#count--;
  }

  /** Closes the sockets of an association that has ended. */
  release(association: number): void {
    this.remove(association, false);
    this.remove(association, true);
  }

  close(): void {
    for (let slot = Math.max(this.#sockets4.length, this.#sockets6.length) - 1; slot >= 0; slot--) {
      this.release(slot);
    }
  }
}
