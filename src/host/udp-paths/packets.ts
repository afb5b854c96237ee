import type { PacketBatch } from "../../core/tun2socks/packet-batch.ts";
import type { PacketEgressEvents } from "../../core/tun2socks/packet-egress.ts";
import { PacketEgress } from "../../core/tun2socks/packet-egress.ts";
import type { OnPackets } from "../../core/tun2socks/packet-stream-reader.ts";
import type { UnreachableKind } from "../../wire/capsule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyAddress } from "../../wire/socket-address.ts";
import type { PacketLink } from "../devices/packet-link.ts";
import type { Loop } from "../loop.ts";
import type { PathCounts } from "../stats/path-counts.ts";
import { sumRecords } from "../stats/tunnel-stats.ts";
import type { OutgoingDatagram, UdpPath, UdpPathHost } from "./udp-path.ts";

/** Sends IP packets to a tun2socks elsewhere. */
export class PacketPath implements UdpPath, PacketEgressEvents {
  readonly #egress: PacketEgress;
  readonly #host: UdpPathHost;
  readonly #link: PacketLink;

  /**
   * @param seed  a random 32-bit number
   * @param open  opens the link, which passes packets that come back to `onPackets`
   */
  constructor(host: UdpPathHost, loop: Loop, seed: number, open: (onPackets: OnPackets) => PacketLink) {
    this.#egress = new PacketEgress(seed);
    this.#host = host;
    this.#link = open((data, offsets, lengths, count) => {
      const now = loop.now();
      for (let i = 0; i < count; i++) {
        this.#egress.handlePacket(now, data, offsets[i], offsets[i] + lengths[i], this);
      }
    });
  }

  open(association: number, source: AddressBytes | undefined): void {
    this.#egress.open(association, source);
  }

  send(datagram: OutgoingDatagram): void {
    const { association, data, offset, length, dscp, addresses, addressOffset, addressLength } = datagram;
    const isWhole = addressOffset === 0 && addresses.length === addressLength;
    const target = isWhole
      ? (addresses as AddressBytes)
      : copyAddress(addresses, addressOffset, addressLength);
    while (!this.#egress.send(association, target, data, offset, length, dscp)) this.flush();
  }

  flush(): void {
    const { toDevice } = this.#egress;
    if (toDevice.count === 0) return;
    this.#host.drop("send_error", this.#link.write(toDevice));
    toDevice.clear();
  }

  close(association: number): void {
    this.#egress.close(association);
  }

  end(): Promise<void> {
    return this.#link.close();
  }

  counts(): PathCounts {
    const { packetsIn, packetsOut, fragmentsIn, reassembled, drops } = this.#egress.counters;
    const all = sumRecords([drops, this.#link.drops?.()]);
    return { ...{ packetsIn, packetsOut, fragmentsIn, reassembled }, drops: all };
  }

  // PacketEgressEvents

  onDatagram(
    association: number,
    remote: AddressBytes,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    this.#host.deliver(association, remote, data, offset, length);
  }

  onUnreachable(association: number, remote: AddressBytes, kind: UnreachableKind, mtu: number): void {
    this.#host.refuse(association, remote, kind, mtu);
  }
}

/** Passes the packets of a batch to {@link OnPackets}. */
export function handPackets(packets: PacketBatch, onPackets: OnPackets): void {
  const { count, offset, length, isInput } = packets;
  for (let first = 0; first < count; ) {
    let end = first + 1;
    while (end < count && isInput[end] === isInput[first]) end++;
    onPackets(packets.buffer(first), offset.subarray(first, end), length.subarray(first, end), end - first);
    first = end;
  }
}
