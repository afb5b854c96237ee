import { describe, expect, it } from "vitest";
import { Counters } from "../../../../src/core/counters.ts";
import { DatagramStore } from "../../../../src/core/lanes/datagram-store.ts";
import { FlowTable } from "../../../../src/core/lanes/flow-table.ts";
import { ANY_LANE } from "../../../../src/core/lanes/lane-bits.ts";
import { LaneScheduler } from "../../../../src/core/lanes/scheduler.ts";
import { CapsuleReader, READ_CAPSULE } from "../../../../src/core/session/capsule-reader.ts";
import { CAPSULE_PARITY } from "../../../../src/wire/parity.ts";
import { CAPSULE_RECEIPT, readSequence, SEQUENCE_BYTES } from "../../../../src/wire/receipt.ts";
import { parityOf } from "./encode-parity.ts";

const LANES = 16;
const FLOW = 1;
const CONTEXT = 2;
const BYTES = 1_200;
const ONE_WAY_MS = 25;
/** A delay that only a stall causes. */
const LATE_MS = ONE_WAY_MS + 20;
const FIRST_STALL_MS = 1_000;
const SECOND_STALL_MS = 1_500;
const STALL_MS = 100;
const STALLED_LANE = 8;
const END_MS = SECOND_STALL_MS + 1_000;

function datagram(number: number, first: number): Uint8Array {
  const data = new Uint8Array(BYTES);
  data[0] = first;
  new DataView(data.buffer).setUint32(1, number);
  return data;
}

class End {
  readonly counters = new Counters();
  readonly store = new DatagramStore();
  readonly scheduler = new LaneScheduler({
    ...{ store: this.store, flows: new FlowTable(), counters: this.counters },
    ...{ queueBytes: 1_048_576, inFlightBytes: 16_777_216, ageBudgetMs: 100 },
  });
  /** When each number was delivered. */
  readonly delivered = new Map<number, number>();
  readonly order: number[] = [];
  /** Until when the bytes of a lane do not arrive. */
  readonly stalled = new Map<number, number>();
  readonly #out = new Uint8Array(131_072);
  readonly #coming: { at: number; lane: number; bytes: Uint8Array }[] = [];

  constructor(parityLimit: number) {
    for (let lane = 0; lane < LANES; lane++) {
      this.scheduler.laneUp(0, lane, 1_000 * lane);
      this.scheduler.noteParityLimit(lane, parityLimit);
    }
  }

  send(now: number, number: number): void {
    this.scheduler.push(now, FLOW, CONTEXT, ANY_LANE, datagram(number, 0), 0, BYTES);
  }

  /** Writes what is due; lanes that stall carry it later. */
  write(now: number, to: End): void {
    const dirty = this.scheduler.dispatch(now);
    for (let lane = 0; lane < LANES; lane++) {
      if ((dirty & (1 << lane)) === 0) continue;
      const bytes = this.#out.slice(0, this.scheduler.fill(now, lane, this.#out, 0));
      const at = Math.max(now + ONE_WAY_MS, this.stalled.get(lane) ?? 0);
      to.#coming.push({ at, lane, bytes });
    }
  }

  read(now: number): void {
    for (let i = 0; i < this.#coming.length; i++) {
      const { at, lane, bytes } = this.#coming[i];
      if (at > now) continue;
      this.#coming.splice(i--, 1);
      this.#readBytes(now, lane, bytes);
    }
    for (let id = this.scheduler.peekReleased(now); id >= 0; id = this.scheduler.peekReleased(now)) {
      const data = new Uint8Array(this.scheduler.releasedLength);
      this.scheduler.takeReleased(data, 0);
      this.deliver(now, id, data, 0);
    }
  }

  #readBytes(now: number, lane: number, bytes: Uint8Array): void {
    const reader = new CapsuleReader("receipts");
    for (let at = 0; reader.next(bytes, at, bytes.length) === READ_CAPSULE; at = reader.offset) {
      const { type, data, valueOffset, valueEnd } = reader;
      if (type === CAPSULE_RECEIPT) this.scheduler.handleReceipt(now, data, valueOffset, valueEnd);
      else if (type === CAPSULE_PARITY) {
        expect(this.scheduler.handleParity(now, lane, data, valueOffset, valueEnd)).toBe(true);
      } else {
        this.scheduler.noteFrame(now, lane);
        const payload = valueOffset + 1 + SEQUENCE_BYTES;
        const sequence = readSequence(data, valueOffset + 1);
        const length = valueEnd - payload;
        if (this.scheduler.accept(now, sequence, FLOW, CONTEXT, data, payload, length)) {
          this.deliver(now, CONTEXT, data, payload);
        }
      }
    }
  }

  deliver(now: number, context: number, data: Uint8Array, offset: number): void {
    expect(context).toBe(CONTEXT);
    const number = new DataView(data.buffer, data.byteOffset).getUint32(offset + 1);
    expect(this.delivered.has(number)).toBe(false);
    this.delivered.set(number, now);
    this.order.push(number);
  }
}

