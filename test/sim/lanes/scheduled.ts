import { Counters } from "../../../src/core/counters.ts";
import { DatagramStore } from "../../../src/core/lanes/datagram-store.ts";
import { FlowTable } from "../../../src/core/lanes/flow-table.ts";
import { ANY_LANE } from "../../../src/core/lanes/lane-bits.ts";
import { LaneScheduler } from "../../../src/core/lanes/scheduler.ts";
import { CapsuleReader, READ_CAPSULE } from "../../../src/core/session/capsule-reader.ts";
import { CAPSULE_DATAGRAM, readNumbers } from "../../../src/wire/capsule.ts";
import { CAPSULE_PARITY, MAX_GROUP } from "../../../src/wire/parity.ts";
import { CAPSULE_RECEIPT, readSequence, SEQUENCE_BYTES } from "../../../src/wire/receipt.ts";
import type { End, EndOptions } from "./end.ts";
import type { Wakeable } from "./event-loop.ts";

const BATCH_BYTES = 131_072;

/** One end of a session as a host drives it: a batch for each lane, lent while its connection does not take it. */
export class ScheduledLanes implements End, Wakeable {
  onDatagram: End["onDatagram"] = () => {};
  readonly scheduler: LaneScheduler;
  readonly counters = new Counters();
  readonly #options: EndOptions;
  readonly #lanes: HostLane[];
  readonly #numbers: number[] = [0];
  readonly #afterTurn: ((now: number) => void) | undefined;
  readonly #parityLimit: number;
  #armedFor = Number.POSITIVE_INFINITY;

  /**
   * @param first        how many lanes are up from the beginning; {@link raise} opens the others
   * @param afterTurn    called after each turn
   * @param parityLimit  what the other end accepts; 0 for an end that sends no parity
   */
  constructor(
    options: EndOptions,
    first = options.lanes.length,
    afterTurn?: (now: number) => void,
    parityLimit = MAX_GROUP,
  ) {
    this.#options = options;
    this.#parityLimit = parityLimit;
    this.#afterTurn = afterTurn;
    this.scheduler = new LaneScheduler({
      store: new DatagramStore(),
      flows: new FlowTable(),
      counters: this.counters,
      queueBytes: 1_048_576,
      inFlightBytes: 16_777_216,
      ageBudgetMs: options.age,
    });
    this.#lanes = options.lanes.map((tcp, index) => {
      tcp.events = {
        onRead: (now, chunk, length) => this.#read(now, index, chunk, length),
        onWritable: (now) => this.#written(now, index),
      };
      if (index < first) this.raise(0, index);
      return {
        tcp,
        batch: new Uint8Array(BATCH_BYTES),
        at: 0,
        end: 0,
        reader: new CapsuleReader("receipts"),
      };
    });
  }

  /** Opens a lane. */
  raise(now: number, index: number): void {
    this.scheduler.laneUp(now, index, index * 1000);
    this.scheduler.noteParityLimit(index, this.#parityLimit);
  }

  send(now: number, flow: number, data: Uint8Array): void {
    this.scheduler.push(now, flow, flow, ANY_LANE, data, 0, data.length);
    this.#turn(now);
  }

  describe(): string {
    const {
      held,
      lanesUp,
      mode,
      bitsPerSecond,
      minRttMs,
      standingMs,
      lanesLate,
      timesLate,
      frames,
      copies,
      hedges,
      parities,
      restored,
    } = this.scheduler.stats;
    return `${mode} r=${(bitsPerSecond / 1e6).toFixed(2)} dq=${standingMs.toFixed(1)} rtt=${minRttMs.toFixed(1)} late=${lanesLate}/${lanesUp} (${timesLate}) frames=${frames} copies=${copies} hedges=${hedges} parities=${parities} restored=${restored} aged=${this.counters.drops.age} held=${held}`;
  }

  wake(now: number): void {
    if (now < this.#armedFor) return;
    this.#armedFor = Number.POSITIVE_INFINITY;
    this.#turn(now);
  }

  #turn(now: number): void {
    for (let flow = this.scheduler.peekReleased(now); flow >= 0; flow = this.scheduler.peekReleased(now)) {
      const data = new Uint8Array(this.scheduler.releasedLength);
      this.scheduler.takeReleased(data, 0);
      this.onDatagram(now, flow, data, 0, data.length);
    }
    const dirty = this.scheduler.dispatch(now);
    for (let index = 0; index < this.#lanes.length; index++) {
      if ((dirty & (1 << index)) !== 0) this.#pump(now, index);
    }
    this.#afterTurn?.(now);
    // Host timers have a resolution of 1 ms.
    const next = this.scheduler.nextTimeout(now);
    if (next === Number.POSITIVE_INFINITY) return;
    const at = Math.max(next, now + 1);
    if (at >= this.#armedFor) return;
    this.#armedFor = at;
    this.#options.loop.at(at, this);
  }

  #pump(now: number, index: number): void {
    const lane = this.#lanes[index];
    if (lane.at < lane.end) return;
    lane.at = 0;
    lane.end = this.scheduler.fill(now, index, lane.batch, 0);
    this.#write(lane);
    this.scheduler.setBusy(index, lane.at < lane.end);
  }

  #write(lane: HostLane): void {
    if (lane.at < lane.end) lane.at += lane.tcp.write(lane.batch, lane.at, lane.end);
  }

  #written(now: number, index: number): void {
    const lane = this.#lanes[index];
    this.#write(lane);
    if (lane.at < lane.end) return;
    this.scheduler.setBusy(index, false);
    this.#turn(now);
  }

  #read(now: number, index: number, chunk: Uint8Array, length: number): void {
    const { reader } = this.#lanes[index];
    for (let at = 0; reader.next(chunk, at, length) === READ_CAPSULE; at = reader.offset) {
      const { data, valueOffset, valueEnd } = reader;
      if (reader.type === CAPSULE_RECEIPT) {
        if (!this.scheduler.handleReceipt(now, data, valueOffset, valueEnd)) throw new Error("malformed");
      } else if (reader.type === CAPSULE_PARITY) {
        if (!this.scheduler.handleParity(now, index, data, valueOffset, valueEnd))
          throw new Error("malformed");
      } else if (reader.type === CAPSULE_DATAGRAM) {
        const sequence = readNumbers(data, valueOffset, valueEnd, 1, this.#numbers);
        this.scheduler.noteFrame(now, index);
        const payload = sequence + SEQUENCE_BYTES;
        const [flow] = this.#numbers;
        const length = valueEnd - payload;
        if (this.scheduler.accept(now, readSequence(data, sequence), flow, flow, data, payload, length)) {
          this.onDatagram(now, flow, data, payload, length);
        }
      }
    }
    this.#turn(now);
  }
}

interface HostLane {
  readonly tcp: EndOptions["lanes"][number];
  readonly batch: Uint8Array;
  at: number;
  end: number;
  readonly reader: CapsuleReader;
}
