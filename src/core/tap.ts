import type { AddressBytes } from "../wire/socket-address.ts";
import type { PACKET_DROPS } from "./metrics/packet-reasons.ts";
import type { DROPS } from "./metrics/reasons.ts";
import type { ReceivedDatagrams } from "./session/received-datagrams.ts";

/** Why a datagram went no further, as the counters have it. */
export type TapReason = keyof typeof DROPS | keyof typeof PACKET_DROPS;

/**
 * Sees each datagram that is counted as sent, received or dropped, when it is counted. All bytes are borrowed. One that is
 * dropped after it came out of the tunnel is counted, and so seen, twice.
 */
export interface DatagramTap {
  /**
   * A datagram.
   *
   * @param isIn         out of a tunnel; otherwise into one
   * @param reason       why it was dropped; undefined when it was not
   * @param association  its slot, or another number that no other association has now; -1 when it has none
   * @param local        the application's address, if it is known
   * @param remote       the target, or who answers; may be a name; undefined when it is unknown
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

/** Sees IP packets of a device, too. */
export interface PacketTap extends DatagramTap {
  /** The packet `data[start..end)` from the device, which begins with its IP header, was dropped. */
  recordPacket(reason: TapReason, data: Uint8Array, start: number, end: number): void;
}

/** Whose datagrams wait in queues: what a flow and a context there stand for. */
export interface QueueOwner {
  /** See {@link DatagramTap.record}. */
  associationOf(flow: number): number;
  localOf(flow: number): AddressBytes | undefined;
  remoteOf(flow: number, context: number): AddressBytes | undefined;
}

/** Shows a tap rows `first` to `end - 1`, which a client has dropped. */
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

/** Shows a tap a datagram on its way into a tunnel that is, or was, queued. */
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
