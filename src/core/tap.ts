import type { AddressBytes } from "../wire/socket-address.ts";
import type { PACKET_DROPS } from "./metrics/packet-reasons.ts";
import type { DROPS } from "./metrics/reasons.ts";
import type { ReceivedDatagrams } from "./session/received-datagrams.ts";

/** Why a datagram was dropped, by the name of its counter. */
export type TapReason = keyof typeof DROPS | keyof typeof PACKET_DROPS;

/**
 * Observes each datagram when it is counted as sent, received or dropped. All bytes are borrowed. A datagram that is dropped after it came
 * out of the tunnel is counted, and so observed, twice.
 */
export interface DatagramTap {
  /**
   * Takes a datagram.
   *
   * @param isIn         true if it comes out of a tunnel; false if it goes into one
   * @param reason       why it was dropped; undefined if it was not
   * @param association  its slot, or another number that no other association has now; -1 if there is none
   * @param local        the application's address, if known
   * @param remote       the target or the sender of an answer, which may be a name; undefined if unknown
   */
  record(
    isIn: boolean,
    reason: TapReason | undefined,
    association: number,
    local: AddressBytes | undefined,
    remote: AddressBytes | undefined,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void;
}

/** Observes dropped IP packets of a device too. */
export interface PacketTap extends DatagramTap {
  /** Takes the packet `data[start..end)` from the device, which begins with its IP header and was dropped. */
  recordPacket(reason: TapReason, data: Uint8Array, start: number, end: number): void;
}

/** The owner of queued datagrams, which resolves a queue's flows and contexts for a tap. */
export interface QueueOwner {
  /** See {@link DatagramTap.record}. */
  associationOf(flow: number): number;
  localOf(flow: number): AddressBytes | undefined;
  remoteOf(flow: number, context: number): AddressBytes | undefined;
}

/** Passes rows `first` to `end - 1`, which a client has dropped, to a tap. */
export function recordDroppedRows(
  tap: DatagramTap | undefined,
  reason: TapReason,
  association: number,
  local: AddressBytes | undefined,
  remote: AddressBytes | undefined,
  received: ReceivedDatagrams,
  first: number,
  end: number,
): void {
  if (tap === undefined) return;
  for (let row = first; row < end; row++) {
    const offset = received.offset(row);
    tap.record(false, reason, association, local, remote, received.data, offset, received.length(row));
  }
}

/** Passes a datagram on its way into a tunnel, which is or was queued, to a tap. */
export function recordQueued(
  tap: DatagramTap,
  owner: QueueOwner | undefined,
  reason: TapReason | undefined,
  flow: number,
  context: number,
  data: Uint8Array,
  offset: number,
  length: number,
): void {
  const association = owner?.associationOf(flow) ?? flow;
  const local = owner?.localOf(flow);
  tap.record(false, reason, association, local, owner?.remoteOf(flow, context), data, offset, length);
}
