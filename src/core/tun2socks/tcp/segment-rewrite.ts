import { fold, sumBytes, updateChecksum } from "../../../wire/ip/checksum.ts";
import { IPV4_SOURCE, updateIpv4Checksum } from "../../../wire/ip/ipv4.ts";
import { IPV6_SOURCE } from "../../../wire/ip/ipv6.ts";
import { TCP_CHECKSUM } from "../../../wire/ip/tcp.ts";
import { readUint16, writeUint16 } from "../../../wire/network-order.ts";

/**
 * Replaces the addresses and ports of a TCP packet in place and updates its checksums; a wrong checksum stays wrong.
 *
 * @param start      offset of the IP header; `transport` is that of the TCP header
 * @param isPartial  whether the TCP checksum field holds only the pseudo header's sum (virtio NEEDS_CSUM)
 */
export function rewriteSegment(
  bytes: Uint8Array,
  start: number,
  transport: number,
  addressBytes: 4 | 16,
  isPartial: boolean,
  source: Uint8Array,
  sourceAt: number,
  sourcePort: number,
  destination: Uint8Array,
  destinationAt: number,
  destinationPort: number,
): void {
  const addresses = start + (addressBytes === 4 ? IPV4_SOURCE : IPV6_SOURCE);
  const end = addresses + 2 * addressBytes;
  const oldAddresses = sumBytes(bytes, addresses, end, 0);
  for (let i = 0; i < addressBytes; i++) bytes[addresses + i] = source[sourceAt + i];
  for (let i = 0; i < addressBytes; i++) bytes[addresses + addressBytes + i] = destination[destinationAt + i];
  const newAddresses = sumBytes(bytes, addresses, end, 0);
  if (addressBytes === 4) updateIpv4Checksum(bytes, start, oldAddresses, newAddresses);

  const oldPorts = readUint16(bytes, transport) + readUint16(bytes, transport + 2);
  writeUint16(bytes, transport, sourcePort);
  writeUint16(bytes, transport + 2, destinationPort);
  const checksum = readUint16(bytes, transport + TCP_CHECKSUM);
  writeUint16(
    bytes,
    transport + TCP_CHECKSUM,
    isPartial
      ? fold(checksum + (~oldAddresses & 0xffff) + newAddresses)
      : updateChecksum(checksum, fold(oldAddresses + oldPorts), newAddresses + sourcePort + destinationPort),
  );
}
