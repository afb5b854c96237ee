import { describe, expect, it } from "vitest";
import { Counters } from "../../../src/core/counters.ts";
import { DatagramStore } from "../../../src/core/lanes/datagram-store.ts";
import { FlowTable } from "../../../src/core/lanes/flow-table.ts";
import { ANY_LANE, NO_LANE } from "../../../src/core/lanes/lane-bits.ts";
import { SessionQueue } from "../../../src/core/lanes/session-queue.ts";
import { SendPool } from "../../../src/core/session/queue/send-pool.ts";
import { SendQueue } from "../../../src/core/session/queue/send-queue.ts";

const BULK = 1;
const CALL = 2;

function makeQueue() {
  const counters = new Counters();
  const store = new DatagramStore();
  const queue = new SessionQueue(store, new FlowTable(), counters, 1_048_576, 1_000);
  queue.standingBudget = 20;
  queue.setServed(0, true);
  const push = (now: number, flow: number, count = 1, context = 2, allowed = ANY_LANE, size = 1_200) => {
    for (let i = 0; i < count; i++)
      queue.push(now, flow, context, allowed, new Uint8Array(size).fill(i), 0, size);
  };
  const take = (now: number) => {
    const entry = queue.peekBulk(now);
    if (entry < 0) return false;
    queue.take(now, entry);
    store.release(entry);
    return true;
  };
  return { queue, counters, store, push, take };
}

describe("SessionQueue", () => {
  it("lets a burst wait for the age budget, and a standing queue only for the standing budget", () => {
    const { queue, counters, push, take } = makeQueue();
    push(0, BULK, 400);
    queue.expire(100);
    expect(counters.drops.age).toBe(0);
    // It has not been short for more than a hundred milliseconds.
    queue.expire(101);
    expect(counters.drops.age).toBe(399);
    push(102, BULK, 40);
    expect(counters.drops.age).toBe(400);
    expect(take(103)).toBe(true);
    queue.expire(190);
    expect(counters.drops.age).toBe(400);
  });

  it("keeps the last datagram of a standing queue up to the age budget, because nothing waits behind it", () => {
    const { queue, counters, push, take } = makeQueue();
    push(0, BULK, 20);
    queue.expire(500);
    expect([counters.drops.age, queue.isEmpty]).toEqual([19, false]);
    queue.expire(1_000);
    expect(take(1_000)).toBe(true);
    push(1_000, BULK, 20);
    queue.expire(2_000);
    expect([counters.drops.age, queue.isEmpty]).toEqual([38, false]);
    queue.expire(2_001);
    expect([counters.drops.age, queue.isEmpty]).toEqual([39, true]);
  });

  it("drops the datagrams of contexts that have ended, wherever they are in their flow, and counts them", () => {
    const { queue, counters, store, push } = makeQueue();
    for (const context of [1, 2, 1, 4, 1]) push(0, BULK, 1, context);
    for (const context of [1, 1]) push(0, CALL, 1, context);
    const reasonOf = (context: number) => (context === 1 ? "context_limit" : undefined);
    for (const flow of [BULK, CALL, 1_000]) queue.dropContexts(flow, reasonOf);
    expect(counters.drops.context_limit).toBe(5);
    expect([BULK, CALL, 1_000].map((flow) => queue.holds(flow))).toEqual([true, false, false]);
    push(0, BULK, 1, 6);
    const left: number[] = [];
    queue.drainTo((_, flow, context) => left.push(flow, context));
    expect(left).toEqual([BULK, 2, BULK, 4, BULK, 6]);
    expect([queue.bytes, store.bytes, queue.isEmpty]).toEqual([0, 0, true]);
  });

  it("does not treat a queue as standing while less comes than the session may send", () => {
    const { queue, counters, push } = makeQueue();
    // 2,400 bytes/ms in the first 200 milliseconds.
    push(0, BULK, 400);
    queue.setRate(2_600);
    queue.expire(200);
    expect(counters.drops.age).toBe(0);
    queue.setRate(2_400);
    queue.expire(201);
    expect(counters.drops.age).toBe(399);
  });

  it("does not treat datagrams that wait for a lane to reconnect as standing", () => {
    const { queue, counters, push, take } = makeQueue();
    queue.setServed(0, false);
    push(0, BULK, 100);
    queue.expire(900);
    expect(counters.drops.age).toBe(0);
    queue.setServed(900, true);
    expect(take(950)).toBe(true);
    queue.expire(1_001);
    expect(counters.drops.age).toBe(99);
  });

  it("does not treat sparse datagrams alone as standing", () => {
    const { queue, counters, push } = makeQueue();
    push(0, CALL, 1, 2, ANY_LANE, 100);
    expect(queue.peekSparse(500)).toBeGreaterThanOrEqual(0);
    expect(counters.drops.age).toBe(0);
  });

  it("changes the lanes of only one context of a flow", () => {
    const { queue, store, push } = makeQueue();
    push(0, BULK, 3, 2, NO_LANE);
    push(0, BULK, 3, 4, NO_LANE);
    push(0, CALL, 3, 2, NO_LANE);
    queue.allow(BULK, 4, 0b101);
    queue.allow(99_999, 4, 0b101);
    const allowed = Array.from({ length: 9 }, (_, entry) => [
      store.flow[entry],
      store.context[entry],
      store.allowed[entry],
    ]);
    expect(allowed.filter(([, , lanes]) => lanes !== NO_LANE)).toEqual(Array(3).fill([BULK, 4, 0b101]));
  });

  it("removes a lane from all datagrams that are restricted to certain lanes", () => {
    const { queue, store, push } = makeQueue();
    push(0, BULK, 2, 2, 0b011);
    push(0, CALL, 2, 2, ANY_LANE);
    queue.forbid(0b010);
    expect([0, 1, 2, 3].map((entry) => store.allowed[entry])).toEqual([1, 1, ANY_LANE, ANY_LANE]);
  });

  it("hands over all waiting datagrams, each flow in order, and keeps no memory of them", () => {
    const { queue, store, push } = makeQueue();
    push(3, BULK, 40, 6);
    push(5, CALL, 3, 8, ANY_LANE, 100);
    const taken: number[][] = [];
    queue.drainTo((time, flow, context, data, length) => taken.push([time, flow, context, data[0], length]));
    const of = (flow: number) => taken.filter((row) => row[1] === flow);
    expect(of(BULK)).toEqual(Array.from({ length: 40 }, (_, i) => [3, BULK, 6, i, 1_200]));
    expect(of(CALL)).toEqual(Array.from({ length: 3 }, (_, i) => [5, CALL, 8, i, 100]));
    expect([store.bytes, queue.bytes, queue.isEmpty]).toEqual([0, 0, true]);
  });
});

describe("SendQueue", () => {
  it("hands over all waiting datagrams, each flow in order", () => {
    const queue = new SendQueue(new SendPool(), new Counters(), 1_048_576, 1_000);
    for (let i = 0; i < 30; i++)
      queue.push(i, i % 3, 2 + 2 * (i % 3), new Uint8Array(3_000).fill(i), 0, 3_000);
    const taken: number[][] = [];
    queue.drainTo((time, flow, context, data, length) =>
      taken.push([time, flow, context, data[2_999], length]),
    );
    for (const flow of [0, 1, 2]) {
      const expected = Array.from({ length: 10 }, (_, i) => [
        3 * i + flow,
        flow,
        2 + 2 * flow,
        3 * i + flow,
        3_000,
      ]);
      expect(taken.filter((row) => row[1] === flow)).toEqual(expected);
    }
    expect([queue.bytes, queue.isEmpty]).toEqual([0, true]);
  });
});
