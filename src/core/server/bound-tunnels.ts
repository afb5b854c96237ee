/** Bound tunnels without our extension (draft-ietf-masque-connect-udp-listen): their capsules and uncompressed datagrams. */
import { fromIpVersionForm, ipVersionFormLength, toIpVersionForm } from "../../wire/capsule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { UsedIds } from "./sessions/used-ids.ts";

/** The context ids of one bound tunnel. */
export class BoundIds {
  /** The uncompressed context. While it is 0, the client has none and accepts only senders that it has registered. */
  uncompressed = 0;
  readonly #used = new UsedIds();

  /** The client registers an id. @returns false if the id is invalid or was used before (the bind draft §3.1, §3.3) */
  register(id: number): boolean {
    return id > 0 && id % 2 === 0 && this.#used.add(id);
  }
}

/** Decodes the value of a COMPRESSION_ASSIGN after its context id. @returns undefined if it is malformed */
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

  /** Writes IP version, address and port of `remote`, then the datagram. @returns length of the payload in {@link bytes} */
  write(remote: AddressBytes, data: Uint8Array, offset: number, length: number): number {
    const size = remote.length + length;
    if (this.bytes.length < size) this.bytes = new Uint8Array(size);
    this.bytes.set(toIpVersionForm(remote));
    this.bytes.set(data.subarray(offset, offset + length), remote.length);
    return size;
  }
}
