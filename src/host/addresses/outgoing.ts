import type { AddressBytes } from "../../wire/socket-address.ts";
import { ATYP_IPV4 } from "../../wire/socket-address.ts";

/** The interface or mark that keeps a process's own connections and datagrams out of its TUN device. */
export interface Outgoing {
  /** Name of the interface; "" for any. */
  readonly interfaceName: string;
  /** Mark for the system's rules (SO_MARK); 0 for none. Linux only. */
  readonly mark: number;
}

/** @returns undefined if neither is set */
export function outgoingOf(options: {
  readonly outInterface: string | undefined;
  readonly outMark: number;
}): Outgoing | undefined {
  const { outInterface, outMark } = options;
  if (outInterface === undefined && outMark === 0) return undefined;
  return { interfaceName: outInterface ?? "", mark: outMark };
}

/** Loopback is reachable only through its own interface, and never enters a device. */
export function isLoopback(address: AddressBytes): boolean {
  if (address[0] === ATYP_IPV4) return address[1] === 127;
  for (let i = 1; i < 16; i++) if (address[i] !== 0) return false;
  return address[16] === 1;
}
