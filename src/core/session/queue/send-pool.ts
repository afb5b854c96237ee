import { copyBytes, LOOP_BYTES } from "../../copy-bytes.ts";
import type { DropReason } from "../../counters.ts";
import type { Datapath, QueueMemory } from "../../datapath/datapath.ts";
import { BLOCK_BYTES, BLOCKS_USED, ENTRIES_USED, FREE_BLOCK, FREE_ENTRY } from "../../datapath/datapath.ts";
import { TYPESCRIPT_DATAPATH } from "../../datapath/typescript-datapath.ts";
import { grown } from "../../grown.ts";
import type { QueueOwner } from "../../tap.ts";
import type { ReasonToDrop, WaitingFlows } from "./ended-contexts.ts";

const NONE = -1;

/** A queue, for the pool that records where flows wait. */
export interface FlowHolder {
  /** Drops all datagrams of a flow that waits here. */
  dropFlow(flow: number, reason: DropReason): void;
  /** Lets a flow that waits here move to another queue, with its datagrams. */
  giveFlow(flow: number): void;
  /** Drops the datagrams of a flow that waits here whose contexts have ended. */
  dropContextsOf(flow: number, reasonOf: ReasonToDrop): void;
}

/**
 * Memory of all send queues of an endpoint: blocks for payloads, entries for datagrams, and the list heads of each
 * flow (an association, by its slot). Only the pool records where a flow waits, so no two queues can hold it. It doubles its
 * memory up to what the queues' byte limits require, and then reuses it.
 */
export class SendPool implements WaitingFlows {
  /** The queue that each flow waits in; undefined while it has nothing queued. */
  readonly queueOf: (FlowHolder | undefined)[] = [];
  /** Whose datagrams these are, for a tap. */
  owner: QueueOwner | undefined;

  blocks = new Uint8Array(8 * BLOCK_BYTES);
  blockNext = new Int32Array(8);
  /** The view by which each block was copied out last, as another payload of that size often follows. */
  #views = new Array<Uint8Array | undefined>(8);

  entryNext = new Int32Array(64);
  entryBlock = new Int32Array(64);
  entryLength = new Int32Array(64);
  entryContext = new Int32Array(64);
  entryTime = new Float64Array(64);
  readonly #heads = Int32Array.of(NONE, 0, NONE, 0);
  #memory: QueueMemory | undefined;

  flowHead = new Int32Array(0);
  flowTail = new Int32Array(0);
  flowBytes = new Int32Array(0);
  flowCredit = new Int32Array(0);
  /** Neighbours in the ring of flows that wait in the same queue. */
  flowNext = new Int32Array(0);
  flowPrevious = new Int32Array(0);

  /** The loops over many datagrams. */
  readonly datapath: Datapath;

  constructor(datapath: Datapath = TYPESCRIPT_DATAPATH) {
    this.datapath = datapath;
  }

