/** IP packets for tests, built and checked slowly and independently of src/: a second opinion on every checksum and length. */
import { isIPv6 } from "node:net";

/** RFC 1071, followed literally. */
export function slowChecksum(...parts: Uint8Array[]): number {
  const bytes = Buffer.concat(parts.map((part) => Buffer.from(part)));
  let sum = 0n;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += BigInt(bytes[i] * 256 + (i + 1 < bytes.length ? bytes[i + 1] : 0));
  }
  while (sum >> 16n > 0n) sum = (sum & 0xffffn) + (sum >> 16n);
  return Number(~sum & 0xffffn);
}

/** 4 or 16 bytes of an address. */
export function ip(text: string): Buffer {
  if (!isIPv6(text)) return Buffer.from(text.split(".").map(Number));
  const [head, tail] = text.split("::").map((half) => (half === "" ? [] : half.split(":")));
  const groups =
    tail === undefined ? head : [...head, ...Array(8 - head.length - tail.length).fill("0"), ...tail];
  return Buffer.from(groups.map((group) => group.padStart(4, "0")).join(""), "hex");
}

function pseudoHeader(source: Uint8Array, destination: Uint8Array, protocol: number, length: number): Buffer {
  const rest = Buffer.alloc(source.length === 4 ? 4 : 8);
  if (source.length === 4) {
    rest[1] = protocol;
    rest.writeUInt16BE(length, 2);
  } else {
    rest.writeUInt32BE(length, 0);
    rest[7] = protocol;
  }
  return Buffer.concat([source, destination, rest]);
}

export interface IpFields {
  readonly source: string;
  readonly destination: string;
  readonly protocol: number;
  readonly ttl?: number;
  /** TOS byte or traffic class. */
  readonly tos?: number;
  readonly identification?: number;
  /** DF, MF, offset of IPv4. */
  readonly flags?: number;
  readonly options?: Uint8Array;
}

/** An IP packet around `payload`, whose checksums stay unchanged. */
export function ipPacket(fields: IpFields, payload: Uint8Array): Buffer {
  const [source, destination] = [ip(fields.source), ip(fields.destination)];
  const ttl = fields.ttl ?? 64;
  const tos = fields.tos ?? 0;
  if (source.length === 16) {
    const header = Buffer.alloc(40);
    header[0] = 0x60 | (tos >> 4);
    header[1] = (tos & 15) << 4;
    header.writeUInt16BE(payload.length, 4);
    header[6] = fields.protocol;
    header[7] = ttl;
    source.copy(header, 8);
    destination.copy(header, 24);
    return Buffer.concat([header, payload]);
  }
  const options = fields.options ?? Buffer.alloc(0);
  const header = Buffer.alloc(20 + options.length);
  header[0] = 0x40 | (header.length / 4);
  header[1] = tos;
  header.writeUInt16BE(header.length + payload.length, 2);
  header.writeUInt16BE(fields.identification ?? 1, 4);
  header.writeUInt16BE(fields.flags ?? 0x4000, 6);
  header[8] = ttl;
  header[9] = fields.protocol;
  source.copy(header, 12);
  destination.copy(header, 16);
  header.set(options, 20);
  header.writeUInt16BE(slowChecksum(header), 10);
  return Buffer.concat([header, payload]);
}

function withChecksum(fields: IpFields, at: number, message: Buffer): Buffer {
  const { source, destination, protocol } = fields;
  const pseudo =
    protocol === 1 ? Buffer.alloc(0) : pseudoHeader(ip(source), ip(destination), protocol, message.length);
  const checksum = slowChecksum(pseudo, message);
  message.writeUInt16BE(protocol === 17 && checksum === 0 ? 0xffff : checksum, at);
  return message;
}

