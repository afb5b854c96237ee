/**
 * Chooses the lane for a datagram.
 *
 * All lanes share one path, so the lane with the fewest bytes in flight delivers soonest. MPTCP's ECF (Lim et al., CoNEXT 2017) and BLEST
 * (Ferlin et al., IFIP Networking 2016) compute the same for paths that differ, from their windows and round trips. As in these, a
 * datagram waits if only late lanes, which would deliver it later, are available. A lane whose own path is longer is charged for the
 * difference.
 *
 * Spreading limits the datagrams that a loss delays, but reorders datagrams when a lane is late. So a flow keeps its lane as long as that
 * lane can take its datagrams and no lane has been late for a while. On a clean path nothing is reordered.
 *
 * On a slow path, lanes with few packets are inefficient: each packet is acknowledged by itself, and TCP finds a hole only by its timer,
 * because nothing follows. So a slow path uses only as many lanes as have two packets in flight each, unless these lanes cannot take the
 * datagram. A lane that owes an acknowledgement comes first, because the datagram then carries it.
 *
 * A flow that the other end puts back in order waits for the slowest repair. It uses few lanes as long as these can take it, so that
 * enough segments follow on each for TCP to find a hole by the third one and not by a timer.
 *
 * The first few of many lanes are *express*: they carry only sparse flows and receipts, so a call never waits behind a flood.
 */
import { NONE } from "../datagram-store.ts";
import type { LaneState } from "../lane-state.ts";
import { PACKET_BYTES } from "../packet-bytes.ts";
import type { PathDelay } from "../rate/measures/path-delay.ts";

/** Most bytes that are assigned to a lane and not written yet. */
const MAX_UNWRITTEN = 65_536;
/** Rate in bytes per millisecond below which a path is slow: 3.2 Mbit/s. */
const SLOW_RATE = 400;
/** Bytes in flight on each lane in use, about two packets; and the fewest lanes in use on a slow path. */
const LANE_BYTES = 2 * PACKET_BYTES;
const LEAST_LANES = 4;
/** By how many bytes in flight more a lane may be chosen on a slow path because it owes an acknowledgement: one packet. */
const OWED_BYTES = PACKET_BYTES;
/** How many lanes a flow uses that the other end puts back in order. */
const FEW_LANES = 4;

/** How many of `count` lanes are express. */
export function expressLanes(count: number): number {
  return count >= 12 ? 3 : count >= 8 ? 2 : count >= 4 ? 1 : 0;
}

export class LaneChoice {
  readonly #lanes: readonly LaneState[];
  readonly #path: PathDelay;
  /** Rate of the session in bytes per millisecond, which converts a lane's extra delay to bytes. */
  rate = 0;

  /** Whether the measured rate is that of a slow path. */
  isSlow = false;

  constructor(lanes: readonly LaneState[], path: PathDelay) {
    this.#lanes = lanes;
    this.#path = path;
  }

  /** Sets the rate. @param rate  in bytes per millisecond @param isMeasured  false at the start, when it is derived from the round trip */
  judge(rate: number, isMeasured: boolean): void {
    this.rate = rate;
    this.isSlow = isMeasured && rate < SLOW_RATE;
  }

  canTake(lane: LaneState): boolean {
    return lane.isUp && !lane.isBusy && lane.unwritten < MAX_UNWRITTEN && !lane.isFull;
  }

  /** Whether a lane probably sends a datagram at once: it is not late, and its congestion window has room. */
  isPrompt(lane: LaneState): boolean {
    return !lane.isLate && !lane.isBeyondWindow;
  }

  /** The lane for a bulk datagram: the best one that is neither express nor late. @returns its index, or -1 to wait */
  bulk(express: number, allowed: number): number {
    const inUse = Math.max(LEAST_LANES, Math.ceil((this.rate * this.#path.minRtt) / LANE_BYTES));
    const all = this.#lanes.length;
    if (this.isSlow && express + inUse < all) {
      const best = this.#best(express, express + inUse, allowed, OWED_BYTES);
      if (best !== NONE && this.isPrompt(this.#lanes[best])) return best;
    }
    const best = this.#best(express, all, allowed);
    return best === NONE || this.#lanes[best].isLate ? NONE : best;
  }

  /** The lane for a datagram that is put back in order: the best of the flow's few lanes. @returns its index, or -1 if none is prompt */
  ordered(express: number, flow: number): number {
    const count = this.#lanes.length - express;
    let few = 0;
    for (let i = 0; i < Math.min(FEW_LANES, count); i++)
      few |= 1 << (express + ((FEW_LANES * flow + i) % count));
    return this.#ifPrompt(this.#best(express, this.#lanes.length, few));
  }

  /** As {@link bulk}, but only a lane that sends the datagram at once. @returns its index, or -1 if none is prompt */
  promptBulk(express: number, allowed: number): number {
    return this.#ifPrompt(this.bulk(express, allowed));
  }

  #ifPrompt(lane: number): number {
    return lane === NONE || !this.isPrompt(this.#lanes[lane]) ? NONE : lane;
  }

  /** The lane for a sparse datagram: the best express lane, or another one if that is not prompt. @returns its index, or -1 to wait */
  sparse(express: number, allowed: number): number {
    const fast = this.#best(0, express, allowed);
    if (fast !== NONE && this.isPrompt(this.#lanes[fast])) return fast;
    const other = this.#best(express, this.#lanes.length, allowed);
    if (other === NONE || (fast !== NONE && !this.isPrompt(this.#lanes[other]))) return fast;
    return other;
  }

  /** @param owed  bytes by which a lane that owes an acknowledgement is better */
  #best(from: number, end: number, allowed: number, owed = 0): number {
    let best = NONE;
    let bestScore = Number.POSITIVE_INFINITY;
    for (let index = from; index < end; index++) {
      if ((allowed & (1 << index)) === 0) continue;
      const lane = this.#lanes[index];
      if (!this.canTake(lane)) continue;
      let score = lane.inFlight + this.#path.lag(lane) * this.rate;
      if (lane.newestAt > lane.usedAt) score -= owed;
      if (lane.isBeyondWindow) score += 1e9;
      if (lane.isLate) score += 1e12 - lane.lateSince;
      // Of equal lanes, the least recently used one.
      if (score < bestScore || (score === bestScore && lane.usedAt < this.#lanes[best].usedAt)) {
        best = index;
        bestScore = score;
      }
    }
    return best;
  }
}