  /** Its arrays, as a {@link Datapath} gets them. */
  get memory(): QueueMemory {
    this.#memory ??= [
      this.blocks,
      this.blockNext,
      this.entryNext,
      this.entryBlock,
      this.entryLength,
      this.entryContext,
      this.entryTime,
      this.#heads,
      this.#views,
    ];
    return this.#memory;
  }

  /** Drops all datagrams of a flow that ends, whichever queue they wait in. */
  removeFlow(flow: number, reason: DropReason): void {
    this.queueOf[flow]?.dropFlow(flow, reason);
  }

  holds(flow: number): boolean {
    return this.queueOf[flow] !== undefined;
  }

  dropContexts(flow: number, reasonOf: ReasonToDrop): void {
    this.queueOf[flow]?.dropContextsOf(flow, reasonOf);
  }

  reserveFlow(flow: number): void {
    if (flow < this.flowHead.length) return;
    const size = Math.max(64, 2 ** Math.ceil(Math.log2(flow + 1)));
    const before = this.flowHead.length;
    this.flowHead = grown(this.flowHead, new Int32Array(size)).fill(NONE, before);
    this.flowTail = grown(this.flowTail, new Int32Array(size));
    this.flowBytes = grown(this.flowBytes, new Int32Array(size));
    this.flowCredit = grown(this.flowCredit, new Int32Array(size));
    this.flowNext = grown(this.flowNext, new Int32Array(size));
    this.flowPrevious = grown(this.flowPrevious, new Int32Array(size));
  }

  /** Copies a payload into blocks and adds an entry for it. */
  allocate(now: number, context: number, data: Uint8Array, offset: number, length: number): number {
    const entry = this.#takeEntry();
    let first = NONE;
    let last = NONE;
    for (let at = 0; at < length; at += BLOCK_BYTES) {
      const block = this.#takeBlock();
      const size = Math.min(BLOCK_BYTES, length - at);
      copyBytes(data, offset + at, size, this.blocks, block * BLOCK_BYTES);
      if (first === NONE) first = block;
      else this.blockNext[last] = block;
      this.blockNext[block] = NONE;
      last = block;
    }
    this.entryBlock[entry] = first;
    this.entryLength[entry] = length;
    this.entryContext[entry] = context;
    this.entryTime[entry] = now;
    this.entryNext[entry] = NONE;
    return entry;
  }

  /** Copies the payload of an entry to `out[at]`. */
  copyOut(entry: number, out: Uint8Array, at: number): void {
    let to = at;
    let left = this.entryLength[entry];
    for (let block = this.entryBlock[entry]; block !== NONE; block = this.blockNext[block]) {
      const size = Math.min(BLOCK_BYTES, left);
      if (size < LOOP_BYTES) copyBytes(this.blocks, block * BLOCK_BYTES, size, out, to);
      else out.set(this.#payload(block, size), to);
      to += size;
      left -= size;
    }
  }

  /** A view of the first `size` bytes of a block, cached as a new one would cost more than the copy. */
  #payload(block: number, size: number): Uint8Array {
    let view = this.#views[block];
    if (view?.length !== size) {
      const from = block * BLOCK_BYTES;
      view = this.blocks.subarray(from, from + size);
      this.#views[block] = view;
    }
    return view;
  }

  release(entry: number): void {
    const heads = this.#heads;
    for (let block = this.entryBlock[entry]; block !== NONE; ) {
      const next = this.blockNext[block];
      this.blockNext[block] = heads[FREE_BLOCK];
      heads[FREE_BLOCK] = block;
      block = next;
    }
    this.entryNext[entry] = heads[FREE_ENTRY];
    heads[FREE_ENTRY] = entry;
  }

  #takeBlock(): number {
    const heads = this.#heads;
    const block = heads[FREE_BLOCK];
    if (block !== NONE) {
      heads[FREE_BLOCK] = this.blockNext[block];
      return block;
    }
    if (heads[BLOCKS_USED] === this.blockNext.length) {
      const size = this.blockNext.length * 2;
      this.blockNext = grown(this.blockNext, new Int32Array(size));
      this.blocks = grown(this.blocks, new Uint8Array(size * BLOCK_BYTES));
      this.#views = new Array(size);
      this.#memory = undefined;
    }
    return heads[BLOCKS_USED]++;
  }

  #takeEntry(): number {
    const heads = this.#heads;
    const entry = heads[FREE_ENTRY];
    if (entry !== NONE) {
      heads[FREE_ENTRY] = this.entryNext[entry];
      return entry;
    }
    if (heads[ENTRIES_USED] === this.entryNext.length) {
      const size = this.entryNext.length * 2;
      this.entryNext = grown(this.entryNext, new Int32Array(size));
      this.entryBlock = grown(this.entryBlock, new Int32Array(size));
      this.entryLength = grown(this.entryLength, new Int32Array(size));
      this.entryContext = grown(this.entryContext, new Int32Array(size));
      this.entryTime = grown(this.entryTime, new Float64Array(size));
      this.#memory = undefined;
    }
    return heads[ENTRIES_USED]++;
  }
}
