import { AddressIndex } from "../../core/address-index.ts";
import type { AssociationClient } from "../../core/client/association-client.ts";
import type { Datapath } from "../../core/datapath/datapath.ts";
import type { ReceivedDatagrams } from "../../core/session/received-datagrams.ts";
import { recordDroppedRows } from "../../core/tap.ts";
import type { UnreachableKind } from "../../wire/capsule.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { ATYP_DOMAIN, addressPort, copyAddress, sameBytes } from "../../wire/socket-address.ts";
import type { Turn } from "../driver.ts";
import type { FlowEnd } from "../io/shortcuts.ts";
import type { UdpIo, UdpSocket, UdpSocketOptions } from "../io/udp-io.ts";
import { Remote } from "../io/udp-io.ts";

/** What a relay needs from its host. */
export interface RelayHost {
  readonly core: AssociationClient;
  readonly datapath: Datapath;
  /** Class of associations without a context. */
  readonly latency: LatencyClass;
  /** The turn in which core is called; a schedule follows. */
  readonly turn: Turn;
  /** Sets the relay of an association; undefined before the relay itself closes it. */
  register(association: number, relay: Relay | undefined): void;
}

/** The application's end of an association. */
export interface Relay {
  /**
   * Datagrams for the application: payloads `first` to `end - 1`.
   *
   * @param context  slot that has their source
   * @returns how many could not be sent
   */
  deliver(
    association: number,
    context: number,
    data: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    first: number,
    end: number,
  ): number;
  /** A datagram of the association did not reach `remote`. @param mtu  for too-big, else 0 */
  refuse?(association: number, remote: AddressBytes, kind: UnreachableKind, mtu: number): void;
  /** The class of the association, at first {@link RelayHost.latency}, has changed. */
  setLatency?(association: number, latency: LatencyClass): void;
  /** The other end of a context, if it may have shortcuts; see {@link Shortcut}. */
  flowEnd?(association: number, context: number): FlowEnd | undefined;
  /** Shortcuts have carried datagrams past the relay, the last one at `time`. @param packets  of a device, else 0 */
  handleCarried?(
    time: number,
    association: number,
    isOut: boolean,
    count: number,
    bytes: number,
    packets: number,
  ): void;
  /** The current address of the association's application, if it is not the one that core knows. */
  sourceOf?(association: number): AddressBytes | undefined;
  /** Core has ended the association. */
  forget(association: number): void;
  readonly socket: Pick<UdpSocket, "close">;
}

/**
 * A UDP port whose datagrams all go to one target. Each source address has its own association. On a socket bound to any address, it has
 * one for each local address that it sends to, from which the answers then come.
 */
export class FixedForward implements Relay {
  readonly socket: UdpSocket;
  readonly #host: RelayHost;
  readonly #target: AddressBytes;
  readonly #anyPort: boolean;
  /** A context's address that is known to belong to the target. */
  #known: AddressBytes | undefined;
  /** (number of the local address, source) → association. */
  readonly #bySource: AddressIndex;
  readonly #remotes: (Remote | undefined)[] = [];
  /** The most recent sender. */
  #last: Remote | undefined;
  #lastAssociation = -1;

  /**
   * @param anyPort  true if answers from other ports of the target's host are accepted
   * @param seed     a random 32-bit number
   */
  constructor(
    host: RelayHost,
    io: UdpIo,
    listen: Pick<UdpSocketOptions, "family" | "host" | "port" | "reusePort">,
    target: AddressBytes,
    anyPort: boolean,
    seed: number,
    onBindError: (error: Error) => void,
  ) {
    this.#host = host;
    this.#target = target;
    this.#anyPort = anyPort;
    this.#bySource = new AddressIndex(seed);
    this.socket = io.open({
      ...listen,
      tellsLocal: true,
      onDatagrams: (received, first, end) => this.#handleDatagrams(received, first, end),
      onBindError,
    });
  }

