import type { Datapath } from "../../core/datapath/datapath.ts";
import { TYPESCRIPT_DATAPATH } from "../../core/datapath/typescript-datapath.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { ATYP_IPV6, formatHost, makeAddress } from "../../wire/socket-address.ts";
import { formatEndpoint, splitZone } from "../addresses/endpoint.ts";
import { publicIps } from "../addresses/public-addresses.ts";
import type { FlowEnd } from "../io/shortcuts.ts";
import type { UdpSocket } from "../io/udp-io.ts";
import { Remote } from "../io/udp-io.ts";
import { hasNoMoreSockets } from "../system-error.ts";
import type { AssociationSockets } from "./association-sockets.ts";
import type { EgressHost, ServerEgress } from "./server-egress.ts";

const IS_IPV6 = [false, true];

/** Sends the datagrams of a server's associations from UDP sockets, which it opens on first use. */
export class SocketEgress implements ServerEgress {
  readonly ready = Promise.resolve();
  readonly #host: EgressHost;
  readonly #sockets: AssociationSockets;
  readonly #publicAddress: readonly string[];
  readonly #datapath: Datapath;
  /** By context slot: its target, and the generation of the slot that has it, plus one. */
  readonly #remotes: (Remote | undefined)[] = [];
  readonly #remoteGenerations: number[] = [];

  /** @param publicAddress  IPs for clients that bind; none for those of this machine */
  constructor(host: EgressHost, sockets: AssociationSockets, publicAddress: readonly string[]) {
    this.#host = host;
    this.#sockets = sockets;
    this.#publicAddress = publicAddress;
    this.#datapath = host.system.datapath ?? TYPESCRIPT_DATAPATH;
  }

  send(data: Uint8Array): void {
    const { core, system } = this.#host;
    const { outgoing, contexts, counters } = core;
    const { count, association, context, offset, length } = outgoing;
    const { tap } = counters;
    for (let first = 0; first < count; ) {
      // A tap needs to know which datagram was dropped.
      const end = tap !== undefined ? first + 1 : outgoing.endOfRun(this.#datapath, first);
      const at = first;
      const slot = context[at];
      first = end;
      let remote = this.#remotes[slot];
      if (remote === undefined || this.#remoteGenerations[slot] !== contexts.generation[slot] + 1) {
        const target = contexts.target[slot];
        if (target === undefined) {
          this.#dropEnded(data, at, end);
          continue;
        }
        remote = new Remote(target);
        this.#remotes[slot] = remote;
        this.#remoteGenerations[slot] = contexts.generation[slot] + 1;
      }
      const socket = this.#socketFor(association[at], remote.address);
      const dropped =
        socket === undefined ? end - at : socket.sendAll(undefined, data, offset, length, at, end, remote);
      if (dropped === 0) continue;
      const isLimit = socket === undefined || hasNoMoreSockets(socket.error);
      const reason = isLimit ? "association_limit" : "send_error";
      counters.drops[reason] += dropped;
      if (tap !== undefined) this.#host.records.record(tap, reason, data, at);
    }
    counters.drops.send_error += system.io.udp.flush();
  }

  /** Drops rows of a context that has ended since they came: its association was evicted for a socket, or its session has failed. */
  #dropEnded(data: Uint8Array, first: number, end: number): void {
    const { core, records } = this.#host;
    const { drops, tap } = core.counters;
    const reason = core.dropReasonOf(core.outgoing.association[first]);
    drops[reason] += end - first;
    if (tap === undefined) return;
    for (let i = first; i < end; i++) records.record(tap, reason, data, i);
  }

  /** The end of a shortcut; undefined while the association has no socket for its target. */
  flowEnd(association: number, context: number): FlowEnd | undefined {
    const target = this.#host.core.contexts.target[context];
    const socket = target && this.#sockets.find(association, target[0] === ATYP_IPV6);
    return socket && { socket, remote: new Remote(target!), header: undefined };
  }

  /**
   * @param mayEvict  whether another association may be evicted for it
   * @returns undefined if there is no room for another socket, and then the association has ended if `mayEvict` is true
   */
  #socketFor(association: number, target: AddressBytes, mayEvict = true): UdpSocket | undefined {
    const isIpv6 = target[0] === ATYP_IPV6;
    const known = this.#sockets.find(association, isIpv6);
    if (known !== undefined) return known;
    if (this.#sockets.isFull && !(mayEvict && this.#makeRoom(association))) return undefined;
    const socket = this.open(association, isIpv6, undefined);
    if (!hasNoMoreSockets(socket.error)) return socket;
    // The system has fewer than the limit assumes, or something else has taken them.
    this.#sockets.remove(association, isIpv6);
    return mayEvict && this.#makeRoom(association) ? this.open(association, isIpv6, undefined) : undefined;
  }

