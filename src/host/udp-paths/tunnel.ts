import type { UnreachableKind } from "../../wire/capsule.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { PacketEnd } from "../io/shortcuts.ts";
import type { Relay, RelayHost } from "../udp/fixed-forward.ts";
import type { SharedLatency } from "../udp/shared-latency.ts";
import type { OutgoingDatagram, UdpPath, UdpPathHost } from "./udp-path.ts";

const NONE = -1;

/** The host of a path whose associations may have shortcuts. */
export interface TunnelPathHost extends UdpPathHost {
  /** The device's end for packets between an association's application and `remote`, if they may have shortcuts. */
  packetEnd?(association: number, remote: AddressBytes, dscp: number): PacketEnd | undefined;
  /** @see Tun2Socks.handleShortcut */
  handleCarried?(
    time: number,
    association: number,
    isOut: boolean,
    count: number,
    bytes: number,
    packets: number,
  ): void;
}

/** Sends into a session of udp-local in the same thread, without a socket in between. */
export class TunnelPath implements UdpPath, Relay {
  readonly socket = { close: () => {} };
  readonly #tunnel: RelayHost;
  readonly #host: TunnelPathHost;
  readonly #latency: SharedLatency;
  /** By the device's association: the tunnel's association, or -1, and the source. */
  readonly #inner: number[] = [];
  readonly #sources: (AddressBytes | undefined)[] = [];
  /** By the tunnel's association. */
  readonly #outer: number[] = [];

  /** @param latency  of the device, which its associations share */
  constructor(tunnel: RelayHost, host: TunnelPathHost, latency: SharedLatency) {
    this.#latency = latency;
    this.#tunnel = tunnel;
    this.#host = host;
  }

  open(association: number, source: AddressBytes | undefined): void {
    this.#inner[association] = NONE;
    this.#sources[association] = source;
  }

  send(datagram: OutgoingDatagram): void {
    const { association, data, offset, length, addresses, addressOffset, addressLength } = datagram;
    let inner = this.#inner[association];
    if (inner === NONE) inner = this.#enter(association);
    if (inner === NONE) {
      this.#host.drop("association_limit", 1);
      return;
    }
    const { core } = this.#tunnel;
    const now = this.#tunnel.turn.now();
    core.handleDscp(now, inner, datagram.dscp);
    core.handleDatagram(now, inner, data, offset, length, addresses, addressOffset, addressLength);
  }

  flush(): void {
    this.#tunnel.turn.schedule();
  }

  close(association: number): void {
    const inner = this.#inner[association];
    this.#inner[association] = NONE;
    this.#sources[association] = undefined;
    if (inner === NONE) return;
    this.#outer[inner] = NONE;
    this.#latency.remove(inner);
    this.#tunnel.register(inner, undefined);
    this.#tunnel.core.closeAssociation(this.#tunnel.turn.now(), inner);
    this.#tunnel.turn.schedule();
  }

  async end(): Promise<void> {}

  // Relay

  deliver(
    inner: number,
    context: number,
    data: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    first: number,
    end: number,
  ): number {
    const remote = this.#tunnel.core.contexts.address[context];
    if (remote === undefined) return end - first;
    const outer = this.#outer[inner];
    for (let i = first; i < end; i++) this.#host.deliver(outer, remote, data, offsets[i], lengths[i]);
    return 0;
  }

  refuse(inner: number, remote: AddressBytes, kind: UnreachableKind, mtu: number): void {
    const association = this.#outer[inner];
    if (association !== NONE) this.#host.refuse(association, remote, kind, mtu);
  }

  flowEnd(inner: number, context: number): PacketEnd | undefined {
    const { core } = this.#tunnel;
    const remote = core.contexts.address[context];
    const outer = this.#outer[inner] ?? NONE;
    const dscp = core.dscpOf?.(inner);
    if (remote === undefined || outer === NONE || dscp === undefined) return undefined;
    return this.#host.packetEnd?.(outer, remote, dscp);
  }

  handleCarried(
    time: number,
    inner: number,
    isOut: boolean,
    count: number,
    bytes: number,
    packets: number,
  ): void {
    this.#host.handleCarried?.(time, this.#outer[inner] ?? NONE, isOut, count, bytes, packets);
  }

  setLatency(inner: number, latency: LatencyClass): void {
    this.#latency.set(inner, latency);
  }

  /** The tunnel has ended the association; the next datagram opens another. */
  forget(inner: number): void {
    const association = this.#outer[inner];
    this.#outer[inner] = NONE;
    this.#latency.remove(inner);
    if (association !== NONE) this.#inner[association] = NONE;
  }

  #enter(association: number): number {
    const { core } = this.#tunnel;
    // The association does not expire in the tunnel: it is closed when the device's association expires.
    const inner = core.openAssociation(this.#tunnel.turn.now(), this.#sources[association], false);
    if (inner < 0) return NONE;
    this.#inner[association] = inner;
    this.#outer[inner] = association;
    this.#tunnel.register(inner, this);
    this.#latency.set(inner, this.#tunnel.latency);
    return inner;
  }
}
