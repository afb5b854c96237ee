/**
 * Runs the compiled loops of the C library and those of TypeScript on equal memory, and compares their results and everything that they
 * wrote. scripts/fuzz/datapath.mjs runs it in the library's engine.
 */
import type { Datapath, QueueMemory } from "../../src/core/datapath/datapath.ts";
import { BLOCK_BYTES, ENTRY_COST, RUN_INTS } from "../../src/core/datapath/datapath.ts";
import { TYPESCRIPT_DATAPATH } from "../../src/core/datapath/typescript-datapath.ts";
import { ROW_INTS } from "../../src/core/session/received-datagrams.ts";
import { writeVarint } from "../../src/wire/varint.ts";

const SEND_ROW_INTS = 7;
const MAX_CONTEXT = 0x7fff_ffff;
/** Sizes at which something changes: lengths of varints, blocks, and limits of datagrams. */
const EDGES = [
  0, 1, 62, 63, 64, 65, 1199, 1200, 2047, 2048, 2049, 4096, 16_382, 16_383, 16_384, 65_507, 65_527,
];

type Bytes = Uint8Array | Int32Array | Float64Array;

/** xorshift32, because results must be the same everywhere. */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 1;
  }

  next(): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return this.#state >>> 0;
  }

  /** 0 to `end - 1`. */
  below(end: number): number {
    return this.next() % end;
  }

  isOneOf(count: number): boolean {
    return this.below(count) === 0;
  }

  pick<Item>(items: readonly Item[]): Item {
    return items[this.below(items.length)];
  }

  fill(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.next() >>> 11;
  }
}

export class Fuzz {
  readonly #compiled: Datapath;
  readonly #random: Random;
  readonly #seed: number;
  readonly #noise = new Uint8Array(70_000);
  rows = 0;
  cases = 0;

  constructor(compiled: Datapath, seed: number) {
    this.#compiled = compiled;
    this.#seed = seed;
    this.#random = new Random(seed);
    this.#random.fill(this.#noise);
  }

  /** Runs until this many rows were compared. @throws Error that names the seed and the case */
  run(rows: number): void {
    const loops = [
      () => this.#copies(),
      () => this.#columns(),
      () => this.#writtenRows(),
      () => this.#capsules(true),
      () => this.#capsules(false),
      () => this.#sendRows(),
      () => this.#queue(),
    ];
    while (this.rows < rows) {
      loops[this.cases % loops.length]();
      this.cases++;
    }
  }