  /** @param descriptor  of a socket from another process; undefined for a new one */
  open(association: number, isIpv6: boolean, descriptor: number | undefined): UdpSocket {
    const { core, driver, system, log } = this.#host;
    const sockets = this.#sockets;
    const socket = system.io.udp.open({
      family: isIpv6 ? 6 : 4,
      host: undefined,
      port: 0,
      reusePort: false,
      descriptor,
      forbidsFragments: core.forbidsFragments(association),
      latency: core.latencyOf(association),
      dscp: core.dscpOf(association),
      onDatagrams: (received, first, end) => {
        if (sockets.find(association, isIpv6) !== socket) return;
        core.handleDatagrams(driver.now(), association, received, first, end);
        driver.schedule();
      },
      onUnreachable: (remote, kind, mtu) => {
        if (sockets.find(association, isIpv6) !== socket) return;
        core.handleUnreachable(system.now(), association, remote, kind, mtu);
        driver.schedule();
      },
      onBindError: (error) => {
        const isLimit = hasNoMoreSockets(error);
        const isInUse = sockets.find(association, isIpv6) === socket;
        // Where others were evicted, the counters tell.
        const level = isLimit && !isInUse ? "debug" : "warn";
        log[level]({ error: error.message }, "cannot open a UDP socket");
        if (!isInUse) return;
        core.handleSocketFailed(system.now(), association, isLimit);
        driver.drain();
      },
    });
    sockets.add(association, isIpv6, socket);
    if (socket.error === undefined) core.handleSocketOpened(association);
    return socket;
  }

  /** Evicts an association to close a socket. @returns false if that is impossible, and `association` itself has ended */
  #makeRoom(association: number): boolean {
    const { core, driver, system } = this.#host;
    const { count } = this.#sockets;
    // What the batch has for an association that is evicted leaves first.
    core.counters.drops.send_error += system.io.udp.flush();
    // Without sockets here, something else has them all.
    if (count === 0) core.handleSocketFailed(driver.now(), association, true);
    this.#host.handleOutputs();
    if (count === 0) return false;
    if (this.#sockets.count < count) return core.hasAssociation(association);
    const isPossible = core.makeRoomForSocket(driver.now(), association);
    this.#host.handleOutputs();
    return isPossible;
  }

  bind(association: number, target: AddressBytes | undefined, localIp: string | undefined): void {
    const { core, system } = this.#host;
    const addresses =
      target === undefined ? this.#bindIps(localIp).flatMap((ip) => makeAddress(ip, 0) ?? []) : [target];
    const bound: string[] = [];
    for (const address of addresses) {
      // No association is evicted for a second family.
      const socket = this.#socketFor(association, address, bound.length === 0);
      // The association has ended, and a socket for the other family would be in the way of the next one in its slot.
      if (socket === undefined && bound.length === 0) return;
      const port = socket?.port ?? 0;
      if (port > 0) bound.push(formatEndpoint(formatHost(address), port));
      // The socket reports later why it failed, and no longer belongs to the association then.
      else this.#sockets.remove(association, address[0] === ATYP_IPV6);
    }
    core.handleBound(system.now(), association, bound.length === 0 ? undefined : bound);
  }

  #bindIps(localIp: string | undefined): readonly string[] {
    if (this.#publicAddress.length > 0) return this.#publicAddress;
    // IPv4-mapped IPv6 becomes IPv4, because a socket for both families has such addresses.
    const local = localIp === undefined ? undefined : makeAddress(splitZone(localIp).ip, 0);
    return publicIps(local && formatHost(local), this.#host.system.interfaces());
  }

  setLatency(association: number, latency: LatencyClass | undefined): void {
    const { io } = this.#host.system;
    for (const isIpv6 of IS_IPV6) {
      this.#sockets.find(association, isIpv6)?.setLatency(latency ?? io.latency);
    }
  }

  setDscp(association: number, dscp: number): void {
    for (const isIpv6 of IS_IPV6) this.#sockets.find(association, isIpv6)?.setDscp(dscp);
  }

  release(association: number): void {
    this.#sockets.release(association);
  }

  async close(): Promise<void> {
    this.#sockets.close();
  }
}
