import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Counters } from "../../../../src/core/counters.ts";
import { CapsuleReader, READ_CAPSULE } from "../../../../src/core/session/capsule-reader.ts";
import { SendPool } from "../../../../src/core/session/queue/send-pool.ts";
import { SendQueue } from "../../../../src/core/session/queue/send-queue.ts";

const BUDGET = 100;

function setUp(byteLimit = 1_048_576) {
  const counters = new Counters();
  const pool = new SendPool();
  const makeQueue = () => new SendQueue(pool, counters, byteLimit, BUDGET);
  return { counters, pool, makeQueue, queue: makeQueue() };
}

function push(queue: SendQueue, now: number, flow: number, payload: Uint8Array): void {
  queue.push(now, flow, flow + 1, payload, 0, payload.length);
}

const bytes = (...values: number[]) => Uint8Array.from(values);

/** [context, payload] of everything that the queue now returns. */
function drain(queue: SendQueue, now: number, size = 1_000_000): [number, number[]][] {
  const out = new Uint8Array(size);
  const end = queue.fill(now, out, 0);
  const reader = new CapsuleReader("bind");
  const datagrams: [number, number[]][] = [];
  for (let at = 0; reader.next(out, at, end) === READ_CAPSULE; at = reader.offset) {
    datagrams.push([
      reader.data[reader.valueOffset],
      [...reader.data.subarray(reader.valueOffset + 1, reader.valueEnd)],
    ]);
  }
  return datagrams;
}

