/** SOCKS5, RFC 1928, with user and password, RFC 1929. Decoders never throw and keep no reference to their input. */
import type { AddressBytes } from "./socket-address.ts";
import {
  ADDRESS_INVALID,
  ATYP_IPV4,
  ATYP_IPV6,
  addressLength,
  copyAddress,
  copyOf,
  IPV4_ADDRESS_BYTES,
  isIpv4Mapped,
} from "./socket-address.ts";

/** RFC 1928 §3. */
export const SOCKS_VERSION = 5;
export const METHOD_NONE = 0x00;
export const METHOD_USER_PASSWORD = 0x02;
export const METHOD_UNACCEPTABLE = 0xff;
/** RFC 1928 §4. */
export const COMMAND_CONNECT = 1;
export const COMMAND_UDP_ASSOCIATE = 3;
/** RFC 1928 §6. */
export const REPLY_SUCCEEDED = 0;
export const REPLY_GENERAL_FAILURE = 1;
export const REPLY_HOST_UNREACHABLE = 4;
export const REPLY_COMMAND_UNSUPPORTED = 7;
export const REPLY_TEXTS = [
  "succeeded",
  "general failure",
  "not allowed",
  "network unreachable",
  "host unreachable",
  "connection refused",
  "TTL expired",
  "command not supported",
  "address type not supported",
] as const;

/** The result of a decoder: the value and its length, how many more bytes are needed at least, or malformed. */
export type Decoded<Value> =
  | { readonly value: Value; readonly length: number }
  | { readonly need: number }
  | "malformed";

export const UDP_HEADER_MALFORMED = -1;
/** FRAG other than 0: part of a datagram, RFC 1928 §7. */
export const UDP_HEADER_FRAGMENT = -2;

/** The client's first message: the methods that it offers. */
export function decodeGreeting(bytes: Uint8Array, end: number): Decoded<readonly number[]> {
  if (end < 1) return { need: 2 };
  if (bytes[0] !== SOCKS_VERSION) return "malformed";
  if (end < 2) return { need: 1 };
  const length = 2 + bytes[1];
  if (length === 2) return "malformed";
  return end < length ? { need: length - end } : { value: [...bytes.subarray(2, length)], length };
}

export function encodeGreeting(methods: readonly number[]): Uint8Array {
  return Uint8Array.of(SOCKS_VERSION, methods.length, ...methods);
}

/** The server's choice of a method. */
export function decodeMethod(bytes: Uint8Array, end: number): Decoded<number> {
  if (end > 0 && bytes[0] !== SOCKS_VERSION) return "malformed";
  return end < 2 ? { need: 2 - end } : { value: bytes[1], length: 2 };
}

/** Decodes user and password, RFC 1929 §2. Values are byte strings of 0 to 255 bytes. */
export function decodeUserPassword(
  bytes: Uint8Array,
  end: number,
): Decoded<{ readonly user: Uint8Array; readonly password: Uint8Array }> {
  if (end > 0 && bytes[0] !== 1) return "malformed";
  if (end < 2) return { need: 3 - end };
  const passwordAt = 2 + bytes[1] + 1;
  if (end < passwordAt) return { need: passwordAt - end };
  const length = passwordAt + bytes[passwordAt - 1];
  if (end < length) return { need: length - end };
  return {
    value: {
      user: copyOf(bytes, 2, passwordAt - 3),
      password: copyOf(bytes, passwordAt, length - passwordAt),
    },
    length,
  };
}

/** @param user  1 to 255 bytes, like `password` */
export function encodeUserPassword(user: Uint8Array, password: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(3 + user.length + password.length);
  bytes[0] = 1;
  bytes[1] = user.length;
  bytes.set(user, 2);
  bytes[2 + user.length] = password.length;
  bytes.set(password, 3 + user.length);
  return bytes;
}

/** @returns the status; 0 is success */
export function decodeUserPasswordStatus(bytes: Uint8Array, end: number): Decoded<number> {
  return end < 2 ? { need: 2 - end } : { value: bytes[1], length: 2 };
}

export interface SocksMessage {
  /** CMD of a request, REP of a reply. */
  readonly code: number;
  readonly address: AddressBytes;
}

/** Decodes a request or a reply, which have the same layout, RFC 1928 §4 and §6. */
export function decodeMessage(bytes: Uint8Array, end: number): Decoded<SocksMessage> {
  if (end > 0 && bytes[0] !== SOCKS_VERSION) return "malformed";
  if (end < 4) return { need: 4 - end };
  const length = addressLength(bytes, 3, end);
  if (length === ADDRESS_INVALID) return "malformed";
  if (length < 0) return { need: -length };
  return { value: { code: bytes[1], address: copyAddress(bytes, 3, length) }, length: 3 + length };
}

/** Encodes a request or a reply. @param code  CMD or REP */
export function encodeMessage(code: number, address: AddressBytes): Uint8Array {
  const bytes = new Uint8Array(3 + address.length);
  bytes[0] = SOCKS_VERSION;
  bytes[1] = code;
  bytes.set(address, 3);
  return bytes;
}

/**
 * A view of the address in a datagram's UDP request header, `RSV 2, FRAG 1, ATYP 1, address 4 | 1+n | 16, port 2` (RFC 1928 §7), which is reused
 * for every datagram.
 */
export class UdpHeader {
  /** The buffer with the address in canonical form: the one that was read, or the view's own. */
  addresses: Uint8Array;
  addressOffset = 0;
  addressLength = 0;
  readonly #unmapped = Uint8Array.of(ATYP_IPV4, 0, 0, 0, 0, 0, 0);

  constructor() {
    this.addresses = this.#unmapped;
  }

  /**
   * Reads the header at `bytes[offset]`, to which the view keeps a reference. RSV is ignored.
   *
   * @returns header length in bytes, or {@link UDP_HEADER_MALFORMED} or {@link UDP_HEADER_FRAGMENT}; the view is then invalid
   */
  read(bytes: Uint8Array, offset: number, end: number): number {
    if (offset + 4 > end) return UDP_HEADER_MALFORMED;
    if (bytes[offset + 2] !== 0) return UDP_HEADER_FRAGMENT;
    const at = offset + 3;
    const length = addressLength(bytes, at, end);
    if (length <= 0) return UDP_HEADER_MALFORMED;
    if (bytes[at] === ATYP_IPV6 && isIpv4Mapped(bytes, at + 1)) this.#unmap(bytes, at + length);
    else {
      this.addresses = bytes;
      this.addressOffset = at;
      this.addressLength = length;
    }
    return 3 + length;
  }

  #unmap(bytes: Uint8Array, end: number): void {
    const unmapped = this.#unmapped;
    for (let i = 1; i < IPV4_ADDRESS_BYTES; i++) unmapped[i] = bytes[end - IPV4_ADDRESS_BYTES + i];
    this.addresses = unmapped;
    this.addressOffset = 0;
    this.addressLength = IPV4_ADDRESS_BYTES;
  }
}

/** Writes a UDP request header for `address` at `bytes[offset]`. @returns its end offset */
export function writeUdpHeader(bytes: Uint8Array, offset: number, address: AddressBytes): number {
  bytes[offset] = 0;
  bytes[offset + 1] = 0;
  bytes[offset + 2] = 0;
  bytes.set(address, offset + 3);
  return offset + 3 + address.length;
}
