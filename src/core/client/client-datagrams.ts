import { MAX_DATAGRAM_BYTES } from "../../wire/capsule.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyAddress } from "../../wire/socket-address.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import { recordDroppedRows } from "../tap.ts";
import type { ClientFlows } from "./client-flows.ts";
import type { ClientParts } from "./client-parts.ts";
import { deadlineOfQueue } from "./client-parts.ts";
import type { ClientDispatch } from "./lanes/client-dispatch.ts";

const NONE = -1;

/** Sends the datagrams of applications: to the session's scheduler, to a lane, or to the queue of a lane that is down. */
export class ClientDatagrams {
  readonly #parts: ClientParts;
  readonly #flows: ClientFlows;
  readonly #dispatch: ClientDispatch;

  constructor(parts: ClientParts, flows: ClientFlows, dispatch: ClientDispatch) {
    this.#parts = parts;
    this.#flows = flows;
    this.#dispatch = dispatch;
  }

  /** See {@link TunnelClient.handleDatagram}. */
  send(
    now: number,
    association: number,
    data: Uint8Array,
    offset: number,
    length: number,
    address: Uint8Array,
    addressOffset: number,
    addressLength: number,
  ): void {
    const { counters, contexts, associations, deadlines } = this.#parts;
    const isTooLong = length > MAX_DATAGRAM_BYTES;
    const context = isTooLong
      ? NONE
      : this.#flows.usableContext(now, association, address, addressOffset, addressLength);
    if (context === NONE) {
      const reason = isTooLong ? "too_long" : this.#flows.dropped;
      counters.drops[reason]++;
      if (counters.tap === undefined) return;
      const remote = copyAddress(address, addressOffset, addressLength);
      const local = associations.source[association];
      counters.tap.record(false, reason, association, local, remote, data, offset, length);
      return;
    }
    // Read only now, because a new context may begin another session.
    const { scheduler } = this.#parts;
    const id = contexts.id[context];
    if (scheduler !== undefined) {
      scheduler.push(now, association, id, contexts.lanes[context], data, offset, length);
      this.#dispatch.stir();
      return;
    }
    const lane = this.#parts.laneOf(association);
    if (lane.isUp) {
      lane.tunnel!.writeDatagram(now, association, id, data, offset, length);
      contexts.shortcuts.noteBatch(lane.tunnel!, context, true);
    } else {
      lane.queue.push(now, association, id, data, offset, length);
      deadlines.setEarlier(deadlineOfQueue(lane.index), lane.queue.expiresAt);
    }
  }

  /** See {@link TunnelClient.handleDatagrams}. */
  sendRows(
    now: number,
    association: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
    address: AddressBytes,
  ): void {
    const { counters, contexts, associations, deadlines } = this.#parts;
    const context = this.#flows.usableContext(now, association, address, 0, address.length);
    if (context === NONE) {
      const { dropped } = this.#flows;
      counters.drops[dropped] += end - first;
      const local = associations.source[association];
      recordDroppedRows(counters.tap, dropped, association, local, address, received, first, end);
      return;
    }
    // Read only now, because a new context may begin another session.
    const { scheduler } = this.#parts;
    const id = contexts.id[context];
    if (scheduler !== undefined) {
      scheduler.pushAll(now, association, id, contexts.lanes[context], received, first, end);
      this.#dispatch.stir();
      return;
    }
    const lane = this.#parts.laneOf(association);
    if (lane.isUp) {
      lane.tunnel!.writeDatagrams(now, association, id, received, first, end);
      contexts.shortcuts.noteBatch(lane.tunnel!, context, true);
    } else {
      lane.queue.pushAll(now, association, id, received, first, end);
      deadlines.setEarlier(deadlineOfQueue(lane.index), lane.queue.expiresAt);
    }
  }
}
