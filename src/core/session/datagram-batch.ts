import type { Datapath } from "../datapath/datapath.ts";
import { RUN_INTS } from "../datapath/datapath.ts";

/**
 * Datagrams from a stream, which the host sends on before it passes in more bytes. All payloads are in `data`, which is the chunk that was
 * passed in or the reader's own memory.
 */
export class DatagramBatch {
  data: Uint8Array = new Uint8Array(0);
  count = 0;
  readonly association: Int32Array;
  /** Slots in the context table, which has the remote addresses. */
  readonly context: Int32Array;
  readonly offset: Int32Array;
  readonly length: Int32Array;
  /** Memory for `Datapath.readRuns`. */
  readonly runs: Int32Array;

  constructor(capacity: number) {
    this.runs = new Int32Array(RUN_INTS * capacity);
    this.association = new Int32Array(capacity);
    this.context = new Int32Array(capacity);
    this.offset = new Int32Array(capacity);
    this.length = new Int32Array(capacity);
  }

  get isFull(): boolean {
    return this.count === this.offset.length;
  }

  /** The context of the last datagram, or -1. A context does not end while the batch has its datagrams. */
  get lastContext(): number {
    return this.count === 0 ? -1 : this.context[this.count - 1];
  }

  /** Index behind the datagrams of one context that begin at `first`. */
  endOfRun(datapath: Datapath, first: number): number {
    const { count } = this;
    return count - first === 1 ? count : datapath.endOfEqual(this.context, 1, 0, first, count);
  }

  add(association: number, context: number, offset: number, length: number): void {
    const index = this.count++;
    this.association[index] = association;
    this.context[index] = context;
    this.offset[index] = offset;
    this.length[index] = length;
  }

  /** Adds datagrams `first` to `end - 1`, whose offsets and lengths are set already. `first` is not below {@link count}. */
  addRun(association: number, context: number, first: number, end: number): void {
    const at = this.count;
    const count = end - first;
    if (first > at) {
      this.offset.copyWithin(at, first, end);
      this.length.copyWithin(at, first, end);
    }
    this.count = at + count;
    if (count === 1) {
      this.association[at] = association;
      this.context[at] = context;
    } else {
      this.association.fill(association, at, at + count);
      this.context.fill(context, at, at + count);
    }
  }
}
