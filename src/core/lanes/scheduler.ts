/**
 * One end of a session whose datagrams are spread over lanes by end-to-end receipts.
 *
 * UDP in TCP has two faults: a lost segment stalls everything behind it, and a full link fills queues with what is old. With several
 * connections a loss stalls one of them, and the others go on; and when the rate is known, the queue stands here, where it is bounded
 * in age and fair between flows. All that is known comes from *receipts* (wire/receipt.ts), as the kernel's view of a connection ends
 * at the next relay.
 *
 *     push ─► SessionQueue ─► dispatch: Pacer, Lateness, LaneChoice ─► LaneState (assigned) ─► fill ─► the lane's batch
 *                                         ▲                                 │ receipted, or the lane is gone
 *              RateControl ◄─ PathDelay ◄─┴──── handleReceipt ◄─────────────┘
 *     accept ─► DuplicateWindow ─► ArrivalHistory ─► deliver, at once and in whatever order; or, of a responsive flow,
 *                                                    Resequencer ─► takeReleased
 *     noteFrame ─► ReceiptSchedule ─► fill
 *
 * A datagram waits in one place until it is given to a lane, and nothing is moved when a lane dies: what was on it is sent once more,
 * within the budget for hedges, and the rest was never there.
 *
 * The contract is core's: no clock, no timer, no I/O. After each call, {@link dispatch}; then {@link fill} for each lane that it names;
 * then one timer for {@link nextTimeout}. Nothing is thrown for what a peer sends.
 */
import {
  MAX_RECEIPT_BYTES,
  MAX_SEQUENCED_HEADER_BYTES,
  ReceiptReader,
  ReceiptWriter,
  SEQUENCE_MODULUS,
  sequencedHeaderLength,
  writeSequencedHeader,
} from "../../wire/receipt.ts";
import type { Counters } from "../counters.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import { ArrivalHistory } from "./arrival-history.ts";
import type { DatagramStore } from "./datagram-store.ts";
import { NONE } from "./datagram-store.ts";
import { DuplicateWindow } from "./duplicate-window.ts";
import type { FlowTable } from "./flow-table.ts";
import { HEDGE_AGE_MS, HedgeBudget, MAX_HEDGES } from "./hedging.ts";
import { ANY_LANE } from "./lane-bits.ts";
import { expressLanes, LaneChoice } from "./lane-choice.ts";
import type { LaneProgress } from "./lane-progress.ts";
import { LaneState } from "./lane-state.ts";
import { Lateness } from "./lateness.ts";
import type { Interval } from "./rate/measures.ts";
import { Pacer } from "./rate/pacer.ts";
import { PathDelay } from "./rate/path-delay.ts";
import type { RateMode } from "./rate/rate-control.ts";
import { RateControl } from "./rate/rate-control.ts";
import { ReceiptSchedule } from "./receipt-schedule.ts";
import { Resequencer } from "./resequencer.ts";
import { isOrdered, wantsOrder } from "./responsive.ts";
import { SessionQueue } from "./session-queue.ts";

/** So long after a lane was late, flows are spread over all of them. */
const SPREAD_MS = 5_000;
/** Bulk is hedged freely when the pacer has not held it back for so long. */
const CALM_MS = 300;
/** What is left of the budget for hedges while it does. */
const LIMITED_HEDGE_SHARE = 0.2;
/** Round trips after which TCP's own repair of a late lane is overdue. */
const OVERDUE = 2;
const MIN_TICK_MS = 10;
/** Samples that an interval needs; and how many intervals may go by without. */
const ENOUGH_SAMPLES = 4;
const STARVED_TICKS = 4;
const MAX_STARVED_TICKS = 8;
/** Share of an interval for which bulk has waited when it counts as limited. */
const LIMITED_SHARE = 0.2;
/** A bulk datagram that waits less than this does not wait for the pacer. */
const PROMPT_MS = 1;
/** With fewer bulk lanes, how many are late says nothing. */
const MANY_LANES = 4;
/** Round trips that repairs get before a datagram that has been overtaken counts as too old: see arrival-history.ts. */
const REPAIRS = 3;
/** The same while others are held for it: one repair by TCP. */
const HOLD_REPAIRS = 2;
/** Most that is added to that for one that others are held for. */
const MAX_HOLD_MS = 100;
/** Timers are not asked for sooner than this. */
const TIMER_MS = 1;
/** How long datagrams wait in a queue that stands: this, or a share of the round trip, which an inner TCP needs to fill the link. */
const STANDING_MS = 20;
const STANDING_RTT_SHARE = 0.25;
/** Most milliseconds in the queue while the rate is not known. */
const START_AGE_MS = 100;
const NEVER = Number.POSITIVE_INFINITY;