/** A UDP datagram without its IP header. */
export function udpMessage(
  source: string,
  sourcePort: number,
  destination: string,
  destinationPort: number,
  payload: Uint8Array,
): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(sourcePort, 0);
  header.writeUInt16BE(destinationPort, 2);
  header.writeUInt16BE(8 + payload.length, 4);
  return withChecksum({ source, destination, protocol: 17 }, 6, Buffer.concat([header, payload]));
}

export function udpPacket(
  source: string,
  sourcePort: number,
  destination: string,
  destinationPort: number,
  payload: Uint8Array,
  more: Partial<IpFields> = {},
): Buffer {
  const message = udpMessage(source, sourcePort, destination, destinationPort, payload);
  return ipPacket({ source, destination, protocol: 17, ...more }, message);
}

export interface Segment {
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly destinationPort: number;
  readonly sequence: number;
  readonly acknowledgment: number;
  readonly flags: number;
  readonly payload?: Uint8Array;
}

export function tcpPacket(segment: Segment, more: Partial<IpFields> = {}): Buffer {
  const { source, destination } = segment;
  const header = Buffer.alloc(20);
  header.writeUInt16BE(segment.sourcePort, 0);
  header.writeUInt16BE(segment.destinationPort, 2);
  header.writeUInt32BE(segment.sequence >>> 0, 4);
  header.writeUInt32BE(segment.acknowledgment >>> 0, 8);
  header[12] = 0x50;
  header[13] = segment.flags;
  header.writeUInt16BE(64_240, 14);
  const fields = { source, destination, protocol: 6, ...more };
  return ipPacket(
    fields,
    withChecksum(fields, 16, Buffer.concat([header, segment.payload ?? Buffer.alloc(0)])),
  );
}

export function echoPacket(
  source: string,
  destination: string,
  payload: Uint8Array,
  more: Partial<IpFields> = {},
): Buffer {
  const isIpv6 = isIPv6(source);
  const message = Buffer.concat([Buffer.from([isIpv6 ? 128 : 8, 0, 0, 0, 0x12, 0x34, 0, 1]), payload]);
  const fields = { source, destination, protocol: isIpv6 ? 58 : 1, ...more };
  return ipPacket(fields, withChecksum(fields, 2, message));
}

/** The contents of a packet; see {@link inspect}. */
export interface Inspected {
  readonly version: number;
  readonly source: string;
  readonly destination: string;
  readonly protocol: number;
  readonly ttl: number;
  /** Transport header and payload. */
  readonly message: Buffer;
  readonly fragment: { readonly offset: number; readonly more: boolean; readonly id: number } | undefined;
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** Of UDP and TCP. */
  readonly payload: Buffer;
  readonly flags: number;
  readonly sequence: number;
  readonly acknowledgment: number;
}

function ipText(bytes: Buffer): string {
  if (bytes.length === 4) return [...bytes].join(".");
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(i * 2).toString(16));
  return groups.join(":").replace(/(^|:)0(:0)+(:|$)/, "::");
}

/**
 * Reads a packet of 20-byte IPv4 or plain IPv6 headers (a fragment header may follow).
 *
 * @param checksum  "whole": its checksums must be right; "partial": the transport's must be its pseudo header's sum, not complemented;
 *        "unseen": not checked
 * @throws Error for anything that is not well-formed
 */
