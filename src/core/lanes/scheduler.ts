/**
 * One end of a session that spreads its datagrams over several lanes, guided by end-to-end receipts.
 *
 * UDP over TCP has two faults: a lost segment stalls everything behind it, and a full link fills queues with old datagrams. With several
 * connections, a loss stalls only one of them. With a known rate, the queue builds up here, where it is bounded in age and fair between
 * flows. Everything that this end knows about the path comes from *receipts* (wire/receipt.ts), because the kernel's view of a
 * connection ends at the next relay.
 *
 *     push ─► SessionQueue ─► Dispatcher: LaneChoice, Lateness, Pacer, ParitySender ─► LaneSender ─► fill ─► the lane's batch
 *                                                                        ▲   │ receipted, or the lane has ended
 *                                                              Hedger ───┘   ▼
 *                Pacer ◄─ RateControl ◄─ RateIntervals ◄─ PathDelay, Lateness ◄─ handleReceipt
 *     accept ─► LaneReceiver ─► deliver; or hold ─► takeReleased
 *     handleParity ─► LaneReceiver ─► takeReleased
 *     noteFrame ─► ReceiptSchedule ─► fill
 *
 * A datagram waits in the session's queue until it is assigned to a lane. When a lane dies, its datagrams are sent once more on others; all
 * other datagrams still wait in the queue and need not move.
 *
 * Like all of core, it has no clock, no timer and no I/O. After each turn the owner calls {@link dispatch}, then {@link fill} for each
 * lane in the result, and sets one timer for {@link nextTimeout}. It throws nothing because of input from a peer.
 */
import { MAX_GROUP } from "../../wire/parity.ts";
import { MAX_RECEIPT_BYTES, ReceiptReader, ReceiptWriter } from "../../wire/receipt.ts";
import type { Counters, DropReason } from "../counters.ts";
import type { ReasonToDrop, WaitingFlows } from "../session/queue/ended-contexts.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import type { QueueOwner } from "../tap.ts";
import type { DatagramStore } from "./datagram-store.ts";
import { NONE } from "./datagram-store.ts";
import type { FlowTable } from "./flow-table.ts";
import { ANY_LANE } from "./lane-bits.ts";
import type { LaneProgress } from "./lane-progress.ts";
import { LaneSet } from "./lane-set.ts";
import type { LaneState } from "./lane-state.ts";
import { Demand } from "./rate/demand.ts";
import { RateIntervals } from "./rate/intervals.ts";
import { PathDelay } from "./rate/measures/path-delay.ts";
import { TurnDelay } from "./rate/measures/turn-delay.ts";
import { Pacer } from "./rate/pacer.ts";
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
import { PathWatch } from "./transfers/path-watch.ts";

/** Shortest time from now to a timeout, in milliseconds. */
const TIMER_MS = 1;
const NEVER = Number.POSITIVE_INFINITY;

/** Sizes in bytes, durations in milliseconds. */
export interface LaneSchedulerOptions {
  /** Memory for datagrams, and the table of flows; all sessions of an endpoint share them. */
  readonly store: DatagramStore;
  readonly flows: FlowTable;
  readonly counters: Counters;
  /** Most bytes that wait in the queue. */
  readonly queueBytes: number;
  /** Most bytes on lanes without a receipt. A small datagram counts as 256. */
  readonly inFlightBytes: number;
  /** Longest time that a datagram waits. */
  readonly ageBudgetMs: number;
}

/** Counts since the start, and the current state. */
export interface LaneSchedulerStats {
  readonly mode: RateMode;
  /** Rate of the pacer, in bits per second. */
  readonly bitsPerSecond: number;
  /** Smallest recent round trip, and how long packets wait in the path's queues. */
  readonly minRttMs: number;
  readonly standingMs: number;
  readonly lanesUp: number;
  readonly lanesLate: number;
  /** How often a lane has become late. */
  readonly timesLate: number;
  /** Datagrams assigned to lanes; how many of these are second copies of sparse flows, and how many are hedges (sending/hedger.ts). */
  readonly frames: number;
  readonly copies: number;
  readonly hedges: number;
  /** Parities sent, which are frames too, and datagrams restored from parity before they arrived. */
  readonly parities: number;
  readonly restored: number;
  readonly receipts: number;
  readonly receiptBytes: number;
  /** Datagrams that arrived a second time. */
  readonly duplicates: number;
  /** Datagrams that were held to restore order. */
  readonly held: number;
  /** Datagrams that arrived after a later one, and the largest number of later ones. */
  readonly overtaken: number;
  readonly farthestOvertaken: number;
}

