/**
 * Assigns datagrams to lanes, writes them into the lanes' batches, and removes them once they are receipted or their lane has ended.
 *
 * dispatcher.ts and hedger.ts decide which datagram goes on which lane, and when.
 */
import { parityHeaderLength, writeParityHeader } from "../../../wire/parity.ts";
import {
  MAX_SEQUENCED_HEADER_BYTES,
  SEQUENCE_MODULUS,
  sequencedHeaderLength,
  writeSequencedHeader,
} from "../../../wire/receipt.ts";
import type { Counters } from "../../counters.ts";
import { type DatagramStore, NONE } from "../datagram-store.ts";
import { ANY_LANE } from "../lane-bits.ts";
import type { LaneSet } from "../lane-set.ts";
import type { LaneState } from "../lane-state.ts";
import { PARITY_CONTEXT } from "../parity/parity-group.ts";
import type { Demand } from "../rate/demand.ts";
import type { Pacer } from "../rate/pacer.ts";
import type { HedgeBudget } from "./hedge-budget.ts";

/** Share of its usual earnings that the hedging budget gets while the session has no room. */
const NO_ROOM_HEDGE_SHARE = 0.2;
/** What a frame counts towards the limit at least. A small datagram takes a block of memory too, and all frames are searched for hedges. */
const MIN_FRAME_BYTES = 256;

export class LaneSender {
  /** Bits of the lanes that have something to write. */
  dirty = 0;
  /** Bytes on lanes without a receipt. */
  inFlight = 0;
  /** Counts since the start, including copies: bytes sent, bytes receipted, and datagrams sent. */
  sentBytes = 0;
  deliveredBytes = 0;
  frames = 0;
  nextSequence = 0;

  readonly #lanes: readonly LaneState[];
  readonly #store: DatagramStore;
  readonly #counters: Counters;
  readonly #inFlightLimit: number;
  /** As {@link inFlight}, with small frames as {@link MIN_FRAME_BYTES}. */
  #counted = 0;
  readonly #pacer: Pacer;
  readonly #budget: HedgeBudget;
  readonly #demand: Demand;

  /** @param inFlightLimit  bytes in flight above which {@link isOverfull} is true; a frame counts as at least 256 */
  constructor(
    lanes: LaneSet,
    store: DatagramStore,
    counters: Counters,
    inFlightLimit: number,
    pacer: Pacer,
    budget: HedgeBudget,
    demand: Demand,
  ) {
    this.#lanes = lanes.all;
    this.#store = store;
    this.#counters = counters;
    this.#inFlightLimit = inFlightLimit;
    this.#pacer = pacer;
    this.#budget = budget;
    this.#demand = demand;
  }

  /** Whether more is in flight than the limit allows. */
  get isOverfull(): boolean {
    return this.#counted > this.#inFlightLimit;
  }

  /** Assigns an entry to a lane, which takes a reference of its own. */
  send(now: number, index: number, entry: number): void {
    const lane = this.#lanes[index];
    const store = this.#store;
    const size = store.length[entry];
    if (store.sequence[entry] === NONE) {
      store.sequence[entry] = this.nextSequence;
      this.#counters.datagramsOut++;
      this.#counters.bytesOut += size;
      const { tap } = this.#counters;
      if (tap !== undefined) store.record(tap, undefined, entry);
      this.nextSequence = (this.nextSequence + 1) % SEQUENCE_MODULUS;
    }
    store.retain(entry);
    store.holders[entry] |= lane.bit;
    this.sentBytes += size;
    this.inFlight += size;
    this.#counted += countedBytes(size);
    lane.assign(now, entry, size, this.sentBytes);
    this.#pacer.spend(size);
    this.#budget.earn(this.#demand.hasRoom(now) ? size : NO_ROOM_HEDGE_SHARE * size, this.#pacer.rate);
    this.dirty |= lane.bit;
    this.frames++;
  }

