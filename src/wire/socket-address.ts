/**
 * The canonical form of remote addresses in wire and core: `ATYP 1 | ADDR | PORT 2`, as in RFC 1928 §5. IPv4 takes 7 bytes, IPv6 takes 19, and
 * a domain name of n bytes (1 to 255) takes 4 + n. An IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2) is always stored as IPv4.
 */
export const ATYP_IPV4 = 1;
export const ATYP_DOMAIN = 3;
export const ATYP_IPV6 = 4;

export const IPV4_ADDRESS_BYTES = 7;
export const IPV6_ADDRESS_BYTES = 19;

declare const IN_ONE_FORM: unique symbol;

/**
 * A complete address, made only by {@link makeAddress}, {@link ipAddress} and {@link copyAddress}, so that equal addresses have equal bytes.
 */
export type AddressBytes = Uint8Array & { readonly [IN_ONE_FORM]: true };

/** Bytes before the IPv4 address in a mapped one. */
const MAPPED_PREFIX_BYTES = 12;

/** No address can start like this. */
export const ADDRESS_INVALID = 0;

/**
 * Length of the address that starts at `bytes[offset]`.
 *
 * @param end  end offset of the bytes that may be read
 * @returns length in bytes; {@link ADDRESS_INVALID}; -n if at least n more bytes are needed. Never throws.
 */
export function addressLength(bytes: Uint8Array, offset: number, end: number): number {
  const have = end - offset;
  if (have < 1) return -1;
  const atyp = bytes[offset];
  let length: number;
  if (atyp === ATYP_IPV4) length = IPV4_ADDRESS_BYTES;
  else if (atyp === ATYP_IPV6) length = IPV6_ADDRESS_BYTES;
  else if (atyp === ATYP_DOMAIN) {
    if (have < 2) return have - 2;
    const nameLength = bytes[offset + 1];
    if (nameLength === 0) return ADDRESS_INVALID;
    length = 4 + nameLength;
  } else return ADDRESS_INVALID;
  return have < length ? have - length : length;
}

/** Whether the 16 bytes at `ip[offset]` are an IPv4-mapped address, `::ffff:0:0/96`. */
export function isIpv4Mapped(ip: Uint8Array, offset: number): boolean {
  for (let i = offset; i < offset + 10; i++) if (ip[i] !== 0) return false;
  return ip[offset + 10] === 0xff && ip[offset + 11] === 0xff;
}

/**
 * A copy of the complete address of `length` bytes at `bytes[offset]`, which {@link addressLength} has measured. Every address from outside
 * passes through this or another function of this file that brings it into canonical form.
 */
export function copyAddress(bytes: Uint8Array, offset: number, length: number): AddressBytes {
  if (bytes[offset] !== ATYP_IPV6 || !isIpv4Mapped(bytes, offset + 1)) {
    return copyOf(bytes, offset, length) as AddressBytes;
  }
  const address = copyOf(bytes, offset + MAPPED_PREFIX_BYTES, IPV4_ADDRESS_BYTES);
  address[0] = ATYP_IPV4;
  return address as AddressBytes;
}

/** The port of a complete address. */
export function addressPort(address: Uint8Array): number {
  const end = address.length;
  return (address[end - 2] << 8) | address[end - 1];
}

/**
 * Writes an IP address and a port from IP and transport headers in canonical form. Does not allocate.
 *
 * @param ip         buffer with the 4 or 16 bytes of the address at `ipOffset`
 * @param portOffset offset of the port in the same buffer, big-endian
 * @returns bytes written at `to[offset]`: 7 or 19
 */
