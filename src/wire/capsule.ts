/** Capsules: RFC 9297, draft-ietf-masque-connect-udp-listen, and our extension's. PROTOCOL.md §4 is normative. */
import type { LatencyClass } from "./latency-class.ts";
import { LATENCY_CLASSES } from "./latency-class.ts";
import type { AddressBytes } from "./socket-address.ts";
import {
  ATYP_DOMAIN,
  ATYP_IPV4,
  ATYP_IPV6,
  addressLength,
  copyAddress,
  copyOf,
  IPV4_ADDRESS_BYTES,
  IPV6_ADDRESS_BYTES,
} from "./socket-address.ts";
import { readVarint, varintLength, varintLengthFrom, writeVarint } from "./varint.ts";

/** RFC 9297 §3.5. */
export const CAPSULE_DATAGRAM = 0x00;
/** draft-ietf-masque-connect-udp-listen §3.1 to §3.3. */
export const CAPSULE_COMPRESSION_ASSIGN = 0x11;
export const CAPSULE_COMPRESSION_ACK = 0x12;
export const CAPSULE_COMPRESSION_CLOSE = 0x13;
/** Our extension's capsules, sent only to a peer that has accepted it. */
export const CAPSULE_HEARTBEAT = 0x55_5000;
export const CAPSULE_HEARTBEAT_ECHO = 0x55_5001;
export const CAPSULE_ASSOCIATION_OPEN = 0x55_5002;
export const CAPSULE_ASSOCIATION_CLOSE = 0x55_5003;
export const CAPSULE_CONTEXT_ASSIGN = 0x55_5004;
export const CAPSULE_SHUTDOWN = 0x55_5005;
export const CAPSULE_UNREACHABLE = 0x55_5006;
export const CAPSULE_LATENCY_CLASS = 0x55_5008;
export const CAPSULE_DSCP = 0x55_5009;

/** Largest UDP payload over IPv4, and the largest that is sent into a tunnel. */
export const MAX_DATAGRAM_BYTES = 65_507;
/** A longer payload ends the tunnel, RFC 9298 §5. */
export const MAX_PAYLOAD_BYTES = 65_527;
/** Longest value of every other known capsule: two varints and a name of 255 bytes fit. */
export const MAX_CONTROL_VALUE_BYTES = 300;
/** The same, including type and length. */
export const MAX_CONTROL_CAPSULE_BYTES = MAX_CONTROL_VALUE_BYTES + 6;

/** Reasons in ASSOCIATION_CLOSE. */
export const CLOSE_REASONS = ["done", "idle", "limit", "evicted", "failed"] as const;
export type CloseReason = (typeof CLOSE_REASONS)[number];

/**
 * Reasons in SHUTDOWN. `key`: the key of the session is no longer valid; `moving`: the lane stays up, but the client should begin a session
 * at another server.
 */
export const SHUTDOWN_REASONS = [...CLOSE_REASONS, "key", "moving"] as const;
export type ShutdownReason = (typeof SHUTDOWN_REASONS)[number];

/** Largest value of a DSCP, RFC 2474 §3. */
export const MAX_DSCP = 63;

/** Reasons in UNREACHABLE why a datagram did not get through. */
export const UNREACHABLE_KINDS = ["port", "host", "prohibited", "too-big"] as const;
export type UnreachableKind = (typeof UNREACHABLE_KINDS)[number];
/** Largest MTU that is reported. */
export const MAX_MTU = 65_535;

/** Bytes of a DATAGRAM capsule before its payload. */
export function datagramHeaderLength(contextId: number, payloadLength: number): number {
  const valueLength = varintLength(contextId) + payloadLength;
  return 1 + varintLength(valueLength) + varintLength(contextId);
}

/** Writes `00 | length | context id`; the payload follows at the offset returned. */
export function writeDatagramHeader(
  bytes: Uint8Array,
  offset: number,
  contextId: number,
  payloadLength: number,
): number {
  bytes[offset] = CAPSULE_DATAGRAM;
  const at = writeVarint(bytes, offset + 1, varintLength(contextId) + payloadLength);
  return writeVarint(bytes, at, contextId);
}

/** A capsule whose value is `numbers` as varints, followed by `tail`. */
function encodeCapsule(type: number, numbers: readonly number[], tail: Uint8Array | undefined): Uint8Array {
  let valueLength = tail === undefined ? 0 : tail.length;
  for (const number of numbers) valueLength += varintLength(number);
  const bytes = new Uint8Array(varintLength(type) + varintLength(valueLength) + valueLength);
  let at = writeVarint(bytes, writeVarint(bytes, 0, type), valueLength);
  for (const number of numbers) at = writeVarint(bytes, at, number);
  if (tail !== undefined) bytes.set(tail, at);
  return bytes;
}

/** COMPRESSION_ASSIGN. @param address  IPv4 or IPv6; undefined registers the uncompressed context */
export function encodeCompressionAssign(contextId: number, address: AddressBytes | undefined): Uint8Array {
  if (address === undefined) return encodeCapsule(CAPSULE_COMPRESSION_ASSIGN, [contextId], new Uint8Array(1));
  return encodeCapsule(CAPSULE_COMPRESSION_ASSIGN, [contextId], toIpVersionForm(address));
}

export function encodeCompressionAck(contextId: number): Uint8Array {
  return encodeCapsule(CAPSULE_COMPRESSION_ACK, [contextId], undefined);
}

export function encodeCompressionClose(contextId: number): Uint8Array {
  return encodeCapsule(CAPSULE_COMPRESSION_CLOSE, [contextId], undefined);
}

