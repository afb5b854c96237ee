/**
 * The loops over datagrams and bytes, which a host may provide in compiled form if its engine only interprets, as the C library does. They
 * do exactly what {@link TYPESCRIPT_DATAPATH}, the fallback, does. Rows are those of `ReceivedDatagrams`. Arrays have the sizes that the
 * caller states, and all memory is borrowed until the call returns.
 */
export interface Datapath {
  /** Further results of a call, valid until the next one. */
  readonly results: Int32Array;

  /** Copies `length` bytes; source and destination must not overlap. */
  copy(from: Uint8Array, fromOffset: number, length: number, to: Uint8Array, toOffset: number): void;

  /** Whether `length` bytes are equal. */
  areSame(a: Uint8Array, aOffset: number, b: Uint8Array, bOffset: number, length: number): boolean;

  /** The first of rows `first + 1` to `end - 1` whose integer in `column` differs from that of row `first`, or `end`. */
  endOfEqual(numbers: Int32Array, stride: number, column: number, first: number, end: number): number;

  /** The sum of a column of rows `first` to `end - 1`, which is less than 2^31. */
  sum(numbers: Int32Array, stride: number, column: number, first: number, end: number): number;

  /**
   * Writes rows as DATAGRAM capsules of a context (0 to 2^31 - 1) to `out[at]`, as many as fit. `results`: the first row that was not
   * written, and the bytes of the written payloads.
   *
   * @returns the end offset
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
   * Reads the DATAGRAM capsules at `chunk[offset]`, up to the first capsule that is incomplete, invalid, over MAX_DATAGRAM_BYTES, of another
   * type, or whose type is not in its shortest form, which is left to the reader. Payloads are entered in `offsets` and `lengths` from index
   * `from` on. Consecutive payloads of one context are a run, for which `runs` gets the context, the end index, and the bytes. `results`:
   * the end offset.
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
   * Adds datagrams `first` to `end - 1` of a batch to the rows for `udpSend` of native I/O, from row `at` on. All are for one socket, with
   * one header, to one address.
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
   * Copies the payloads of rows into blocks, and appends an entry for each after `tail`, unless that is -1. Stops when entries, blocks or
   * `room` run out. `results`: the first row that was not taken, and the first and the last new entry (both -1 for none).
   *
   * @param room  most bytes that the rows may cost
   * @returns their cost, see `entryCost`
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
   * Writes entries from `head` on as DATAGRAM capsules to `out[at]` and releases them, until the next one does not fit, exceeds `credit`, or
   * is older than `oldest`. `results`: the next entry, or -1; how many were written; bytes of their payloads.
   *
   * @returns the end offset
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
   * Releases up to `most` entries from `head` on: those older than `oldest`, and others until the sum of their costs (see `entryCost`)
   * reaches `cost`. `results`: the next entry, or -1; how many were released.
   *
   * @returns the sum of their costs
   */
  dropEntries(memory: QueueMemory, oldest: number, head: number, cost: number, most: number): number;
}

/** Integers of a run. */
export const RUN_INTS = 3;

/** Bytes of a block; a full-sized datagram fits in one. */
export const BLOCK_BYTES = 2048;

/** Bookkeeping of a queued datagram, which costs this and its payload of a queue's limit, in bytes. */
export const ENTRY_COST = 64;

/** Indices in `heads` of {@link QueueMemory}: first free block and entry, or -1; how many of each have ever been used. */
export const FREE_BLOCK = 0;
export const BLOCKS_USED = 1;
export const FREE_ENTRY = 2;
export const ENTRIES_USED = 3;

/** Memory of send queues: blocks for payloads, entries for datagrams. When it runs out, a larger one replaces it. */
export type QueueMemory = readonly [
  blocks: Uint8Array,
  /** The next block of the datagram or in the list of free blocks; -1 for none. */
  blockNext: Int32Array,
  /** The next entry of the flow or in the list of free entries; -1 for none. */
  entryNext: Int32Array,
  /** Its first block; -1 for none. */
  entryBlock: Int32Array,
  entryLength: Int32Array,
  entryContext: Int32Array,
  /** When it was queued. */
  entryTime: Float64Array,
  heads: Int32Array,
  /** Used by the loops in TypeScript: the view that last copied out of each block. */
  views?: (Uint8Array | undefined)[],
];