export function writeAddress(
  to: Uint8Array,
  offset: number,
  ip: Uint8Array,
  ipOffset: number,
  ipBytes: 4 | 16,
  portOffset: number,
): number {
  const skipped = ipBytes === 16 && isIpv4Mapped(ip, ipOffset) ? MAPPED_PREFIX_BYTES : 0;
  const written = ipBytes - skipped;
  to[offset] = written === 4 ? ATYP_IPV4 : ATYP_IPV6;
  for (let i = 0; i < written; i++) to[offset + 1 + i] = ip[ipOffset + skipped + i];
  to[offset + 1 + written] = ip[portOffset];
  to[offset + 2 + written] = ip[portOffset + 1];
  return written + 3;
}

/** True for `0.0.0.0` and `::`, with any port. */
export function isUnspecified(address: Uint8Array): boolean {
  if (address[0] === ATYP_DOMAIN) return false;
  for (let i = 1; i < address.length - 2; i++) if (address[i] !== 0) return false;
  return true;
}

/** True for an IPv6 address in `fe80::/10`, which is valid on one link only. */
export function isLinkLocal(address: Uint8Array | undefined): boolean {
  return address?.[0] === ATYP_IPV6 && address[1] === 0xfe && (address[2] & 0xc0) === 0x80;
}

/** The domain name of a complete ATYP 3 address, as ASCII; bytes outside printable ASCII become `?`. */
export function addressDomain(address: Uint8Array): string {
  let name = "";
  for (let i = 2; i < address.length - 2; i++) {
    const byte = address[i];
    name += byte > 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "?";
  }
  return name;
}

/** Text of a complete address: `192.0.2.1:53`, `[2001:db8::1]:53`, `example.com:53`. */
export function formatAddress(address: Uint8Array): string {
  const port = addressPort(address);
  if (address[0] === ATYP_DOMAIN) return `${addressDomain(address)}:${port}`;
  const host = formatHost(address);
  return address[0] === ATYP_IPV6 ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Text of the host in a complete IPv4 or IPv6 address: a dotted quad, or RFC 5952 text. */
export function formatHost(address: Uint8Array): string {
  if (address[0] === ATYP_IPV4) return `${address[1]}.${address[2]}.${address[3]}.${address[4]}`;
  if (address[0] === ATYP_DOMAIN) return addressDomain(address);
  let bestStart = -1;
  let bestLength = 1;
  for (let start = 0; start < 8; start++) {
    let length = 0;
    while (start + length < 8 && group(address, start + length) === 0) length++;
    if (length > bestLength) {
      bestStart = start;
      bestLength = length;
    }
  }
  let text = "";
  for (let i = 0; i < 8; i++) {
    if (i === bestStart) {
      text += "::";
      i += bestLength - 1;
      continue;
    }
    if (text !== "" && !text.endsWith(":")) text += ":";
    text += group(address, i).toString(16);
  }
  return text;
}

function group(address: Uint8Array, index: number): number {
  return (address[1 + index * 2] << 8) | address[2 + index * 2];
}

/**
 * Builds an address from text.
 *
 * @param host  dotted quad, IPv6 text without brackets (a zone is refused), or a domain name of printable ASCII
 * @param port  0 to 65535
 * @returns undefined if the host is none of these or is too long
 */
export function makeAddress(host: string, port: number): AddressBytes | undefined {
  if (!Number.isInteger(port) || port < 0 || port > 0xffff) return undefined;
  const ip = parseIp(host);
  if (ip === undefined) {
    if (host.includes(":") || /^[0-9.]+$/.test(host)) return undefined;
    return domainAddress(host, port);
  }
  return ipAddress(ip, port);
}

/** @param ip  4 or 16 bytes @param port  0 to 65535 */
export function ipAddress(ip: Uint8Array, port: number): AddressBytes {
  const skipped = ip.length === 16 && isIpv4Mapped(ip, 0) ? MAPPED_PREFIX_BYTES : 0;
  const address = new Uint8Array(ip.length - skipped + 3);
  address.set(skipped === 0 ? ip : ip.subarray(skipped), 1);
  address[0] = address.length === IPV4_ADDRESS_BYTES ? ATYP_IPV4 : ATYP_IPV6;
  address[address.length - 2] = port >> 8;
  address[address.length - 1] = port & 0xff;
  return address as AddressBytes;
}

function domainAddress(name: string, port: number): AddressBytes | undefined {
  if (name.length < 1 || name.length > 255 || !/^[\x21-\x7e]+$/.test(name)) return undefined;
  const address = new Uint8Array(4 + name.length);
  address[0] = ATYP_DOMAIN;
  address[1] = name.length;
  for (let i = 0; i < name.length; i++) address[2 + i] = name.charCodeAt(i);
  address[address.length - 2] = port >> 8;
  address[address.length - 1] = port & 0xff;
  return address as AddressBytes;
}

/** @returns the bytes of an IP address in canonical form: 16 for IPv6, 4 for IPv4, mapped or not; undefined for other text */
export function parseIp(text: string): Uint8Array | undefined {
  if (!text.includes(":")) return parseIpv4(text);
  const ip = parseIpv6(text);
  return ip !== undefined && isIpv4Mapped(ip, 0) ? ip.slice(MAPPED_PREFIX_BYTES) : ip;
}

/** @returns the 4 bytes of a dotted quad without leading zeros, or undefined */
export function parseIpv4(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(4);
  let value = -1;
  let part = 0;
  for (let i = 0; i <= text.length; i++) {
    const c = i < text.length ? text.charCodeAt(i) : 0x2e;
    if (c === 0x2e) {
      if (value < 0 || part === 4) return undefined;
      bytes[part++] = value;
      value = -1;
    } else if (c >= 0x30 && c <= 0x39 && value !== 0) {
      value = (value < 0 ? 0 : value * 10) + c - 0x30;
      if (value > 255) return undefined;
    } else return undefined;
  }
  return part === 4 ? bytes : undefined;
}

/** @returns the 16 bytes of an IPv6 text (RFC 4291 §2.2) as written, even if mapped; or undefined */
export function parseIpv6(text: string): Uint8Array | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const head = parseGroups(halves[0], halves.length === 1);
  const tail = halves.length === 2 ? parseGroups(halves[1], true) : [];
  if (head === undefined || tail === undefined) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  const bytes = new Uint8Array(16);
  const put = (groups: number[], at: number) => {
    for (const [i, value] of groups.entries()) {
      bytes[(at + i) * 2] = value >> 8;
      bytes[(at + i) * 2 + 1] = value & 0xff;
    }
  };
  put(head, 0);
  put(tail, 8 - tail.length);
  return bytes;
}

