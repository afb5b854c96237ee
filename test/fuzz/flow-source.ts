import type { AddressBytes } from "../../src/wire/socket-address.ts";
import { addressPort, makeAddress } from "../../src/wire/socket-address.ts";

/** The address from which the application of a flow appears to send; each flow has its own. */
export function sourceOf(flow: number): AddressBytes {
  return makeAddress(`127.1.${(flow >> 8) & 255}.${flow & 255}`, 1 + (flow >> 16))!;
}

/** The flow of {@link sourceOf}. */
export function flowOf(source: AddressBytes): number {
  return ((addressPort(source) - 1) << 16) | (source[3] << 8) | source[4];
}
