import type { UnreachableKind } from "../../wire/capsule.ts";
import { MAX_MTU } from "../../wire/capsule.ts";
import {
  ICMP_FRAGMENTATION_NEEDED,
  ICMP_HOST,
  ICMP_HOST_PROHIBITED,
  ICMP_NET_PROHIBITED,
  ICMP_PORT,
  ICMP_PROHIBITED,
  ICMP_PROTOCOL,
  ICMP_TIME_EXCEEDED,
  ICMP_UNREACHABLE,
  ICMPV6_ADDRESS,
  ICMPV6_NEXT_HEADER,
  ICMPV6_PARAMETER_PROBLEM,
  ICMPV6_PORT,
  ICMPV6_PROHIBITED,
  ICMPV6_REJECTED,
  ICMPV6_SOURCE_POLICY,
  ICMPV6_TIME_EXCEEDED,
  ICMPV6_TOO_BIG,
  ICMPV6_UNREACHABLE,
} from "../../wire/ip/icmp.ts";
import type { IpPacket } from "../../wire/ip/ip-packet.ts";
import { IPV4_MIN_MTU } from "../../wire/ip/ipv4.ts";
import { IPV6_MIN_MTU } from "../../wire/ip/ipv6.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { TokenBucket } from "../token-bucket.ts";
import type { PacketCounters } from "./packet-counters.ts";
import type { PacketWriter } from "./packet-writer.ts";
import { writeUdpQuote } from "./packet-writer.ts";

/** Types and codes of RFC 792 and RFC 1812, then of RFC 4443. */
const CODES = {
  port: [ICMP_UNREACHABLE, ICMP_PORT, ICMPV6_UNREACHABLE, ICMPV6_PORT],
  host: [ICMP_UNREACHABLE, ICMP_HOST, ICMPV6_UNREACHABLE, ICMPV6_ADDRESS],
  prohibited: [ICMP_UNREACHABLE, ICMP_PROHIBITED, ICMPV6_UNREACHABLE, ICMPV6_PROHIBITED],
  "too-big": [ICMP_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED, ICMPV6_TOO_BIG, 0],
  protocol: [ICMP_UNREACHABLE, ICMP_PROTOCOL, ICMPV6_PARAMETER_PROBLEM, ICMPV6_NEXT_HEADER],
  "hop-limit": [ICMP_TIME_EXCEEDED, 0, ICMPV6_TIME_EXCEEDED, 0],
} as const;

/**
 * Sends ICMP and ICMPv6 errors, with a rate limit. Errors that a router would send come from the peer address, if there is one, because the
 * kernel drops packets from an address of its own. All others come from the packet's destination.
 */
export class IcmpErrors {
  readonly #writer: PacketWriter;
  readonly #counters: PacketCounters;
  readonly #routers: readonly [Uint8Array | undefined, Uint8Array | undefined];
  readonly #quote = new Uint8Array(64);
  readonly #bucket: TokenBucket;

  /** @param routers  the peer addresses, IPv4 and IPv6 */
  constructor(
    writer: PacketWriter,
    counters: PacketCounters,
    perSecond: number,
    routers: readonly [Uint8Array | undefined, Uint8Array | undefined],
  ) {
    this.#writer = writer;
    this.#counters = counters;
    // RFC 1812 §4.3.2.8, RFC 4443 §2.4(f).
    this.#bucket = new TokenBucket(perSecond);
    this.#routers = routers;
  }

  /** Answers a packet. The caller has checked that its destination is unicast and that it is not an ICMP error. */
  answer(now: number, bytes: Uint8Array, packet: IpPacket, kind: "port" | "protocol" | "hop-limit"): void {
    if (!this.#take(now)) return;
    const { addressBytes, source, destination, start, end } = packet;
    const router = kind === "hop-limit" ? this.#router(addressBytes) : undefined;
    const pointer = kind === "protocol" && addressBytes === 16 ? packet.protocolAt - start : 0;
    const [type, code] = codesOf(kind, addressBytes);
    const from = router ?? bytes;
    const fromAt = router === undefined ? destination : 0;
    this.#writer.writeIcmpError(
      addressBytes,
      from,
      fromAt,
      bytes,
      source,
      type,
      code,
      pointer,
      bytes,
      start,
      end,
    );
  }

  /**
   * Answers a datagram from `inner` to `remote`, both of one family, whose packet is no longer available.
   *
   * @param mtu  for too-big; raised to the family's minimum MTU if smaller
   */
  answerDatagram(
    now: number,
    inner: AddressBytes,
    remote: AddressBytes,
    kind: UnreachableKind,
    mtu: number,
  ): void {
    if (!this.#take(now)) return;
    const addressBytes = (inner.length - 3) as 4 | 16;
    const router = kind === "too-big" ? this.#router(addressBytes) : undefined;
    const [type, code] = codesOf(kind, addressBytes);
    const least = addressBytes === 4 ? IPV4_MIN_MTU : IPV6_MIN_MTU;
    const rest = kind === "too-big" ? Math.max(least, Math.min(mtu, MAX_MTU)) : 0;
    const length = writeUdpQuote(this.#quote, inner, remote);
    const from = router ?? remote;
    const fromAt = router === undefined ? 1 : 0;
    this.#writer.writeIcmpError(
      addressBytes,
      from,
      fromAt,
      inner,
      1,
      type,
      code,
      rest,
      this.#quote,
      0,
      length,
    );
  }

  #router(addressBytes: 4 | 16): Uint8Array | undefined {
    return this.#routers[addressBytes === 4 ? 0 : 1];
  }

  #take(now: number): boolean {
    const isLet = this.#bucket.take(now);
    if (isLet) this.#counters.icmpErrors++;
    else this.#counters.icmpErrorsLimited++;
    return isLet;
  }
}

/** The meaning of an ICMP error for the datagram that it quotes; undefined if the datagram, or the next one, may still get through. */
export function unreachableKindOf(
  addressBytes: 4 | 16,
  type: number,
  code: number,
): UnreachableKind | undefined {
  if (addressBytes === 4) {
    if (type !== ICMP_UNREACHABLE) return undefined;
    if (code === ICMP_PORT || code === ICMP_PROTOCOL) return "port";
    if (code === ICMP_FRAGMENTATION_NEEDED) return "too-big";
    const isProhibited =
      code === ICMP_NET_PROHIBITED || code === ICMP_HOST_PROHIBITED || code === ICMP_PROHIBITED;
    return isProhibited ? "prohibited" : "host";
  }
  if (type === ICMPV6_TOO_BIG) return "too-big";
  if (type !== ICMPV6_UNREACHABLE) return undefined;
  if (code === ICMPV6_PORT) return "port";
  const isProhibited =
    code === ICMPV6_PROHIBITED || code === ICMPV6_SOURCE_POLICY || code === ICMPV6_REJECTED;
  return isProhibited ? "prohibited" : "host";
}

function codesOf(kind: keyof typeof CODES, addressBytes: 4 | 16): readonly [type: number, code: number] {
  const [type, code, typeV6, codeV6] = CODES[kind];
  return addressBytes === 4 ? [type, code] : [typeV6, codeV6];
}
