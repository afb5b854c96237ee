import { updateChecksum } from "../../wire/ip/checksum.ts";
import {
  ICMP_CHECKSUM,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_REQUEST,
  ICMP_HEADER_BYTES,
  ICMPV6_ECHO_REPLY,
  ICMPV6_ECHO_REQUEST,
  icmpSum,
  writeIcmpChecksum,
} from "../../wire/ip/icmp.ts";
import type { IpPacket } from "../../wire/ip/ip-packet.ts";
import { writeIpv4Checksum } from "../../wire/ip/ipv4.ts";
import { VIRTIO_GSO_NONE, writeVirtioNetHeader } from "../../wire/ip/virtio-net.ts";
import { readUint16, writeUint16 } from "../../wire/network-order.ts";
import type { PacketBatch } from "./packet-batch.ts";
import { isChecksumPartial } from "./packet-checks.ts";
import type { PacketCounters } from "./packet-counters.ts";
import type { PacketWriter } from "./packet-writer.ts";

const NONE = -1;
const ECHO_HOP_LIMIT = 64;

/** Answers echo requests (RFC 792, RFC 4443 §4.1). Other ICMP messages have no recipient here. */
export class EchoReplies {
  readonly #packet: IpPacket;
  readonly #writer: PacketWriter;
  readonly #toDevice: PacketBatch;
  readonly #counters: PacketCounters;
  readonly #virtio: boolean;

  /** @param packet  the view of the packet that is handled @param virtio  whether packets have a virtio-net header */
  constructor(
    packet: IpPacket,
    writer: PacketWriter,
    toDevice: PacketBatch,
    counters: PacketCounters,
    virtio: boolean,
  ) {
    this.#packet = packet;
    this.#writer = writer;
    this.#toDevice = toDevice;
    this.#counters = counters;
    this.#virtio = virtio;
  }

  /** Handles an ICMP message, and writes the reply in its place. @param offset  of the virtio-net header or the packet; -1 for a reassembled packet */
  handle(bytes: Uint8Array, offset: number): void {
    const counters = this.#counters;
    const packet = this.#packet;
    const { transport, end, source, destination, addressBytes, start } = packet;
    const request = addressBytes === 4 ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST;
    const reply = addressBytes === 4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY;
    if (end - transport < ICMP_HEADER_BYTES) {
      counters.drop("malformed");
      return;
    }
    if (bytes[transport] !== request || bytes[transport + 1] !== 0) {
      counters.drop("icmp");
      return;
    }
    const hasOffload = this.#virtio && offset !== NONE;
    const isPartial = hasOffload && isChecksumPartial(bytes, offset);
    if (isPartial) writeIcmpChecksum(bytes, transport, end, source, destination, addressBytes);
    else if (icmpSum(bytes, transport, end, source, destination, addressBytes) !== 0xffff) {
      counters.drop("bad_checksum");
      return;
    }
    counters.echoes++;
    bytes[transport] = reply;
    const checksum = readUint16(bytes, transport + ICMP_CHECKSUM);
    writeUint16(bytes, transport + ICMP_CHECKSUM, updateChecksum(checksum, request << 8, reply << 8));
    if (offset === NONE) {
      const writer = this.#writer;
      const to = writer.begin(addressBytes, bytes, destination, bytes, source);
      this.#toDevice.arena.set(bytes.subarray(transport, end), to);
      writer.finish(addressBytes, packet.protocol, to + end - transport, NONE);
      return;
    }
    for (let i = 0; i < addressBytes; i++) {
      const byte = bytes[source + i];
      bytes[source + i] = bytes[destination + i];
      bytes[destination + i] = byte;
    }
    if (addressBytes === 4) {
      bytes[start + 8] = ECHO_HOP_LIMIT;
      writeIpv4Checksum(bytes, start);
    } else bytes[start + 7] = ECHO_HOP_LIMIT;
    if (this.#virtio) writeVirtioNetHeader(bytes, offset, 0, VIRTIO_GSO_NONE, 0, 0, 0, 0);
    counters.packetsOut++;
    this.#toDevice.add(1, offset, end - offset);
  }
}
