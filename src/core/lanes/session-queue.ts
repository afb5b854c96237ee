/**
 * The one place where the datagrams of a session wait for a lane.
 *
 * A flow (an association, by its slot) has a list; lists that are not empty stand in one of two rings. *Sparse* flows, which send
 * little, are served first: what they send is worth most when it is early and costs the others next to nothing (FQ-CoDel's new flows,
 * RFC 8290 §4.2; here by rate, since a voice call never goes idle). All others are served in turns by deficit round robin (Shreedhar
 * and Varghese 1995). Within a flow order is kept.
 *
 * Datagrams past the age budget are dropped from the head: the oldest is worth least, and the newest then waits no longer than the
 * budget. A burst, such as a frame of video over a slow link, may wait that long. A queue that does not go away is of no use to
 * anybody: as in CoDel (RFC 8289 §4), one whose bulk has not been short for an interval is cut to its standing budget, which is much
 * less. CoDel's growing rate of drops is for senders that slow down; these need not. The bound in bytes drops from the flow that has
 * the most.
 */
import type { Counters } from "../counters.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import type { TapReason } from "../tap.ts";
import { recordQueued } from "../tap.ts";
import type { DatagramStore } from "./datagram-store.ts";
import { NONE } from "./datagram-store.ts";
import type { FlowTable } from "./flow-table.ts";
import { ANY_LANE } from "./lane-bits.ts";
import { isResponsive, noteSent } from "./responsive.ts";

/** A flow below this is sparse, in bytes per millisecond of payload: 800 kbit/s, any call and most games. */
const SPARSE_RATE = 100;
/** Time over which a flow's rate is taken, and after which nothing of it counts any more. */
const RATE_WINDOW_MS = 100;
const FORGET_MS = 2_000;
/** CoDel's interval: a queue that has been long for this long stands. */
const STANDING_INTERVAL_MS = 100;
/** Share of the standing budget below which a wait is short. */
const SHORT_SHARE = 0.5;
/** One datagram of any size that Ethernet carries. */
const MIN_QUANTUM_BYTES = 1_500;
const MAX_QUANTUM_BYTES = 32_768;
/** Time that a flow's turn takes at the rate of the session. */
const TURN_MS = 0.25;
/** How many flows are looked at to find one that has much queued, and how many drops are its before they are again. */
const FATTEST_SEARCH = 64;
const FATTEST_DROPS = 16;

const RING_SPARSE = 0;
const RING_BULK = 1;

export class SessionQueue {
  /** Payload bytes that wait, each datagram counted with 64 bytes more for its bookkeeping. */
  bytes = 0;
  /** Most milliseconds that a datagram waits. */
  ageBudget: number;
  /** The same once the queue stands. */
  standingBudget: number;
  /** Datagrams that became too old. */
  aged = 0;

  readonly #store: DatagramStore;
  readonly #flows: FlowTable;
  readonly #counters: Counters;
  readonly #byteLimit: number;
  /** The flow of each ring whose turn it is. */
  readonly #turn = Int32Array.of(NONE, NONE);
  #quantum = MIN_QUANTUM_BYTES;
  /** The flow that was found to have the most; for so many more drops; and what the next had. */
  #fat = NONE;
  #fatDrops = 0;
  #nextFatBytes = 0;
  /** When bulk last waited shortly, or not at all. */
  #shortAt = 0;
  /** Whether there are lanes: what waits for one to be connected again does not stand. */
  #isServed = false;

  /**
   * @param byteLimit  most bytes that wait
   * @param ageBudget  most milliseconds that a datagram waits
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

  /** Whether a flow sends so little that it goes first. */
  isSparse(flow: number): boolean {
    return (
      flow < this.#flows.rate.length &&
      this.#flows.rate[flow] < SPARSE_RATE &&
      this.#flows.windowBytes[flow] < SPARSE_RATE * RATE_WINDOW_MS
    );
  }

  /** Sets how much a flow may send before the next has its turn. @param rate  bytes per millisecond of the session */
  adaptQuantum(rate: number): void {
    this.#quantum = Math.min(MAX_QUANTUM_BYTES, Math.max(MIN_QUANTUM_BYTES, Math.floor(rate * TURN_MS)));
  }

  /**
   * Puts rows `first` to before `end` behind the others of a flow, as {@link push} does. What would be dropped for a
   * later one of them is dropped at once, uncopied.
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

  /** Puts one datagram behind the others of its flow. `data` is copied. @param allowed  bits of the lanes it may go on */
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

  /** Rate of a flow: a mean of what came in the last tenths of a second. */
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

  /** The sparse datagram whose turn it is, or -1. */
  peekSparse(now: number): number {
    return this.#peek(now, RING_SPARSE);
  }

  /** The datagram of another flow whose turn it is, or -1. */
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

  /** Passes over the flow of the entry that was peeked, which none of its lanes can take: the next has its turn. */
  pass(entry: number): void {
    const flow = this.#store.flow[entry];
    this.#turn[this.#flows.ring[flow]] = this.#flows.next[flow];
  }

  /** Takes the entry that was peeked out. Its reference is the caller's from now on. */
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

  /** Sets the lanes of what waits of one context of a flow. */
  allow(flow: number, context: number, allowed: number): void {
    if (flow >= this.#flows.head.length) return;
    for (let entry = this.#flows.head[flow]; entry !== NONE; entry = this.#store.next[entry]) {
      if (this.#store.context[entry] === context) this.#store.allowed[entry] = allowed;
    }
  }

  /** Takes a lane from what waits and may go only on some: its connection, and what that carried, is gone. @param bit  the lane's */
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

  /** Drops everything of one flow, uncounted: its association has ended. */
  removeFlow(flow: number): void {
    if (flow >= this.#flows.head.length) return;
    while (this.#flows.head[flow] !== NONE) this.#dropHead(flow);
    this.#flows.forget(flow);
  }

  /** There are lanes to take what waits, or none any more. */
  setServed(now: number, isServed: boolean): void {
    if (isServed && !this.#isServed) this.#shortAt = now;
    this.#isServed = isServed;
  }

  /** Drops what is over its age in all flows. */
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

  /** Empties the queue. @param isCounted  whether what is lost counts as dropped for want of a lane */
  clear(isCounted: boolean): void {
    for (let ring = RING_SPARSE; ring <= RING_BULK; ring++) {
      while (this.#turn[ring] !== NONE) {
        if (isCounted) {
          this.#counters.drops.no_lane++;
          this.#recordHead("no_lane", this.#turn[ring]);
        }
        this.#dropHead(this.#turn[ring]);
      }
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
      !isResponsive(this.#flows, flow);
    const oldest = now - (isStanding ? Math.min(this.standingBudget, this.ageBudget) : this.ageBudget);
    while (this.#flows.head[flow] !== NONE && this.#store.time[this.#flows.head[flow]] < oldest) {
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

  /** The flow with the most bytes among the next few whose turn comes, as of a few drops ago. */
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
