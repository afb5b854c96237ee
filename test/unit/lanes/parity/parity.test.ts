import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { DatagramStore } from "../../../../src/core/lanes/datagram-store.ts";
import { ParityGroup } from "../../../../src/core/lanes/parity/parity-group.ts";
import { ParityReceiver } from "../../../../src/core/lanes/parity/parity-receiver.ts";
import { DuplicateWindow } from "../../../../src/core/lanes/receiving/duplicate-window.ts";
import { MAX_GROUP, MAX_PARITY_VALUE_BYTES, MAX_RECORD_PAYLOAD_BYTES } from "../../../../src/wire/parity.ts";
import { SEQUENCE_MODULUS, writeSequence } from "../../../../src/wire/receipt.ts";
import { seededIntegers } from "../../random.ts";
import type { Datagram } from "./encode-parity.ts";
import { parityOf } from "./encode-parity.ts";

const FLOW = 7;

class Receiver {
  readonly store = new DatagramStore();
  readonly window = new DuplicateWindow();
  readonly restored: Datagram[] = [];
  readonly parity = new ParityReceiver(
    this.store,
    this.window,
    (now, sequence, flow, context, data, offset, length) => {
      expect(flow).toBe(FLOW);
      const payload = data.slice(offset, offset + length);
      this.restored.push({ sequence, context, payload });
      this.arrive({ sequence, context, payload }, now);
    },
  );

  arrive({ sequence, context, payload }: Datagram, now = 0): void {
    if (this.window.accept(sequence))
      this.parity.noteArrival(now, sequence, FLOW, context, payload, 0, payload.length);
  }

  handle(value: Uint8Array, now = 0): boolean {
    return this.parity.handleParity(now, value, 0, value.length);
  }
}

/** A receiver that keeps what arrives, because it has had a parity, and that knows some contexts. */
function active(contexts: readonly number[], before = 1_000): Receiver {
  const receiver = new Receiver();
  receiver.handle(parityOf([{ sequence: before, context: 2, payload: new Uint8Array(1) }]));
  contexts.forEach((context, i) => {
    receiver.arrive({ sequence: before + 1 + i, context, payload: new Uint8Array(0) });
  });
  return receiver;
}

function datagrams(first: number, count: number, length = 1_200, context = 2): Datagram[] {
  const integer = seededIntegers(first + count);
  return Array.from({ length: count }, (_, i) => ({
    sequence: (first + i) % SEQUENCE_MODULUS,
    context,
    payload: Uint8Array.from({ length }, () => integer(256)),
  }));
}

