import { describe, expect, it } from "vitest";
import { Counters } from "../../../src/core/counters.ts";
import { DatagramStore } from "../../../src/core/lanes/datagram-store.ts";
import { FlowTable } from "../../../src/core/lanes/flow-table.ts";
import { ANY_LANE } from "../../../src/core/lanes/lane-bits.ts";
import { LaneScheduler } from "../../../src/core/lanes/scheduler.ts";
import { MAX_GROUP, MAX_PARITY_VALUE_BYTES } from "../../../src/wire/parity.ts";
import {
  MAX_RECEIPT_BYTES,
  ReceiptWriter,
  SEQUENCE_BYTES,
  SEQUENCE_MODULUS,
  writeSequence,
} from "../../../src/wire/receipt.ts";
import { seededIntegers } from "../random.ts";

const LANES = 32;
const QUEUE_BYTES = 100_000;
const IN_FLIGHT_BYTES = 200_000;
/** Bytes of a datagram, and of its bookkeeping. */
const MOST = 1_500;
const OUT = new Uint8Array(131_072);
const RECEIPT_HEADER_BYTES = 6;

/** An end whose peer confirms frames that were never sent, from any lane, by any clock, and numbers its datagrams as it likes. */
class Attacked {
  readonly counters = new Counters();
  readonly store = new DatagramStore();
  readonly scheduler = new LaneScheduler({
    ...{ store: this.store, flows: new FlowTable(), counters: this.counters },
    ...{ queueBytes: QUEUE_BYTES, inFlightBytes: IN_FLIGHT_BYTES, ageBudgetMs: 100 },
  });
  #now = 0;
  #up = 0;
  readonly #integer: (below: number) => number;
  readonly #receipt = new Uint8Array(MAX_RECEIPT_BYTES);
  readonly #writer = new ReceiptWriter();

  constructor(seed: number) {
    this.#integer = seededIntegers(seed);
  }

