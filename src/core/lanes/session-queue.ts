/**
 * The queue in which the datagrams of a session wait for a lane.
 *
 * Each flow (an association, by its slot) has a list, and lists that are not empty are in one of two rings. *Sparse* flows, which send
 * little, are served first: their datagrams gain most from being early and cost the others next to nothing (FQ-CoDel's new flows, RFC 8290
 * §4.2; here the rate decides, because a voice call never goes idle). All others, *bulk*, are served by deficit round robin (Shreedhar and
 * Varghese 1995). Order within a flow is kept.
 *
 * Datagrams past the age budget are dropped from the head, because the oldest is worth least and the newest then waits no longer than the
 * budget. A burst, such as a video frame over a slow link, may wait that long. A standing queue helps nobody: as in CoDel (RFC 8289 §4), a
 * queue whose bulk has not been short for an interval is cut to its standing budget, which is much smaller. The exception is a queue that
 * drains by itself, because less arrived in the last second than the session may send: repairs release all datagrams that losses have
 * delayed at once, and a server's queue of answers then stays long for longer than an interval. The last datagram stays, too, as in CoDel,
 * because nothing waits behind it. CoDel's growing drop rate is not used: it is meant for senders that slow down, and these may not. If the
 * queue exceeds its bound in bytes, the flow with the most bytes loses datagrams.
 */
import type { Counters, DropReason } from "../counters.ts";
import type { ReasonToDrop, WaitingFlows } from "../session/queue/ended-contexts.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import type { TapReason } from "../tap.ts";
import { recordQueued } from "../tap.ts";
import type { DatagramStore } from "./datagram-store.ts";
import { NONE } from "./datagram-store.ts";
import type { FlowTable } from "./flow-table.ts";
import { ANY_LANE } from "./lane-bits.ts";
import { RecentRate } from "./rate/measures/recent-rate.ts";
import { isResponsive, noteSent } from "./responsive.ts";

/** A flow with less payload than this is sparse, in bytes per millisecond: 800 kbit/s, which covers any call and most games. */
const SPARSE_RATE = 100;
/** Time over which a flow's rate is measured, and idle time after which it is forgotten. */
const RATE_WINDOW_MS = 100;
const FORGET_MS = 2_000;
/** CoDel's interval: a queue that has been long for this time counts as standing. */
const STANDING_INTERVAL_MS = 100;
/** Share of the standing budget below which a wait counts as short. */
const SHORT_SHARE = 0.5;
/** A queue drains if arrivals stay below this share of the session's rate. */
const DRAIN_SHARE = 0.95;
/** One datagram of any size that Ethernet carries. */
const MIN_QUANTUM_BYTES = 1_500;
const MAX_QUANTUM_BYTES = 32_768;
/** Length of a flow's turn at the session's rate. */
const TURN_MS = 0.25;
/** How many flows are compared to find the one with most bytes, and how many drops it takes before they are compared again. */
const FATTEST_SEARCH = 64;
const FATTEST_DROPS = 16;

const RING_SPARSE = 0;
const RING_BULK = 1;

export class SessionQueue implements WaitingFlows {
  /** Bytes that wait; each datagram counts as its payload and 64 bytes for bookkeeping. */
  bytes = 0;
  /** Longest wait of a datagram, in milliseconds. */
  ageBudget: number;
  /** Longest wait once the queue counts as standing, in milliseconds. */
  standingBudget: number;
  /** Datagrams dropped because of their age, since the start. */
  aged = 0;

  readonly #store: DatagramStore;
  readonly #flows: FlowTable;
  readonly #counters: Counters;
  readonly #byteLimit: number;
  /** The flow whose turn it is, in each ring. */
  readonly #turn = Int32Array.of(NONE, NONE);
  #quantum = MIN_QUANTUM_BYTES;
  /** The flow that had the most bytes, for how many more drops it stays so, and the bytes of the second largest. */
  #fat = NONE;
  #fatDrops = 0;
  #nextFatBytes = 0;
  /** When the wait of bulk was last short, or no bulk waited. */
  #shortAt = 0;
  /** Whether a lane is up. A queue that waits for a lane to reconnect does not count as standing. */
  #isServed = false;
  /** Rate of the session, and of arrivals. */
  #rate = 0;
  readonly #arrivals = new RecentRate();

  /**
   * @param byteLimit  bound of {@link bytes}
   * @param ageBudget  longest wait of a datagram, in milliseconds
   */
  constructor(
    store: DatagramStore,
    flows: FlowTable,
    counters: Counters,
    byteLimit: number,
    ageBudget: number,
  ) {
    this.#store = store;
    this.#flows = flows;
    this.#counters = counters;
    this.#byteLimit = byteLimit;
    this.ageBudget = ageBudget;
    this.standingBudget = ageBudget;
  }

