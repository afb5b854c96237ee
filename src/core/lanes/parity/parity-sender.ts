/**
 * Protects bulk with parity, so that a hole of a lane delays few datagrams.
 *
 * A lost segment stalls its lane for more than a round trip, and this end notices that only after most of it. What was sent on the lane
 * meanwhile arrives late. So consecutive datagrams are sent on different lanes, and the exclusive or of each group on a further one: if one
 * lane stalls, the other end restores its datagram within milliseconds (RAID's parity, with lanes for disks; RFC 5109, RFC 8627).
 * Transfers inside gain most, because a TCP inside takes late datagrams for lost ones: without parity, one in WireGuard left slow start at the
 * first losses and could not grow (docs/measure/latency.md).
 *
 * Parity takes capacity and is sent only where that costs little: while lanes become late, because a clean path has nothing to restore, but
 * not while many are, because most groups then lack more than one datagram; while the session has room; and while it sends less than half
 * of its rate, as queues get long beyond that. Flows that adapt their rate to the path have parity almost up to the session's rate: they
 * look for its end anyway, and late datagrams cost them more than a longer queue. Groups are small while the session sends little, which
 * restores more, and sooner. A session that competes with others sends no parity. Nor is parity sent for flows that the other end puts back in
 * order: they use few lanes.
 *
 * A group that is not full is completed after some milliseconds: what ends a burst needs protection too.
 */
import type { Counters } from "../../counters.ts";
import type { DatagramStore } from "../datagram-store.ts";
import { NONE } from "../datagram-store.ts";
import type { FlowTable } from "../flow-table.ts";
import type { LaneSet } from "../lane-set.ts";
import type { Demand } from "../rate/demand.ts";
import type { Pacer } from "../rate/pacer.ts";
import type { RateControl } from "../rate/rate-control.ts";
import { isOrdered, isResponsive } from "../responsive.ts";
import { MAX_HEDGES } from "../sending/hedge-budget.ts";
import type { LaneChoice } from "../sending/lane-choice.ts";
import type { LaneSender } from "../sending/sender.ts";
import type { SendingParts } from "../sending/sending-parts.ts";
import type { SessionQueue } from "../session-queue.ts";
import { ParityGroup } from "./parity-group.ts";

/** Datagrams in a full group while the session sends less than these shares of its rate, and otherwise. */
const SMALL_GROUP = 3;
const SMALL_GROUP_LOAD = 0.3;
const MIDDLE_GROUP = 4;
const MIDDLE_GROUP_LOAD = 0.5;
const LARGE_GROUP = 8;
/** Shares of the rate up to which flows have parity: those that do not adapt to the path, and those that do. */
const MAX_LOAD = 0.5;
const MAX_RESPONSIVE_LOAD = 0.9;
/** With fewer lanes, or a larger share of late ones, many groups lack more than one datagram. */
const LEAST_LANES = 8;
const MAX_LATE_SHARE = 0.2;
/** A group with fewer datagrams has no parity if the lane of one is needed again: its share of the bytes would be too large. */
const LEAST_GROUP = 3;
/** When a group is completed that is not full. */
const GROUP_MS = 10;
const NEVER = Number.POSITIVE_INFINITY;

export class ParitySender {
  /** Parities sent since the start. */
  count = 0;

  readonly #store: DatagramStore;
  readonly #flows: FlowTable;
  readonly #counters: Counters;
  readonly #lanes: LaneSet;
  readonly #queue: SessionQueue;
  readonly #choice: LaneChoice;
  readonly #rates: RateControl;
  readonly #pacer: Pacer;
  readonly #demand: Demand;
  readonly #sender: LaneSender;
  readonly #group: ParityGroup;
  /** In this dispatch: whether responsive flows have parity, whether others do, and the size of a full group. */
  #isUseful = false;
  #isCheap = false;
  #size = 0;

  constructor(parts: SendingParts) {
    this.#store = parts.store;
    this.#flows = parts.flows;
    this.#counters = parts.counters;
    this.#lanes = parts.lanes;
    this.#queue = parts.queue;
    this.#choice = parts.choice;
    this.#rates = parts.rates;
    this.#pacer = parts.pacer;
    this.#demand = parts.demand;
    this.#sender = parts.sender;
    this.#group = new ParityGroup(parts.store);
  }

