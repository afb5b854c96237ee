import { describe, expect, it } from "vitest";
import { Counters } from "../../../src/core/counters.ts";
import { DatagramStore } from "../../../src/core/lanes/datagram-store.ts";
import { FlowTable } from "../../../src/core/lanes/flow-table.ts";
import { ANY_LANE } from "../../../src/core/lanes/lane-bits.ts";
import { LaneScheduler } from "../../../src/core/lanes/scheduler.ts";
import { CapsuleReader, READ_CAPSULE } from "../../../src/core/session/capsule-reader.ts";
import { CAPSULE_RECEIPT, readSequence } from "../../../src/wire/receipt.ts";

const BULK = 1;

function optionsOf({ counters, store }: { counters: Counters; store: DatagramStore }) {
  const flows = new FlowTable();
  return { store, flows, counters, queueBytes: 1_048_576, inFlightBytes: 1_048_576, ageBudgetMs: 20 };
}

function makeEnd(lanes: number, prepare = (_scheduler: LaneScheduler) => {}) {
  const counters = new Counters();
  const store = new DatagramStore();
  const scheduler = new LaneScheduler(optionsOf({ counters, store }));
  prepare(scheduler);
  for (let lane = 0; lane < lanes; lane++)
    scheduler.laneUp(0, lane, 65_530 + lane > 65_535 ? lane : 65_530 + lane);
  return { scheduler, counters, store };
}

function push(end: ReturnType<typeof makeEnd>, now: number, flow: number, count: number, allowed = ANY_LANE) {
  for (let i = 0; i < count; i++) end.scheduler.push(now, flow, 2, allowed, new Uint8Array(1200), 0, 1200);
}

/** The bytes that each lane writes now. */
function write(end: ReturnType<typeof makeEnd>, now: number): { lane: number; bytes: Uint8Array }[] {
  const out = new Uint8Array(131_072);
  const written: { lane: number; bytes: Uint8Array }[] = [];
  const dirty = end.scheduler.dispatch(now);
  for (let lane = 0; lane < 32; lane++) {
    if ((dirty & (1 << lane)) === 0) continue;
    written.push({ lane, bytes: out.slice(0, end.scheduler.fill(now, lane, out, 0)) });
  }
  return written;
}

function accept(end: ReturnType<typeof makeEnd>, now: number, sequence: number): boolean {
  return end.scheduler.accept(now, sequence, -1, 1, new Uint8Array(1), 0, 1);
}

/** The clock in the first receipt, in microseconds. */
function receiptClock(written: { bytes: Uint8Array }[]): number {
  for (const { bytes } of written) {
    const reader = new CapsuleReader("receipts");
    for (let at = 0; reader.next(bytes, at, bytes.length) === READ_CAPSULE; at = reader.offset) {
      const { data, type, valueOffset } = reader;
      if (type === CAPSULE_RECEIPT) return new DataView(data.buffer, data.byteOffset).getUint32(valueOffset);
    }
  }
  throw new Error("no receipt");
}

/** Handles the bytes of a lane. @returns the sequence numbers of the datagrams that are not copies */
function read(end: ReturnType<typeof makeEnd>, now: number, lane: number, bytes: Uint8Array): number[] {
  const reader = new CapsuleReader("receipts");
  const fresh: number[] = [];
  for (let at = 0; reader.next(bytes, at, bytes.length) === READ_CAPSULE; at = reader.offset) {
    const { data, valueOffset, valueEnd } = reader;
    if (reader.type === CAPSULE_RECEIPT) {
      expect(end.scheduler.handleReceipt(now, data, valueOffset, valueEnd)).toBe(true);
    } else {
      const sequence = readSequence(data, valueOffset + 1);
      end.scheduler.noteFrame(now, lane);
      if (end.scheduler.accept(now, sequence, -1, 1, data, valueOffset, 0)) fresh.push(sequence);
    }
  }
  return fresh;
}

/** Numbers of the datagrams in a lane's bytes. */
function sequencesOf(bytes: Uint8Array): number[] {
  const reader = new CapsuleReader("receipts");
  const numbers: number[] = [];
  for (let at = 0; reader.next(bytes, at, bytes.length) === READ_CAPSULE; at = reader.offset) {
    if (reader.type !== CAPSULE_RECEIPT) numbers.push(readSequence(reader.data, reader.valueOffset + 1));
  }
  return numbers;
}

