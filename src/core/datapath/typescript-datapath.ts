import {
  CAPSULE_DATAGRAM,
  datagramHeaderLength,
  MAX_DATAGRAM_BYTES,
  MAX_PAYLOAD_BYTES,
  writeDatagramHeader,
} from "../../wire/capsule.ts";
import { sameBytes } from "../../wire/socket-address.ts";
import { readVarint, varintLengthFrom } from "../../wire/varint.ts";
import { copyBytes, LOOP_BYTES } from "../copy-bytes.ts";
import type { Datapath, QueueMemory } from "./datapath.ts";
import {
  BLOCK_BYTES,
  BLOCKS_USED,
  ENTRIES_USED,
  ENTRY_COST,
  FREE_BLOCK,
  FREE_ENTRY,
  RUN_INTS,
} from "./datapath.ts";

const NONE = -1;
const MAX_CONTEXT = 0x7fff_ffff;
/** Integers of a row, of received datagrams as well as of datagrams to send. */
const ROW_INTS = 6;
const ROW_OFFSET = 1;
const ROW_LENGTH = 2;
const SEND_ROW_INTS = 7;
/** Views are kept only for memory of at least this size: smaller memory has a single datagram, and is new each time. */
const KEPT_BYTES = 65_536;

const results = new Int32Array(4);

/** The reference implementation of {@link Datapath}. */
export const TYPESCRIPT_DATAPATH: Datapath = {
  results,
  copy: copyBytes,
  areSame: sameBytes,

  endOfEqual(numbers, stride, column, first, end) {
    const value = numbers[first * stride + column];
    let at = first + 1;
    while (at < end && numbers[at * stride + column] === value) at++;
    return at;
  },

  sum(numbers, stride, column, first, end) {
    let sum = 0;
    for (let row = first; row < end; row++) sum += numbers[row * stride + column];
    return sum;
  },

  writeRows(rows, first, end, data, context, out, at) {
    let to = at;
    let bytes = 0;
    let row = first;
    for (; row < end; row++) {
      const length = rows[row * ROW_INTS + ROW_LENGTH];
      if (to + datagramHeaderLength(context, length) + length > out.length) break;
      to = writeDatagramHeader(out, to, context, length);
      copyRow(data, row, rows[row * ROW_INTS + ROW_OFFSET], length, out, to);
      to += length;
      bytes += length;
    }
    results[0] = row;
    results[1] = bytes;
    return to;
  },

  readRuns(chunk, offset, end, offsets, lengths, from, runs) {
    let at = offset;
    let row = from;
    let count = 0;
    let run = 0;
    let last = NONE;
    while (row < offsets.length && at + 1 < end && chunk[at] === CAPSULE_DATAGRAM) {
      const valueOffset = at + 1 + varintLengthFrom(chunk[at + 1]);
      if (valueOffset >= end) break;
      const length = readVarint(chunk, at + 1);
      if (length < 1 || length > MAX_PAYLOAD_BYTES + 8 || valueOffset + length > end) break;
      const payload = valueOffset + varintLengthFrom(chunk[valueOffset]);
      const valueEnd = valueOffset + length;
      if (payload > valueEnd || valueEnd - payload > MAX_DATAGRAM_BYTES) break;
      const context = readVarint(chunk, valueOffset);
      if (context < 0 || context > MAX_CONTEXT) break;
      if (context !== last) {
        if (RUN_INTS * (count + 1) > runs.length) break;
        run = RUN_INTS * count++;
        runs[run] = context;
        runs[run + 2] = 0;
        last = context;
      }
      offsets[row] = payload;
      lengths[row] = valueEnd - payload;
      row++;
      runs[run + 1] = row;
      runs[run + 2] += valueEnd - payload;
      at = valueEnd;
    }
    results[0] = at;
    return count;
  },

  addSendRows(
    rows,
    at,
    socket,
    headerOffset,
    headerLength,
    offsets,
    lengths,
    first,
    end,
    addressOffset,
    local,
  ) {
    let to = at * SEND_ROW_INTS;
    for (let i = first; i < end; i++, to += SEND_ROW_INTS) {
      rows[to] = socket;
      rows[to + 1] = headerOffset;
      rows[to + 2] = headerLength;
      rows[to + 3] = offsets[i];
      rows[to + 4] = lengths[i];
      rows[to + 5] = addressOffset;
      rows[to + 6] = local;
    }
  },

  queueRows(memory, now, context, rows, first, end, data, tail, room) {
    const [blocks, blockNext, entryNext, entryBlock, entryLength, entryContext, entryTime, heads] = memory;
    let cost = 0;
    let head = NONE;
    let last = tail;
    let row = first;
    for (; row < end; row++) {
      const length = rows[row * ROW_INTS + ROW_LENGTH];
      if (cost + length + ENTRY_COST > room || !hasRoom(memory, length)) break;
      const entry = takeFree(heads, FREE_ENTRY, ENTRIES_USED, entryNext);
      let from = rows[row * ROW_INTS + ROW_OFFSET];
      let left = length;
      let before = NONE;
      entryBlock[entry] = NONE;
      while (left > 0) {
        const block = takeFree(heads, FREE_BLOCK, BLOCKS_USED, blockNext);
        const size = Math.min(BLOCK_BYTES, left);
        copyRow(data, row, from, size, blocks, block * BLOCK_BYTES);
        if (before === NONE) entryBlock[entry] = block;
        else blockNext[before] = block;
        blockNext[block] = NONE;
        before = block;
        from += size;
        left -= size;
      }
      entryLength[entry] = length;
      entryContext[entry] = context;
      entryTime[entry] = now;
      entryNext[entry] = NONE;
      if (last !== NONE) entryNext[last] = entry;
      if (head === NONE) head = entry;
      last = entry;
      cost += length + ENTRY_COST;
    }
    results[0] = row;
    results[1] = head;
    results[2] = head === NONE ? NONE : last;
    return cost;
  },

  takeEntries(memory, oldest, head, credit, out, at) {
    const [blocks, blockNext, entryNext, entryBlock, entryLength, entryContext, entryTime, heads, views] =
      memory;
    let entry = head;
    let left = credit;
    let to = at;
    let count = 0;
    while (entry !== NONE && entryTime[entry] >= oldest) {
      const length = entryLength[entry];
      const context = entryContext[entry];
      if (length > left || to + datagramHeaderLength(context, length) + length > out.length) break;
      to = writeDatagramHeader(out, to, context, length);
      const end = to + length;
      for (let block = entryBlock[entry]; block !== NONE; ) {
        const size = Math.min(BLOCK_BYTES, end - to);
        copyBlock(blocks, block, size, out, to, views);
        to += size;
        const next = blockNext[block];
        blockNext[block] = heads[FREE_BLOCK];
        heads[FREE_BLOCK] = block;
        block = next;
      }
      left -= length;
      count++;
      const next = entryNext[entry];
      entryNext[entry] = heads[FREE_ENTRY];
      heads[FREE_ENTRY] = entry;
      entry = next;
    }
    results[0] = entry;
    results[1] = count;
    results[2] = credit - left;
    return to;
  },

  dropEntries(memory, oldest, head, cost, most) {
    const [, blockNext, entryNext, entryBlock, entryLength, , entryTime, heads] = memory;
    let entry = head;
    let dropped = 0;
    let count = 0;
    while (entry !== NONE && count < most && (dropped < cost || entryTime[entry] < oldest)) {
      for (let block = entryBlock[entry]; block !== NONE; ) {
        const next = blockNext[block];
        blockNext[block] = heads[FREE_BLOCK];
        heads[FREE_BLOCK] = block;
        block = next;
      }
      dropped += entryLength[entry] + ENTRY_COST;
      count++;
      const next = entryNext[entry];
      entryNext[entry] = heads[FREE_ENTRY];
      heads[FREE_ENTRY] = entry;
      entry = next;
    }
    results[0] = entry;
    results[1] = count;
    return dropped;
  },
};