  /** Begins a dispatch. @param isSpread  whether lanes have become late recently */
  begin(now: number, isSpread: boolean): void {
    this.#isUseful = isSpread && this.#restoresMost && this.#hasRoom(now);
    if (this.#isUseful) {
      // The parity needs a lane of its own.
      this.#size = Math.min(this.#size, this.#usableLanes - 1);
      this.#isUseful = this.#size >= SMALL_GROUP;
    }
    if (!this.#isUseful) this.#group.clear();
  }

  get #restoresMost(): boolean {
    return this.#lanes.up >= LEAST_LANES && this.#lanes.lateShare <= MAX_LATE_SHARE;
  }

  /** Bulk lanes that are not late and accept parity. */
  get #usableLanes(): number {
    let count = 0;
    for (const lane of this.#lanes.all) {
      if (lane.index >= this.#lanes.express && lane.isUp && !lane.isLate && lane.parityLimit > 0) count++;
    }
    return count;
  }

  /** Whether responsive flows may have parity. Decides also whether others may, and the size of groups. */
  #hasRoom(now: number): boolean {
    const { mode } = this.#rates;
    const load = this.#queue.arrivals(now) / this.#pacer.rate;
    const isLimited = this.#demand.isLimited(now);
    const hasRoom = mode !== "compete" && this.#demand.hasRoom(now);
    this.#isCheap = hasRoom && !isLimited && load < MAX_LOAD;
    this.#size = sizeFor(isLimited ? 1 : load);
    // At the start, the rate says nothing about the path yet.
    return mode === "start" || (hasRoom && load < MAX_RESPONSIVE_LOAD);
  }

  /** Bits of the lanes that are up and accept the parity of so many datagrams. */
  #takers(count: number): number {
    let bits = 0;
    for (const lane of this.#lanes.all) if (lane.isUp && lane.parityLimit >= count) bits |= lane.bit;
    return bits;
  }

  /** Bits of the lanes that the next datagram should not use, so that a lane which stalls delays only one of a group. */
  get taken(): number {
    return this.#group.lanes;
  }

  /** A bulk datagram is about to be sent on a lane: completes the group if the lane carries one of its datagrams already. */
  makeWay(now: number, bit: number): void {
    if ((this.#group.lanes & bit) === 0) return;
    if (this.#group.count < LEAST_GROUP) this.#group.clear();
    else this.#complete(now);
  }

  /** A bulk datagram was sent. @param bit  of its lane */
  noteBulk(now: number, entry: number, bit: number): void {
    if (!this.#isUseful) return;
    const flow = this.#store.flow[entry];
    if (isOrdered(this.#flows, flow) || !(this.#isCheap || isResponsive(this.#flows, flow))) {
      this.#group.clear();
      return;
    }
    this.#group.add(now, entry, bit);
    if (this.#group.count >= this.#size) this.#complete(now);
  }

  /**
   * A datagram of a sparse flow was sent. It begins no group, but is part of one, as its number is.
   *
   * @param bit  of its lane; 0 if it was sent on two
   */
  noteSparse(now: number, entry: number, bit: number): void {
    if (this.#group.count === 0) return;
    this.#group.add(now, entry, bit);
    if (this.#group.count >= this.#size) this.#complete(now);
  }

  /** When {@link expire} is due; Infinity for never, as while no lane is up. */
  get dueAt(): number {
    return this.#group.count > 0 && this.#lanes.up > 0 ? this.#group.openedAt + GROUP_MS : NEVER;
  }

  /** Completes a group that has waited for long enough. */
  expire(now: number): void {
    if (now >= this.dueAt) this.#complete(now);
  }

  /** Sends the parity of the group on a further lane, if one would send it at once. */
  #complete(now: number): void {
    const group = this.#group;
    const index = this.#choice.promptBulk(this.#lanes.express, this.#takers(group.count) & ~group.lanes);
    if (index === NONE) {
      group.clear();
      return;
    }
    const entry = group.take(now);
    this.#store.hedges[entry] = MAX_HEDGES;
    this.#queue.noteCopy(now, this.#store.length[entry]);
    this.#sender.send(now, index, entry);
    this.#store.release(entry);
    this.count++;
    this.#counters.spread.parities++;
  }
}

/** Datagrams in a full group. @param load  share of the rate that the session sends */
function sizeFor(load: number): number {
  if (load < SMALL_GROUP_LOAD) return SMALL_GROUP;
  return load < MIDDLE_GROUP_LOAD ? MIDDLE_GROUP : LARGE_GROUP;
}
