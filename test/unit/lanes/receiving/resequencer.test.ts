import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DatagramStore } from "../../../../src/core/lanes/datagram-store.ts";
import { ArrivalHistory } from "../../../../src/core/lanes/receiving/arrival-history.ts";
import { DuplicateWindow, WINDOW } from "../../../../src/core/lanes/receiving/duplicate-window.ts";
import { Resequencer } from "../../../../src/core/lanes/receiving/resequencer.ts";
import { SEQUENCE_MODULUS } from "../../../../src/wire/receipt.ts";

const PATIENCE = 200;
const FLOW = 1;
const SIZE = 100;

class CountingWindow extends DuplicateWindow {
  looks = 0;

  override has(sequence: number): boolean {
    this.looks++;
    return super.has(sequence);
  }
}

class Receiver {
  readonly store = new DatagramStore();
  readonly delivered: number[] = [];
  readonly order: Resequencer;
  readonly window = new CountingWindow();
  readonly #arrivals = new ArrivalHistory();

  constructor(byteLimit = 1_000_000) {
    this.order = new Resequencer(this.store, this.window, this.#arrivals, byteLimit);
  }

  /** A datagram arrives, and the datagrams that it releases are delivered after it. */
  arrive(now: number, sequence: number, wantsOrder = true): void {
    if (!this.window.accept(sequence)) return;
    this.#arrivals.isStale(now, sequence, PATIENCE);
    if (!wantsOrder) {
      this.order.pass(now, sequence, PATIENCE);
      this.delivered.push(sequence);
    } else if (
      !this.order.hold(now, sequence, PATIENCE, FLOW, sequence, new Uint8Array(SIZE), 0, SIZE, false)
    ) {
      this.delivered.push(sequence);
    }
  }

  deliver(now: number): void {
    this.order.expire(now, PATIENCE);
    while (this.order.released >= 0) {
      const entry = this.order.takeReleased();
      this.delivered.push(this.store.context[entry]);
      this.store.release(entry);
    }
  }
}

describe("Resequencer", () => {
  it("looks at no more numbers than the window has, however far a peer's numbers jump", () => {
    const receiver = new Receiver();
    const jump = SEQUENCE_MODULUS / 2 - 10;
    let sequence = 0;
    for (let i = 0; i < 6; i++) {
      const before = receiver.window.looks;
      const now = i * 4 * PATIENCE;
      receiver.arrive(now, (sequence + 2) % SEQUENCE_MODULUS, i % 2 === 1);
      sequence = (sequence + jump) % SEQUENCE_MODULUS;
      receiver.arrive(now + 2 * PATIENCE, sequence);
      receiver.deliver(now + 2 * PATIENCE);
      receiver.deliver(now + 3 * PATIENCE + 1);
      expect(receiver.window.looks - before).toBeLessThan(2 * WINDOW);
    }
    expect(receiver.delivered.length).toBe(12);
  });

  it("restores order after any number of datagrams that need none", () => {
    const receiver = new Receiver();
    const step = 30_000;
    let now = 0;
    let sequence = 0;
    for (let passed = 0; passed < 3 * SEQUENCE_MODULUS; passed += step) {
      receiver.arrive(now++, sequence, false);
      if (passed % (300 * step) === 0) {
        receiver.delivered.length = 0;
        for (const ahead of [3, 1, 2]) receiver.arrive(now, (sequence + ahead) % SEQUENCE_MODULUS);
        receiver.deliver(now + PATIENCE + 1);
        expect(receiver.delivered).toEqual([1, 2, 3].map((ahead) => (sequence + ahead) % SEQUENCE_MODULUS));
      }
      now += 3 * PATIENCE;
      sequence = (sequence + step) % SEQUENCE_MODULUS;
    }
    expect(receiver.store.bytes).toBe(0);
  });

  it("releases what it holds, and restores order, when a peer's numbers jump half of the modulus at a time", () => {
    for (let jumps = 1; jumps <= 5; jumps++) {
      const receiver = new Receiver();
      receiver.arrive(0, 0);
      receiver.arrive(0, 2);
      let sequence = 2;
      for (let i = 0; i < jumps; i++) {
        sequence = (sequence + SEQUENCE_MODULUS / 2 - 1) % SEQUENCE_MODULUS;
        receiver.arrive(10 * (i + 1), sequence, false);
      }
      receiver.deliver(PATIENCE + 1);
      expect(receiver.store.bytes).toBe(0);
      expect(receiver.delivered).toContain(2);
      receiver.delivered.length = 0;
      const next = [2, 1, 3].map((ahead) => (sequence + ahead) % SEQUENCE_MODULUS);
      for (const number of next) receiver.arrive(3 * PATIENCE, number);
      receiver.deliver(4 * PATIENCE + 1);
      expect(receiver.delivered).toEqual([next[1], next[0], next[2]]);
    }
  });

  it("waits as long for a hole behind one that it gave up because a datagram was 8192 numbers ahead", () => {
    const receiver = new Receiver();
    receiver.arrive(0, 1);
    receiver.arrive(100, 3);
    receiver.arrive(150, 8_192);
    receiver.deliver(PATIENCE + 1);
    expect(receiver.delivered).toEqual([1]);
    receiver.arrive(PATIENCE + 2, 2);
    receiver.deliver(PATIENCE + 2);
    expect(receiver.delivered).toEqual([1, 2, 3]);
  });

  it("delivers datagrams in order at once, and holds nothing", () => {
    const receiver = new Receiver();
    for (let sequence = 0; sequence < 10; sequence++) receiver.arrive(sequence, sequence);
    expect(receiver.delivered).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(receiver.order.held).toBe(0);
    expect(receiver.order.dueAt).toBe(Number.POSITIVE_INFINITY);
  });

  it("delivers the arrivals of one turn in order if nothing is missing", () => {
    const permutation = fc.shuffledSubarray(
      Array.from({ length: 40 }, (_, i) => i),
      { minLength: 40 },
    );
    fc.assert(
      fc.property(permutation, fc.array(fc.boolean(), { minLength: 40, maxLength: 40 }), (numbers, ends) => {
        const receiver = new Receiver();
        numbers.forEach((sequence, i) => {
          receiver.arrive(i, sequence);
          if (ends[i]) receiver.deliver(i);
        });
        receiver.deliver(40);
        expect(receiver.delivered).toEqual([...numbers].sort((a, b) => a - b));
        expect(receiver.store.bytes).toBe(0);
      }),
    );
  });

  it("delivers every datagram once, in order except for abandoned numbers, whatever is missing, and holds none beyond its wait", () => {
    const arrivals = fc.array(
      fc.record({ step: fc.nat(60), sequence: fc.integer({ min: 0, max: 120 }), wantsOrder: fc.boolean() }),
      { maxLength: 150 },
    );
    fc.assert(
      fc.property(arrivals, (steps) => {
        const receiver = new Receiver(2_000);
        const came = new Set<number>();
        let now = 0;
        for (const { step, sequence, wantsOrder } of steps) {
          for (const end = now + step; now < end; now++) {
            if (now >= receiver.order.dueAt) receiver.deliver(now);
          }
          receiver.arrive(now, sequence, wantsOrder);
          came.add(sequence);
          receiver.deliver(now);
          expect(receiver.order.dueAt === Number.POSITIVE_INFINITY).toBe(receiver.store.bytes === 0);
        }
        for (const end = now + 2 * PATIENCE; now < end; now++) {
          if (now >= receiver.order.dueAt) receiver.deliver(now);
        }
        expect([...receiver.delivered].sort((a, b) => a - b)).toEqual([...came].sort((a, b) => a - b));
        expect(receiver.store.bytes).toBe(0);
      }),
    );
  });

  it("waits for a missing number of another flow, not of one that is not held", () => {
    const receiver = new Receiver();
    receiver.arrive(0, 0);
    receiver.arrive(1, 2);
    receiver.arrive(1, 3, false);
    receiver.deliver(1);
    expect(receiver.delivered).toEqual([0, 3]);
    receiver.arrive(5, 1, false);
    receiver.deliver(5);
    expect(receiver.delivered).toEqual([0, 3, 1, 2]);
  });

  it("abandons a number after its wait", () => {
    const receiver = new Receiver();
    receiver.arrive(0, 0);
    receiver.arrive(10, 2);
    expect(receiver.order.dueAt).toBe(10 + PATIENCE);
    receiver.deliver(9 + PATIENCE);
    expect(receiver.delivered).toEqual([0]);
    receiver.deliver(10 + PATIENCE);
    expect(receiver.delivered).toEqual([0, 2]);
    receiver.arrive(11 + PATIENCE, 3);
    expect(receiver.delivered).toEqual([0, 2, 3]);
  });

  it("does not wait twice for a missing number", () => {
    const receiver = new Receiver();
    receiver.arrive(0, 0, false);
    for (let now = 1; now < 1_000; now += 5) receiver.arrive(now, now + 5, false);
    receiver.delivered.length = 0;
    receiver.arrive(1_200, 1_100);
    receiver.arrive(1_201, 1_101);
    receiver.deliver(1_201 + PATIENCE);
    expect(receiver.delivered).toEqual([1_100, 1_101]);
  });

  it("continues when the numbers wrap around", () => {
    const receiver = new Receiver();
    const near = SEQUENCE_MODULUS - 3;
    receiver.arrive(0, SEQUENCE_MODULUS / 2 - 1, false);
    receiver.arrive(1, near, false);
    receiver.arrive(500, near + 1);
    receiver.deliver(1_000);
    receiver.delivered.length = 0;
    for (const sequence of [1, 0, near + 2, 2]) receiver.arrive(1_000, sequence);
    receiver.deliver(1_000);
    expect(receiver.delivered).toEqual([near + 2, 0, 1, 2]);
  });

  it("is bounded in bytes, and in numbers", () => {
    const receiver = new Receiver(10 * SIZE);
    for (let sequence = 1; sequence < 50; sequence++) receiver.arrive(sequence, sequence);
    expect(receiver.store.bytes).toBeLessThanOrEqual(10 * SIZE);
    const far = new Receiver();
    far.arrive(0, 1);
    far.arrive(0, 60_000);
    far.arrive(0, 5_000_000);
    far.deliver(0);
    expect(far.delivered).toEqual([1, 60_000]);
  });

  it("releases a flow", () => {
    const receiver = new Receiver();
    receiver.arrive(0, 1);
    receiver.arrive(0, 2);
    const dropped: number[] = [];
    const drop = (entry: number) => void dropped.push(receiver.store.flow[entry]);
    receiver.order.clear(FLOW + 1, drop);
    expect(receiver.store.bytes).toBe(2 * SIZE);
    receiver.order.clear(FLOW, drop);
    expect(dropped).toEqual([FLOW, FLOW]);
    expect(receiver.store.bytes).toBe(0);
    expect(receiver.order.dueAt).toBe(Number.POSITIVE_INFINITY);
  });
});
