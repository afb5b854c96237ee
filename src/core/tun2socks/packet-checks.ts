import { ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST } from "../../wire/ip/icmp.ts";
import type { IpPacket } from "../../wire/ip/ip-packet.ts";
import { PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP } from "../../wire/ip/ip-packet.ts";
import { TCP_CHECKSUM } from "../../wire/ip/tcp.ts";
import { UDP_CHECKSUM } from "../../wire/ip/udp.ts";
import {
  VIRTIO_GSO_NONE,
  VIRTIO_GSO_TCPV4,
  VIRTIO_GSO_TCPV6,
  VIRTIO_GSO_UDP,
  VIRTIO_GSO_UDP_L4,
  VIRTIO_NEEDS_CHECKSUM,
  virtioChecksumOffset,
  virtioChecksumStart,
  virtioFlags,
  virtioGsoSize,
  virtioGsoType,
  virtioHeaderLength,
} from "../../wire/ip/virtio-net.ts";
import { isIpv4Mapped, sameBytes } from "../../wire/socket-address.ts";
import type { DeviceAddresses } from "./options.ts";
import type { PacketDropReason } from "./packet-counters.ts";

/** Why a packet with these addresses is invalid from a device, or would loop; undefined if it is valid. */
export function findAddressFault(
  bytes: Uint8Array,
  { source, destination, addressBytes, protocol }: IpPacket,
  device: DeviceAddresses | undefined,
): PacketDropReason | undefined {
  if (isMulticast(bytes, destination, addressBytes)) return "multicast";
  if (
    isMulticast(bytes, source, addressBytes) ||
    isMartian(bytes, source, addressBytes) ||
    isMartian(bytes, destination, addressBytes)
  ) {
    return "martian";
  }
  if (isAddress(device?.peer, bytes, source)) return "own_source";
  const isIcmp = protocol === PROTOCOL_ICMP || protocol === PROTOCOL_ICMPV6;
  return !isIcmp && isAddress(device?.own, bytes, destination) ? "own_destination" : undefined;
}

/** Whether the virtio header at `offset` is consistent with the packet. */
export function isOffloadRight(bytes: Uint8Array, offset: number, packet: IpPacket): boolean {
  const { start, transport, end, protocol, version } = packet;
  const isTcp = protocol === PROTOCOL_TCP;
  const isPartial = isChecksumPartial(bytes, offset);
  const gsoType = virtioGsoType(bytes, offset);
  if (!isPartial && gsoType === VIRTIO_GSO_NONE) return true;
  if (packet.isFragment || virtioHeaderLength(bytes, offset) > end - start) return false;
  if (isPartial) {
    const checksumStart = start + virtioChecksumStart(bytes, offset);
    const checksumOffset = virtioChecksumOffset(bytes, offset);
    if (checksumStart + checksumOffset + 2 > end) return false;
    if (isTcp && (checksumStart !== transport || checksumOffset !== TCP_CHECKSUM)) return false;
    if (protocol === PROTOCOL_UDP && (checksumStart !== transport || checksumOffset !== UDP_CHECKSUM))
      return false;
  }
  if (gsoType === VIRTIO_GSO_NONE) return true;
  if (virtioGsoSize(bytes, offset) === 0 || !isPartial) return false;
  if (gsoType === VIRTIO_GSO_UDP || gsoType === VIRTIO_GSO_UDP_L4) return protocol === PROTOCOL_UDP;
  return isTcp && gsoType === (version === 4 ? VIRTIO_GSO_TCPV4 : VIRTIO_GSO_TCPV6);
}

/** Whether the virtio header at `offset` says that the packet's checksum is incomplete. */
export function isChecksumPartial(bytes: Uint8Array, offset: number): boolean {
  return (virtioFlags(bytes, offset) & VIRTIO_NEEDS_CHECKSUM) !== 0;
}

export function isAddress(address: Uint8Array | undefined, bytes: Uint8Array, at: number): boolean {
  return address !== undefined && sameBytes(address, 0, bytes, at, address.length);
}

/** Multicast and the limited broadcast. */
function isMulticast(bytes: Uint8Array, at: number, addressBytes: number): boolean {
  if (addressBytes === 16) return bytes[at] === 0xff;
  if (bytes[at] >> 4 === 0xe) return true;
  return bytes[at] === 255 && bytes[at + 1] === 255 && bytes[at + 2] === 255 && bytes[at + 3] === 255;
}

/** IPv4: this network, loopback and class E. IPv6: the unspecified and the loopback address, and IPv4-mapped ones. */
function isMartian(bytes: Uint8Array, at: number, addressBytes: number): boolean {
  if (addressBytes === 4) return bytes[at] === 0 || bytes[at] === 127 || bytes[at] >= 240;
  if (isIpv4Mapped(bytes, at)) return true;
  for (let i = 0; i < 15; i++) if (bytes[at + i] !== 0) return false;
  return bytes[at + 15] <= 1;
}

/** Whether this is an ICMP error or redirect, which must not be answered with an error (RFC 1122 §3.2.2, RFC 4443 §2.4). */
export function isIcmpError(bytes: Uint8Array, { protocol, transport, end, version }: IpPacket): boolean {
  if (version === 4) {
    if (protocol !== PROTOCOL_ICMP) return false;
    return (
      transport >= end || (bytes[transport] !== ICMP_ECHO_REQUEST && bytes[transport] !== ICMP_ECHO_REPLY)
    );
  }
  return (
    protocol === PROTOCOL_ICMPV6 && (transport >= end || bytes[transport] < 128 || bytes[transport] === 137)
  );
}
