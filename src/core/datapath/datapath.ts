/**
 * The loops over datagrams and bytes that a host may bring compiled, where the engine only interprets: the C library does. What
 * they do is what {@link TYPESCRIPT_DATAPATH} does, byte for byte, which is also the fallback. Rows are those of
 * `ReceivedDatagrams`, and the arrays are as large as whoever calls says; all memory is borrowed until the call returns.
 */
export interface Datapath {
  /** What a call returns beside its result, until the next call. */
  readonly results: Int32Array;

  /** Copies `length` bytes; source and destination must not overlap. */
  copy(from: Uint8Array, fromOffset: number, length: number, to: Uint8Array, toOffset: number): void;

  /** Whether `length` bytes are the same. */
  areSame(a: Uint8Array, aOffset: number, b: Uint8Array, bOffset: number, length: number): boolean;

  /** The first of rows `first + 1` to `end - 1` whose integer in `column` differs from that of row `first`, or `end`. */
  endOfEqual(numbers: Int32Array, stride: number, column: number, first: number, end: number): number;

  /** The sum of a column of rows `first` to `end - 1`, which is less than 2^31. */
  sum(numbers: Int32Array, stride: number, column: number, first: number, end: number): number;

  /**
   * Writes rows as DATAGRAM capsules of a context (0 to 2^31 - 1) to `out[at]`, as many as fit. `results`: the row behind the last
   * one written, and bytes of their payloads.
   *
   * @returns the offset behind them
   */
  writeRows(
    rows: Int32Array,
    first: number,
    end: number,
    data: Uint8Array,
    context: number,
    out: Uint8Array,
    at: number,
  ): number;

  /**
   * Reads the DATAGRAM capsules at `chunk[offset]`, up to the first that is not whole, not valid, over MAX_DATAGRAM_BYTES, another
   * capsule, or one whose type is not in its shortest form: that one is the reader's to judge. Payloads go into `offsets` and
   * `lengths` from index `from` on, and consecutive ones of the same context are a run: `runs` gets its context, the index
   * behind it, and its bytes. `results`: the offset behind what was read.
   *
   * @returns number of runs
   */
  readRuns(
    chunk: Uint8Array,
    offset: number,
    end: number,
    offsets: Int32Array,
    lengths: Int32Array,
    from: number,
    runs: Int32Array,
  ): number;

  /**
   * Adds datagrams `first` to `end - 1` of a batch to the rows of `udpSend` of native I/O, from row `at` on. All of them are of one
   * socket, with one header, to one address.
   */
  addSendRows(
    rows: Int32Array,
    at: number,
    socket: number,
    headerOffset: number,
    headerLength: number,
    offsets: Int32Array,
    lengths: Int32Array,
    first: number,
    end: number,
    addressOffset: number,
    local: number,
  ): void;

  /**
   * Copies the payloads of rows into blocks, and links an entry for each behind `tail`, or not if it is -1. Ends when entries or
   * blocks have run out, or the bytes of a queue's limit. `results`: the row behind the last one taken, its first entry, its last
   * entry (both -1 for none).
   *
   * @param room  most bytes that the rows may cost
   * @returns what they cost, see `entryCost`
   */
  queueRows(
    memory: QueueMemory,
    now: number,
    context: number,
    rows: Int32Array,
    first: number,
    end: number,
    data: Uint8Array,
    tail: number,
    room: number,
  ): number;

  /**
   * Writes entries as DATAGRAM capsules to `out[at]` and releases them, from `head` on: as many as fit, as `credit` pays for, and
   * as are not older than `oldest`. `results`: the next entry, or -1; how many were written; bytes of their payloads.
   *
   * @returns the offset behind them
   */
  takeEntries(
    memory: QueueMemory,
    oldest: number,
    head: number,
    credit: number,
    out: Uint8Array,
    at: number,
  ): number;

  /**
   * Releases entries, at most `most`, from `head` on: those older than `oldest`, and others until all have cost `cost`, see
   * `entryCost`. `results`: the next entry, or -1; how many were released.
   *
   * @returns what they cost
   */
  dropEntries(memory: QueueMemory, oldest: number, head: number, cost: number, most: number): number;
}

/** Integers of a run. */
export const RUN_INTS = 3;

/** Bytes of a block; a full-sized datagram fits in one. */
export const BLOCK_BYTES = 2048;

/** What a queued datagram costs of a queue's limit: its payload and its bookkeeping. */
export const ENTRY_COST = 64;

/** Indices in `heads` of {@link QueueMemory}: first free block and entry, or -1; how many of each have ever been used. */
export const FREE_BLOCK = 0;
export const BLOCKS_USED = 1;
export const FREE_ENTRY = 2;
export const ENTRIES_USED = 3;

/** Memory of send queues: blocks for payloads, entries for datagrams. Where it has run out, there is a larger one. */
export type QueueMemory = readonly [
  blocks: Uint8Array,
  /** The next block of a datagram, or of the free ones; -1 for none. */
  blockNext: Int32Array,
  /** The next entry of a flow, or of the free ones; -1 for none. */
  entryNext: Int32Array,
  /** Its first block; -1 for none. */
  entryBlock: Int32Array,
  entryLength: Int32Array,
  entryContext: Int32Array,
  /** When it was queued. */
  entryTime: Float64Array,
  heads: Int32Array,
  /** Of the loops in TypeScript: what they last copied out of each block. */
  views?: (Uint8Array | undefined)[],
];