/**
 * Sends a datagram every 2 ms. Half of the lanes stall once, so that datagrams are spread over lanes from then on, and half a second later one
 * lane stalls.
 *
 * @returns how many of the later ones were delivered too late
 */
function lateAfterStall(parityLimit: number, endMs = END_MS): { late: number; one: End; other: End } {
  const [one, other] = [new End(parityLimit), new End(parityLimit)];
  const sentAt: number[] = [];
  for (let now = 0; now < endMs; now++) {
    if (now === FIRST_STALL_MS)
      for (let lane = 1; lane < LANES; lane += 2) one.stalled.set(lane, now + STALL_MS);
    if (now === SECOND_STALL_MS) one.stalled.set(STALLED_LANE, now + STALL_MS);
    if (now % 2 === 0 && now < SECOND_STALL_MS + 500) {
      one.send(now, sentAt.length);
      sentAt.push(now);
    }
    one.write(now, other);
    other.read(now);
    other.write(now, one);
    one.read(now);
  }
  if (endMs === END_MS) expect(other.delivered.size).toBe(sentAt.length);
  const late = sentAt.filter(
    (at, number) => at >= SECOND_STALL_MS && other.delivered.get(number)! > at + LATE_MS,
  ).length;
  return { late, one, other };
}

describe("parity between two ends", () => {
  it("restores all datagrams of a lane that stalls, if the other end accepts it", () => {
    const without = lateAfterStall(0);
    expect(without.late).toBeGreaterThan(1);
    expect(without.one.scheduler.stats.parities).toBe(0);
    const { late, one, other } = lateAfterStall(32);
    expect(late).toBe(0);
    expect(one.counters.spread.parities).toBeGreaterThan(0);
    expect(one.counters.spread.parities).toBeLessThan(other.delivered.size / 3);
    expect(other.counters.spread.restored).toBeGreaterThan(0);
    expect(other.scheduler.stats.restored).toBe(other.counters.spread.restored);
  });

  it("needs no timer once all lanes have ended, whenever they do", () => {
    for (let at = SECOND_STALL_MS - 20; at < SECOND_STALL_MS; at++) {
      const { one } = lateAfterStall(32, at);
      for (let lane = 0; lane < LANES; lane++) one.scheduler.laneDown(at, lane);
      one.scheduler.dispatch(at);
      expect(one.scheduler.nextTimeout(at)).toBe(Number.POSITIVE_INFINITY);
    }
  });

  it("counts parities as frames, so that receipts free all memory", () => {
    const { one, other } = lateAfterStall(32);
    expect([one.scheduler.isDrained, one.scheduler.storedBytes]).toEqual([true, 0]);
    // What is kept for parity ends 2 s after the last one.
    expect(other.scheduler.storedBytes).toBeGreaterThan(0);
    const at = other.scheduler.nextTimeout(END_MS);
    expect(at).toBeLessThanOrEqual(END_MS + 2_000);
    other.scheduler.dispatch(at);
    expect(other.scheduler.storedBytes).toBe(0);
  });
});

describe("a flow that needs order, with parity", () => {
  /** First bytes as good as random, as QUIC's. */
  const firstByte = (number: number) => 0x50 + ((number * 7) % 16);

  /** Numbers are arrivals, and lists are the parities of these groups. @returns the numbers that are delivered, in order */
  function delivered(events: readonly (number | readonly number[])[]): number[] {
    const end = new End(32);
    const handle = (now: number, event: number | readonly number[]) => {
      if (typeof event === "number") {
        const data = datagram(event, firstByte(event));
        if (end.scheduler.accept(now, event, FLOW, CONTEXT, data, 0, BYTES))
          end.deliver(now, CONTEXT, data, 0);
      } else {
        const group = event.map((sequence) => ({
          sequence,
          context: CONTEXT,
          payload: datagram(sequence, firstByte(sequence)),
        }));
        const value = parityOf(group);
        end.scheduler.handleParity(now, 0, value, 0, value.length);
      }
    };
    handle(0, [0]);
    for (let number = 0; number < 30; number++) handle(number, number);
    for (const event of events) handle(30, event);
    end.read(30);
    return end.order.slice(30);
  }

  it("is delivered in order when what it waits for is restored", () => {
    expect(delivered([31, 32, 33, 35, [30, 31, 32, 33]])).toEqual([30, 31, 32, 33]);
    expect(delivered([31, 32, 33, 35, [30, 31, 32, 33], [34, 35]])).toEqual([30, 31, 32, 33, 34, 35]);
  });

  it("is delivered in order when an arrival lets a parity restore what was sent before it", () => {
    expect(delivered([33, [30, 31, 32, 33], 32, 31])).toEqual([30, 31, 32, 33]);
  });

  it("is delivered in order when an arrival lets a parity restore what was sent after it", () => {
    expect(delivered([33, [30, 31, 32, 33], 31, 30])).toEqual([30, 31, 32, 33]);
  });
});
