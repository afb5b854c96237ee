import { AddressIndex } from "../core/address-index.ts";
import type { TunnelClient } from "../core/client.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import type { OpenUdpSocket, UdpSocket } from "./udp-socket.ts";
import { Remote } from "./udp-socket.ts";

/** How a relay hears of the loop and tells it that something waits. */
export interface RelayHost {
  readonly core: TunnelClient;
  /** The clock, read once a turn of the loop. */
  now(): number;
  /** Drains the core once this turn of the loop is over. */
  schedule(): void;
}

/** One end of an association at the application's side. */
export interface Relay {
  /** A datagram for the application. @param context  slot that tells where it came from */
  deliver(association: number, context: number, data: Uint8Array, offset: number, length: number): boolean;
  /** Core has ended the association. */
  forget(association: number): void;
  readonly socket: UdpSocket;
}

/** A UDP port whose datagrams all go to one target; each source address is an association of its own. */
export class FixedForward implements Relay {
  readonly socket: UdpSocket;
  readonly #host: RelayHost;
  readonly #target: AddressBytes;
  readonly #register: (association: number, relay: Relay) => void;
  readonly #bySource: AddressIndex;
  readonly #remotes: (Remote | undefined)[] = [];
  /** The source that sent last, as the socket names it. */
  #lastSource: AddressBytes | undefined;
  #lastAssociation = -1;

  /**
   * @param register  tells the host whose the association is
   * @param seed      a random 32-bit number
   */
  constructor(
    host: RelayHost,
    open: OpenUdpSocket,
    listen: { readonly family: 4 | 6; readonly host: string; readonly port: number },
    target: AddressBytes,
    seed: number,
    register: (association: number, relay: Relay) => void,
    onBindError: (error: Error) => void,
  ) {
    this.#host = host;
    this.#target = target;
    this.#register = register;
    this.#bySource = new AddressIndex(seed);
    this.socket = open({
      ...listen,
      onDatagram: (data, offset, length, source) => this.#handleDatagram(data, offset, length, source),
      onBindError,
    });
  }

  deliver(association: number, _context: number, data: Uint8Array, offset: number, length: number): boolean {
    const remote = this.#remotes[association];
    return remote !== undefined && this.socket.send(undefined, data, offset, length, remote);
  }

  forget(association: number): void {
    if (this.#remotes[association] === undefined) return;
    this.#bySource.remove(association);
    this.#remotes[association] = undefined;
    this.#lastSource = undefined;
  }

  #handleDatagram(data: Uint8Array, offset: number, length: number, source: AddressBytes): void {
    const now = this.#host.now();
    const association = this.#associationOf(now, source);
    if (association < 0) return;
    const target = this.#target;
    this.#host.core.handleDatagram(now, association, data, offset, length, target, 0, target.length);
    this.#host.schedule();
  }

  #associationOf(now: number, source: AddressBytes): number {
    if (source === this.#lastSource) return this.#lastAssociation;
    let association = this.#bySource.find(0, source, 0, source.length);
    if (association < 0) {
      association = this.#host.core.openAssociation(now, source, true);
      if (association < 0) {
        this.#host.core.counters.drops.association_limit++;
        return -1;
      }
      this.#register(association, this);
      this.#bySource.add(association, 0, source);
      this.#remotes[association] = new Remote(source);
    }
    this.#lastSource = source;
    this.#lastAssociation = association;
    return association;
  }
}
