/** Addresses in frames. */
import { ATYP_IPV4, ATYP_IPV6, IPV4_ADDRESS_BYTES, isIpv4Mapped } from "../socket-address.ts";
import type { Frame } from "./dialect.ts";

/**
 * Points a frame at the address `ATYP ADDR PORT` of `length` bytes at `bytes[offset]`.
 *
 * @param unmapped  7 bytes of the caller's, for an IPv4-mapped IPv6 address, whose canonical form is IPv4
 */
export function readAddress(
  bytes: Uint8Array,
  offset: number,
  length: number,
  frame: Frame,
  unmapped: Uint8Array,
): void {
  if (bytes[offset] !== ATYP_IPV6 || !isIpv4Mapped(bytes, offset + 1)) {
    frame.addresses = bytes;
    frame.addressOffset = offset;
    frame.addressLength = length;
    return;
  }
  unmapped[0] = ATYP_IPV4;
  for (let i = 1; i < IPV4_ADDRESS_BYTES; i++) unmapped[i] = bytes[offset + length - IPV4_ADDRESS_BYTES + i];
  frame.addresses = unmapped;
  frame.addressOffset = 0;
  frame.addressLength = IPV4_ADDRESS_BYTES;
}