describe("SendQueue", () => {
  it("returns every payload of a flow in order, 0 to 65,507 bytes", () => {
    const { queue } = setUp();
    const payloads = [0, 1, 255, 256, 257, 1200, 65_507].map((size) => new Uint8Array(size).fill(size));
    for (const payload of payloads) push(queue, 0, 0, payload);
    expect(drain(queue, 0).map(([, payload]) => payload)).toEqual(payloads.map((payload) => [...payload]));
    expect(queue.isEmpty).toBe(true);
    expect(queue.bytes).toBe(0);
  });

  it("returns payloads of other sizes from memory that it reuses, and from memory that has grown in between", () => {
    const { queue } = setUp();
    const sizes = [100, 100, 100, 99, 0, 2048, 2049];
    for (let round = 1; round <= 40; round++) {
      const payloads = Array.from({ length: 2 * round }, (_, i) =>
        new Uint8Array(sizes[(i + (round >> 2)) % sizes.length]).fill(3 * round + i),
      );
      for (const payload of payloads) push(queue, round, 0, payload);
      expect(drain(queue, round).map(([, payload]) => payload)).toEqual(payloads.map((p) => [...p]));
    }
  });

  it("drops datagrams that are older than the age budget of 100 ms", () => {
    const { queue, counters } = setUp();
    push(queue, 0, 0, bytes(1));
    push(queue, 50, 0, bytes(2));
    expect(drain(queue, 101)).toEqual([[1, [2]]]);
    expect(counters.drops.age).toBe(1);
  });

  it("drops the datagrams of contexts that have ended, wherever they are in their flow, and counts them", () => {
    const { queue, counters } = setUp();
    for (const [flow, contexts] of [
      [0, [1, 2, 1, 4, 1]],
      [1, [1, 1]],
      [2, [2, 4]],
    ] as const) {
      for (const context of contexts) queue.push(0, flow, context, bytes(flow, context), 0, 2);
    }
    queue.dropContexts((context) => (context % 2 === 1 ? "unknown_context" : undefined));
    expect(counters.drops.unknown_context).toBe(5);
    push(queue, 0, 0, bytes(9));
    push(queue, 0, 1, bytes(9));
    const left = drain(queue, 0).map(([context, payload]) => `${context}: ${payload.join(" ")}`);
    expect(left.sort()).toEqual(["1: 9", "2: 0 2", "2: 2 2", "2: 9", "4: 0 4", "4: 2 4"]);
    expect(queue.isEmpty).toBe(true);
    expect(queue.bytes).toBe(0);
  });

  it("keeps a datagram that is exactly 100 ms old", () => {
    const { queue } = setUp();
    push(queue, 0, 0, bytes(1));
    expect(drain(queue, 100)).toHaveLength(1);
  });

  it("drops from the head of the longest flow when the byte limit is exceeded", () => {
    const { queue, counters } = setUp(10_000);
    push(queue, 0, 1, bytes(9));
    for (let i = 0; i < 20; i++) push(queue, 0, 0, new Uint8Array(1000).fill(i));
    expect(queue.bytes).toBeLessThanOrEqual(10_000);
    const out = drain(queue, 0);
    expect(out.filter(([context]) => context === 2)).toHaveLength(1);
    expect(out.filter(([context]) => context === 1).map(([, payload]) => payload[0])).toEqual([
      11, 12, 13, 14, 15, 16, 17, 18, 19,
    ]);
    expect(counters.drops.queue_full).toBe(11);
  });

  it("serves a thin flow beside a flood within two turns", () => {
    const { queue } = setUp();
    for (let i = 0; i < 100; i++) push(queue, 0, 0, new Uint8Array(1200));
    push(queue, 0, 1, bytes(7));
    expect(drain(queue, 0).findIndex(([context]) => context === 2)).toBeLessThan(3);
  });

  it("shares bytes, not datagrams: flows of 64 and 1,200 bytes send equally much", () => {
    const { queue } = setUp();
    for (let i = 0; i < 400; i++) {
      push(queue, 0, 0, new Uint8Array(64));
      push(queue, 0, 1, new Uint8Array(1200));
    }
    const sent = [0, 0];
    for (const [context, payload] of drain(queue, 0, 20_000)) sent[context - 1] += payload.length;
    expect(Math.abs(sent[0] - sent[1])).toBeLessThan(3000);
  });

  it("gives longer turns on a fast lane, and short turns on a slow one", () => {
    const longestRun = (msBetweenBatches: number) => {
      const { queue } = setUp();
      for (let i = 0; i < 400; i++) push(queue, 0, i % 4, new Uint8Array(1200));
      const order: number[] = [];
      for (let now = 0; now < 3 * msBetweenBatches; now += msBetweenBatches) {
        order.push(...drain(queue, now, 65_536).map(([context]) => context));
      }
      let [longest, run] = [0, 0];
      for (const [i, context] of order.entries()) {
        run = context === order[i - 1] ? run + 1 : 1;
        longest = Math.max(longest, run);
      }
      return longest;
    };
    expect(longestRun(0.5)).toBeGreaterThan(8);
    expect(longestRun(30)).toBeLessThan(4);
  });

  it("moves a flow to another queue with its order and its byte count", () => {
    const { queue, makeQueue } = setUp();
    const other = makeQueue();
    for (let i = 0; i < 3; i++) push(queue, 0, 0, bytes(i));
    push(queue, 0, 1, bytes(9));
    other.takeFlow(0);
    expect(drain(other, 0)).toEqual([0, 1, 2].map((i) => [1, [i]]));
    expect(drain(queue, 0)).toEqual([[2, [9]]]);
  });

  it("stays within its bound when another queue's flows are moved to it again and again", () => {
    const { queue, makeQueue, counters } = setUp(20_000);
    const other = makeQueue();
    for (let flow = 0; flow < 50; flow++) {
      for (let i = 0; i < 5; i++) push(queue, 0, flow, new Uint8Array(1000));
      other.takeFlow(flow);
      expect(other.bytes).toBeLessThanOrEqual(20_000);
    }
    expect(queue.bytes).toBe(0);
    expect(drain(other, 0)).toHaveLength(250 - counters.drops.queue_full);
    expect(other.bytes).toBe(0);
  });

  it("keeps each flow in one queue and counts every loss under any operations on three queues", () => {
    const command = fc.record({
      kind: fc.constantFrom("push", "push", "fill", "expire", "take", "remove"),
      queue: fc.nat(2),
      flow: fc.nat(4),
      size: fc.nat(3000),
      wait: fc.nat(40),
    });
    fc.assert(
      fc.property(fc.array(command, { maxLength: 200 }), (commands) => {
        const { pool, counters, makeQueue } = setUp(20_000);
        const queues = [makeQueue(), makeQueue(), makeQueue()];
        let now = 0;
        let pushed = 0;
        const waiting = () => {
          const { age, queue_full, unknown_context } = counters.drops;
          return pushed - counters.datagramsOut - age - queue_full - unknown_context;
        };
        for (const { kind, queue: index, flow, size, wait } of commands) {
          now += wait;
          const queue = queues[index];
          if (kind === "push") {
            push(queue, now, flow, new Uint8Array(size));
            pushed++;
            expect(pool.queueOf[flow]).toBe(queue);
          } else if (kind === "fill") queue.fill(now, new Uint8Array(5000), 0);
          else if (kind === "expire") queue.expire(now);
          else if (kind === "take") queue.takeFlow(flow);
          else {
            pool.removeFlow(flow, "unknown_context");
            expect(pool.queueOf[flow]).toBeUndefined();
            for (const one of queues) drain(one, now);
            expect(waiting()).toBe(0);
          }
          for (const one of queues) expect(one.bytes).toBeLessThanOrEqual(20_000);
        }
        for (const one of queues) {
          drain(one, now);
          expect(one.isEmpty).toBe(true);
          expect(one.bytes).toBe(0);
        }
        expect(waiting()).toBe(0);
      }),
      { seed: 3, numRuns: 500 },
    );
  });
});