/** @param clock  the sender's own clock in whole milliseconds; only the sender interprets it */
export function encodeHeartbeat(sequence: number, clock: number): Uint8Array {
  return encodeCapsule(CAPSULE_HEARTBEAT, [sequence, clock], undefined);
}

export function encodeHeartbeatEcho(sequence: number, clock: number): Uint8Array {
  return encodeCapsule(CAPSULE_HEARTBEAT_ECHO, [sequence, clock], undefined);
}

/** @param source  the application's own address, if known */
export function encodeAssociationOpen(associationId: number, source: AddressBytes | undefined): Uint8Array {
  return encodeCapsule(CAPSULE_ASSOCIATION_OPEN, [associationId], source ?? new Uint8Array(1));
}

export function encodeAssociationClose(associationId: number, reason: CloseReason): Uint8Array {
  return encodeCapsule(CAPSULE_ASSOCIATION_CLOSE, [associationId, CLOSE_REASONS.indexOf(reason)], undefined);
}

export function encodeContextAssign(
  contextId: number,
  associationId: number,
  address: AddressBytes,
): Uint8Array {
  return encodeCapsule(CAPSULE_CONTEXT_ASSIGN, [contextId, associationId], address);
}

export function encodeShutdown(reason: ShutdownReason): Uint8Array {
  return encodeCapsule(CAPSULE_SHUTDOWN, [SHUTDOWN_REASONS.indexOf(reason)], undefined);
}

/** @param mtu  for too-big: the largest IP packet that would get through; 0 if unknown */
export function encodeUnreachable(contextId: number, kind: UnreachableKind, mtu: number): Uint8Array {
  const told = kind === "too-big" ? Math.min(mtu, MAX_MTU) : 0;
  return encodeCapsule(CAPSULE_UNREACHABLE, [contextId, UNREACHABLE_KINDS.indexOf(kind), told], undefined);
}

/** @param latency  number of a class in {@link LATENCY_CLASSES} */
export function encodeLatencyClass(associationId: number, latency: number): Uint8Array {
  return encodeCapsule(CAPSULE_LATENCY_CLASS, [associationId, latency], undefined);
}

/** @param dscp  0 to {@link MAX_DSCP} */
export function encodeDscp(associationId: number, dscp: number): Uint8Array {
  return encodeCapsule(CAPSULE_DSCP, [associationId, dscp], undefined);
}

/** Name of a class number; "balanced" for one that this version does not know. */
export function latencyClass(number: number): LatencyClass {
  return LATENCY_CLASSES[number] ?? "balanced";
}

/** Name of a kind number; "host" for one that this version does not know. */
export function unreachableKind(number: number): UnreachableKind {
  return UNREACHABLE_KINDS[number] ?? "host";
}

/** Name of a reason number; "failed" for one that this version does not know. */
export function closeReason(number: number): CloseReason {
  return CLOSE_REASONS[number] ?? "failed";
}

export function shutdownReason(number: number): ShutdownReason {
  return SHUTDOWN_REASONS[number] ?? "failed";
}

/** `IP version 4 | 6, address, port`, the form of draft-ietf-masque-connect-udp-listen. */
export function toIpVersionForm(address: AddressBytes): Uint8Array {
  const bytes = copyOf(address, 0, address.length);
  bytes[0] = address[0] === ATYP_IPV4 ? 4 : 6;
  return bytes;
}

/**
 * Length of an address in IP-version form at `bytes[offset]`.
 *
 * @returns 7 or 19; 0 if the version is unknown or the address does not fit before `end`
 */
export function ipVersionFormLength(bytes: Uint8Array, offset: number, end: number): number {
  if (offset >= end) return 0;
  const length = bytes[offset] === 4 ? IPV4_ADDRESS_BYTES : bytes[offset] === 6 ? IPV6_ADDRESS_BYTES : 0;
  return offset + length <= end ? length : 0;
}

/** Converts an address of `length` bytes in IP-version form to the form that the rest of the program uses. */
export function fromIpVersionForm(bytes: Uint8Array, offset: number, length: number): AddressBytes {
  const address = copyOf(bytes, offset, length);
  address[0] = length === IPV4_ADDRESS_BYTES ? ATYP_IPV4 : ATYP_IPV6;
  return copyAddress(address, 0, length);
}

/**
 * Reads the `count` varints at the beginning of a value.
 *
 * @param numbers  receives them
 * @returns their end offset; -1 if they do not fit before `end`
 */
export function readNumbers(
  bytes: Uint8Array,
  offset: number,
  end: number,
  count: number,
  numbers: number[],
): number {
  let at = offset;
  for (let i = 0; i < count; i++) {
    numbers[i] = readNumber(bytes, at, end);
    if (numbers[i] < 0) return -1;
    at += varintLengthFrom(bytes[at]);
  }
  return at;
}

/** The varint at `bytes[offset]`; -1 if it is malformed or does not end before `end`. */
export function readNumber(bytes: Uint8Array, offset: number, end: number): number {
  return offset < end && offset + varintLengthFrom(bytes[offset]) <= end ? readVarint(bytes, offset) : -1;
}

/** A copy of the address that fills `bytes[offset..end)` exactly; undefined if there is none. */
export function decodeWholeAddress(bytes: Uint8Array, offset: number, end: number): AddressBytes | undefined {
  const length = addressLength(bytes, offset, end);
  if (length <= 0 || offset + length !== end) return undefined;
  return copyAddress(bytes, offset, length);
}

/** Whether an address is a domain name, which the server must resolve. */
export function isDomain(address: AddressBytes): boolean {
  return address[0] === ATYP_DOMAIN;
}
