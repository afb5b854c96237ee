import { isDomain } from "../../../wire/capsule.ts";
import type { UpgradeRequest } from "../../../wire/http/upgrade.ts";
import { encodeRefusal } from "../../../wire/http/upgrade.ts";
import type { AddressBytes } from "../../../wire/socket-address.ts";
import { makeAddress } from "../../../wire/socket-address.ts";
import type { RefusalReason } from "../../counters.ts";

/** The verdict on a request of RFC 9298 without our extension. */
export type PlainVerdict =
  /** Open a tunnel: to `target`; bound; or bound with `target` as its context 0. */
  | { readonly kind: "accept"; readonly target: AddressBytes | undefined; readonly bind: boolean }
  | { readonly kind: "resolve"; readonly name: AddressBytes }
  | { readonly kind: "refuse"; readonly reason: RefusalReason; readonly response: Uint8Array };

export interface PlainPolicy {
  /** Whether clients may send to an IPv4 or IPv6 address. */
  readonly permits: (target: AddressBytes) => boolean;
  /** Whether clients may bind. Must be false if the address that targets see is unknown, because the answer contains it. */
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

/** Judges a request whose target was looked up. @param addresses  in order of preference; empty if the name has none */
export function judgeResolvedTarget(
  addresses: readonly AddressBytes[],
  bind: boolean,
  { permits, offersBind }: PlainPolicy,
): PlainVerdict {
  const target = addresses.find(permits);
  // A client that asks for a target also accepts a tunnel that is not bound.
  if (target !== undefined) return { kind: "accept", target, bind: bind && offersBind };
  const response =
    addresses.length > 0 ? encodeRefusal(403, "destination_ip_prohibited") : encodeRefusal(502, "dns_error");
  return { kind: "refuse", reason: "target_denied", response };
}
