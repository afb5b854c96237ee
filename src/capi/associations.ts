import { SharedLatency } from "../host/udp/shared-latency.ts";
import type { UdpLocalHost } from "../host/udp-local.ts";
import { TunnelPath } from "../host/udp-paths/tunnel.ts";
import type { UdpPathHost } from "../host/udp-paths/udp-path.ts";
import { OutgoingDatagram } from "../host/udp-paths/udp-path.ts";
import type { UnreachableKind } from "../wire/capsule.ts";
import { UNREACHABLE_KINDS } from "../wire/capsule.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import type { CHost } from "./c-host.ts";

const ARENA_BYTES = 256 * 1024;
const ROWS = 256;
const ROW_INTS = 4;

/** Makes a local serve the embedder's associations. */
export function openAssociations(host: CHost, local: UdpLocalHost): void {
  new Associations(host, local);
}

/** Associations of the embedder, which have numbers instead of sockets. */
class Associations implements UdpPathHost {
  readonly #host: CHost;
  readonly #path: TunnelPath;
  readonly #local: UdpLocalHost;
  readonly #arena: Uint8Array;
  readonly #rows = new Int32Array(ROWS * ROW_INTS);
  readonly #isOpen: boolean[] = [];
  readonly #datagram = new OutgoingDatagram();

  constructor(host: CHost, local: UdpLocalHost) {
    this.#host = host;
    this.#local = local;
    this.#path = new TunnelPath(local, this, new SharedLatency(local.latency, () => {}));
    this.#arena = host.lazyMemory!(ARENA_BYTES);
    host.associationsSetup(
      this.#arena,
      this.#rows,
      (association, count) => this.#handleDatagrams(association, count),
      (association) => this.#close(association),
    );
  }

  // UdpPathHost

  deliver(association: number, remote: AddressBytes, data: Uint8Array, offset: number, length: number): void {
    this.#host.associationDeliver(association, data, offset, length, remote);
  }

  refuse(association: number, remote: AddressBytes, kind: UnreachableKind, mtu: number): void {
    this.#host.associationRefuse(association, remote, UNREACHABLE_KINDS.indexOf(kind), mtu);
  }

  drop(reason: "send_error" | "association_limit" | "malformed" | "wrong_source", count: number): void {
    const { drops } = this.#local.core.counters;
    if (reason === "association_limit") drops.association_limit += count;
    else drops.send_error += count;
  }

  #handleDatagrams(association: number, count: number): void {
    if (this.#isOpen[association] !== true) {
      this.#isOpen[association] = true;
      this.#path.open(association, undefined);
    }
    const rows = this.#rows;
    const arena = this.#arena;
    const datagram = this.#datagram;
    for (let at = 0; at < count * ROW_INTS; at += ROW_INTS) {
      datagram.setPayload(association, arena, rows[at], rows[at + 1], 0);
      datagram.setTarget(arena, rows[at + 2], rows[at + 3]);
      this.#path.send(datagram);
    }
    this.#path.flush();
  }

  #close(association: number): void {
    if (this.#isOpen[association] !== true) return;
    this.#isOpen[association] = false;
    this.#path.close(association);
  }
}