function parseGroups(text: string, mayEndInIpv4: boolean): number[] | undefined {
  if (text === "") return [];
  const groups: number[] = [];
  const parts = text.split(":");
  for (const [i, part] of parts.entries()) {
    if (mayEndInIpv4 && i === parts.length - 1 && part.includes(".")) {
      const ipv4 = parseIpv4(part);
      if (ipv4 === undefined) return undefined;
      groups.push((ipv4[0] << 8) | ipv4[1], (ipv4[2] << 8) | ipv4[3]);
    } else if (/^[0-9a-fA-F]{1,4}$/.test(part)) groups.push(Number.parseInt(part, 16));
    else return undefined;
  }
  return groups.length <= 8 ? groups : undefined;
}

/** Copies `bytes[offset..offset + length)` into memory of its own, unlike `slice` of Node's Buffer. */
export function copyOf(bytes: Uint8Array, offset: number, length: number): Uint8Array {
  return Uint8Array.prototype.slice.call(bytes, offset, offset + length);
}

/** Whether `length` bytes are equal in both. */
export function sameBytes(
  a: Uint8Array,
  aOffset: number,
  b: Uint8Array,
  bOffset: number,
  length: number,
): boolean {
  for (let i = 0; i < length; i++) if (a[aOffset + i] !== b[bOffset + i]) return false;
  return true;
}
