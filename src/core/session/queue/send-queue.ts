import type { Counters, DropReason } from "../../counters.ts";
import type { Datapath } from "../../datapath/datapath.ts";
import { ENTRY_COST } from "../../datapath/datapath.ts";
import type { DatagramTap, TapReason } from "../../tap.ts";
import { recordQueued } from "../../tap.ts";
import type { ReceivedDatagrams } from "../received-datagrams.ts";
import type { ReasonToDrop } from "./ended-contexts.ts";
import type { QueueFraming } from "./queue-framing.ts";
import { CAPSULES } from "./queue-framing.ts";
import type { FlowHolder, SendPool } from "./send-pool.ts";

const NONE = -1;
const ALL_ENTRIES = 0x7fff_ffff;
/**
 * Bytes that a flow may send per turn: as many as the lane has recently accepted in TURN_MS, so that no flow waits long, and
 * datagrams to one destination stay together if that delays nothing. At least one full-sized datagram.
 */
const MIN_QUANTUM_BYTES = 1500;
const MAX_QUANTUM_BYTES = 32_768;
const TURN_MS = 0.25;
/** How often the whole queue is checked for datagrams past the age budget. Datagrams that are taken out are always checked. */
const EXPIRY_MS = 1_000;
/** How many flows are compared to find one with a long queue, and how many drops it gets before they are compared again. */
const LONGEST_SEARCH = 64;
const LONGEST_DROPS = 16;
/** Room is made for this many rows at a time, so that the flows with most datagrams make it. */
const PUSH_ROWS = 64;

/**
 * Datagrams that wait for one lane: fair between flows (deficit round robin), bounded in bytes and in age. Datagrams that
 * are too old, or that exceed the byte limit when newer ones arrive, are dropped from the head and counted.
 */
export class SendQueue implements FlowHolder {
  /** Queued payload bytes, plus 64 bytes per datagram for its bookkeeping. */
  bytes = 0;
  /** Number of its lane in the session. */
  lane = 0;

  readonly #pool: SendPool;
  readonly #counters: Counters;
  readonly #byteLimit: number;
  readonly #ageBudget: number;
  readonly #framing: QueueFraming;
  /** When {@link expire} is due, if anything is queued. */
  #expireAt = Number.NEGATIVE_INFINITY;
  /** The flow whose turn it is. */
  #turn = NONE;
  #quantum = MIN_QUANTUM_BYTES;
  #filledAt = Number.NEGATIVE_INFINITY;
  #filledBytes = 0;
  /** The flow that was found to have most bytes queued, how many more drops it gets, and how many bytes the next one had. */
  #longest = NONE;
  #longestDrops = 0;
  #nextBytes = 0;

  /**
   * @param byteLimit  most bytes that may be queued
   * @param ageBudget  most milliseconds that a datagram may wait
   * @param framing    default: DATAGRAM capsules
   */
  constructor(
    pool: SendPool,
    counters: Counters,
    byteLimit: number,
    ageBudget: number,
    framing: QueueFraming = CAPSULES,
  ) {
    this.#framing = framing;
    this.#pool = pool;
    this.#counters = counters;
    this.#byteLimit = byteLimit;
    this.#ageBudget = ageBudget;
  }

  get isEmpty(): boolean {
    return this.#turn === NONE;
  }

  get datapath(): Datapath {
    return this.#pool.datapath;
  }

  /** When to call {@link expire}; Infinity while nothing is queued. */
  get expiresAt(): number {
    return this.isEmpty ? Number.POSITIVE_INFINITY : this.#expireAt;
  }

  /**
   * Appends rows `first` to `end - 1` to a flow, like {@link push}. Rows that would be dropped for a later one are dropped
   * at once, without a copy.
   */
  pushAll(
    now: number,
    flow: number,
    context: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
  ): void {
    const start = this.#firstThatFits(received, first, end);
    this.#counters.drops.queue_full += start - first;
    const { tap } = this.#counters;
    if (tap !== undefined) this.recordRows(tap, "queue_full", flow, context, received, first, start);
    for (let row = start; row < end; row += PUSH_ROWS) {
      this.#pushRows(now, flow, context, received, row, Math.min(end, row + PUSH_ROWS));
    }
  }