export function inspect(packet: Uint8Array, checksum: "whole" | "partial" | "unseen" = "whole"): Inspected {
  const bytes = Buffer.from(packet);
  const version = bytes[0] >> 4;
  let protocol: number;
  let message: Buffer;
  let fragment: Inspected["fragment"];
  const addressAt = version === 4 ? 12 : 8;
  const addressBytes = version === 4 ? 4 : 16;
  const source = bytes.subarray(addressAt, addressAt + addressBytes);
  const destination = bytes.subarray(addressAt + addressBytes, addressAt + 2 * addressBytes);
  if (version === 4) {
    const headerBytes = (bytes[0] & 15) * 4;
    if (headerBytes < 20 || headerBytes > bytes.length) throw new Error("IPv4 header length");
    if (bytes.readUInt16BE(2) !== bytes.length) throw new Error("IPv4 total length");
    if (slowChecksum(bytes.subarray(0, headerBytes)) !== 0) throw new Error("IPv4 checksum");
    protocol = bytes[9];
    message = bytes.subarray(headerBytes);
    const word = bytes.readUInt16BE(6);
    if ((word & 0x3fff) !== 0) {
      fragment = {
        offset: (word & 0x1fff) * 8,
        more: (word & 0x2000) !== 0,
        id: bytes.readUInt16BE(4),
      };
    }
  } else if (version === 6) {
    if (40 + bytes.readUInt16BE(4) !== bytes.length) throw new Error("IPv6 payload length");
    protocol = bytes[6];
    message = bytes.subarray(40);
    for (let extensions = 0; protocol === 0 || protocol === 43 || protocol === 60; extensions++) {
      if (extensions === 8) throw new Error("IPv6 extension headers");
      const length = 8 + message[1] * 8;
      protocol = message[0];
      message = message.subarray(length);
    }
    if (protocol === 44) {
      const word = message.readUInt16BE(2);
      fragment = { offset: word & 0xfff8, more: (word & 1) !== 0, id: message.readUInt32BE(4) };
      protocol = message[0];
      message = message.subarray(8);
    }
  } else throw new Error("IP version");
  const isWhole = fragment === undefined;
  if (isWhole) inspectMessage(source, destination, protocol, message, checksum);
  const hasPorts = isWhole && (protocol === 6 || protocol === 17);
  const isTcp = isWhole && protocol === 6;
  return {
    version,
    source: ipText(source),
    destination: ipText(destination),
    protocol,
    ttl: version === 4 ? bytes[8] : bytes[7],
    message,
    fragment,
    sourcePort: hasPorts ? message.readUInt16BE(0) : -1,
    destinationPort: hasPorts ? message.readUInt16BE(2) : -1,
    payload: !hasPorts ? message : message.subarray(isTcp ? (message[12] >> 4) * 4 : 8),
    flags: isTcp ? message[13] : 0,
    sequence: isTcp ? message.readUInt32BE(4) : 0,
    acknowledgment: isTcp ? message.readUInt32BE(8) : 0,
  };
}

function inspectMessage(
  source: Buffer,
  destination: Buffer,
  protocol: number,
  message: Buffer,
  checksum: "whole" | "partial" | "unseen",
): void {
  if (protocol !== 6 && protocol !== 17 && protocol !== 1 && protocol !== 58) return;
  if (message.length < (protocol === 6 ? 20 : 8)) throw new Error("transport header");
  if (protocol === 17 && message.readUInt16BE(4) !== message.length) throw new Error("UDP length");
  if (protocol === 6 && (message[12] >> 4) * 4 > message.length) throw new Error("TCP header length");
  if (checksum === "unseen") return;
  const pseudo =
    protocol === 1 ? Buffer.alloc(0) : pseudoHeader(source, destination, protocol, message.length);
  if (checksum === "partial") {
    const field = message.readUInt16BE(protocol === 6 ? 16 : 6);
    if (field !== (~slowChecksum(pseudo) & 0xffff)) throw new Error("partial checksum");
    return;
  }
  if (protocol === 17 && message.readUInt16BE(6) === 0) {
    if (source.length === 4) return;
    throw new Error("IPv6 UDP without checksum");
  }
  if (slowChecksum(pseudo, message) !== 0) throw new Error(`checksum of protocol ${protocol}`);
}

/** Sum of the pseudo header of a packet, as the kernel leaves it in a checksum field. */
export function partialSum(packet: Uint8Array): number {
  const { message, protocol, version } = inspect(packet, "unseen");
  const addresses = version === 4 ? packet.subarray(12, 20) : packet.subarray(8, 40);
  return (
    ~slowChecksum(addresses, Buffer.from([0, protocol, message.length >> 8, message.length & 255])) & 0xffff
  );
}
