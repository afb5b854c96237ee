/**
 * The 10-byte header before each packet of a TUN device with IFF_VNET_HDR: virtio 1.2 §5.1.6, without num_buffers.
 * Numbers are little-endian; on a big-endian host the device is set to that (TUNSETVNETLE).
 */
export const VIRTIO_NET_HEADER_BYTES = 10;

/** The checksum field holds only the sum of the pseudo header; the next sender completes it. */
export const VIRTIO_NEEDS_CHECKSUM = 1;

export const VIRTIO_GSO_NONE = 0;
export const VIRTIO_GSO_TCPV4 = 1;
/** UFO: the packet has one datagram, which is to be fragmented by IP. */
export const VIRTIO_GSO_UDP = 3;
export const VIRTIO_GSO_TCPV6 = 4;
/** USO: the packet is to be split into datagrams of gso_size bytes. */
export const VIRTIO_GSO_UDP_L4 = 5;

const GSO_ECN = 0x80;

export function virtioFlags(bytes: Uint8Array, offset: number): number {
  return bytes[offset];
}

/** The GSO type, without its ECN bit. */
export function virtioGsoType(bytes: Uint8Array, offset: number): number {
  return bytes[offset + 1] & ~GSO_ECN;
}

/** Bytes of headers in each segment, as a hint. */
export function virtioHeaderLength(bytes: Uint8Array, offset: number): number {
  return bytes[offset + 2] | (bytes[offset + 3] << 8);
}

/** Payload bytes of each segment. */
export function virtioGsoSize(bytes: Uint8Array, offset: number): number {
  return bytes[offset + 4] | (bytes[offset + 5] << 8);
}

/** Offset in the packet at which the sum starts. */
export function virtioChecksumStart(bytes: Uint8Array, offset: number): number {
  return bytes[offset + 6] | (bytes[offset + 7] << 8);
}

/** Offset of the checksum field from there. */
export function virtioChecksumOffset(bytes: Uint8Array, offset: number): number {
  return bytes[offset + 8] | (bytes[offset + 9] << 8);
}

/** Writes a header, which is all 0 for a packet that needs no completion. */
export function writeVirtioNetHeader(
  bytes: Uint8Array,
  offset: number,
  flags: number,
  gsoType: number,
  headerLength: number,
  gsoSize: number,
  checksumStart: number,
  checksumOffset: number,
): void {
  bytes[offset] = flags;
  bytes[offset + 1] = gsoType;
  writeLittleEndian(bytes, offset + 2, headerLength);
  writeLittleEndian(bytes, offset + 4, gsoSize);
  writeLittleEndian(bytes, offset + 6, checksumStart);
  writeLittleEndian(bytes, offset + 8, checksumOffset);
}

function writeLittleEndian(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value;
  bytes[offset + 1] = value >>> 8;
}