/** Sizes in bytes, durations in milliseconds. */
export interface LaneSchedulerOptions {
  /** Memory for datagrams, and flows; shared by the sessions of an endpoint. */
  readonly store: DatagramStore;
  readonly flows: FlowTable;
  readonly counters: Counters;
  /** Bound of what waits. */
  readonly queueBytes: number;
  /** Bound of what is on lanes and not receipted. */
  readonly inFlightBytes: number;
  /** Most time that a datagram waits. */
  readonly ageBudgetMs: number;
}

/** Counts since the start, and the state of now. */
export interface LaneSchedulerStats {
  readonly mode: RateMode;
  /** Bits per second that the pacer lets go. */
  readonly bitsPerSecond: number;
  /** Least round trip of late, and how long packets stand in queues of the path. */
  readonly minRttMs: number;
  readonly standingMs: number;
  readonly lanesUp: number;
  readonly lanesLate: number;
  /** How often a lane has become late. */
  readonly timesLate: number;
  /** Datagrams given to lanes, of these second copies of sparse flows, and of stuck datagrams. */
  readonly frames: number;
  readonly copies: number;
  readonly hedges: number;
  readonly receipts: number;
  readonly receiptBytes: number;
  /** Datagrams that came a second time; that came after a later one; and how many later ones at most. */
  readonly duplicates: number;
  /** Datagrams that were held for order. */
  readonly held: number;
  readonly overtaken: number;
  readonly farthestOvertaken: number;
}

export class LaneScheduler {
  readonly #options: LaneSchedulerOptions;
  readonly #store: DatagramStore;
  readonly #flows: FlowTable;
  readonly #queue: SessionQueue;
  readonly #lanes: LaneState[] = [];
  readonly #path = new PathDelay();
  readonly #lateness = new Lateness();
  readonly #choice = new LaneChoice(this.#lanes, this.#path);
  readonly #rates = new RateControl(this.#path);
  readonly #pacer = new Pacer(this.#rates.rate);
  readonly #budget = new HedgeBudget();
  readonly #window = new DuplicateWindow();
  readonly #arrivals = new ArrivalHistory();
  readonly #order: Resequencer;
  readonly #receipts = new ReceiptSchedule();
  readonly #reader = new ReceiptReader();
  readonly #writer = new ReceiptWriter();

  #lanesUp = 0;
  /** How many of the lanes, from the first, are express. */
  #express = 0;
  #nextSequence = 0;
  /** Bits of the lanes that have something to write. */
  #dirty = 0;
  #receiptLane = NONE;
  #inFlight = 0;
  #sentBytes = 0;
  #frames = 0;
  #copies = 0;
  #hedges = 0;
  #duplicates = 0;

