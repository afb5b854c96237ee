import {
  ICMP_FRAGMENTATION_NEEDED,
  ICMP_HOST,
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
  ICMPV6_TIME_EXCEEDED,
  ICMPV6_TOO_BIG,
  ICMPV6_UNREACHABLE,
} from "../wire/icmp.ts";
import type { IpPacket } from "../wire/ip-packet.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import type { PacketCounters } from "./packet-counters.ts";
import type { PacketWriter } from "./packet-writer.ts";
import { writeUdpQuote } from "./packet-writer.ts";

/** Why a datagram did not get through, as an application may be told. */
export type UnreachableKind = "port" | "host" | "prohibited" | "too-big";

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
 * ICMP and ICMPv6 errors, not more than so many a second. Those that a router sends come from the peer address, where
 * there is one: the kernel would drop packets from an address of its own. All others come from the packet's destination.
 */
export class IcmpErrors {
  readonly #writer: PacketWriter;
  readonly #counters: PacketCounters;
  readonly #perSecond: number;
  readonly #routers: readonly [Uint8Array | undefined, Uint8Array | undefined];
  readonly #quote = new Uint8Array(64);
  #tokens: number;
  #refilledAt = 0;

  /** @param routers  the peer addresses, IPv4 and IPv6 */
  constructor(
    writer: PacketWriter,
    counters: PacketCounters,
    perSecond: number,
    routers: readonly [Uint8Array | undefined, Uint8Array | undefined],
  ) {
    this.#writer = writer;
    this.#counters = counters;
    this.#perSecond = perSecond;
    this.#routers = routers;
    this.#tokens = perSecond;
  }

  /** Answers a packet to a unicast address that is no ICMP error itself; the caller has checked both. */
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

  /** Answers a datagram from `inner` to `remote` (of one family) of which no more is known. @param mtu  for too-big */
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
    const rest = kind === "too-big" ? mtu : 0;
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

  /** RFC 1812 §4.3.2.8, RFC 4443 §2.4(f): a token bucket of one second. */
  #take(now: number): boolean {
    const refill = (Math.max(0, now - this.#refilledAt) * this.#perSecond) / 1000;
    this.#tokens = Math.min(this.#perSecond, this.#tokens + refill);
    this.#refilledAt = now;
    if (this.#tokens < 1) {
      this.#counters.icmpErrorsLimited++;
      return false;
    }
    this.#tokens--;
    this.#counters.icmpErrors++;
    return true;
  }
}

function codesOf(kind: keyof typeof CODES, addressBytes: 4 | 16): readonly [type: number, code: number] {
  const [type, code, typeV6, codeV6] = CODES[kind];
  return addressBytes === 4 ? [type, code] : [typeV6, codeV6];
}