  /** Upper bound of the bytes that {@link write} would write for a lane. */
  outputBytes(lane: LaneState): number {
    return lane.unwritten + (lane.assigned - lane.written) * MAX_SEQUENCED_HEADER_BYTES;
  }

  /** Writes a lane's assigned datagrams and parities as capsules. If not all fit, the lane stays dirty. @returns the end offset */
  write(now: number, lane: LaneState, out: Uint8Array, at: number): number {
    const store = this.#store;
    const first = lane.written;
    let end = at;
    while (lane.written !== lane.assigned) {
      const entry = lane.entry[lane.slot(lane.written)];
      const length = store.length[entry];
      const context = store.context[entry];
      const isParity = context === PARITY_CONTEXT;
      const header = isParity ? parityHeaderLength(length) : sequencedHeaderLength(context, length);
      if (end + header + length > out.length) {
        this.dirty |= lane.bit;
        break;
      }
      const sequence = store.sequence[entry];
      end = isParity
        ? writeParityHeader(out, end, sequence, length)
        : writeSequencedHeader(out, end, context, sequence, length);
      store.copyOut(entry, out, end);
      end += length;
      lane.written++;
      lane.unwritten -= length;
    }
    if (lane.written !== first) this.#noteBatch(now, lane, lane.entry[lane.slot(first)]);
    return end;
  }

  /** Measures a batch by its first entry, unless that is a parity, or a further copy, whose age is not the queue's delay. */
  #noteBatch(now: number, lane: LaneState, entry: number): void {
    const { queueDelayMs, datagramBytes } = this.#counters.histograms;
    if (this.#store.holders[entry] !== lane.bit || this.#store.context[entry] === PARITY_CONTEXT) return;
    queueDelayMs.add(lane.index, now - this.#store.time[entry]);
    datagramBytes.add("out", this.#store.length[entry]);
  }

  /** Removes frames from a lane that the other end has newly receipted. */
  takeReceipted(lane: LaneState, frames: number): void {
    const store = this.#store;
    const before = lane.inFlight;
    for (let i = 0; i < frames; i++) {
      const entry = lane.entry[lane.slot(lane.receipted++)];
      lane.inFlight -= store.length[entry];
      this.#counted -= countedBytes(store.length[entry]);
      store.holders[entry] &= ~lane.bit;
      store.isDone[entry] = 1;
      store.release(entry);
    }
    const bytes = before - lane.inFlight;
    this.inFlight -= bytes;
    this.deliveredBytes += bytes;
    lane.openWindow(bytes, before);
  }

  /** Removes the oldest entry from a lane that has ended. Its reference passes to the caller. @returns -1 if none is left */
  takeBack(lane: LaneState): number {
    if (lane.receipted === lane.assigned) return NONE;
    const entry = lane.entry[lane.slot(lane.receipted++)];
    this.inFlight -= this.#store.length[entry];
    this.#counted -= countedBytes(this.#store.length[entry]);
    this.#store.holders[entry] &= ~lane.bit;
    return entry;
  }

  /** Removes a lane from datagrams in flight that only certain lanes may carry. @param bit  of the lane */
  forbid(bit: number): void {
    const { allowed } = this.#store;
    for (const lane of this.#lanes) {
      for (let frame = lane.receipted; frame !== lane.assigned; frame++) {
        const entry = lane.entry[lane.slot(frame)];
        if (allowed[entry] !== ANY_LANE) allowed[entry] &= ~bit;
      }
    }
  }

  /** Releases everything in flight because the session has ended. */
  close(): void {
    this.dirty = 0;
    for (const lane of this.#lanes) {
      lane.isUp = false;
      while (lane.receipted !== lane.assigned) {
        this.#store.release(lane.entry[lane.slot(lane.receipted++)]);
      }
    }
  }
}

function countedBytes(length: number): number {
  return Math.max(MIN_FRAME_BYTES, length);
}
