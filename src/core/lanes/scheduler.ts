/**
 * One end of a session whose datagrams are spread over lanes by end-to-end receipts.
 *
 * UDP in TCP has two faults: a lost segment stalls everything behind it, and a full link fills queues with what is old. With several
 * connections a loss stalls one of them, and the others go on; and when the rate is known, the queue stands here, where it is bounded
 * in age and fair between flows. All that is known comes from *receipts* (wire/receipt.ts), as the kernel's view of a connection ends
 * at the next relay.
 *
 *     push ─► SessionQueue ─► Dispatcher: LaneChoice, Lateness, Pacer ─► LaneSender ─► fill ─► the lane's batch
 *                                                                        ▲   │ receipted, or the lane has ended
 *                                                              Hedger ───┘   ▼
 *                Pacer ◄─ RateControl ◄─ RateIntervals ◄─ PathDelay, Lateness ◄─ handleReceipt
 *     accept ─► LaneReceiver ─► deliver; or hold ─► takeReleased
 *     noteFrame ─► ReceiptSchedule ─► fill
 *
 * A datagram waits in one place until it is given to a lane, and nothing is moved when a lane dies: what was on it is sent once more,
 * within the budget for hedges, and the rest was never there.
 *
 * The contract is core's: no clock, no timer, no I/O. After each call, {@link dispatch}; then {@link fill} for each lane that it names;
 * then one timer for {@link nextTimeout}. Nothing is thrown for what a peer sends.
 */
import { MAX_RECEIPT_BYTES, ReceiptReader, ReceiptWriter } from "../../wire/receipt.ts";
import type { Counters } from "../counters.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import type { DatagramStore } from "./datagram-store.ts";
import { NONE } from "./datagram-store.ts";
import type { FlowTable } from "./flow-table.ts";
import { ANY_LANE } from "./lane-bits.ts";
import type { LaneProgress } from "./lane-progress.ts";
import { LaneSet } from "./lane-set.ts";
import type { LaneState } from "./lane-state.ts";
import { Demand } from "./rate/demand.ts";
import { RateIntervals } from "./rate/intervals.ts";
import { Pacer } from "./rate/pacer.ts";
import { PathDelay } from "./rate/path-delay.ts";
import type { RateMode } from "./rate/rate-control.ts";
import { RateControl } from "./rate/rate-control.ts";
import { ReceiptSchedule } from "./receiving/receipt-schedule.ts";
import { LaneReceiver } from "./receiving/receiver.ts";
import { Dispatcher } from "./sending/dispatcher.ts";
import { HedgeBudget } from "./sending/hedge-budget.ts";
import { Hedger } from "./sending/hedger.ts";
import { LaneChoice } from "./sending/lane-choice.ts";
import { Lateness } from "./sending/lateness.ts";
import { LaneSender } from "./sending/sender.ts";
import { SessionQueue } from "./session-queue.ts";

