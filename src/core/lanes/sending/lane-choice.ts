/**
 * Which lane a datagram goes on.
 *
 * All lanes share one path, so that the one with the fewest bytes under way is the one that delivers soonest: what MPTCP's ECF (Lim et
 * al., CoNEXT 2017) and BLEST (Ferlin et al., IFIP Networking 2016) reckon from windows and round trips of unlike paths. As they do, it
 * rather waits than uses a lane that would deliver later: a late one. A lane with a longer way of its own is charged for it.
 *
 * Spreading makes a loss hit few datagrams, but lets datagrams overtake each other when a lane is late. So a flow keeps its lane as
 * long as no lane has been late for a while and that lane takes what is given to it: over a clean path nothing is reordered.
 *
 * Over a slow path a lane that gets a packet now and then is a bad deal: each packet is acknowledged by itself, and a hole is found by
 * a timer, as nothing follows. So there are no more lanes in use than have two packets under way each, unless these cannot take the
 * datagram.
 *
 * Where datagrams are put back in order at the other end, all wait for the slowest repair: such a flow goes over few lanes as long as
 * these take it, so that much follows on each, and TCP finds a hole by the third segment behind it, not by a timer.
 *
 * The first few of many lanes are *express*: they carry sparse flows and receipts alone, so that a call never stands behind a flood.
 */
import { NONE } from "../datagram-store.ts";
import type { LaneState } from "../lane-state.ts";
import type { PathDelay } from "../rate/path-delay.ts";

/** Bytes that may be assigned to a lane and not written. */
const MAX_UNWRITTEN = 65_536;
/** Rate in bytes per millisecond below which a path is slow: 3.2 Mbit/s. */
const SLOW_RATE = 400;
/** What is under way on each lane in use, two packets; and how many lanes are in use however slow the path is. */
const LANE_BYTES = 2_500;
const LEAST_LANES = 4;
/** How many lanes a flow has whose datagrams wait for each other. */
const FEW_LANES = 4;

/** How many of so many lanes are express. */
export function expressLanes(count: number): number {
  return count >= 12 ? 3 : count >= 8 ? 2 : count >= 4 ? 1 : 0;
}

export class LaneChoice {
  readonly #lanes: readonly LaneState[];
  readonly #path: PathDelay;
  /** Bytes per millisecond of the session, by which a lane's longer way is charged. */
  rate = 0;

  /** Whether the path is known to be slow; see {@link judge}. */
  isSlow = false;

  constructor(lanes: readonly LaneState[], path: PathDelay) {
    this.#lanes = lanes;
    this.#path = path;
  }

  /** @param rate  in bytes per millisecond @param isMeasured  false at the start, when it only follows from the round trip */
  judge(rate: number, isMeasured: boolean): void {
    this.rate = rate;
    this.isSlow = isMeasured && rate < SLOW_RATE;
  }

  canTake(lane: LaneState): boolean {
    return lane.isUp && !lane.isBusy && lane.unwritten < MAX_UNWRITTEN && !lane.isFull;
  }

  /** Whether what a lane is given now goes out at once, as far as that can be known. */
  isPrompt(lane: LaneState): boolean {
    return !lane.isLate && !lane.isBeyondWindow;
  }

  /** For a bulk datagram: the best of the lanes that are not express and not late. @returns its index, or -1 to wait */
  bulk(express: number, allowed: number): number {
    const inUse = Math.max(LEAST_LANES, Math.ceil((this.rate * this.#path.minRtt) / LANE_BYTES));
    const all = this.#lanes.length;
    if (this.isSlow && express + inUse < all) {
      const best = this.#best(express, express + inUse, allowed);
      if (best !== NONE && this.isPrompt(this.#lanes[best])) return best;
    }
    const best = this.#best(express, all, allowed);
    return best === NONE || this.#lanes[best].isLate ? NONE : best;
  }

  /** For a bulk datagram that is put back in order: the best of the flow's few lanes. @returns -1 when none of them is prompt */
  ordered(express: number, flow: number): number {
    const count = this.#lanes.length - express;
    let few = 0;
    for (let i = 0; i < Math.min(FEW_LANES, count); i++)
      few |= 1 << (express + ((FEW_LANES * flow + i) % count));
    const best = this.#best(express, this.#lanes.length, few);
    return best === NONE || !this.isPrompt(this.#lanes[best]) ? NONE : best;
  }

  /** For a sparse datagram: the best express lane, or another one where that is late. @returns -1 when no lane can take it */
  sparse(express: number, allowed: number): number {
    const fast = this.#best(0, express, allowed);
    if (fast !== NONE && this.isPrompt(this.#lanes[fast])) return fast;
    const other = this.#best(express, this.#lanes.length, allowed);
    if (other === NONE || (fast !== NONE && !this.isPrompt(this.#lanes[other]))) return fast;
    return other;
  }

  #best(from: number, end: number, allowed: number): number {
    let best = NONE;
    let bestScore = Number.POSITIVE_INFINITY;
    for (let index = from; index < end; index++) {
      if ((allowed & (1 << index)) === 0) continue;
      const lane = this.#lanes[index];
      if (!this.canTake(lane)) continue;
      let score = lane.inFlight + this.#path.lag(lane) * this.rate;
      if (lane.isBeyondWindow) score += 1e9;
      if (lane.isLate) score += 1e12 - lane.lateSince;
      // Of equals, the one that was used longest ago.
      if (score < bestScore || (score === bestScore && lane.usedAt < this.#lanes[best].usedAt)) {
        best = index;
        bestScore = score;
      }
    }
    return best;
  }
}