  get isEmpty(): boolean {
    return this.#turn[RING_SPARSE] === NONE && this.#turn[RING_BULK] === NONE;
  }

  /** Whether a flow sends so little that it is served first. */
  isSparse(flow: number): boolean {
    return (
      flow < this.#flows.rate.length &&
      this.#flows.rate[flow] < SPARSE_RATE &&
      this.#flows.windowBytes[flow] < SPARSE_RATE * RATE_WINDOW_MS
    );
  }

  /** Sets how much a flow may send per turn, and how fast the queue drains. @param rate  of the session, in bytes per millisecond */
  setRate(rate: number): void {
    this.#rate = rate;
    this.#quantum = Math.min(MAX_QUANTUM_BYTES, Math.max(MIN_QUANTUM_BYTES, Math.floor(rate * TURN_MS)));
  }

  /** Rate of arrivals in the last second, in bytes per millisecond. */
  arrivals(now: number): number {
    return this.#arrivals.at(now);
  }

  /** A datagram is sent twice: the copy also uses the rate that drains the queue. */
  noteCopy(now: number, length: number): void {
    this.#arrivals.note(now, length);
  }

  /**
   * Appends rows from `first` to before `end` to the list of a flow, as {@link push} does. Rows that later ones would push out are dropped
   * at once, without a copy.
   */
  pushAll(
    now: number,
    flow: number,
    context: number,
    allowed: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
  ): void {
    let start = end;
    let bytes = 0;
    while (start > first && bytes <= this.#byteLimit) bytes += entryCost(received.length(--start));
    if (bytes > this.#byteLimit) start++;
    this.#counters.drops.queue_full += start - first;
    if (this.#counters.tap !== undefined) this.#recordRows(flow, context, received, first, start);
    for (let row = start; row < end; row++) {
      this.push(now, flow, context, allowed, received.data, received.offset(row), received.length(row));
    }
  }

  #recordRows(flow: number, context: number, received: ReceivedDatagrams, first: number, end: number): void {
    const tap = this.#counters.tap!;
    for (let row = first; row < end; row++) {
      const offset = received.offset(row);
      const length = received.length(row);
      recordQueued(tap, this.#store.owner, "queue_full", flow, context, received.data, offset, length);
    }
  }

  #recordHead(reason: TapReason, flow: number): void {
    const { tap } = this.#counters;
    if (tap !== undefined) this.#store.record(tap, reason, this.#flows.head[flow]);
  }

  /** Appends one datagram to the list of its flow. `data` is copied. @param allowed  bits of the lanes that may carry it */
  push(
    now: number,
    flow: number,
    context: number,
    allowed: number,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    this.#flows.reserve(flow);
    this.#measure(now, flow, length);
    noteSent(this.#flows, flow, data, offset, length);
    this.#arrivals.note(now, length);
    this.#dropStale(now, flow);
    const cost = entryCost(length);
    this.#dropUntil(this.#byteLimit - cost);
    const entry = this.#store.add(now, flow, context, allowed, data, offset, length);
    const ring = this.isSparse(flow) ? RING_SPARSE : RING_BULK;
    if (this.#turn[RING_BULK] === NONE) this.#shortAt = now;
    if (this.#flows.head[flow] === NONE) {
      this.#flows.head[flow] = entry;
      this.#link(flow, ring);
    } else {
      this.#store.next[this.#flows.tail[flow]] = entry;
      if (this.#flows.ring[flow] !== ring) {
        this.#unlink(flow);
        this.#link(flow, ring);
      }
    }
    this.#flows.tail[flow] = entry;
    this.#flows.bytes[flow] += cost;
    this.bytes += cost;
  }

  /** Updates a flow's rate, a moving average over some tenths of a second. */
  #measure(now: number, flow: number, length: number): void {
    const elapsed = now - this.#flows.windowAt[flow];
    if (elapsed > RATE_WINDOW_MS) {
      const isForgotten = elapsed > FORGET_MS;
      this.#flows.rate[flow] = isForgotten
        ? 0
        : 0.7 * this.#flows.rate[flow] + (0.3 * this.#flows.windowBytes[flow]) / elapsed;
      this.#flows.windowAt[flow] = now;
      this.#flows.windowBytes[flow] = 0;
    }
    this.#flows.windowBytes[flow] += length;
  }

  /** The entry of a sparse flow whose turn it is, or -1. */
  peekSparse(now: number): number {
    return this.#peek(now, RING_SPARSE);
  }

  /** The entry of a bulk flow whose turn it is, or -1. */
  peekBulk(now: number): number {
    return this.#peek(now, RING_BULK);
  }

  #peek(now: number, ring: number): number {
    for (;;) {
      const flow = this.#turn[ring];
      if (flow === NONE) return NONE;
      this.#dropStale(now, flow);
      const entry = this.#flows.head[flow];
      if (entry === NONE) continue;
      if (this.#flows.credit[flow] >= this.#store.length[entry]) return entry;
      this.#flows.credit[flow] += this.#quantum;
      this.#turn[ring] = this.#flows.next[flow];
    }
  }

  /** Gives the turn to the next flow, because no lane can take the entry that was peeked. */
  pass(entry: number): void {
    const flow = this.#store.flow[entry];
    this.#turn[this.#flows.ring[flow]] = this.#flows.next[flow];
  }

  /** Takes the entry that was peeked out of the queue. Its reference passes to the caller. */
  take(now: number, entry: number): void {
    const flow = this.#store.flow[entry];
    if (
      this.#flows.ring[flow] === RING_BULK &&
      now - this.#store.time[entry] < SHORT_SHARE * this.standingBudget
    ) {
      this.#shortAt = now;
    }
    this.#flows.credit[flow] -= this.#store.length[entry];
    this.#takeHead(flow);
  }

  /** Sets the lanes that may carry the waiting datagrams of one context. */
  allow(flow: number, context: number, allowed: number): void {
    if (flow >= this.#flows.head.length) return;
    for (let entry = this.#flows.head[flow]; entry !== NONE; entry = this.#store.next[entry]) {
      if (this.#store.context[entry] === context) this.#store.allowed[entry] = allowed;
    }
  }

  /**
   * Removes a lane from waiting datagrams that only certain lanes may carry: the registrations ended with its connection.
   *
   * @param bit  of the lane
   */
  forbid(bit: number): void {
    const { allowed, next } = this.#store;
    for (let ring = RING_SPARSE; ring <= RING_BULK; ring++) {
      let flow = this.#turn[ring];
      for (let left = this.#count(ring); left > 0; left--) {
        for (let entry = this.#flows.head[flow]; entry !== NONE; entry = next[entry]) {
          if (allowed[entry] !== ANY_LANE) allowed[entry] &= ~bit;
        }
        flow = this.#flows.next[flow];
      }
    }
  }

  /** Drops everything of one flow, because its association ends. */
  removeFlow(flow: number, reason: DropReason): void {
    if (flow >= this.#flows.head.length) return;
    this.#dropFlow(flow, reason);
    this.#flows.forget(flow);
  }

  holds(flow: number): boolean {
    return flow < this.#flows.head.length && this.#flows.head[flow] !== NONE;
  }

  dropContexts(flow: number, reasonOf: ReasonToDrop): void {
    if (!this.holds(flow)) return;
    const store = this.#store;
    const { head, tail, bytes } = this.#flows;
    let before = NONE;
    for (let entry = head[flow]; entry !== NONE; ) {
      const next = store.next[entry];
      const reason = reasonOf(store.context[entry]);
      if (reason === undefined) before = entry;
      else {
        this.#counters.drops[reason]++;
        if (this.#counters.tap !== undefined) store.record(this.#counters.tap, reason, entry);
        if (before === NONE) this.#dropHead(flow);
        else {
          const cost = entryCost(store.length[entry]);
          store.next[before] = next;
          if (next === NONE) tail[flow] = before;
          bytes[flow] -= cost;
          this.bytes -= cost;
          store.release(entry);
        }
      }
      entry = next;
    }
  }

  #dropFlow(flow: number, reason: DropReason): void {
    while (this.#flows.head[flow] !== NONE) {
      this.#counters.drops[reason]++;
      this.#recordHead(reason, flow);
      this.#dropHead(flow);
    }
  }

  /** Sets whether any lane is up. */
  setServed(now: number, isServed: boolean): void {
    if (isServed && !this.#isServed) this.#shortAt = now;
    this.#isServed = isServed;
  }

  /** Drops datagrams over the age budget in all flows. */
  expire(now: number): void {
    for (let ring = RING_SPARSE; ring <= RING_BULK; ring++) {
      let left = this.#count(ring);
      for (let flow = this.#turn[ring]; left > 0; left--) {
        const next = this.#flows.next[flow];
        this.#dropStale(now, flow);
        flow = next;
      }
    }
  }

  drainTo(
    take: (time: number, flow: number, context: number, data: Uint8Array, length: number) => void,
  ): void {
    const store = this.#store;
    for (let ring = RING_SPARSE; ring <= RING_BULK; ring++) {
      while (this.#turn[ring] !== NONE) {
        const flow = this.#turn[ring];
        const entry = this.#flows.head[flow];
        const data = new Uint8Array(store.length[entry]);
        store.copyOut(entry, data, 0);
        take(store.time[entry], flow, store.context[entry], data, data.length);
        this.#dropHead(flow);
      }
    }
  }

  /** Empties the queue, counting the datagrams as `no_lane`. */
  clear(): void {
    for (let ring = RING_SPARSE; ring <= RING_BULK; ring++) {
      while (this.#turn[ring] !== NONE) this.#dropFlow(this.#turn[ring], "no_lane");
    }
  }

  #count(ring: number): number {
    const first = this.#turn[ring];
    if (first === NONE) return 0;
    let count = 1;
    for (let flow = this.#flows.next[first]; flow !== first; flow = this.#flows.next[flow]) count++;
    return count;
  }

  #dropUntil(bytes: number): void {
    while (this.bytes > bytes && !this.isEmpty) {
      const flow = this.#fattest();
      this.#counters.drops.queue_full++;
      this.#recordHead("queue_full", flow);
      this.#dropHead(flow);
    }
  }

  #dropStale(now: number, flow: number): void {
    const isStanding =
      this.#isServed &&
      this.#turn[RING_BULK] !== NONE &&
      now - this.#shortAt > STANDING_INTERVAL_MS &&
      !isResponsive(this.#flows, flow) &&
      this.#arrivals.at(now) >= DRAIN_SHARE * this.#rate;
    const oldest = now - this.ageBudget;
    const oldestStanding = isStanding ? Math.max(oldest, now - this.standingBudget) : oldest;
    for (;;) {
      const head = this.#flows.head[flow];
      if (head === NONE) return;
      const time = this.#store.time[head];
      if (time >= oldestStanding) return;
      const isLast = this.bytes === entryCost(this.#store.length[head]);
      if (isLast && time >= oldest) return;
      this.#counters.drops.age++;
      this.#recordHead("age", flow);
      this.#dropHead(flow);
      this.aged++;
    }
  }

  #dropHead(flow: number): void {
    const entry = this.#flows.head[flow];
    this.#takeHead(flow);
    this.#store.release(entry);
  }

  #takeHead(flow: number): void {
    const entry = this.#flows.head[flow];
    const cost = entryCost(this.#store.length[entry]);
    const next = this.#store.next[entry];
    this.#flows.head[flow] = next;
    this.#flows.bytes[flow] -= cost;
    this.bytes -= cost;
    if (next === NONE) this.#unlink(flow);
  }

  /** The flow with the most bytes among the next {@link FATTEST_SEARCH}, as of a few drops ago. */
  #fattest(): number {
    if (this.#fat !== NONE && this.#fatDrops-- > 0 && this.#flows.bytes[this.#fat] >= this.#nextFatBytes) {
      return this.#fat;
    }
    const start = this.#turn[this.#turn[RING_BULK] === NONE ? RING_SPARSE : RING_BULK];
    let fattest = start;
    let next = 0;
    let flow = this.#flows.next[start];
    for (let i = 0; i < FATTEST_SEARCH && flow !== start; i++) {
      const bytes = this.#flows.bytes[flow];
      const most = this.#flows.bytes[fattest];
      next = Math.max(next, Math.min(bytes, most));
      if (bytes > most) fattest = flow;
      flow = this.#flows.next[flow];
    }
    this.#fat = fattest;
    this.#fatDrops = FATTEST_DROPS;
    this.#nextFatBytes = next;
    return fattest;
  }

  #link(flow: number, ring: number): void {
    this.#flows.credit[flow] = this.#quantum;
    this.#flows.ring[flow] = ring;
    const turn = this.#turn[ring];
    if (turn === NONE) {
      this.#flows.next[flow] = flow;
      this.#flows.previous[flow] = flow;
      this.#turn[ring] = flow;
      return;
    }
    const last = this.#flows.previous[turn];
    this.#flows.next[last] = flow;
    this.#flows.previous[flow] = last;
    this.#flows.next[flow] = turn;
    this.#flows.previous[turn] = flow;
  }

  #unlink(flow: number): void {
    if (flow === this.#fat) this.#fat = NONE;
    const ring = this.#flows.ring[flow];
    const next = this.#flows.next[flow];
    if (next === flow) {
      this.#turn[ring] = NONE;
      return;
    }
    const previous = this.#flows.previous[flow];
    this.#flows.next[previous] = next;
    this.#flows.previous[next] = previous;
    if (this.#turn[ring] === flow) this.#turn[ring] = next;
  }
}

function entryCost(length: number): number {
  return length + 64;
}
