import type { AddressBytes } from "../wire/socket-address.ts";
import { ATYP_IPV4 } from "../wire/socket-address.ts";

/** By what a process's own connections and datagrams leave, so that they do not enter a TUN device of its own. */
export interface Outgoing {
  /** Name of the interface; "" for any. */
  readonly interfaceName: string;
  /** For the system's rules (SO_MARK); 0 for none. Linux only. */
  readonly mark: number;
}

/** @returns undefined where neither is set */
export function outgoingOf(options: {
  readonly outInterface: string | undefined;
  readonly outMark: number;
}): Outgoing | undefined {
  const { outInterface, outMark } = options;
  if (outInterface === undefined && outMark === 0) return undefined;
  return { interfaceName: outInterface ?? "", mark: outMark };
}

/** Loopback is on no other interface, and enters no device. */
export function isLoopback(address: AddressBytes): boolean {
  if (address[0] === ATYP_IPV4) return address[1] === 127;
  for (let i = 1; i < 16; i++) if (address[i] !== 0) return false;
  return address[16] === 1;
}