export class LaneScheduler implements WaitingFlows {
  /** For transfers beside the session. */
  readonly watch: PathWatch;
  readonly #store: DatagramStore;
  readonly #counters: Counters;
  readonly #lanes = new LaneSet();
  readonly #queue: SessionQueue;
  readonly #path = new PathDelay();
  readonly #lateness = new Lateness();
  readonly #choice = new LaneChoice(this.#lanes.all, this.#path);
  readonly #rates = new RateControl(this.#path);
  readonly #demand = new Demand();
  readonly #turn = new TurnDelay();
  readonly #sender: LaneSender;
  readonly #hedger: Hedger;
  readonly #dispatcher: Dispatcher;
  readonly #intervals: RateIntervals;
  readonly #receiver: LaneReceiver;
  readonly #receipts = new ReceiptSchedule();
  readonly #reader = new ReceiptReader();
  readonly #writer = new ReceiptWriter();
  /** The lane for the next receipt; -1 while none is chosen. */
  #receiptLane = NONE;

  constructor(options: LaneSchedulerOptions) {
    const { store, flows, counters, queueBytes, inFlightBytes, ageBudgetMs } = options;
    this.#store = store;
    this.#counters = counters;
    this.watch = new PathWatch(flows);
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
      turn: this.#turn,
      sender: this.#sender,
      watch: this.watch,
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
      parities: this.#dispatcher.parities,
      restored: this.#receiver.restored,
      duplicates: this.#receiver.duplicates,
      held: this.#receiver.held,
      overtaken: this.#receiver.overtaken,
      farthestOvertaken: this.#receiver.farthestOvertaken,
    };
  }

  /** How often a lane has become late, and when this last happened. */
  get timesLate(): number {
    return this.#lateness.count;
  }
  get lastLateAt(): number {
    return this.#lateness.lastAt;
  }

  /** Whether a lane is up and late (sending/lateness.ts). */
  isLate(index: number): boolean {
    const lane = this.#lanes.all[index];
    return lane?.isUp === true && lane.isLate;
  }

  /** Whether the other end has receipted everything on a lane. */
  isIdle(index: number): boolean {
    return this.#lanes.all[index].inFlight === 0;
  }

  /** Payload bytes in the store: datagrams that wait, are held, are on lanes without a receipt, or are kept for parity. */
  get storedBytes(): number {
    return this.#store.bytes;
  }

  /** True when nothing waits and nothing is left to write. Receipts may still be missing. */
  get isDrained(): boolean {
    return this.#queue.isEmpty && this.#sender.dirty === 0;
  }

  /** Whether the session has, or had within the last 300 ms, more to send than the path takes. */
  isLimited(now: number): boolean {
    return this.#demand.isLimited(now);
  }

  // Handing over to another process

  /** What another scheduler needs to continue this one's numbers. Datagrams that wait or are in flight are not part of it. */
  progress(now: number): LaneProgress {
    return {
      nextSequence: this.#sender.nextSequence,
      clock: now + this.#receipts.clockOffset,
      arrived: this.#receiver.arrived,
    };
  }

  /**
   * Continues the numbers of another scheduler. To be called before anything else.
   *
   * @param elapsedMs  time since the other's {@link progress} was read
   */
  resume(now: number, { nextSequence, clock, arrived }: LaneProgress, elapsedMs: number): void {
    this.#sender.nextSequence = nextSequence;
    this.#receipts.clockOffset = clock + elapsedMs - now;
    if (arrived !== undefined) this.#receiver.restore(arrived);
  }

  // Lanes

  /**
   * A lane's connection has opened.
   *
   * @param index       from 0 to MAX_LANES - 1
   * @param firstCount  first value of its frame counts, 0 to 65,535, the same at both ends
   */
  laneUp(now: number, index: number, firstCount: number): void {
    const lane = this.#lanes.at(index);
    this.laneDown(now, index);
    lane.open(now, firstCount);
    this.#rates.laneUp(now);
    this.#countLanes(now);
  }

  /** A lane's connection has ended. Datagrams that only this lane held are sent once more on others. */
  laneDown(now: number, index: number): void {
    const lane = this.#lanes.all[index];
    if (lane === undefined || !lane.isUp) return;
    lane.isUp = false;
    lane.news = 0;
    this.#sender.dirty &= ~lane.bit;
    if (this.#receiptLane === index) this.#receiptLane = NONE;
    this.#countLanes(now);
    // The lane's next connection will not have carried the registrations that this one did.
    this.#queue.forbid(lane.bit);
    this.#sender.forbid(lane.bit);
    if (this.#lanes.up === 0) this.#receiver.releaseAll();
    for (let entry = this.#sender.takeBack(lane); entry !== NONE; entry = this.#sender.takeBack(lane)) {
      if (this.#store.holders[entry] === 0) this.#hedger.resend(now, entry, true);
      this.#store.release(entry);
    }
    this.#repeatReceipts(now);
  }

  /** Repeats the latest receipts, which may have been lost with a lane. Without its last receipt, an idle lane would stay late forever. */
  #repeatReceipts(now: number): void {
    for (const lane of this.#lanes.all) {
      if (lane.isUp && lane.newestAt !== Number.NEGATIVE_INFINITY) this.#receipts.noteNews(now, lane);
    }
  }

  #countLanes(now: number): void {
    this.#lanes.count();
    this.#queue.setServed(now, this.#lanes.up > 0);
  }

  /** Sets whether the lane's connection still holds the last batch. A busy lane gets no more. */
  setBusy(index: number, isBusy: boolean): void {
    const lane = this.#lanes.all[index];
    if (lane !== undefined) lane.isBusy = isBusy;
  }

  /**
   * The lanes on which to register an association or a context: the two most prompt ones, or one if only one is writable. Datagrams that
   * use the registration may follow it on these lanes before the other end acknowledges it.
   *
   * @returns bits of these lanes; 0 while no lane is up
   */
  registrationLanes(): number {
    const first = this.controlLane();
    if (first === NONE) return 0;
    const second = this.#choice.sparse(this.#lanes.all.length, ANY_LANE & ~(1 << first));
    return second === NONE ? 1 << first : (1 << first) | (1 << second);
  }

  /** The most prompt lane, for a control capsule. @returns its number, or -1 while no lane is up */
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
   * Queues one datagram of a flow. `data` is copied.
   *
   * @param allowed  bits of the lanes that may carry it: {@link ANY_LANE}, or those that carried the registration of its context
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

  /** Queues rows from `first` to before `end`, all of one flow and context. */
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

  /** Sets which lanes may carry the waiting datagrams of a context. @param allowed  as for {@link push} */
  allow(flow: number, context: number, allowed: number): void {
    this.#queue.allow(flow, context, allowed);
  }

  /** Empties the queue into `take`, each flow in order. @param take  `time` is when the datagram was queued; `data` is borrowed */
  drainTo(
    take: (time: number, flow: number, context: number, data: Uint8Array, length: number) => void,
  ): void {
    this.#queue.drainTo(take);
  }

  /** Drops everything that waits because no lane is left; counted as `no_lane`. */
  dropQueued(): void {
    this.#queue.clear();
  }

  /** Drops the datagrams of a flow that ends. @param reason  for those that wait; those that are held count as `unknown_context` */
  removeFlow(flow: number, reason: DropReason): void {
    this.#queue.removeFlow(flow, reason);
    this.#receiver.clear(flow);
  }

  /** Sets who resolves flows and contexts for a tap. */
  setOwner(owner: QueueOwner): void {
    this.#store.owner = owner;
  }

  holds(flow: number): boolean {
    return this.#queue.holds(flow);
  }

  dropContexts(flow: number, reasonOf: ReasonToDrop): void {
    this.#queue.dropContexts(flow, reasonOf);
  }

  /** Drops datagrams over the age budget. Only needed while no lane is up: otherwise {@link dispatch} does it. */
  expire(now: number): void {
    this.#queue.expire(now);
  }

  /** Releases everything because the session has ended. */
  close(): void {
    this.#queue.clear();
    this.#receiver.clear(NONE);
    this.#sender.close();
    this.#lanes.up = 0;
  }

  /** Assigns datagrams and receipts to lanes. @returns bits of the lanes that have something to write, each of which needs {@link fill} */
  dispatch(now: number): number {
    this.#turn.begin(now);
    this.#receiver.expire(now);
    this.#demand.account(now);
    if (this.#isActive && now >= this.#intervals.endsAt) {
      this.#intervals.end(now);
      this.#hedger.reconsider();
    }
    const lates = this.#lateness.count;
    this.#lateness.update(now, this.#lanes.all, this.#path, this.#hedger.isCheap(now));
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

  /** Upper bound of the bytes that {@link fill} would write for a lane. */
  outputBytes(index: number): number {
    const lane = this.#lanes.all[index];
    return MAX_RECEIPT_BYTES + this.#sender.outputBytes(lane);
  }

  /** Whether a lane has something for {@link fill} to write. */
  hasOutput(index: number): boolean {
    return (this.#sender.dirty & (1 << index)) !== 0;
  }

  /**
   * Writes the receipt and the datagrams that a lane was assigned, as capsules.
   *
   * @param out  has room at `at` for at least one datagram of any size
   * @returns the end offset; the next call writes what did not fit
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

  /** Takes the round trip of a heartbeat, in milliseconds. */
  noteRoundTrip(rtt: number): void {
    this.#path.noteRoundTrip(rtt);
  }

  /** A frame, which is any DATAGRAM or PARITY capsule, has arrived on a lane. */
  noteFrame(now: number, index: number): void {
    const lane = this.#lanes.all[index];
    lane.noteReceived(now);
    this.#receipts.noteNews(now, lane);
  }

  /**
   * A datagram of a known context has arrived. `data` is copied if the datagram is held.
   *
   * @param flow  -1 for a datagram that must not be held
   * @returns true to deliver it now; false if it is a copy of an earlier one, is past the age budget (counted as `age`), or is held until
   *          {@link takeReleased}
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
   * The context of the next held datagram that is due for delivery, or -1. To be called after a turn's arrivals were delivered, and at the
   * timeout.
   */
  peekReleased(now: number): number {
    return this.#receiver.peekReleased(now);
  }

  /** Length of the datagram that {@link peekReleased} found. */
  get releasedLength(): number {
    return this.#receiver.releasedLength;
  }

  /** Copies that datagram to `out[at]` and releases it. */
  takeReleased(out: Uint8Array, at: number): void {
    this.#receiver.takeReleased(out, at);
  }

  /** A RECEIPT capsule has arrived, with the value `bytes[offset..end)`. @returns false if it is malformed */
  handleReceipt(now: number, bytes: Uint8Array, offset: number, end: number): boolean {
    const reader = this.#reader;
    if (!reader.begin(bytes, offset, end)) return false;
    this.watch.noteReceipt(now, reader.clock, this.#path.minRtt);
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
      this.watch.noteArrival(now, delay);
      this.#path.add(lane, sentAt, sentBytes, delay, now - sentAt - reader.age / 1000);
      this.#counters.histograms.standingDelayMs.add("", delay - this.#path.base);
      this.#rates.noteFrame(sentAt, delay - this.#path.base, sentBytes);
    }
    return !reader.isMalformed;
  }

  /** The other end accepts parities of up to `limit` datagrams on a lane. */
  noteParityLimit(index: number, limit: number): void {
    this.#lanes.at(index).parityLimit = Math.min(limit, MAX_GROUP);
  }

  /** A PARITY capsule, which is a frame, has arrived on a lane, with the value `bytes[offset..end)`. @returns false if it is malformed */
  handleParity(now: number, index: number, bytes: Uint8Array, offset: number, end: number): boolean {
    this.noteFrame(now, index);
    return this.#receiver.handleParity(now, bytes, offset, end);
  }

  // Time

  /** Whether anything waits or lacks its receipt while a lane is up. */
  get #isActive(): boolean {
    return this.#lanes.up > 0 && (this.#sender.inFlight > 0 || !this.#queue.isEmpty);
  }

  /** When to dispatch for a receipt. A receipt that is due first waits for a datagram to travel with, then for a writable lane. */
  #nextReceiptAt(now: number): number {
    if (this.#receipts.dueAt > now) return this.#receipts.dueAt;
    const { isSlow, rate } = this.#choice;
    const until = isSlow ? this.#receipts.waitsUntil(rate) : now;
    return until > now ? Math.max(now + TIMER_MS, until) : NEVER;
  }

  /**
   * When to call {@link dispatch} if nothing else happens; Infinity for never. At least 1 ms from now, except for a receipt that is due
   * sooner. A call of {@link dispatch} after that time counts as late (rate/measures/turn-delay.ts).
   */
  nextTimeout(now: number): number {
    const { dueAt, expiresAt } = this.#receiver;
    let next = Math.max(now + TIMER_MS, Math.min(dueAt, expiresAt));
    next = Math.min(next, this.#nextReceiptAt(now));
    const { pacedUntil, parityDueAt } = this.#dispatcher;
    next = Math.min(next, Math.max(now + TIMER_MS, Math.min(pacedUntil, parityDueAt)));
    if (this.#isActive) next = Math.min(next, Math.max(now + TIMER_MS, this.#intervals.endsAt));
    this.#turn.expect(next);
    return next;
  }
}