describe("parity", () => {
  it("restores any one datagram of any group, with its context and length", () => {
    const group = fc.array(
      fc.record({
        context: fc.integer({ min: 1, max: 2 ** 30 - 1 }),
        payload: fc.uint8Array({ maxLength: 200 }),
      }),
      { minLength: 1, maxLength: MAX_GROUP },
    );
    fc.assert(
      fc.property(group, fc.nat(), fc.constantFrom(1_100, SEQUENCE_MODULUS - 3), (rows, choice, first) => {
        const all = rows.map((row, i) => ({ ...row, sequence: (first + i) % SEQUENCE_MODULUS }));
        const lost = choice % all.length;
        const receiver = active(
          rows.map(({ context }) => context),
          first - 50,
        );
        for (const [i, datagram] of all.entries()) if (i !== lost) receiver.arrive(datagram);
        expect(receiver.handle(parityOf(all))).toBe(true);
        expect(receiver.restored).toEqual([all[lost]]);
      }),
      { seed: 1, numRuns: 200 },
    );
  });

  it("restores the longest payload of a record, beside an empty one", () => {
    const all = [
      ...datagrams(1_100, 1, MAX_RECORD_PAYLOAD_BYTES),
      { sequence: 1_101, context: 2, payload: new Uint8Array(0) },
    ];
    for (const lost of [0, 1]) {
      const receiver = active([2]);
      receiver.arrive(all[1 - lost]);
      const value = parityOf(all);
      expect(value.length).toBe(MAX_PARITY_VALUE_BYTES);
      receiver.handle(value);
      expect(receiver.restored).toEqual([all[lost]]);
    }
  });

  it("waits while two datagrams are missing, and restores the second once the first has arrived", () => {
    const all = datagrams(1_100, 8);
    const receiver = active([2]);
    for (const i of [0, 1, 3, 4, 6, 7]) receiver.arrive(all[i]);
    receiver.handle(parityOf(all));
    expect(receiver.restored).toEqual([]);
    receiver.arrive(all[5]);
    expect(receiver.restored).toEqual([all[2]]);
    receiver.arrive(all[2]);
    expect(receiver.restored.length).toBe(1);
  });

  it("restores nothing if all have arrived, or of an unknown context", () => {
    const all = datagrams(1_100, 4);
    const complete = active([2]);
    for (const datagram of all) complete.arrive(datagram);
    complete.handle(parityOf(all));
    const unknown = active([2]);
    const other = { ...all[0], context: 4 };
    for (const datagram of all.slice(1)) unknown.arrive(datagram);
    unknown.handle(parityOf([other, ...all.slice(1)]));
    for (const { restored } of [complete, unknown]) expect(restored).toEqual([]);
  });

  it("restores nothing of a flow that has ended, whose number may be that of another", () => {
    const all = datagrams(1_100, 4);
    const receiver = active([2]);
    for (const datagram of all.slice(1)) receiver.arrive(datagram);
    receiver.parity.forget(FLOW);
    receiver.handle(parityOf(all));
    expect(receiver.restored).toEqual([]);
  });

  it("keeps what a group needs when a lane that ends its stall brings much older datagrams", () => {
    const all = datagrams(1_100, 4);
    const receiver = active([2]);
    for (const datagram of all.slice(1)) receiver.arrive(datagram);
    for (const datagram of datagrams(1_100 - 256, 4)) receiver.arrive(datagram);
    receiver.handle(parityOf(all));
    expect(receiver.restored).toEqual([all[0]]);
  });

  it("ends a group without a parity at a datagram that is too long for a record, or does not follow", () => {
    const store = new DatagramStore();
    const group = new ParityGroup(store);
    const add = (sequence: number, length: number) => {
      const entry = store.add(0, FLOW, 2, 0, new Uint8Array(length), 0, length);
      store.sequence[entry] = sequence;
      group.add(0, entry, 1);
      return group.count;
    };
    expect([add(5, 10), add(6, 10), add(7, MAX_RECORD_PAYLOAD_BYTES + 1), add(8, 10)]).toEqual([1, 2, 0, 1]);
    expect([add(9, 10), add(11, 10), add(12, 10)]).toEqual([2, 1, 2]);
  });

  it("refuses a parity that is too short or too long, or whose group is empty or too large", () => {
    const receiver = new Receiver();
    const value = parityOf(datagrams(1_100, 2, 10));
    for (let end = 0; end < 12; end++) expect(receiver.parity.handleParity(0, value, 0, end)).toBe(false);
    expect(receiver.parity.handleParity(0, value, 0, 12)).toBe(true);
    expect(receiver.handle(new Uint8Array(MAX_PARITY_VALUE_BYTES + 1).fill(1))).toBe(false);
    for (const count of [0, MAX_GROUP + 1, 255]) {
      value[3] = count;
      expect(receiver.handle(value)).toBe(false);
    }
  });

  it("keeps at most 256 datagrams, for 2 s after the last parity, and then releases them", () => {
    const receiver = new Receiver();
    receiver.handle(parityOf(datagrams(300, 4)), 1_000);
    for (const datagram of datagrams(400, 1_000)) receiver.arrive(datagram);
    expect(receiver.store.bytes).toBeLessThanOrEqual(256 * 1_200 + 16 * MAX_PARITY_VALUE_BYTES);
    expect(receiver.store.bytes).toBeGreaterThanOrEqual(256 * 1_200);
    expect(receiver.parity.expiresAt).toBe(3_000);
    receiver.parity.clear();
    expect(receiver.store.bytes).toBe(0);
  });

  it("neither throws, nor restores a number twice, nor keeps more than its bound, whatever a peer sends", () => {
    for (const seed of [1, 2, 3]) {
      const integer = seededIntegers(seed);
      const receiver = new Receiver();
      const seen = new Set<number>();
      for (let step = 0; step < 20_000; step++) {
        const sequence = (SEQUENCE_MODULUS - 300 + Math.floor(step / 20) + integer(40)) % SEQUENCE_MODULUS;
        const length = integer(9) === 0 ? integer(MAX_RECORD_PAYLOAD_BYTES + 10) : 10;
        const context = integer(9) === 0 ? 4 : 2;
        if (integer(4) > 0) receiver.arrive({ sequence, context, payload: new Uint8Array(length) }, step);
        else {
          const value = new Uint8Array(4 + integer(60));
          writeSequence(value, 0, sequence);
          value[3] = integer(MAX_GROUP + 2);
          // Often plausible: the contexts and lengths of an odd or even number of the others.
          for (let at = 4; at < 12; at++) value[at] = integer(20) === 0 ? integer(256) : 0;
          if (integer(2) === 0) value[7] = 2;
          if (integer(2) === 0) value[11] = 10;
          receiver.handle(value, step);
        }
      }
      for (const { sequence, payload } of receiver.restored) {
        expect(seen.has(sequence)).toBe(false);
        seen.add(sequence);
        expect(payload.length).toBeLessThanOrEqual(60);
      }
      expect(seen.size).toBeGreaterThan(10);
      expect(receiver.store.bytes).toBeLessThanOrEqual(272 * MAX_PARITY_VALUE_BYTES);
    }
  });
});
