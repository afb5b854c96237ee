import type { UnreachableKind } from "../../wire/capsule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";

/** Where datagrams of associations go: one for each route of tun2socks, and the egress of udp-server. */
export interface UdpPath {
  /** @param source  the application's own address, where it is known */
  open(association: number, source: AddressBytes | undefined): void;
  /** Sends a datagram at the latest with {@link flush}; all memory is borrowed until then. */
  send(
    association: number,
    data: Uint8Array,
    offset: number,
    length: number,
    addresses: Uint8Array,
    addressOffset: number,
    addressLength: number,
  ): void;
  flush(): void;
  /** The association is over; nothing is delivered for it any more. */
  close(association: number): void;
  end(): Promise<void>;
}

/** How a path tells of what comes back. */
export interface UdpPathHost {
  /** A datagram for an association's application; `data` is copied. @param remote  a whole address */
  deliver(association: number, remote: AddressBytes, data: Uint8Array, offset: number, length: number): void;
  /** A datagram to `remote` did not get through. @param mtu  for too-big, else 0 */
  refuse(association: number, remote: AddressBytes, kind: UnreachableKind, mtu: number): void;
  drop(reason: "send_error" | "association_limit" | "malformed" | "wrong_source", count: number): void;
}