describe("LaneScheduler", () => {
  it("keeps a bulk flow on one lane while no lane is late", () => {
    const end = makeEnd(8);
    push(end, 0, BULK, 12);
    write(end, 0);
    const used = new Set<number>();
    for (let now = 5; now < 20; now += 5) {
      push(end, now, BULK, 1);
      for (const { lane } of write(end, now)) used.add(lane);
    }
    expect(used.size).toBe(1);
  });

  it.each([2, 3, 4, 8, 16])(
    "keeps a sparse flow on two of %d lanes while none is late, also its bursts",
    (lanes) => {
      const [one, other] = [makeEnd(lanes), makeEnd(lanes)];
      for (const flow of [0, 1, 2]) {
        const used = new Set<number>();
        for (let now = 3_000 * flow; now < 3_000 * (flow + 1); now += 300) {
          for (let i = 0; i < 3; i++) one.scheduler.push(now, flow, 2, ANY_LANE, new Uint8Array(300), 0, 300);
          for (const { lane, bytes } of write(one, now)) {
            used.add(lane);
            read(other, now + 25, lane, bytes);
          }
          for (const { lane, bytes } of write(other, now + 27)) read(one, now + 52, lane, bytes);
        }
        expect(used.size).toBe(2);
      }
    },
  );

  it("sends a sparse datagram on two lanes, and delivers it once", () => {
    const [one, other] = [makeEnd(8), makeEnd(8)];
    push(one, 0, 0, 1);
    const written = write(one, 0);
    expect(written.length).toBe(2);
    const fresh = written.flatMap(({ lane, bytes }) => read(other, 25, lane, bytes));
    expect(fresh).toEqual([0]);
    expect(other.scheduler.stats.duplicates).toBe(1);
  });

  it("continues in another process with its numbers, and with a receipt clock that does not jump", () => {
    const [one, other] = [makeEnd(2), makeEnd(2)];
    push(one, 1_000_000, 0, 3);
    for (const { lane, bytes } of write(one, 1_000_000)) read(other, 2_000, lane, bytes);
    const before = receiptClock(write(other, 2_002));
    push(other, 2_003, 0, 1);
    expect(write(other, 2_003).flatMap(({ lane, bytes }) => read(one, 0, lane, bytes))).toEqual([0]);
    // The next process has another clock, and 400 ms have passed.
    const next = makeEnd(2, (scheduler) => scheduler.resume(5, other.scheduler.progress(2_010), 400));
    expect([...Array(3).keys()].map((number) => accept(next, 5, number))).toEqual([false, false, false]);
    for (const lane of [0, 1]) one.scheduler.laneUp(1_000_500, lane, 65_530 + lane);
    push(one, 1_000_500, 0, 3);
    const sent = write(one, 1_000_500);
    const fresh = sent.flatMap(({ lane, bytes }) => read(next, 6, lane, bytes));
    expect(fresh).toEqual([3, 4, 5]);
    expect(receiptClock(write(next, 8)) - before).toBe(1_000 * (8 + 400 + 3));
    push(next, 9, 0, 1);
    expect(write(next, 9).flatMap(({ lane, bytes }) => read(one, 0, lane, bytes))).toEqual([1]);
  });

  it("releases all memory once receipts have arrived", () => {
    const [one, other] = [makeEnd(4), makeEnd(4)];
    push(one, 0, 0, 3);
    for (const { lane, bytes } of write(one, 0)) read(other, 25, lane, bytes);
    expect(one.store.bytes).toBe(3600);
    for (const { lane, bytes } of write(other, other.scheduler.nextTimeout(25))) read(one, 51, lane, bytes);
    expect(one.store.bytes).toBe(0);
    expect(one.scheduler.stats.minRttMs).toBeCloseTo(50, 1);
  });

  it("sends once more only what a dead lane alone carried", () => {
    const end = makeEnd(4);
    push(end, 0, 0, 1);
    const [first, second] = write(end, 0);
    end.scheduler.laneDown(1, first.lane);
    expect(write(end, 1)).toEqual([]);
    end.scheduler.laneDown(2, second.lane);
    expect(end.scheduler.stats.hedges).toBeLessThanOrEqual(1);
    expect(end.scheduler.stats.lanesUp).toBe(2);
  });

  it("sends an overdue datagram a third time if its copy is held up too, but not a fourth time", () => {
    const [one, other] = [makeEnd(8), makeEnd(8)];
    /** Lanes that carry `stuck` have a hole from then on; datagrams on others arrive and are receipted. */
    const holes = new Set<number>();
    let stuck = -1;
    let times = 0;
    for (let now = 0; now < 1_200; now += 5) {
      push(one, now, BULK, 2);
      for (const { lane, bytes } of write(one, now)) {
        const numbers = sequencesOf(bytes);
        if (now >= 500 && stuck === -1) stuck = numbers[0];
        if (numbers.includes(stuck)) {
          holes.add(lane);
          times++;
        }
        if (!holes.has(lane)) read(other, now + 25, lane, bytes);
      }
      for (const { lane, bytes } of write(other, now + 27)) read(one, now + 52, lane, bytes);
    }
    expect(times).toBe(3);
  });

  it("sends datagrams that are put back in order over few lanes, and holds them at the other end until their turn", () => {
    const [one, other] = [makeEnd(16), makeEnd(16)];
    const quic = new Uint8Array(1200);
    /** The lower bits of its first byte are as good as random. */
    const protect = (i: number) => quic.fill(0x60 + ((i * 7) % 32), 0, 1);
    const used = new Map<number, Uint8Array[]>();
    for (let i = 0; i < 40; i++) {
      one.scheduler.push(i, BULK, 2, ANY_LANE, protect(i), 0, quic.length);
      for (const { lane, bytes } of write(one, i)) used.set(lane, [...(used.get(lane) ?? []), bytes]);
    }
    expect(used.size).toBeLessThanOrEqual(5);
    const accept = (now: number, sequence: number) =>
      other.scheduler.accept(now, sequence, BULK, 2, protect(sequence), 0, quic.length);
    for (let sequence = 0; sequence < 20; sequence++) expect(accept(50, sequence)).toBe(true);
    expect(accept(51, 21)).toBe(false);
    expect(other.scheduler.peekReleased(51)).toBe(-1);
    expect(other.scheduler.nextTimeout(51)).toBeLessThan(500);
    const held = quic.slice();
    expect(accept(52, 20)).toBe(true);
    expect(other.scheduler.peekReleased(52)).toBe(2);
    expect(other.scheduler.releasedLength).toBe(1200);
    const out = new Uint8Array(1300);
    other.scheduler.takeReleased(out, 100);
    expect(out.subarray(100)).toEqual(held);
    expect(other.scheduler.peekReleased(52)).toBe(-1);
    expect(other.store.bytes).toBe(0);
  });

  it("gives a datagram only to lanes that carried the registration of its context", () => {
    const end = makeEnd(8);
    push(end, 0, BULK, 20, 1 << 5);
    expect(write(end, 0).map(({ lane }) => lane)).toEqual([5]);
  });

  it("gives a lane's new connection nothing whose registration only the previous one carried", () => {
    const end = makeEnd(4);
    for (const lane of [0, 1]) end.scheduler.setBusy(lane, true);
    push(end, 0, BULK, 3, 0b11);
    end.scheduler.laneDown(1, 1);
    end.scheduler.laneUp(2, 1, 7);
    expect(write(end, 3)).toEqual([]);
    end.scheduler.setBusy(0, false);
    expect(write(end, 4).map(({ lane }) => lane)).toEqual([0]);
    // Datagrams of lane 0 must not use it either after that lane is lost.
    end.scheduler.laneDown(5, 0);
    expect(write(end, 6)).toEqual([]);
    expect(end.store.bytes).toBe(0);
  });

  it("sends the repetition of a receipt on another lane, also where one lane is express", () => {
    const [one, other] = [makeEnd(4), makeEnd(4)];
    push(one, 0, BULK, 12);
    for (const { lane, bytes } of write(one, 0)) read(other, 25, lane, bytes);
    const first = write(other, other.scheduler.nextTimeout(25)).map(({ lane }) => lane);
    const second = write(other, other.scheduler.nextTimeout(27)).map(({ lane }) => lane);
    expect(first.length).toBe(1);
    expect(second.length).toBe(1);
    expect(second).not.toEqual(first);
  });

  it("repeats its receipts when a lane is lost, so that no other lane counts as late forever", () => {
    const [one, other] = [makeEnd(4), makeEnd(4)];
    push(one, 0, BULK, 2);
    const used = write(one, 0);
    for (const { lane, bytes } of used) read(other, 25, lane, bytes);
    // Neither of the two receipts arrives.
    let now = other.scheduler.nextTimeout(25);
    for (let i = 0; i < 2; i++, now = other.scheduler.nextTimeout(now))
      expect(write(other, now).length).toBe(1);
    expect(now).toBe(Number.POSITIVE_INFINITY);
    const lost = [0, 1, 2, 3].find((lane) => used.every((one) => one.lane !== lane))!;
    other.scheduler.laneDown(100, lost);
    expect(one.store.bytes).toBeGreaterThan(0);
    for (const { lane, bytes } of write(other, other.scheduler.nextTimeout(100))) read(one, 130, lane, bytes);
    expect(one.store.bytes).toBe(0);
  });

  it("finds a lane for control capsules as long as one is up, busy or late", () => {
    const end = makeEnd(3);
    const { scheduler } = end;
    expect(scheduler.registrationLanes()).toBe(0b011);
    scheduler.setBusy(0, true);
    expect([scheduler.controlLane(), scheduler.registrationLanes()]).toEqual([1, 0b110]);
    for (const lane of [1, 2]) scheduler.setBusy(lane, true);
    expect([0, 1, 2]).toContain(scheduler.controlLane());
    expect(scheduler.registrationLanes()).toBe(1 << scheduler.controlLane());
    for (const lane of [0, 1, 2]) scheduler.setBusy(lane, false);
    // All lanes are late except the last, which has nothing.
    push(end, 0, BULK, 1, 0b001);
    push(end, 0, BULK + 1, 1, 0b010);
    write(end, 0);
    write(end, 5_000);
    expect(scheduler.stats.lanesLate).toBe(2);
    expect(scheduler.controlLane()).toBe(2);
    scheduler.laneDown(5_000, 2);
    expect(scheduler.stats.lanesLate).toBe(2);
    expect(scheduler.registrationLanes()).toBe(0b011);
    for (const lane of [0, 1]) scheduler.laneDown(5_000, lane);
    expect([scheduler.controlLane(), scheduler.registrationLanes()]).toEqual([-1, 0]);
    expect(new LaneScheduler(optionsOf(end)).registrationLanes()).toBe(0);
  });

  it.each(["close", "laneDown"] as const)(
    "keeps nothing, and has nothing to write, after %s with much pending",
    (how) => {
      const end = makeEnd(4);
      const { scheduler, store } = end;
      for (let flow = 0; flow < 5; flow++) push(end, 0, flow, 20);
      scheduler.dispatch(0);
      const [lane] = [0, 1, 2, 3].filter((one) => scheduler.hasOutput(one));
      scheduler.fill(0, lane, new Uint8Array(2_000), 0);
      if (how === "close") scheduler.close();
      else {
        for (let one = 0; one < 4; one++) scheduler.laneDown(1, one);
        scheduler.dropQueued();
      }
      expect(store.bytes).toBe(0);
      expect(scheduler.isDrained).toBe(true);
      expect(scheduler.dispatch(2)).toBe(0);
      for (let one = 0; one < 4; one++) {
        expect(scheduler.hasOutput(one)).toBe(false);
        expect(scheduler.fill(2, one, new Uint8Array(70_000), 5)).toBe(5);
      }
      expect(scheduler.nextTimeout(2)).toBe(Number.POSITIVE_INFINITY);
      const receipt = Uint8Array.of(0, 0, 0, 0, 0, 0xff, 0xff, 0);
      expect(scheduler.handleReceipt(3, receipt, 0, receipt.length)).toBe(true);
      expect(store.bytes).toBe(0);
    },
  );

  it("requests no timer while there is nothing to do, and none under a millisecond", () => {
    const end = makeEnd(4);
    expect(end.scheduler.nextTimeout(0)).toBe(Number.POSITIVE_INFINITY);
    push(end, 0, BULK, 200);
    write(end, 0);
    expect(end.scheduler.nextTimeout(0)).toBeGreaterThanOrEqual(1);
  });

  it("drops and counts datagrams that wait longer than their age", () => {
    const end = makeEnd(0);
    push(end, 0, BULK, 5);
    end.scheduler.expire(500);
    expect(end.counters.drops.age).toBe(5);
    expect(end.store.bytes).toBe(0);
  });

  it("survives impossible receipts", () => {
    const end = makeEnd(2);
    push(end, 0, BULK, 5);
    write(end, 0);
    const lie = Uint8Array.of(0, 0, 0, 0, 0, 0xff, 0xff, 0, 1, 0x40, 0, 0, 200, 0, 9, 0);
    expect(end.scheduler.handleReceipt(1, lie, 0, lie.length)).toBe(true);
    expect(end.scheduler.handleReceipt(1, lie, 0, 3)).toBe(false);
  });
});
