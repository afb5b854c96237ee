/**
 * badvpn-udpgw of github.com/ambrop72/badvpn: `length 2 LE | flags 1 | conid 2 LE | IPv4 4 or IPv6 16 | port 2 | payload`.
 * A conid is one flow to one address, which every datagram of the flow contains in network order, in both directions.
 */
import type { AddressBytes } from "../socket-address.ts";
import { ATYP_IPV4, ATYP_IPV6, isIpv4Mapped } from "../socket-address.ts";
import type { Codec, Dialect, Frame, Role } from "./dialect.ts";
import { FRAME_KEEPALIVE, FRAME_OTHER, incomplete, MAX_UDP_BYTES, setPayload } from "./dialect.ts";

const FLAG_KEEPALIVE = 0x01;
const FLAG_REBIND = 0x02;
const FLAG_DNS = 0x04;
const FLAG_IPV6 = 0x08;
const KNOWN_FLAGS = FLAG_KEEPALIVE | FLAG_REBIND | FLAG_DNS | FLAG_IPV6;
const LENGTH_BYTES = 2;
/** Flags and conid. */
const HEADER_BYTES = 3;
const IPV4_BYTES = 6;
const IPV6_BYTES = 18;
const KEEPALIVE = Uint8Array.of(HEADER_BYTES, 0, FLAG_KEEPALIVE, 0, 0);
/** The program's default number of connections per client, the same for client and server. */
const MAX_FLOWS = 256;
const KEEPALIVE_MS = 10_000;
const CLIENT_DISCONNECT_MS = 20_000;
const NOTHING = new Uint8Array(0);

class UdpgwCodec implements Codec {
  readonly hello = NOTHING;
  readonly #isClient: boolean;
  /** The address of the last frame, in canonical form. */
  readonly #address = new Uint8Array(19);

  constructor(role: Role) {
    this.#isClient = role === "client";
  }

  read(bytes: Uint8Array, offset: number, end: number, frame: Frame): number {
    if (end - offset < LENGTH_BYTES) return incomplete(frame, LENGTH_BYTES);
    const packetBytes = bytes[offset] | (bytes[offset + 1] << 8);
    const length = LENGTH_BYTES + packetBytes;
    if (end - offset < length) return incomplete(frame, length);
    frame.kind = FRAME_OTHER;
    // Short packets are ignored, as the program does.
    if (packetBytes < HEADER_BYTES) return length;
    const flags = bytes[offset + LENGTH_BYTES];
    if ((flags & FLAG_KEEPALIVE) !== 0) {
      frame.kind = FRAME_KEEPALIVE;
      return length;
    }
    const isIpv6 = (flags & FLAG_IPV6) !== 0;
    const addressBytes = isIpv6 ? IPV6_BYTES : IPV4_BYTES;
    if (packetBytes < HEADER_BYTES + addressBytes) return length;
    const addressAt = offset + LENGTH_BYTES + HEADER_BYTES;
    setPayload(frame, addressAt + addressBytes, offset + length);
    frame.flow = bytes[addressAt - 2] | (bytes[addressAt - 1] << 8);
    frame.isNew = (flags & FLAG_REBIND) !== 0;
    frame.isDns = (flags & FLAG_DNS) !== 0;
    this.#readAddress(bytes, addressAt, addressBytes, isIpv6, frame);
    return length;
  }

  #readAddress(bytes: Uint8Array, at: number, length: number, isIpv6: boolean, frame: Frame): void {
    const skipped = isIpv6 && isIpv4Mapped(bytes, at) ? 12 : 0;
    const address = this.#address;
    address[0] = length - skipped === IPV6_BYTES ? ATYP_IPV6 : ATYP_IPV4;
    for (let i = skipped; i < length; i++) address[1 + i - skipped] = bytes[at + i];
    frame.addresses = address;
    frame.addressOffset = 0;
    frame.addressLength = 1 + length - skipped;
  }

  headerLength(address: AddressBytes): number {
    return LENGTH_BYTES + HEADER_BYTES + address.length - 1;
  }

  minPayload(): number {
    return 0;
  }

  maxPayload(): number {
    return MAX_UDP_BYTES;
  }

  writeHeader(
    to: Uint8Array,
    at: number,
    flow: number,
    isNew: boolean,
    address: AddressBytes,
    length: number,
  ): number {
    const packetBytes = HEADER_BYTES + address.length - 1 + length;
    to[at] = packetBytes;
    to[at + 1] = packetBytes >> 8;
    to[at + 2] = (address[0] === ATYP_IPV6 ? FLAG_IPV6 : 0) | (isNew && this.#isClient ? FLAG_REBIND : 0);
    to[at + 3] = flow;
    to[at + 4] = flow >> 8;
    for (let i = 1; i < address.length; i++) to[at + 4 + i] = address[i];
    return at + 4 + address.length;
  }

  keepalive(): Uint8Array {
    return KEEPALIVE;
  }

  answerKeepalive(): undefined {}
}

export const udpgw: Dialect = {
  name: "udpgw",
  opening: {
    kind: "first-bytes",
    // A keepalive, or a datagram that is at least as long as its address.
    sniff: (bytes, length) => {
      if (length < 3) return "more";
      const packetBytes = bytes[0] | (bytes[1] << 8);
      const flags = bytes[2];
      if ((flags & ~KNOWN_FLAGS) !== 0) return "no";
      if ((flags & FLAG_KEEPALIVE) !== 0) return flags === 1 && packetBytes === HEADER_BYTES ? "yes" : "no";
      const addressBytes = (flags & FLAG_IPV6) !== 0 ? IPV6_BYTES : IPV4_BYTES;
      return packetBytes >= HEADER_BYTES + addressBytes ? "yes" : "no";
    },
  },
  addresses: "ip",
  flows: MAX_FLOWS,
  keepaliveMs: KEEPALIVE_MS,
  idleMs: CLIENT_DISCONNECT_MS,
  clientIdleMs: undefined,
  codec: (role) => new UdpgwCodec(role),
};