  /** Makes the same call on both, each with its own arrays, and compares the first `count` results. */
  #compare<Arrays extends Bytes[]>(
    name: string,
    arrays: [...Arrays],
    results: number,
    call: (loops: Datapath, arrays: [...Arrays]) => unknown,
  ): void {
    const copies = arrays.map((array) => array.slice()) as [...Arrays];
    const expected = call(TYPESCRIPT_DATAPATH, arrays);
    const got = call(this.#compiled, copies);
    if (expected !== got) this.#fail(name, `returns ${String(got)} instead of ${String(expected)}`);
    for (let i = 0; i < results; i++) {
      const [one, other] = [TYPESCRIPT_DATAPATH.results[i], this.#compiled.results[i]];
      if (one !== other) this.#fail(name, `result ${i} is ${other} instead of ${one}`);
    }
    for (const [i, array] of arrays.entries()) this.#compareArray(`${name}, array ${i}`, array, copies[i]);
  }

  #compareArray(name: string, expected: Bytes, got: Bytes): void {
    const [a, b] = [bytesOf(expected), bytesOf(got)];
    if (this.#compiled.areSame(a, 0, b, 0, a.length)) return;
    const at = a.findIndex((byte, i) => byte !== b[i]);
    this.#fail(
      name,
      at < 0 ? "areSame sees a difference where there is none" : `byte ${at} is ${b[at]} instead of ${a[at]}`,
    );
  }

  #fail(name: string, what: string): never {
    throw new Error(`seed ${this.#seed}, case ${this.cases}: ${name} ${what}`);
  }

  #length(most: number): number {
    const random = this.#random;
    return Math.min(
      most,
      random.isOneOf(3)
        ? random.pick(EDGES) + random.below(3)
        : random.below(random.isOneOf(4) ? most + 1 : 200),
    );
  }

  #context(): number {
    const random = this.#random;
    if (random.isOneOf(8))
      return random.pick([0, 63, 64, 16_383, 16_384, 0x3fff_ffff, 0x4000_0000, MAX_CONTEXT]);
    return random.below(random.pick([4, 100, 20_000, MAX_CONTEXT]));
  }

  /** Rows of received datagrams whose payloads are in the noise. */
  #received(most: number, mostBytes: number): Int32Array {
    const random = this.#random;
    const count = 1 + random.below(most);
    const rows = new Int32Array(count * ROW_INTS);
    let address = 0;
    for (let row = 0; row < rows.length; row += ROW_INTS) {
      const length = this.#length(mostBytes);
      if (random.isOneOf(3)) address += 19;
      rows[row] = random.below(3);
      rows[row + 1] = random.below(this.#noise.length - length + 1);
      rows[row + 2] = length;
      rows[row + 3] = address;
      rows[row + 4] = 7;
      rows[row + 5] = random.below(2);
    }
    this.rows += count;
    return rows;
  }

  #copies(): void {
    const random = this.#random;
    const length = this.#length(3000);
    const from = random.below(this.#noise.length - length + 1);
    const out = new Uint8Array(length + random.below(100));
    const to = random.below(out.length - length + 1);
    this.#compare("copy", [out], 0, (loops, [bytes]) => loops.copy(this.#noise, from, length, bytes, to));
    if (length > 0 && random.isOneOf(2)) out[to + random.below(length)]++;
    this.#compare("areSame", [out], 0, (loops, [bytes]) =>
      loops.areSame(this.#noise, from, bytes, to, length),
    );
    this.rows++;
  }

  #columns(): void {
    const random = this.#random;
    const rows = this.#received(64, 65_507);
    const count = rows.length / ROW_INTS;
    const first = random.below(count);
    const end = first + 1 + random.below(count - first);
    const column = random.below(ROW_INTS);
    this.#compare("endOfEqual", [rows], 0, (loops, [all]) =>
      loops.endOfEqual(all, ROW_INTS, column, first, end),
    );
    this.#compare("endOfEqual", [rows], 0, (loops, [all]) => loops.endOfEqual(all, 1, 0, first, end));
    this.#compare("sum", [rows], 0, (loops, [all]) => loops.sum(all, ROW_INTS, 2, first, end));
  }

  #writtenRows(): void {
    const random = this.#random;
    const rows = this.#received(40, random.isOneOf(20) ? 65_507 : 1500);
    const count = rows.length / ROW_INTS;
    const first = random.below(count);
    const context = this.#context();
    const out = new Uint8Array(random.below(random.isOneOf(20) ? 262_144 : 40_000));
    const at = random.below(out.length + 1);
    this.#compare("writeRows", [rows, out], 2, (loops, [all, to]) =>
      loops.writeRows(all, first, count, this.#noise, context, to, at),
    );
  }

  /** A chunk of capsules, some of them broken, cut anywhere. */
  #capsules(isMostlyGood: boolean): void {
    const random = this.#random;
    const chunk = new Uint8Array(random.isOneOf(30) ? 200_000 : 6000);
    let end = 0;
    let context = this.#context();
    while (end < chunk.length - 100) {
      if (random.isOneOf(4)) context = this.#context();
      end = this.#writeCapsule(chunk, end, context, isMostlyGood ? random.isOneOf(60) : random.isOneOf(4));
      this.rows++;
    }
    if (!isMostlyGood) for (let i = random.below(4); i > 0; i--) chunk[random.below(end)] = random.next();
    const stop = random.isOneOf(2) ? end : random.below(end + 1);
    const start = random.isOneOf(3) ? random.below(stop + 1) : 0;
    const capacity = 1 + random.below(random.isOneOf(4) ? 8 : 256);
    const from = random.below(capacity + 1);
    const runs = new Int32Array(RUN_INTS * (random.isOneOf(4) ? random.below(4) : capacity));
    this.#compare(
      "readRuns",
      [chunk, new Int32Array(capacity), new Int32Array(capacity), runs],
      1,
      (loops, [bytes, offsets, lengths, into]) =>
        loops.readRuns(bytes, start, stop, offsets, lengths, from, into),
    );
  }

  /** @returns its end offset */
  #writeCapsule(chunk: Uint8Array, offset: number, context: number, isBroken: boolean): number {
    const random = this.#random;
    const kind = isBroken ? random.below(7) : -1;
    let at = offset;
    if (kind === 0) at = writeVarint(chunk, at, random.pick([0x11, 0x12, 0x13, 0x55_5000, 0x37]));
    else if (kind === 1) {
      // The type of a datagram, in two bytes.
      chunk[at++] = 0x40;
      chunk[at++] = 0;
    } else chunk[at++] = 0;
    const head = new Uint8Array(8);
    let idBytes = 0;
    if (kind === 2) {
      // Longer than necessary, and with random contents.
      head[0] = random.pick([0x40, 0x80, 0xc0]);
      idBytes = 1 << (head[0] >> 6);
      for (let i = 1; i < idBytes; i++) head[i] = random.isOneOf(2) ? 0 : random.next();
    } else idBytes = writeVarint(head, 0, context);
    const payload = Math.min(this.#length(kind === 3 ? 65_530 : 1500), Math.max(0, chunk.length - at - 20));
    let length = idBytes + payload;
    if (kind === 4) length = random.below(length + 1);
    if (kind === 5) length += random.below(70_000);
    if (kind === 6) {
      chunk[at++] = 0xc0 | random.below(64);
      for (let i = 0; i < 7; i++) chunk[at++] = random.isOneOf(3) ? random.next() : 0;
    } else at = writeVarint(chunk, at, length);
    chunk.set(head.subarray(0, idBytes), at);
    return at + idBytes + payload;
  }

  #sendRows(): void {
    const random = this.#random;
    const count = 1 + random.below(60);
    const offsets = new Int32Array(count).map(() => random.below(65_536));
    const lengths = new Int32Array(count).map(() => random.below(1500));
    const first = random.below(count);
    const end = first + random.below(count - first + 1);
    const at = random.below(5);
    const rows = new Int32Array((at + count) * SEND_ROW_INTS);
    const numbers = [
      random.below(99),
      random.below(999),
      random.below(22),
      random.below(9999),
      random.below(255),
    ];
    const [socket, headerOffset, headerLength, addressOffset, local] = numbers;
    this.#compare("addSendRows", [rows, offsets, lengths], 0, (loops, [into, of, long]) =>
      loops.addSendRows(
        into,
        at,
        socket,
        headerOffset,
        headerLength,
        of,
        long,
        first,
        end,
        addressOffset,
        local,
      ),
    );
    this.rows += count;
  }

  /** A queue with a few flows, to which rows are added, and from which they are taken, until something runs out. */
  #queue(): void {
    const random = this.#random;
    const [blocks, entries] = [1 + random.below(40), 1 + random.below(60)];
    const memory: QueueMemory = [
      new Uint8Array(blocks * BLOCK_BYTES),
      new Int32Array(blocks),
      new Int32Array(entries),
      new Int32Array(entries),
      new Int32Array(entries),
      new Int32Array(entries),
      new Float64Array(entries),
      Int32Array.of(-1, 0, -1, 0),
    ];
    const copy = arraysOf(memory).map((array) => array.slice()) as unknown as QueueMemory;
    const flows = Array.from({ length: 3 }, () => ({ head: -1, tail: -1 }));
    for (let step = 2 + random.below(20); step > 0; step--) {
      const flow = random.pick(flows);
      const now = 1000 - step + random.below(2) / 3;
      if (random.isOneOf(2)) {
        const rows = this.#received(20, random.isOneOf(10) ? 65_507 : 3000);
        const count = rows.length / ROW_INTS;
        const context = this.#context();
        const room = random.isOneOf(4) ? random.below(20 * (1500 + ENTRY_COST)) : 1_048_576;
        const tail = flow.head === -1 ? -1 : flow.tail;
        this.#compareIn("queueRows", memory, copy, [rows], 3, (loops, queue, [all]) =>
          loops.queueRows(queue, now, context, all, 0, count, this.#noise, tail, room),
        );
        const [, head, last] = TYPESCRIPT_DATAPATH.results;
        if (head === -1) continue;
        if (flow.head === -1) flow.head = head;
        flow.tail = last;
      } else if (random.isOneOf(4)) {
        const oldest = random.isOneOf(2) ? now - random.below(10) : Number.NEGATIVE_INFINITY;
        const cost = random.isOneOf(2) ? 0 : random.below(20 * (1500 + ENTRY_COST));
        const most = random.isOneOf(3) ? random.below(8) : 0x7fff_ffff;
        this.#compareIn("dropEntries", memory, copy, [], 2, (loops, queue) =>
          loops.dropEntries(queue, oldest, flow.head, cost, most),
        );
        flow.head = TYPESCRIPT_DATAPATH.results[0];
      } else {
        const out = new Uint8Array(random.below(random.isOneOf(10) ? 262_144 : 20_000));
        const at = random.below(Math.min(out.length + 1, 300));
        const oldest = random.isOneOf(4) ? now - random.below(10) : 0;
        const credit = random.isOneOf(3) ? random.below(5000) : 1_000_000;
        this.#compareIn("takeEntries", memory, copy, [out], 3, (loops, queue, [to]) =>
          loops.takeEntries(queue, oldest, flow.head, credit, to, at),
        );
        flow.head = TYPESCRIPT_DATAPATH.results[0];
      }
    }
  }

  /** Like {@link #compare}, with memory that persists. */
  #compareIn<Arrays extends Bytes[]>(
    name: string,
    memory: QueueMemory,
    copy: QueueMemory,
    arrays: [...Arrays],
    results: number,
    call: (loops: Datapath, queue: QueueMemory, arrays: [...Arrays]) => unknown,
  ): void {
    this.#compare(name, arrays, results, (loops, own) =>
      call(loops, loops === TYPESCRIPT_DATAPATH ? memory : copy, own),
    );
    const copies = arraysOf(copy);
    for (const [i, array] of arraysOf(memory).entries()) {
      this.#compareArray(`${name}, memory ${i}`, array, copies[i]);
    }
  }
}

/** Without the views, which only TypeScript has, and which are not used here. */
function arraysOf(memory: QueueMemory): Bytes[] {
  const [blocks, blockNext, entryNext, entryBlock, entryLength, entryContext, entryTime, heads] = memory;
  return [blocks, blockNext, entryNext, entryBlock, entryLength, entryContext, entryTime, heads];
}

function bytesOf(array: Bytes): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