  #firstThatFits(received: ReceivedDatagrams, first: number, end: number): number {
    const limit = this.#byteLimit;
    if (received.bytes(first, end) + ENTRY_COST * (end - first) <= limit) return first;
    let start = end;
    let bytes = 0;
    while (start > first && bytes <= limit) bytes += entryCost(received.length(--start));
    return bytes > limit ? start + 1 : start;
  }

  #pushRows(
    now: number,
    flow: number,
    context: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
  ): void {
    const pool = this.#pool;
    const { datapath } = pool;
    this.#admit(now, flow);
    this.#dropUntil(this.#byteLimit - received.bytes(first, end) - ENTRY_COST * (end - first));
    const isEmpty = pool.flowHead[flow] === NONE;
    const tail = isEmpty ? NONE : pool.flowTail[flow];
    const room = this.#byteLimit - this.bytes;
    const cost = datapath.queueRows(
      pool.memory,
      now,
      context,
      received.rows,
      first,
      end,
      received.data,
      tail,
      room,
    );
    const { results } = datapath;
    const behind = results[0];
    if (behind > first) this.#append(flow, results[1], results[2], cost);
    // Rows for which the pool has no memory yet.
    for (let row = behind; row < end; row++) {
      this.push(now, flow, context, received.data, received.offset(row), received.length(row));
    }
  }

  /** Appends one datagram to its flow, which moves here if it waits in another queue. `data` is copied. */
  push(now: number, flow: number, context: number, data: Uint8Array, offset: number, length: number): void {
    this.#admit(now, flow);
    const cost = entryCost(length);
    this.#dropUntil(this.#byteLimit - cost);
    const pool = this.#pool;
    const entry = pool.allocate(now, context, data, offset, length);
    if (pool.flowHead[flow] !== NONE) pool.entryNext[pool.flowTail[flow]] = entry;
    this.#append(flow, entry, entry, cost);
  }

  /** Prepares a flow for datagrams that are appended to it here. */
  #admit(now: number, flow: number): void {
    this.#pool.reserveFlow(flow);
    this.takeFlow(flow);
    if (this.isEmpty) this.#expireAt = now + EXPIRY_MS;
    this.#dropStale(now, flow);
  }

  /** Adds entries to a flow, which are linked to each other and to its last one. @param cost  bytes of all of them */
  #append(flow: number, head: number, tail: number, cost: number): void {
    const pool = this.#pool;
    if (pool.flowHead[flow] === NONE) {
      pool.flowHead[flow] = head;
      this.#link(flow);
    }
    pool.flowTail[flow] = tail;
    pool.flowBytes[flow] += cost;
    this.bytes += cost;
  }

  /**
   * Removes datagrams in fair order and writes them.
   *
   * @returns the offset in `out` behind the last one; datagrams that did not fit stay queued
   */
  fill(now: number, out: Uint8Array, at: number): number {
    const pool = this.#pool;
    const framing = this.#framing;
    const { tap } = this.#counters;
    this.#adaptQuantum(now);
    let end = at;
    while (this.#turn !== NONE) {
      const flow = this.#turn;
      this.#dropStale(now, flow);
      if (pool.flowHead[flow] === NONE) continue;
      const entry = pool.flowHead[flow];
      const length = pool.entryLength[entry];
      const context = pool.entryContext[entry];
      if (end + framing.headerLength(context, length) + length > out.length) break;
      if (pool.flowCredit[flow] < length) {
        pool.flowCredit[flow] += this.#quantum;
        this.#turn = pool.flowNext[flow];
        continue;
      }
      if (end === at) this.noteBatch(now - pool.entryTime[entry], framing.payloadLength(context, length));
      if (framing === CAPSULES && tap === undefined) {
        end = this.#takeEntries(now, flow, out, end);
        continue;
      }
      pool.flowCredit[flow] -= length;
      end = framing.writeHeader(out, end, context, length);
      pool.copyOut(entry, out, end);
      end += length;
      this.#counters.datagramsOut++;
      this.#counters.bytesOut += framing.payloadLength(context, length);
      if (tap !== undefined) this.record(tap, undefined, flow, context, out, end - length, length);
      this.#dropHead(flow);
    }
    this.#filledBytes = end - at;
    return end;
  }

  /** Writes as many of a flow's entries as it has credit for. */
  #takeEntries(now: number, flow: number, out: Uint8Array, at: number): number {
    const pool = this.#pool;
    const { datapath, flowCredit } = pool;
    const oldest = now - this.#ageBudget;
    const end = datapath.takeEntries(pool.memory, oldest, pool.flowHead[flow], flowCredit[flow], out, at);
    const { results } = datapath;
    const next = results[0];
    const count = results[1];
    const bytes = results[2];
    const cost = bytes + count * ENTRY_COST;
    flowCredit[flow] -= bytes;
    pool.flowHead[flow] = next;
    pool.flowBytes[flow] -= cost;
    this.bytes -= cost;
    this.#counters.datagramsOut += count;
    this.#counters.bytesOut += bytes;
    if (next === NONE) this.#unlink(flow);
    return end;
  }

  /** Records the first datagram of a batch in histograms. @param waitedMs  in this program */
  noteBatch(waitedMs: number, length: number): void {
    const { queueDelayMs, datagramBytes } = this.#counters.histograms;
    queueDelayMs.add(this.lane, waitedMs);
    datagramBytes.add("out", length);
  }

  /** Measures the lane, which has accepted the last fill, as it is filled again. */
  #adaptQuantum(now: number): void {
    const taken = (this.#filledBytes / Math.max(now - this.#filledAt, 0.001)) * TURN_MS;
    this.#quantum = Math.min(MAX_QUANTUM_BYTES, Math.max(MIN_QUANTUM_BYTES, Math.floor(taken)));
    this.#filledAt = now;
  }

  dropFlow(flow: number, reason: DropReason): void {
    while (this.#pool.queueOf[flow] === this) {
      this.#counters.drops[reason]++;
      this.#recordHead(reason, flow);
      this.#dropHead(flow);
    }
  }

  /** Moves a flow here, behind the others, from the queue that holds it; what then exceeds the limit is dropped. */
  takeFlow(flow: number): void {
    const pool = this.#pool;
    const from = pool.queueOf[flow];
    if (from === undefined || from === this) return;
    from.giveFlow(flow);
    this.#link(flow);
    this.bytes += pool.flowBytes[flow];
    this.#dropUntil(this.#byteLimit);
  }

  giveFlow(flow: number): void {
    this.#unlink(flow);
    this.bytes -= this.#pool.flowBytes[flow];
  }

  /** Drops datagrams past the age budget in all flows. */
  expire(now: number): void {
    this.#expireAt = now + EXPIRY_MS;
    let left = this.#count();
    for (let flow = this.#turn; left > 0; left--) {
      const next = this.#pool.flowNext[flow];
      this.#dropStale(now, flow);
      flow = next;
    }
  }

  /** Drops the datagrams of contexts that have ended. Visits the whole queue. */
  dropContexts(reasonOf: ReasonToDrop): void {
    const pool = this.#pool;
    let left = this.#count();
    for (let flow = this.#turn; left > 0; left--) {
      const next = pool.flowNext[flow];
      this.dropContextsOf(flow, reasonOf);
      flow = next;
    }
  }

  dropContextsOf(flow: number, reasonOf: ReasonToDrop): void {
    const pool = this.#pool;
    let before = NONE;
    for (let entry = pool.flowHead[flow]; entry !== NONE; ) {
      const next = pool.entryNext[entry];
      const reason = reasonOf(pool.entryContext[entry]);
      if (reason === undefined) before = entry;
      else {
        this.#counters.drops[reason]++;
        this.#recordEntry(reason, flow, entry);
        if (before === NONE) this.#dropHead(flow);
        else {
          const cost = entryCost(pool.entryLength[entry]);
          pool.entryNext[before] = next;
          if (next === NONE) pool.flowTail[flow] = before;
          pool.flowBytes[flow] -= cost;
          this.bytes -= cost;
          pool.release(entry);
        }
      }
      entry = next;
    }
  }

  /** Shows a tap a datagram of a flow that waits here, or that bypasses the queue. */
  record(
    tap: DatagramTap,
    reason: TapReason | undefined,
    flow: number,
    context: number,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const payload = this.#framing.payloadLength(context, length);
    const at = offset + length - payload;
    recordQueued(tap, this.#pool.owner, reason, flow, context, data, at, payload);
  }

  /** The same for rows `first` to `end - 1`. */
  recordRows(
    tap: DatagramTap,
    reason: TapReason | undefined,
    flow: number,
    context: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
  ): void {
    for (let row = first; row < end; row++) {
      this.record(tap, reason, flow, context, received.data, received.offset(row), received.length(row));
    }
  }

  #recordHead(reason: TapReason, flow: number): void {
    this.#recordEntry(reason, flow, this.#pool.flowHead[flow]);
  }

  #recordEntry(reason: TapReason, flow: number, entry: number): void {
    const { tap } = this.#counters;
    if (tap === undefined) return;
    const length = this.#pool.entryLength[entry];
    const data = new Uint8Array(length);
    this.#pool.copyOut(entry, data, 0);
    this.record(tap, reason, flow, this.#pool.entryContext[entry], data, 0, length);
  }

  /** Hands over all datagrams, each flow in order. @param take  `time` is when the datagram was queued; `data` is borrowed */
  drainTo(
    take: (time: number, flow: number, context: number, data: Uint8Array, length: number) => void,
  ): void {
    const pool = this.#pool;
    while (this.#turn !== NONE) {
      const flow = this.#turn;
      const entry = pool.flowHead[flow];
      const length = pool.entryLength[entry];
      const data = new Uint8Array(length);
      pool.copyOut(entry, data, 0);
      take(pool.entryTime[entry], flow, pool.entryContext[entry], data, length);
      this.#dropHead(flow);
    }
  }

  /** Empties the queue, counting the datagrams as `no_lane`. */
  clear(): void {
    while (this.#turn !== NONE) this.dropFlow(this.#turn, "no_lane");
  }

  #count(): number {
    if (this.#turn === NONE) return 0;
    let count = 1;
    for (let flow = this.#pool.flowNext[this.#turn]; flow !== this.#turn; flow = this.#pool.flowNext[flow]) {
      count++;
    }
    return count;
  }

  #dropUntil(bytes: number): void {
    const { drops, tap } = this.#counters;
    while (this.bytes > bytes && this.#turn !== NONE) {
      const flow = this.#longestFlow();
      if (tap === undefined) {
        const more = this.#pool.flowBytes[flow] - this.#nextBytes + 1;
        const cost = Math.min(this.bytes - bytes, more);
        const dropped = this.#dropEntries(Number.NEGATIVE_INFINITY, flow, cost, this.#longestDrops + 1);
        this.#longestDrops -= dropped - 1;
        drops.queue_full += dropped;
        continue;
      }
      drops.queue_full++;
      this.#recordHead("queue_full", flow);
      this.#dropHead(flow);
    }
  }

  #dropStale(now: number, flow: number): void {
    const pool = this.#pool;
    const oldest = now - this.#ageBudget;
    while (pool.flowHead[flow] !== NONE && pool.entryTime[pool.flowHead[flow]] < oldest) {
      if (this.#counters.tap === undefined) {
        this.#counters.drops.age += this.#dropEntries(oldest, flow, 0, ALL_ENTRIES);
        return;
      }
      this.#counters.drops.age++;
      this.#recordHead("age", flow);
      this.#dropHead(flow);
    }
  }

  /** Drops entries from the head of a flow, see `Datapath.dropEntries`. @returns how many */
  #dropEntries(oldest: number, flow: number, cost: number, most: number): number {
    const pool = this.#pool;
    const { datapath } = pool;
    const dropped = datapath.dropEntries(pool.memory, oldest, pool.flowHead[flow], cost, most);
    const { results } = datapath;
    const next = results[0];
    const count = results[1];
    pool.flowHead[flow] = next;
    pool.flowBytes[flow] -= dropped;
    this.bytes -= dropped;
    if (next === NONE) this.#unlink(flow);
    return count;
  }

  #dropHead(flow: number): void {
    const pool = this.#pool;
    const entry = pool.flowHead[flow];
    const cost = entryCost(pool.entryLength[entry]);
    const next = pool.entryNext[entry];
    pool.flowHead[flow] = next;
    pool.flowBytes[flow] -= cost;
    this.bytes -= cost;
    pool.release(entry);
    if (next === NONE) this.#unlink(flow);
  }

  /** The flow with most bytes among the next few in turn, as of a few drops ago. */
  #longestFlow(): number {
    const pool = this.#pool;
    if (
      this.#longest !== NONE &&
      this.#longestDrops-- > 0 &&
      pool.flowBytes[this.#longest] >= this.#nextBytes
    ) {
      return this.#longest;
    }
    let longest = this.#turn;
    let next = 0;
    let flow = pool.flowNext[this.#turn];
    for (let i = 0; i < LONGEST_SEARCH && flow !== this.#turn; i++) {
      const bytes = pool.flowBytes[flow];
      const most = pool.flowBytes[longest];
      next = Math.max(next, Math.min(bytes, most));
      if (bytes > most) longest = flow;
      flow = pool.flowNext[flow];
    }
    this.#longest = longest;
    this.#longestDrops = LONGEST_DROPS;
    this.#nextBytes = next;
    return longest;
  }

  #link(flow: number): void {
    const { flowNext, flowPrevious, flowCredit, queueOf } = this.#pool;
    queueOf[flow] = this;
    flowCredit[flow] = this.#quantum;
    if (this.#turn === NONE) {
      flowNext[flow] = flow;
      flowPrevious[flow] = flow;
      this.#turn = flow;
      return;
    }
    const last = flowPrevious[this.#turn];
    flowNext[last] = flow;
    flowPrevious[flow] = last;
    flowNext[flow] = this.#turn;
    flowPrevious[this.#turn] = flow;
  }

  #unlink(flow: number): void {
    const { flowNext, flowPrevious, queueOf } = this.#pool;
    queueOf[flow] = undefined;
    if (flow === this.#longest) this.#longest = NONE;
    const next = flowNext[flow];
    if (next === flow) {
      this.#turn = NONE;
      return;
    }
    const previous = flowPrevious[flow];
    flowNext[previous] = next;
    flowPrevious[next] = previous;
    if (this.#turn === flow) this.#turn = next;
  }
}

function entryCost(length: number): number {
  return length + ENTRY_COST;
}
