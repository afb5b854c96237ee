import { parseNetwork } from "../../core/target-rule.ts";

/** An address of a device, 4 or 16 bytes, with its network. */
export interface InterfaceAddress {
  readonly own: Uint8Array;
  readonly prefixLength: number;
  /** Another address of that network, which no host has. */
  readonly peer: Uint8Array;
}

/**
 * Reads `IP/PREFIX`, such as `198.18.0.1/30`. The peer is the next address, or the previous one if that is the network's
 * last.
 *
 * @returns undefined when the text is invalid, or the network has no room for two addresses
 */
export function parseInterfaceAddress(text: string): InterfaceAddress | undefined {
  const cidr = parseCidr(text);
  if (cidr === undefined) return undefined;
  const { network: own, prefixLength } = cidr;
  const hostBits = own.length * 8 - prefixLength;
  if (hostBits < 1 || !isHost(own, prefixLength)) return undefined;
  for (const step of [1, -1]) {
    const peer = own.slice();
    peer[peer.length - 1] += step;
    const hasWrapped = peer[peer.length - 1] === (step === 1 ? 0 : 255);
    if (!hasWrapped && isSameNetwork(own, peer, prefixLength) && isHost(peer, prefixLength)) {
      return { own, prefixLength, peer };
    }
  }
  return undefined;
}

/** Reads `IP/PREFIX`. @returns undefined when the text is invalid */
export function parseCidr(
  text: string,
): { readonly network: Uint8Array; readonly prefixLength: number } | undefined {
  return text.includes("/") ? parseNetwork(text) : undefined;
}

/** True if the text is the `IP/PREFIX` of a network, without bits after the prefix. */
export function isNetwork(text: string): boolean {
  const cidr = parseCidr(text);
  if (cidr === undefined) return false;
  const { network, prefixLength } = cidr;
  for (let bit = prefixLength; bit < network.length * 8; bit++) {
    if ((network[bit >> 3] & (0x80 >> (bit & 7))) !== 0) return false;
  }
  return true;
}

/** True unless an IPv4 address is the first or last of its network, if these are special (RFC 3021). */
function isHost(address: Uint8Array, prefixLength: number): boolean {
  if (address.length === 16 || prefixLength === 31) return true;
  const value = new DataView(address.buffer, address.byteOffset).getUint32(0);
  const hostPart = value & (2 ** (32 - prefixLength) - 1);
  return hostPart !== 0 && hostPart >>> 0 !== 2 ** (32 - prefixLength) - 1;
}

function isSameNetwork(a: Uint8Array, b: Uint8Array, prefixLength: number): boolean {
  for (let bit = 0; bit < prefixLength; bit++) {
    const mask = 0x80 >> (bit & 7);
    if ((a[bit >> 3] & mask) !== (b[bit >> 3] & mask)) return false;
  }
  return true;
}