  // Of the interval under way.
  #tickAt = 0;
  #starvedTicks = 0;
  #isFilled = false;
  #delivered = 0;
  #heldMs = 0;
  #framesBefore = 0;
  #latesBefore = 0;
  #agedBefore = 0;
  readonly #interval: Interval = {
    now: 0,
    length: MIN_TICK_MS,
    isLimited: false,
    isFilled: false,
    hasSamples: false,
    delivered: 0,
    sentBytes: 0,
    dropped: 0,
    frames: 0,
    lates: 0,
    lateShare: 0,
    newest: 0,
  };

  // Of the last dispatch.
  #dispatchedAt = 0;
  /** Something waits for the pacer; and bulk has done so for longer than a moment. */
  #pacedUntil = NEVER;
  #isHeld = false;
  #isBlocked = false;
  #limitedUntil = 0;

  constructor(options: LaneSchedulerOptions) {
    this.#options = options;
    this.#store = options.store;
    this.#flows = options.flows;
    const { store, flows, counters, queueBytes, inFlightBytes, ageBudgetMs } = options;
    this.#order = new Resequencer(store, this.#window, this.#arrivals, inFlightBytes);
    this.#queue = new SessionQueue(store, flows, counters, queueBytes, Math.max(ageBudgetMs, START_AGE_MS));
  }

  get stats(): LaneSchedulerStats {
    return {
      mode: this.#rates.mode,
      bitsPerSecond: 8_000 * this.#rates.rate,
      minRttMs: this.#path.minRtt,
      standingMs: this.#rates.standing,
      lanesUp: this.#lanesUp,
      lanesLate: this.#lanes.filter((lane) => lane.isUp && lane.isLate).length,
      timesLate: this.#lateness.count,
      frames: this.#frames,
      copies: this.#copies,
      hedges: this.#hedges,
      receipts: this.#receipts.sent,
      receiptBytes: this.#receipts.sentBytes,
      duplicates: this.#duplicates,
      held: this.#order.held,
      overtaken: this.#window.overtaken,
      farthestOvertaken: this.#window.farthest,
    };
  }

  /** How often a lane has become late, and when one last did. */
  get timesLate(): number {
    return this.#lateness.count;
  }
  get lastLateAt(): number {
    return this.#lateness.lastAt;
  }

  /** Whether a lane is held up. */
  isLate(index: number): boolean {
    const lane = this.#lanes[index];
    return lane?.isUp === true && lane.isLate;
  }

  /** Whether a lane holds nothing that the other end has not receipted. */
  isIdle(index: number): boolean {
    return this.#lanes[index].inFlight === 0;
  }

  /** Bytes of the store: datagrams that wait, or are on lanes and not receipted. */
  get storedBytes(): number {
    return this.#store.bytes;
  }

  /** True when nothing waits and nothing is to be written. What is on its way may not be receipted yet. */
  get isDrained(): boolean {
    return this.#queue.isEmpty && this.#dirty === 0;
  }

  /** Whether more is to be sent than the path takes, or was a moment ago. */
  isLimited(now: number): boolean {
    return now < this.#limitedUntil;
  }

  // Another process

  /** What another scheduler needs to go on where this one is, but for what waits and what is on its way. */
  progress(now: number): LaneProgress {
    return {
      nextSequence: this.#nextSequence,
      clock: now + this.#receipts.clockOffset,
      arrived: this.#window.arrived,
    };
  }

  /**
   * Goes on where another one was. To be called before anything else.
   *
   * @param elapsedMs  since its {@link progress} was asked for
   */
  resume(now: number, { nextSequence, clock, arrived }: LaneProgress, elapsedMs: number): void {
    this.#nextSequence = nextSequence;
    this.#receipts.clockOffset = clock + elapsedMs - now;
    if (arrived === undefined) return;
    this.#window.restore(arrived);
    this.#order.begin((arrived.highest + 1) % SEQUENCE_MODULUS);
  }

  // Lanes

  /**
   * A lane's connection is there.
   *
   * @param index       0 to below MAX_LANES
   * @param firstCount  where its counts of frames begin, 0 to 65,535, the same at both ends
   */
  laneUp(now: number, index: number, firstCount: number): void {
    while (this.#lanes.length <= index) this.#lanes.push(new LaneState(this.#lanes.length));
    this.laneDown(now, index);
    this.#lanes[index].open(now, firstCount);
    this.#countLanes(now);
  }

  /** A lane's connection has ended. What only that lane had goes once more on others. */
  laneDown(now: number, index: number): void {
    const lane = this.#lanes[index];
    if (lane === undefined || !lane.isUp) return;
    lane.isUp = false;
    lane.news = 0;
    this.#dirty &= ~lane.bit;
    if (this.#receiptLane === index) this.#receiptLane = NONE;
    this.#countLanes(now);
    this.#forbid(lane.bit);
    if (this.#lanesUp === 0) this.#order.releaseAll();
    for (; lane.receipted !== lane.assigned; lane.receipted++) {
      const entry = lane.entry[lane.slot(lane.receipted)];
      this.#inFlight -= this.#store.length[entry];
      this.#store.holders[entry] &= ~lane.bit;
      if (this.#store.holders[entry] === 0) this.#resend(now, entry);
      this.#store.release(entry);
    }
    this.#repeatReceipts(now);
  }

  /** Receipts may have been lost with a lane. Without the last one a lane that rests would count as late for ever. */
  #repeatReceipts(now: number): void {
    for (const lane of this.#lanes) {
      if (lane.isUp && lane.newestAt !== Number.NEGATIVE_INFINITY) this.#receipts.noteNews(now, lane);
    }
  }

  /** A new connection of a lane has not carried the registrations that the last one did. */
  #forbid(bit: number): void {
    this.#queue.forbid(bit);
    const { allowed } = this.#store;
    for (const lane of this.#lanes) {
      for (let frame = lane.receipted; frame !== lane.assigned; frame++) {
        const entry = lane.entry[lane.slot(frame)];
        if (allowed[entry] !== ANY_LANE) allowed[entry] &= ~bit;
      }
    }
  }

  #countLanes(now: number): void {
    this.#lanesUp = 0;
    for (const lane of this.#lanes) if (lane.isUp) this.#lanesUp++;
    this.#express = expressLanes(this.#lanesUp);
    this.#queue.setServed(now, this.#lanesUp > 0);
  }

  /** A lane's last batch is on its way, or was taken whole: only then is the lane given more. */
  setBusy(index: number, isBusy: boolean): void {
    const lane = this.#lanes[index];
    if (lane !== undefined) lane.isBusy = isBusy;
  }

  /**
   * The lanes on which what registers an association or a context is best sent: the two that are promptest, or one where only
   * one can be written now. What uses it may go on these, behind it, before the other end has acknowledged it.
   *
   * @returns their bits; 0 while no lane is up
   */
  registrationLanes(): number {
    const first = this.controlLane();
    if (first === NONE) return 0;
    const second = this.#choice.sparse(this.#lanes.length, ANY_LANE & ~(1 << first));
    return second === NONE ? 1 << first : (1 << first) | (1 << second);
  }

  /** The promptest lane, for a control capsule. @returns its number, or -1 while no lane is up */
  controlLane(): number {
    const prompt = this.#choice.sparse(this.#lanes.length, ANY_LANE);
    if (prompt !== NONE) return prompt;
    let best = NONE;
    for (const lane of this.#lanes) {
      if (lane.isUp && (best === NONE || this.#isBetterToWaitFor(lane, this.#lanes[best]))) best = lane.index;
    }
    return best;
  }

  #isBetterToWaitFor(lane: LaneState, other: LaneState): boolean {
    return lane.isLate === other.isLate ? lane.inFlight < other.inFlight : other.isLate;
  }

  // Sending

  /**
   * Puts one datagram of a flow into the queue. `data` is copied.
   *
   * @param allowed  bits of the lanes that it may go on: {@link ANY_LANE}, or those that carried the registration of its context
   */
  push(
    now: number,
    flow: number,
    context: number,
    allowed: number,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    this.#queue.push(now, flow, context, allowed, data, offset, length);
  }

  /** The same for rows `first` to before `end`, which are of one flow and context. */
  pushAll(
    now: number,
    flow: number,
    context: number,
    allowed: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
  ): void {
    this.#queue.pushAll(now, flow, context, allowed, received, first, end);
  }

  /** Datagrams of a context that wait may now go on these lanes. @param allowed  as for {@link push} */
  allow(flow: number, context: number, allowed: number): void {
    this.#queue.allow(flow, context, allowed);
  }

  /** Hands over what waits, each flow in order. @param take  `time` is when the datagram was queued; `data` is borrowed */
  drainTo(
    take: (time: number, flow: number, context: number, data: Uint8Array, length: number) => void,
  ): void {
    this.#queue.drainTo(take);
  }

  /** Drops what waits, counted as `no_lane`: no lane is left. */
  dropQueued(): void {
    this.#queue.clear(true);
  }

  /** Drops what waits of a flow, or is held, which has ended. */
  removeFlow(flow: number): void {
    this.#queue.removeFlow(flow);
    this.#order.clear(flow);
  }

  /** Drops what is over its age. For owners whose lanes are all gone: otherwise it is done in passing. */
  expire(now: number): void {
    this.#queue.expire(now);
  }

  /** The session has ended: lets go of everything. */
  close(): void {
    this.#queue.clear(false);
    this.#order.clear(NONE);
    this.#dirty = 0;
    for (const lane of this.#lanes) {
      lane.isUp = false;
      for (; lane.receipted !== lane.assigned; lane.receipted++) {
        this.#store.release(lane.entry[lane.slot(lane.receipted)]);
      }
    }
    this.#lanesUp = 0;
  }

  /** Gives lanes what they may take. @returns bits of the lanes that have something to write: {@link fill} their batches */
  dispatch(now: number): number {
    if (this.#isHeld) this.#heldMs += now - this.#dispatchedAt;
    this.#dispatchedAt = now;
    if (this.#isActive && now >= this.#tickAt) this.#tick(now);
    const lates = this.#lateness.count;
    this.#lateness.update(now, this.#lanes, this.#path);
    this.#options.counters.spread.late += this.#lateness.count - lates;
    if (this.#lateness.isAny) this.#hedge(now);
    this.#pacer.refill(now);
    this.#pacedUntil = NEVER;
    this.#isHeld = false;
    this.#isBlocked = false;
    if (!this.#queue.isEmpty && this.#lanesUp > 0) {
      this.#dispatchSparse(now);
      this.#dispatchBulk(now);
    }
    if (now >= this.#receipts.dueAt && this.#receiptLane === NONE) this.#dispatchReceipt(now);
    return this.#dirty;
  }

  #dispatchReceipt(now: number): void {
    const { isSlow, rate } = this.#choice;
    const carrying = isSlow ? this.#dirty : 0;
    if (isSlow && carrying === 0 && this.#isActive && now < this.#receipts.waitsUntil(rate)) return;
    const lane = this.#receipts.choose(this.#lanes, this.#express, carrying);
    if (lane === undefined) return;
    this.#receiptLane = lane.index;
    this.#dirty |= lane.bit;
  }

  #dispatchSparse(now: number): void {
    const { allowed, flow } = this.#store;
    const isSpread = now - this.#lateness.lastAt < SPREAD_MS;
    /** The first that was passed over: when it comes again, all have been. */
    let passed = NONE;
    for (;;) {
      const entry = this.#queue.peekSparse(now);
      if (entry === NONE || entry === passed || this.#isOverfull) return;
      if (!this.#pacer.maySendSparse) {
        this.#pacedUntil = this.#pacer.sparseReadyAt;
        this.#isHeld = true;
        return;
      }
      const first = this.#sparseLaneFor(flow[entry], allowed[entry], isSpread);
      if (first === NONE) {
        if (passed === NONE) passed = entry;
        this.#queue.pass(entry);
        continue;
      }
      passed = NONE;
      this.#queue.take(now, entry);
      this.#send(now, first, entry);
      const second = this.#secondLaneFor(flow[entry], allowed[entry], isSpread, first);
      if (second !== NONE && this.#pacer.maySendSparse) {
        this.#copies++;
        this.#options.counters.spread.copies++;
        this.#send(now, second, entry);
      }
      this.#store.release(entry);
    }
  }

  /** As bulk does, a flow keeps its lanes while none is late, so that over a clean path nothing overtakes. */
  #sparseLaneFor(flow: number, allowed: number, isSpread: boolean): number {
    const kept = this.#flows.lane[flow];
    if (!isSpread && kept < (this.#express || this.#lanes.length) && this.#suits(kept, allowed)) return kept;
    const lane = this.#choice.sparse(this.#express, allowed);
    if (lane !== NONE) this.#flows.lane[flow] = lane;
    return lane;
  }

  /** The lane for the second copy: always the same beside the first, where that is possible. */
  #secondLaneFor(flow: number, allowed: number, isSpread: boolean, first: number): number {
    const others = allowed & ~(1 << first);
    const count = this.#express > 1 ? this.#express : this.#lanes.length;
    const second = (first + 1 + (flow % Math.max(1, count - 1))) % count;
    return !isSpread && this.#suits(second, others) ? second : this.#choice.sparse(this.#express, others);
  }

  /** Whether a lane may be used, takes something, and sends that at once. */
  #suits(index: number, allowed: number): boolean {
    if (index < 0 || index >= this.#lanes.length || (allowed & (1 << index)) === 0) return false;
    const lane = this.#lanes[index];
    return this.#choice.isPrompt(lane) && this.#choice.canTake(lane);
  }

  #dispatchBulk(now: number): void {
    const store = this.#store;
    const isSpread = now - this.#lateness.lastAt < SPREAD_MS;
    let room = this.#rates.window(this.#delivered);
    for (const lane of this.#lanes) if (lane.isUp && !lane.isLate) room -= lane.inFlight;
    let passed = NONE;
    for (;;) {
      const entry = this.#queue.peekBulk(now);
      if (entry === NONE || entry === passed) return;
      if (!this.#pacer.maySend) {
        this.#pacedUntil = Math.min(this.#pacedUntil, this.#pacer.readyAt);
        this.#isHeld ||= now - store.time[entry] > PROMPT_MS;
        if (this.#isHeld) this.#isFilled = true;
        return;
      }
      if (room <= 0 || this.#isOverfull) {
        this.#isBlocked = true;
        this.#isFilled = true;
        return;
      }
      const lane = this.#laneFor(store.flow[entry], store.allowed[entry], isSpread);
      if (lane === NONE) {
        if (passed === NONE) passed = entry;
        this.#queue.pass(entry);
        this.#isBlocked = true;
        continue;
      }
      passed = NONE;
      this.#queue.take(now, entry);
      room -= store.length[entry];
      this.#send(now, lane, entry);
      store.release(entry);
    }
  }

  /** More is on lanes than memory is meant for. */
  get #isOverfull(): boolean {
    return this.#inFlight > this.#options.inFlightBytes;
  }

  #laneFor(flow: number, allowed: number, isSpread: boolean): number {
    const kept = this.#flows.lane[flow];
    if (!isSpread && kept >= this.#express && this.#suits(kept, allowed)) return kept;
    let lane = NONE;
    if (allowed === ANY_LANE && isOrdered(this.#flows, flow))
      lane = this.#choice.ordered(this.#express, flow);
    if (lane === NONE) lane = this.#choice.bulk(allowed === ANY_LANE ? this.#express : 0, allowed);
    if (lane !== NONE) this.#flows.lane[flow] = lane;
    return lane;
  }

  #send(now: number, index: number, entry: number): void {
    const lane = this.#lanes[index];
    const store = this.#store;
    const size = store.length[entry];
    if (store.sequence[entry] === NONE) {
      store.sequence[entry] = this.#nextSequence;
      this.#options.counters.datagramsOut++;
      this.#options.counters.bytesOut += size;
      const { tap } = this.#options.counters;
      if (tap !== undefined) store.record(tap, undefined, entry);
      this.#nextSequence = (this.#nextSequence + 1) % SEQUENCE_MODULUS;
    }
    store.retain(entry);
    store.holders[entry] |= lane.bit;
    this.#sentBytes += size;
    this.#inFlight += size;
    lane.assign(now, entry, size, this.#sentBytes);
    this.#pacer.spend(size);
    this.#budget.earn(now < this.#limitedUntil ? LIMITED_HEDGE_SHARE * size : size);
    this.#dirty |= lane.bit;
    this.#frames++;
  }

  /** Sends again what only late lanes hold, if TCP's own repair is overdue, cannot be quick, or copies harm nobody. */
  #hedge(now: number): void {
    const store = this.#store;
    const overdue = OVERDUE * (this.#path.minRtt + this.#lateness.margin(this.#path));
    const isCalm = now >= this.#limitedUntil;
    const { rate } = this.#pacer;
    for (const lane of this.#lanes) {
      if (!lane.isUp || !lane.isLate) continue;
      lane.hedged = Math.max(lane.hedged, lane.receipted);
      // With nothing behind the hole, nothing tells TCP of it before its timer.
      const isAlone = lane.written - lane.receipted === 1;
      const isOverdue = now - lane.lateSince > overdue;
      const most = isOverdue ? MAX_HEDGES : 1;
      for (; lane.hedged !== lane.written; lane.hedged++) {
        const entry = lane.entry[lane.slot(lane.hedged)];
        if (store.isDone[entry] === 1 || store.hedges[entry] >= most) continue;
        if (this.#isHeldInTime(entry)) continue;
        const flow = store.flow[entry];
        const mayHedgeBulk =
          isOverdue || isAlone || (isCalm && (this.#budget.hasSpare(rate) || isOrdered(this.#flows, flow)));
        if (!mayHedgeBulk && !this.#queue.isSparse(flow)) break;
        if (!this.#resend(now, entry)) return;
      }
    }
  }

  #isHeldInTime(entry: number): boolean {
    const holders = this.#store.holders[entry];
    for (const lane of this.#lanes) if ((holders & lane.bit) !== 0 && !lane.isLate) return true;
    return false;
  }

  /** @returns false when nothing more can be sent again now */
  #resend(now: number, entry: number): boolean {
    const store = this.#store;
    if (store.isDone[entry] === 1 || store.hedges[entry] >= MAX_HEDGES) return true;
    if (now - store.time[entry] > HEDGE_AGE_MS + this.#path.minRtt) return true;
    const allowed = store.allowed[entry] & ~store.holders[entry];
    const lane = this.#queue.isSparse(store.flow[entry])
      ? this.#choice.sparse(this.#express, allowed)
      : this.#choice.bulk(this.#express, allowed);
    if (lane === NONE || this.#lanes[lane].isLate) return false;
    if (!this.#budget.spend(store.length[entry])) return false;
    store.hedges[entry]++;
    this.#hedges++;
    this.#options.counters.spread.hedges++;
    this.#send(now, lane, entry);
    return true;
  }

  /** Most bytes that {@link fill} would write for a lane. */
  outputBytes(index: number): number {
    const lane = this.#lanes[index];
    return MAX_RECEIPT_BYTES + lane.unwritten + (lane.assigned - lane.written) * MAX_SEQUENCED_HEADER_BYTES;
  }

  /** Whether a lane has something for {@link fill} to write. */
  hasOutput(index: number): boolean {
    return (this.#dirty & (1 << index)) !== 0;
  }

  /**
   * Writes what a lane was given, as capsules.
   *
   * @param out  with room for at least one datagram of any size at `at`
   * @returns the offset behind the last; what did not fit is written by the next call
   */
  fill(now: number, index: number, out: Uint8Array, at: number): number {
    const lane = this.#lanes[index];
    if (lane === undefined || !this.hasOutput(index)) return at;
    const store = this.#store;
    let end = at;
    this.#dirty &= ~lane.bit;
    if (this.#receiptLane === index) {
      if (end + MAX_RECEIPT_BYTES > out.length) {
        this.#dirty |= lane.bit;
        return end;
      }
      end = this.#receipts.write(now, this.#lanes, lane, this.#writer, out, end);
      this.#receiptLane = NONE;
    }
    const first = lane.written;
    while (lane.written !== lane.assigned) {
      const entry = lane.entry[lane.slot(lane.written)];
      const length = store.length[entry];
      const context = store.context[entry];
      if (end + sequencedHeaderLength(context, length) + length > out.length) {
        this.#dirty |= lane.bit;
        break;
      }
      end = writeSequencedHeader(out, end, context, store.sequence[entry], length);
      store.copyOut(entry, out, end);
      end += length;
      lane.written++;
      lane.unwritten -= length;
    }
    if (lane.written !== first) this.#noteBatch(now, lane, lane.entry[lane.slot(first)]);
    return end;
  }

  /** Measures a batch by its first entry. A further copy, which came long ago, has not waited. */
  #noteBatch(now: number, lane: LaneState, entry: number): void {
    const { queueDelayMs, datagramBytes } = this.#options.counters.histograms;
    if (this.#store.holders[entry] !== lane.bit) return;
    queueDelayMs.add(lane.index, now - this.#store.time[entry]);
    datagramBytes.add("out", this.#store.length[entry]);
  }

  // Receiving

  /** A heartbeat has taken so many milliseconds, there and back. */
  noteRoundTrip(rtt: number): void {
    this.#path.noteRoundTrip(rtt);
  }

  /** A frame has arrived on a lane: a DATAGRAM capsule, whatever it contains. */
  noteFrame(now: number, index: number): void {
    const lane = this.#lanes[index];
    lane.noteReceived(now);
    this.#receipts.noteNews(now, lane);
  }

  /**
   * A datagram of a context that this end knows has arrived. `data` is copied if it is held.
   *
   * @param flow  -1 for one that is not to be held
   * @returns false for one that is not to be delivered now: a copy of an earlier one, past the age budget (counted as `age`), or held
   *          until it is its turn, see {@link takeReleased}
   */
  accept(
    now: number,
    sequence: number,
    flow: number,
    context: number,
    data: Uint8Array,
    offset: number,
    length: number,
  ): boolean {
    if (!this.#window.accept(sequence)) {
      this.#duplicates++;
      this.#options.counters.spread.duplicates++;
      return false;
    }
    const patience = this.#patience;
    const { ageBudgetMs } = this.#options;
    if (this.#arrivals.isStale(now, sequence, ageBudgetMs + REPAIRS * this.#path.minRtt)) {
      this.#options.counters.drops.age++;
      this.#recordStale(context, flow, data, offset, length);
      this.#order.pass(now, sequence, patience);
      return false;
    }
    if (flow !== NONE && wantsOrder(now, this.#flows, flow, data, offset, length)) {
      return !this.#order.hold(now, sequence, patience, flow, context, data, offset, length);
    }
    this.#order.pass(now, sequence, patience);
    return true;
  }

  #recordStale(context: number, flow: number, data: Uint8Array, offset: number, length: number): void {
    const { tap } = this.#options.counters;
    if (tap === undefined) return;
    const { owner } = this.#store;
    const association = owner?.associationOf(flow) ?? flow;
    const remote = owner?.remoteOf(flow, context);
    tap.record(true, "age", association, owner?.localOf(flow), remote, data, offset, length);
  }

  /** How long a datagram that was overtaken is waited for: it may have been lost with its lane, whatever the age budget. */
  get #patience(): number {
    return Math.min(MAX_HOLD_MS, this.#options.ageBudgetMs) + HOLD_REPAIRS * this.#path.minRtt;
  }

  /**
   * The context of the next datagram that was held and is to be delivered now, or -1. To be asked after whatever has arrived in a
   * turn was delivered, and at the timeout.
   */
  peekReleased(now: number): number {
    const order = this.#order;
    if (now >= order.dueAt) order.expire(now, this.#patience);
    return order.released === NONE ? NONE : this.#store.context[order.released];
  }

  /** Length of the datagram that {@link peekReleased} is about. */
  get releasedLength(): number {
    return this.#store.length[this.#order.released];
  }

  /** Takes that datagram, copied to `out[at]`. */
  takeReleased(out: Uint8Array, at: number): void {
    const entry = this.#order.takeReleased();
    this.#store.copyOut(entry, out, at);
    this.#store.release(entry);
  }

  /** A RECEIPT capsule has come, whose value is `bytes[offset..end)`. @returns false when it is malformed */
  handleReceipt(now: number, bytes: Uint8Array, offset: number, end: number): boolean {
    const reader = this.#reader;
    if (!reader.begin(bytes, offset, end)) return false;
    while (reader.next()) {
      const lane = this.#lanes[reader.lane];
      if (lane === undefined || !lane.isUp) continue;
      const frames = lane.advance(reader.count);
      if (frames === 0) continue;
      const newest = lane.slot(lane.receipted + frames - 1);
      const sentAt = lane.sentAt[newest];
      const sentBytes = lane.sentBytes[newest];
      this.#takeReceipted(lane, frames);
      this.#lateness.noteReceipt(sentAt);
      const delay = this.#path.delayOf(sentAt, reader.clock - reader.age);
      this.#path.addOfLane(lane, delay);
      if (this.#lateness.isStale(sentAt, this.#path)) continue;
      this.#path.add(lane, sentAt, sentBytes, delay, now - sentAt - reader.age / 1000);
      this.#options.counters.histograms.standingDelayMs.add("", delay - this.#path.base);
      this.#rates.noteFrame(sentAt, delay - this.#path.base, sentBytes);
    }
    return !reader.isMalformed;
  }

  #takeReceipted(lane: LaneState, frames: number): void {
    const store = this.#store;
    const before = lane.inFlight;
    for (let i = 0; i < frames; i++) {
      const entry = lane.entry[lane.slot(lane.receipted++)];
      lane.inFlight -= store.length[entry];
      store.holders[entry] &= ~lane.bit;
      store.isDone[entry] = 1;
      store.release(entry);
    }
    const bytes = before - lane.inFlight;
    this.#inFlight -= bytes;
    this.#delivered += bytes;
    lane.openWindow(bytes, before);
  }

  // Time

  /** Something waits, or is not receipted. */
  get #isActive(): boolean {
    return this.#lanesUp > 0 && (this.#inFlight > 0 || !this.#queue.isEmpty);
  }

  /** Ends an interval: what was seen in it says how fast to send in the next. */
  #tick(now: number): void {
    const path = this.#path;
    const interval = this.#interval;
    const length = now - interval.now;
    path.turn(now, this.#lanes, this.#rates.mode === "compete");
    const wanted = Math.max(MIN_TICK_MS, path.minRtt / 2);
    this.#tickAt = now + wanted;
    const isEnough = path.samples >= ENOUGH_SAMPLES && (!this.#isSpread(now) || path.isOfManyLanes);
    interval.hasSamples = path.samples > 0 && (isEnough || this.#starvedTicks >= STARVED_TICKS);
    this.#starvedTicks = interval.hasSamples ? 0 : this.#starvedTicks + 1;
    const isAged = this.#queue.aged > this.#agedBefore;
    interval.now = now;
    interval.length = length;
    interval.isLimited = this.#heldMs > LIMITED_SHARE * length || (isAged && this.#heldMs > 0);
    interval.isFilled = this.#isFilled;
    interval.delivered = this.#delivered;
    interval.sentBytes = this.#sentBytes;
    interval.dropped = this.#queue.aged - this.#agedBefore;
    interval.frames = this.#frames - this.#framesBefore;
    interval.lates = this.#lateness.count - this.#latesBefore;
    interval.lateShare = this.#lateShare;
    interval.newest = this.#lateness.newest;
    if (interval.isLimited || this.#isBlocked) this.#limitedUntil = now + CALM_MS;
    // After a rest there is nothing to learn from how long it was.
    if (length > 0 && length < MAX_STARVED_TICKS * wanted) this.#adapt();
    if (interval.hasSamples || this.#starvedTicks > MAX_STARVED_TICKS) path.clear();
    this.#isFilled = false;
    this.#delivered = 0;
    this.#heldMs = 0;
    this.#framesBefore = this.#frames;
    this.#latesBefore = this.#lateness.count;
    this.#agedBefore = this.#queue.aged;
    // What was not worth a copy, or could not be paid for, may be now.
    for (const lane of this.#lanes) lane.hedged = lane.receipted;
  }

  #isSpread(now: number): boolean {
    return this.#lanesUp > 1 && now - this.#lateness.lastAt < SPREAD_MS;
  }

  get #lateShare(): number {
    let late = 0;
    let bulk = 0;
    for (const lane of this.#lanes) {
      if (!lane.isUp || lane.index < this.#express) continue;
      bulk++;
      if (lane.isLate) late++;
    }
    return bulk < MANY_LANES ? 0 : late / bulk;
  }

  #adapt(): void {
    const rates = this.#rates;
    const { ageBudgetMs } = this.#options;
    rates.tick(this.#interval);
    this.#pacer.rate = rates.rate;
    if (rates.pause > 0) this.#pacer.pause(rates.pause);
    const isStart = rates.mode === "start";
    this.#choice.judge(rates.rate, !isStart);
    this.#queue.adaptQuantum(rates.rate);
    this.#queue.ageBudget = isStart ? Math.max(ageBudgetMs, START_AGE_MS) : ageBudgetMs;
    this.#queue.standingBudget = isStart
      ? this.#queue.ageBudget
      : Math.max(STANDING_MS, STANDING_RTT_SHARE * this.#path.minRtt);
  }

  /** One that is due waits for a datagram, and then, where it has no lane, for one that can be written again. */
  #nextReceiptAt(now: number): number {
    if (this.#receipts.dueAt > now) return this.#receipts.dueAt;
    const { isSlow, rate } = this.#choice;
    const until = isSlow ? this.#receipts.waitsUntil(rate) : now;
    return until > now ? Math.max(now + TIMER_MS, until) : NEVER;
  }

  /**
   * When {@link dispatch} wants to be called if nothing happens before; Infinity for never. At least a millisecond from now, unless
   * it is over already.
   */
  nextTimeout(now: number): number {
    let next = this.#order.dueAt === NEVER ? NEVER : Math.max(now + TIMER_MS, this.#order.dueAt);
    next = Math.min(next, this.#nextReceiptAt(now));
    next = Math.min(next, Math.max(now + TIMER_MS, this.#pacedUntil));
    if (this.#isActive) next = Math.min(next, Math.max(now + TIMER_MS, this.#tickAt));
    return next;
  }
}
