/** RFC 9298 without our extension: what becomes of a request, and the capsules and datagrams of bound tunnels. */
import { fromIpVersionForm, ipVersionFormLength, isDomain, toIpVersionForm } from "../wire/capsule.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import { makeAddress } from "../wire/socket-address.ts";
import type { UpgradeRequest } from "../wire/upgrade.ts";
import { encodeRefusal } from "../wire/upgrade.ts";
import type { RefusalReason } from "./counters.ts";

/** What becomes of a request. */
export type PlainVerdict =
  /** Open a tunnel: to one target, or for `*`/`*` to none. */
  | { readonly kind: "accept"; readonly target: AddressBytes | undefined }
  | { readonly kind: "resolve"; readonly name: AddressBytes }
  | { readonly kind: "refuse"; readonly reason: RefusalReason; readonly response: Uint8Array };

/** @param permits  whether an IPv4 or IPv6 address may be sent to */
export function judgePlainRequest(
  { target }: UpgradeRequest,
  permits: (target: AddressBytes) => boolean,
): PlainVerdict {
  if (target === undefined) return { kind: "accept", target };
  const address = makeAddress(target.host, target.port);
  if (address === undefined) {
    return { kind: "refuse", reason: "not_upgrade", response: encodeRefusal(400, undefined) };
  }
  return isDomain(address) ? { kind: "resolve", name: address } : judgeResolvedTarget([address], permits);
}

/** @param addresses  of the target, in the order of preference; empty when its name has none */
export function judgeResolvedTarget(
  addresses: readonly AddressBytes[],
  permits: (target: AddressBytes) => boolean,
): PlainVerdict {
  const target = addresses.find(permits);
  if (target !== undefined) return { kind: "accept", target };
  const response =
    addresses.length > 0 ? encodeRefusal(403, "destination_ip_prohibited") : encodeRefusal(502, "dns_error");
  return { kind: "refuse", reason: "target_denied", response };
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

/** Puts the payloads of uncompressed datagrams together. */
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