/** Timers are not asked for sooner than this. */
const TIMER_MS = 1;
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
  readonly #store: DatagramStore;
  readonly #counters: Counters;
  readonly #lanes = new LaneSet();
  readonly #queue: SessionQueue;
  readonly #path = new PathDelay();
  readonly #lateness = new Lateness();
  readonly #choice = new LaneChoice(this.#lanes.all, this.#path);
  readonly #rates = new RateControl(this.#path);
  readonly #demand = new Demand();
  readonly #sender: LaneSender;
  readonly #hedger: Hedger;
  readonly #dispatcher: Dispatcher;
  readonly #intervals: RateIntervals;
  readonly #receiver: LaneReceiver;
  readonly #receipts = new ReceiptSchedule();
  readonly #reader = new ReceiptReader();
  readonly #writer = new ReceiptWriter();
  /** The lane that the next receipt goes on; -1 while none is chosen. */
  #receiptLane = NONE;

  constructor(options: LaneSchedulerOptions) {
    const { store, flows, counters, queueBytes, inFlightBytes, ageBudgetMs } = options;
    this.#store = store;
    this.#counters = counters;
    const path = this.#path;
    const lanes = this.#lanes;
    const rates = this.#rates;
    const demand = this.#demand;
    const pacer = new Pacer(rates.rate);
    const budget = new HedgeBudget();
    this.#queue = new SessionQueue(store, flows, counters, queueBytes, ageBudgetMs);
    this.#sender = new LaneSender(lanes, store, counters, inFlightBytes, pacer, budget, demand);
    const parts = {
      store,
      flows,
      counters,
      lanes,
      queue: this.#queue,
      path,
      lateness: this.#lateness,
      choice: this.#choice,
      rates,
      pacer,
      budget,
      demand,
      sender: this.#sender,
    };
    this.#hedger = new Hedger(parts);
    this.#dispatcher = new Dispatcher(parts);
    this.#intervals = new RateIntervals(parts, ageBudgetMs);
    this.#receiver = new LaneReceiver(store, flows, counters, path, inFlightBytes, ageBudgetMs);
  }

  get stats(): LaneSchedulerStats {
    return {
      mode: this.#rates.mode,
      bitsPerSecond: 8_000 * this.#rates.rate,
      minRttMs: this.#path.minRtt,
      standingMs: this.#rates.standing,
      lanesUp: this.#lanes.up,
      lanesLate: this.#lanes.late,
      timesLate: this.#lateness.count,
      frames: this.#sender.frames,
      copies: this.#dispatcher.copies,
      hedges: this.#hedger.hedges,
      receipts: this.#receipts.sent,
      receiptBytes: this.#receipts.sentBytes,
      duplicates: this.#receiver.duplicates,
      held: this.#receiver.held,
      overtaken: this.#receiver.overtaken,
      farthestOvertaken: this.#receiver.farthestOvertaken,
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
    const lane = this.#lanes.all[index];
    return lane?.isUp === true && lane.isLate;
  }

  /** Whether a lane holds nothing that the other end has not receipted. */
  isIdle(index: number): boolean {
    return this.#lanes.all[index].inFlight === 0;
  }

  /** Bytes of the store: datagrams that wait, or are on lanes and not receipted. */
  get storedBytes(): number {
    return this.#store.bytes;
  }

  /** True when nothing waits and nothing is to be written. What is on its way may not be receipted yet. */
  get isDrained(): boolean {
    return this.#queue.isEmpty && this.#sender.dirty === 0;
  }

  /** Whether more is to be sent than the path takes, or was a moment ago. */
  isLimited(now: number): boolean {
    return this.#demand.isLimited(now);
  }

  // Another process

  /** What another scheduler needs to go on where this one is, but for what waits and what is on its way. */
  progress(now: number): LaneProgress {
    return {
      nextSequence: this.#sender.nextSequence,
      clock: now + this.#receipts.clockOffset,
      arrived: this.#receiver.arrived,
    };
  }

  /**
   * Goes on where another one was. To be called before anything else.
   *
   * @param elapsedMs  since its {@link progress} was asked for
   */
  resume(now: number, { nextSequence, clock, arrived }: LaneProgress, elapsedMs: number): void {
    this.#sender.nextSequence = nextSequence;
    this.#receipts.clockOffset = clock + elapsedMs - now;
    if (arrived !== undefined) this.#receiver.restore(arrived);
  }

  // Lanes

  /**
   * A lane's connection is there.
   *
   * @param index       0 to below MAX_LANES
   * @param firstCount  where its counts of frames begin, 0 to 65,535, the same at both ends
   */
  laneUp(now: number, index: number, firstCount: number): void {
    const lane = this.#lanes.at(index);
    this.laneDown(now, index);
    lane.open(now, firstCount);
    this.#countLanes(now);
  }

  /** A lane's connection has ended. What only that lane had goes once more on others. */
  laneDown(now: number, index: number): void {
    const lane = this.#lanes.all[index];
    if (lane === undefined || !lane.isUp) return;
    lane.isUp = false;
    lane.news = 0;
    this.#sender.dirty &= ~lane.bit;
    if (this.#receiptLane === index) this.#receiptLane = NONE;
    this.#countLanes(now);
    // A new connection of the lane has not carried the registrations that this one did.
    this.#queue.forbid(lane.bit);
    this.#sender.forbid(lane.bit);
    if (this.#lanes.up === 0) this.#receiver.releaseAll();
    for (let entry = this.#sender.takeBack(lane); entry !== NONE; entry = this.#sender.takeBack(lane)) {
      if (this.#store.holders[entry] === 0) this.#hedger.resend(now, entry);
      this.#store.release(entry);
    }
    this.#repeatReceipts(now);
  }

  /** Receipts may have been lost with a lane. Without the last one a lane that rests would count as late for ever. */
  #repeatReceipts(now: number): void {
    for (const lane of this.#lanes.all) {
      if (lane.isUp && lane.newestAt !== Number.NEGATIVE_INFINITY) this.#receipts.noteNews(now, lane);
    }
  }

  #countLanes(now: number): void {
    this.#lanes.count();
    this.#queue.setServed(now, this.#lanes.up > 0);
  }

  /** A lane's last batch is on its way, or was taken whole: only then is the lane given more. */
  setBusy(index: number, isBusy: boolean): void {
    const lane = this.#lanes.all[index];
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
    const second = this.#choice.sparse(this.#lanes.all.length, ANY_LANE & ~(1 << first));
    return second === NONE ? 1 << first : (1 << first) | (1 << second);
  }

  /** The promptest lane, for a control capsule. @returns its number, or -1 while no lane is up */
  controlLane(): number {
    const prompt = this.#choice.sparse(this.#lanes.all.length, ANY_LANE);
    if (prompt !== NONE) return prompt;
    let best = NONE;
    for (const lane of this.#lanes.all) {
      if (lane.isUp && (best === NONE || this.#isBetterToWaitFor(lane, this.#lanes.all[best])))
        best = lane.index;
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
    this.#receiver.clear(flow);
  }

  /** Drops what is over its age. For owners whose lanes are all gone: otherwise it is done in passing. */
  expire(now: number): void {
    this.#queue.expire(now);
  }

  /** The session has ended: lets go of everything. */
  close(): void {
    this.#queue.clear(false);
    this.#receiver.clear(NONE);
    this.#sender.close();
    this.#lanes.up = 0;
  }

  /** Gives lanes what they may take. @returns bits of the lanes that have something to write: {@link fill} their batches */
  dispatch(now: number): number {
    this.#demand.account(now);
    if (this.#isActive && now >= this.#intervals.endsAt) {
      this.#intervals.end(now);
      this.#hedger.reconsider();
    }
    const lates = this.#lateness.count;
    this.#lateness.update(now, this.#lanes.all, this.#path);
    this.#counters.spread.late += this.#lateness.count - lates;
    if (this.#lateness.isAny) this.#hedger.hedge(now);
    this.#dispatcher.dispatch(now, this.#intervals.delivered);
    if (now >= this.#receipts.dueAt && this.#receiptLane === NONE) this.#dispatchReceipt(now);
    return this.#sender.dirty;
  }

  #dispatchReceipt(now: number): void {
    const { isSlow, rate } = this.#choice;
    const carrying = isSlow ? this.#sender.dirty : 0;
    if (isSlow && carrying === 0 && this.#isActive && now < this.#receipts.waitsUntil(rate)) return;
    const lane = this.#receipts.choose(this.#lanes.all, this.#lanes.express, carrying);
    if (lane === undefined) return;
    this.#receiptLane = lane.index;
    this.#sender.dirty |= lane.bit;
  }

  /** Most bytes that {@link fill} would write for a lane. */
  outputBytes(index: number): number {
    const lane = this.#lanes.all[index];
    return MAX_RECEIPT_BYTES + this.#sender.outputBytes(lane);
  }

  /** Whether a lane has something for {@link fill} to write. */
  hasOutput(index: number): boolean {
    return (this.#sender.dirty & (1 << index)) !== 0;
  }

  /**
   * Writes what a lane was given, as capsules.
   *
   * @param out  with room for at least one datagram of any size at `at`
   * @returns the offset behind the last; what did not fit is written by the next call
   */
  fill(now: number, index: number, out: Uint8Array, at: number): number {
    const lane = this.#lanes.all[index];
    if (lane === undefined || !this.hasOutput(index)) return at;
    let end = at;
    this.#sender.dirty &= ~lane.bit;
    if (this.#receiptLane === index) {
      if (end + MAX_RECEIPT_BYTES > out.length) {
        this.#sender.dirty |= lane.bit;
        return end;
      }
      end = this.#receipts.write(now, this.#lanes.all, lane, this.#writer, out, end);
      this.#receiptLane = NONE;
    }
    return this.#sender.write(now, lane, out, end);
  }

  // Receiving

  /** A heartbeat has taken so many milliseconds, there and back. */
  noteRoundTrip(rtt: number): void {
    this.#path.noteRoundTrip(rtt);
  }

  /** A frame has arrived on a lane: a DATAGRAM capsule, whatever it contains. */
  noteFrame(now: number, index: number): void {
    const lane = this.#lanes.all[index];
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
    return this.#receiver.accept(now, sequence, flow, context, data, offset, length);
  }

  /**
   * The context of the next datagram that was held and is to be delivered now, or -1. To be asked after whatever has arrived in a
   * turn was delivered, and at the timeout.
   */
  peekReleased(now: number): number {
    return this.#receiver.peekReleased(now);
  }

  /** Length of the datagram that {@link peekReleased} is about. */
  get releasedLength(): number {
    return this.#receiver.releasedLength;
  }

  /** Takes that datagram, copied to `out[at]`. */
  takeReleased(out: Uint8Array, at: number): void {
    this.#receiver.takeReleased(out, at);
  }

  /** A RECEIPT capsule has come, whose value is `bytes[offset..end)`. @returns false when it is malformed */
  handleReceipt(now: number, bytes: Uint8Array, offset: number, end: number): boolean {
    const reader = this.#reader;
    if (!reader.begin(bytes, offset, end)) return false;
    while (reader.next()) {
      const lane = this.#lanes.all[reader.lane];
      if (lane === undefined || !lane.isUp) continue;
      const frames = lane.advance(reader.count);
      if (frames === 0) continue;
      const newest = lane.slot(lane.receipted + frames - 1);
      const sentAt = lane.sentAt[newest];
      const sentBytes = lane.sentBytes[newest];
      this.#sender.takeReceipted(lane, frames);
      this.#lateness.noteReceipt(sentAt);
      const delay = this.#path.delayOf(sentAt, reader.clock - reader.age);
      this.#path.addOfLane(lane, delay);
      if (this.#lateness.isStale(sentAt, this.#path)) continue;
      this.#path.add(lane, sentAt, sentBytes, delay, now - sentAt - reader.age / 1000);
      this.#counters.histograms.standingDelayMs.add("", delay - this.#path.base);
      this.#rates.noteFrame(sentAt, delay - this.#path.base, sentBytes);
    }
    return !reader.isMalformed;
  }

  // Time

  /** Something waits, or is not receipted. */
  get #isActive(): boolean {
    return this.#lanes.up > 0 && (this.#sender.inFlight > 0 || !this.#queue.isEmpty);
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
    const { dueAt } = this.#receiver;
    let next = dueAt === NEVER ? NEVER : Math.max(now + TIMER_MS, dueAt);
    next = Math.min(next, this.#nextReceiptAt(now));
    next = Math.min(next, Math.max(now + TIMER_MS, this.#dispatcher.pacedUntil));
    if (this.#isActive) next = Math.min(next, Math.max(now + TIMER_MS, this.#intervals.endsAt));
    return next;
  }
}
