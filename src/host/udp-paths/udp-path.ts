import type { UnreachableKind } from "../../wire/capsule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { PathCounts } from "../stats/path-counts.ts";

/**
 * A datagram to send: one view, which the caller points at one datagram after another. The memory that it refers to is
 * borrowed until {@link UdpPath.flush}, the view itself only for the call.
 */
export class OutgoingDatagram {
  association = 0;
  /** The payload is `length` bytes from `data[offset]`. */
  data: Uint8Array = new Uint8Array(0);
  offset = 0;
  length = 0;
  /** RFC 2474. Ways through a SOCKS5 server or TCP lose it. */
  dscp = 0;
  /** The target, a whole address, is `addressLength` bytes from `addresses[addressOffset]`. */
  addresses: Uint8Array = new Uint8Array(0);
  addressOffset = 0;
  addressLength = 0;

  /** Points at another payload of an association. */
  setPayload(association: number, data: Uint8Array, offset: number, length: number, dscp: number): void {
    this.association = association;
    this.data = data;
    this.offset = offset;
    this.length = length;
    this.dscp = dscp;
  }

  /** Points at another target. */
  setTarget(addresses: Uint8Array, offset: number, length: number): void {
    this.addresses = addresses;
    this.addressOffset = offset;
    this.addressLength = length;
  }
}

/** A way out for the datagrams of associations: each route of tun2socks has one, and udp-server's egress is one. */
export interface UdpPath {
  /** @param source  the application's own address, if known */
  open(association: number, source: AddressBytes | undefined): void;
  /** Sends a datagram, at the latest on {@link flush}. */
  send(datagram: OutgoingDatagram): void;
  flush(): void;
  /** Ends an association, after which nothing is delivered for it. */
  close(association: number): void;
  end(): Promise<void>;
  /** Counts since the start, if it has any besides those that it reports to {@link UdpPathHost.drop}. */
  counts?(): PathCounts;
}

/** Receives the datagrams and errors that come back from a path. */
export interface UdpPathHost {
  /** A datagram for an association's application; `data` is copied. @param remote  a whole address */
  deliver(association: number, remote: AddressBytes, data: Uint8Array, offset: number, length: number): void;
  /** A datagram to `remote` did not get through. @param mtu  for too-big, else 0 */
  refuse(association: number, remote: AddressBytes, kind: UnreachableKind, mtu: number): void;
  drop(reason: "send_error" | "association_limit" | "malformed" | "wrong_source", count: number): void;
}