// Creating a view costs more than copying a datagram, and most views have the same place and length as earlier ones.

/** Views by row of `viewed`. */
const rowViews: (Uint8Array | undefined)[] = [];
let viewed: Uint8Array | undefined;

/** Copies the payload of a row, or a part of it. */
function copyRow(
  data: Uint8Array,
  row: number,
  offset: number,
  length: number,
  out: Uint8Array,
  at: number,
): void {
  if (length < LOOP_BYTES || data.length < KEPT_BYTES) {
    copyBytes(data, offset, length, out, at);
    return;
  }
  if (data !== viewed) {
    viewed = data;
    rowViews.length = 0;
  }
  let view = rowViews[row];
  if (view?.length !== length || view.byteOffset - data.byteOffset !== offset) {
    view = data.subarray(offset, offset + length);
    rowViews[row] = view;
  }
  out.set(view, at);
}

/** Copies the first `size` bytes of a block. */
function copyBlock(
  blocks: Uint8Array,
  block: number,
  size: number,
  out: Uint8Array,
  at: number,
  views: (Uint8Array | undefined)[] | undefined,
): void {
  const from = block * BLOCK_BYTES;
  if (size < LOOP_BYTES || views === undefined) {
    copyBytes(blocks, from, size, out, at);
    return;
  }
  let view = views[block];
  if (view?.length !== size) {
    view = blocks.subarray(from, from + size);
    views[block] = view;
  }
  out.set(view, at);
}

/** Whether there is room for a datagram, in entries and blocks. */
function hasRoom([, blockNext, entryNext, , , , , heads]: QueueMemory, length: number): boolean {
  if (heads[FREE_ENTRY] === NONE && heads[ENTRIES_USED] === entryNext.length) return false;
  let missing = Math.ceil(length / BLOCK_BYTES) - (blockNext.length - heads[BLOCKS_USED]);
  for (let block = heads[FREE_BLOCK]; missing > 0 && block !== NONE; block = blockNext[block]) missing--;
  return missing <= 0;
}

/** Takes an index from a list of free ones, or else the next one that was never used. */
function takeFree(heads: Int32Array, free: number, used: number, next: Int32Array): number {
  const taken = heads[free];
  if (taken === NONE) return heads[used]++;
  heads[free] = next[taken];
  return taken;
}
