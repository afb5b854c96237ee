/** RFC 9298 without our extension: the verdict on a request, and the capsules and datagrams of bound tunnels. */
import { fromIpVersionForm, ipVersionFormLength, isDomain, toIpVersionForm } from "../../wire/capsule.ts";
import type { UpgradeRequest } from "../../wire/http/upgrade.ts";
import { encodeRefusal } from "../../wire/http/upgrade.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { makeAddress } from "../../wire/socket-address.ts";
import type { RefusalReason } from "../counters.ts";
import { UsedIds } from "./used-ids.ts";

/** The verdict on a request. */
export type PlainVerdict =
  /** Open a tunnel: to one target, bound, or bound with the target as its context 0. */
  | { readonly kind: "accept"; readonly target: AddressBytes | undefined; readonly bind: boolean }
  | { readonly kind: "resolve"; readonly name: AddressBytes }
  | { readonly kind: "refuse"; readonly reason: RefusalReason; readonly response: Uint8Array };

export interface PlainPolicy {
  /** True if an IPv4 or IPv6 address may be sent to. */
  readonly permits: (target: AddressBytes) => boolean;
  /** True if clients may bind; false if the address that targets see is unknown, as the answer has to contain it. */
  readonly offersBind: boolean;
}

export function judgePlainRequest({ target, bind }: UpgradeRequest, policy: PlainPolicy): PlainVerdict {
  if (target === undefined) {
    if (policy.offersBind) return { kind: "accept", target, bind };
    return { kind: "refuse", reason: "not_upgrade", response: encodeRefusal(501, undefined) };
  }
  const address = makeAddress(target.host, target.port);
  if (address === undefined) {
    return { kind: "refuse", reason: "not_upgrade", response: encodeRefusal(400, undefined) };
  }
  return isDomain(address)
    ? { kind: "resolve", name: address }
    : judgeResolvedTarget([address], bind, policy);
}

/** @param addresses  of the target, in order of preference; empty when its name has none */
export function judgeResolvedTarget(
  addresses: readonly AddressBytes[],
  bind: boolean,
  { permits, offersBind }: PlainPolicy,
): PlainVerdict {
  const target = addresses.find(permits);
  // Who asks for a target accepts a tunnel that is not bound.
  if (target !== undefined) return { kind: "accept", target, bind: bind && offersBind };
  const response =
    addresses.length > 0 ? encodeRefusal(403, "destination_ip_prohibited") : encodeRefusal(502, "dns_error");
  return { kind: "refuse", reason: "target_denied", response };
}

/** The context ids of one bound tunnel. */
export class BoundIds {
  /** The uncompressed context; 0 while there is none, when the client accepts only senders that it has registered. */
  uncompressed = 0;
  readonly #used = new UsedIds();

  /** The client registers an id. @returns false for an id that is invalid or used: the bind draft §3.1, §3.3 */
  register(id: number): boolean {
    return id > 0 && id % 2 === 0 && this.#used.add(id);
  }
}

/** Value of a COMPRESSION_ASSIGN behind its context id. @returns undefined when it is malformed */
export function decodeCompressionAssign(
  bytes: Uint8Array,
  offset: number,
  end: number,
): AddressBytes | "uncompressed" | undefined {
  if (bytes[offset] === 0) return offset + 1 === end ? "uncompressed" : undefined;
  const length = ipVersionFormLength(bytes, offset, end);
  if (length === 0 || offset + length !== end) return undefined;
  return fromIpVersionForm(bytes, offset, length);
}

/** Assembles the payloads of uncompressed datagrams. */
export class UncompressedPayload {
  /** Valid until the next call of {@link write}. */
  bytes = new Uint8Array(0);

  /** @returns length of the payload in {@link bytes}: IP version, address and port of `remote`, and the datagram */
  write(remote: AddressBytes, data: Uint8Array, offset: number, length: number): number {
    const size = remote.length + length;
    if (this.bytes.length < size) this.bytes = new Uint8Array(size);
    this.bytes.set(toIpVersionForm(remote));
    this.bytes.set(data.subarray(offset, offset + length), remote.length);
    return size;
  }
}