  /** The port that the socket is bound to; 0 before that. */
  get port(): number {
    return this.socket.port;
  }

  close(): void {
    this.socket.close();
  }

  deliver(
    association: number,
    context: number,
    data: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    first: number,
    end: number,
  ): number {
    const { contexts, counters } = this.#host.core;
    if (!this.#isTarget(contexts.address[context]!)) {
      counters.drops.foreign_source += end - first;
      for (let i = first; i < end; i++) {
        this.#recordForeign(association, contexts.address[context]!, data, offsets[i], lengths[i]);
      }
      return 0;
    }
    const remote = this.#remotes[association];
    if (remote === undefined) return end - first;
    return this.socket.sendAll(undefined, data, offsets, lengths, first, end, remote);
  }

  flowEnd(association: number, context: number): FlowEnd | undefined {
    const remote = this.#remotes[association];
    const isTarget = this.#isTarget(this.#host.core.contexts.address[context]!);
    return remote && isTarget ? { socket: this.socket, remote, header: undefined } : undefined;
  }

  setLatency(_association: number, latency: LatencyClass): void {
    // All have the same target, and therefore the same class.
    this.socket.setLatency(latency);
  }

  forget(association: number): void {
    if (this.#remotes[association] === undefined) return;
    this.#bySource.remove(association);
    this.#remotes[association] = undefined;
    this.#last = undefined;
  }

  /** True if a source is the target. Only the server knows how a name was resolved, and its filter has accepted this source. */
  #isTarget(source: AddressBytes): boolean {
    if (source === this.#known) return true;
    const target = this.#target;
    const isHost =
      target[0] === ATYP_DOMAIN ||
      (source.length === target.length && sameBytes(source, 0, target, 0, target.length - 2));
    if (!isHost || (!this.#anyPort && addressPort(source) !== addressPort(target))) return false;
    this.#known = source;
    return true;
  }

  #handleDatagrams(received: ReceivedDatagrams, first: number, end: number): void {
    const { core } = this.#host;
    const now = this.#host.turn.now();
    const target = this.#target;
    for (let row = first; row < end; ) {
      const runEnd = received.endOfRun(row, end);
      const association = this.#associationOf(now, received, row);
      if (association < 0) this.#dropRows(received, row, runEnd);
      else core.handleDatagrams(now, association, received, row, runEnd, target);
      row = runEnd;
    }
    this.#host.turn.schedule();
  }

  #recordForeign(
    association: number,
    remote: AddressBytes,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const { core } = this.#host;
    const { tap } = core.counters;
    tap?.record(
      true,
      "foreign_source",
      association,
      core.sourceOf(association),
      remote,
      data,
      offset,
      length,
    );
  }

  #dropRows(received: ReceivedDatagrams, first: number, end: number): void {
    const { drops, tap } = this.#host.core.counters;
    drops.association_limit += end - first;
    if (tap === undefined) return;
    const at = received.addressOffset(first);
    const source = copyAddress(received.addresses, at, received.addressLength(first));
    recordDroppedRows(tap, "association_limit", -1, source, this.#target, received, first, end);
  }

  #associationOf(now: number, received: ReceivedDatagrams, row: number): number {
    const { addresses } = received;
    const at = received.addressOffset(row);
    const length = received.addressLength(row);
    const local = received.local(row);
    const last = this.#last;
    if (
      last?.local === local &&
      last.address.length === length &&
      this.#host.datapath.areSame(last.address, 0, addresses, at, length)
    ) {
      return this.#lastAssociation;
    }
    let association = this.#bySource.find(local, addresses, at, length);
    if (association < 0) {
      const source = copyAddress(addresses, at, length);
      association = this.#host.core.openAssociation(now, source, true);
      if (association < 0) return -1;
      this.#host.register(association, this);
      this.#bySource.add(association, local, source);
      this.#remotes[association] = new Remote(source, local);
    }
    this.#last = this.#remotes[association];
    this.#lastAssociation = association;
    return association;
  }
}