  step(): void {
    const lane = this.#integer(LANES);
    switch (this.#integer(8)) {
      case 0:
        this.#now += [0, 1, 20, 1_000, 1e7][this.#integer(5)] * this.#integer(3);
        break;
      case 1:
        if ((this.#up & (1 << lane)) === 0) this.scheduler.laneUp(this.#now, lane, this.#integer(65_536));
        else if (this.#integer(4) === 0) this.scheduler.laneDown(this.#now, lane);
        else return;
        this.#up ^= 1 << lane;
        break;
      case 2:
      case 3:
        this.#push(this.#integer(40));
        break;
      case 4:
        this.#confirm();
        break;
      case 5:
        this.#receive(lane);
        break;
      case 6:
        this.scheduler.removeFlow(this.#integer(8), "unknown_context");
        break;
      default:
        this.scheduler.noteRoundTrip(this.#integer(10_000));
    }
    this.#turn();
  }

  #push(count: number): void {
    const flow = this.#integer(8);
    const length = this.#integer(MOST);
    for (let i = 0; i < count; i++) {
      this.scheduler.push(this.#now, flow, 2, ANY_LANE, new Uint8Array(MOST), 0, length);
    }
  }

  #confirm(): void {
    const bytes = this.#receipt;
    this.#writer.begin(bytes, 0, this.#integer(0xffff_ffff));
    for (let items = this.#integer(LANES); items > 0; items--) {
      const age = this.#integer(2) === 0 ? 0x3fff_ffff : this.#integer(1_000);
      this.#writer.add(this.#integer(256), this.#integer(65_536), age);
    }
    const end = this.#writer.end();
    const cut = this.#integer(10) === 0 ? this.#integer(end - RECEIPT_HEADER_BYTES) : 0;
    this.scheduler.handleReceipt(this.#now, bytes, RECEIPT_HEADER_BYTES, end - cut);
  }

  #receive(lane: number): void {
    if ((this.#up & (1 << lane)) === 0) return;
    const quic = new Uint8Array(MOST);
    const first = this.#integer(SEQUENCE_MODULUS);
    this.#handleParity(lane, first);
    let sequence = first;
    for (let left = this.#integer(30); left > 0; left--) {
      quic[0] = 0x40 | this.#integer(64);
      this.scheduler.noteFrame(this.#now, lane);
      this.scheduler.accept(this.#now, sequence, this.#integer(8), 2, quic, 0, MOST);
      sequence = (sequence + (this.#integer(8) === 0 ? this.#integer(4) : 1)) % SEQUENCE_MODULUS;
    }
    for (let left = this.#integer(10); left > 0; left--) {
      this.#handleParity(lane, (first + this.#integer(30)) % SEQUENCE_MODULUS);
    }
  }

  /** A parity that is plausible for an odd or even number of datagrams, or not even well-formed. */
  #handleParity(lane: number, first: number): void {
    const value = new Uint8Array(this.#integer(4) === 0 ? this.#integer(2_050) : 12 + MOST);
    writeSequence(value, 0, first);
    value[SEQUENCE_BYTES] = this.#integer(MAX_GROUP + 2);
    if (this.#integer(2) === 0) value[7] = 2;
    if (this.#integer(2) === 0) {
      value[10] = MOST >> 8;
      value[11] = MOST & 0xff;
    }
    this.scheduler.handleParity(this.#now, lane, value, 0, value.length);
  }

  #turn(): void {
    const { scheduler } = this;
    for (let left = 1_000; left > 0 && scheduler.peekReleased(this.#now) >= 0; left--) {
      scheduler.takeReleased(OUT, 0);
    }
    for (let rounds = 0; rounds < 3; rounds++) {
      const ready = scheduler.dispatch(this.#now);
      expect(ready & ~this.#up).toBe(0);
      for (let lane = 0; lane < LANES; lane++) {
        if ((ready & (1 << lane)) !== 0)
          expect(scheduler.fill(this.#now, lane, OUT, 0)).toBeLessThanOrEqual(OUT.length);
      }
    }
    expect(scheduler.nextTimeout(this.#now)).not.toBeNaN();
  }
}

describe("LaneScheduler", () => {
  it.each([1, 2, 3, 4])(
    "keeps its bounds and its state when receipts and numbers are made up (seed %i)",
    (seed) => {
      const attacked = new Attacked(seed);
      let most = 0;
      for (let i = 0; i < 3_000; i++) {
        attacked.step();
        most = Math.max(most, attacked.store.bytes);
      }
      expect(attacked.counters.datagramsOut).toBeGreaterThan(100);
      expect(attacked.counters.spread.restored).toBeGreaterThan(10);
      // What waits, what is on lanes, what is held for its order, and what is kept for parity.
      const kept = 272 * MAX_PARITY_VALUE_BYTES;
      expect(most).toBeLessThanOrEqual(2 * QUEUE_BYTES + IN_FLIGHT_BYTES + 100 * MOST + kept);
      attacked.scheduler.close();
      expect(attacked.store.bytes).toBe(0);
    },
  );

  it("keeps few datagrams, however small, for a peer that reads all lanes and confirms nothing", () => {
    const counters = new Counters();
    const store = new DatagramStore();
    const scheduler = new LaneScheduler({
      ...{ store, flows: new FlowTable(), counters },
      ...{ queueBytes: QUEUE_BYTES, inFlightBytes: IN_FLIGHT_BYTES, ageBudgetMs: 100 },
    });
    for (let lane = 0; lane < LANES; lane++) scheduler.laneUp(0, lane, lane);
    for (let now = 10; now < 20_000; now += 10) {
      // Each flow stays sparse, and its datagrams pass however late all lanes are.
      for (let flow = 0; flow < 8; flow++) scheduler.push(now, flow, 2, ANY_LANE, OUT, 0, 1);
      const ready = scheduler.dispatch(now);
      for (let lane = 0; lane < LANES; lane++) {
        if ((ready & (1 << lane)) !== 0) scheduler.fill(now, lane, OUT, 0);
      }
    }
    expect(counters.datagramsOut).toBeGreaterThan(100);
    // Each takes a block of memory, and the queue's age bounds those that wait.
    expect(store.bytes).toBeLessThan(IN_FLIGHT_BYTES / 256 + 200);
    expect(scheduler.stats.frames).toBeLessThan((3 * IN_FLIGHT_BYTES) / 256);
  });
});
