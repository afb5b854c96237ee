/**
 * State of each flow, which is an association, by slot. All session queues of an endpoint share the table; a flow belongs to one session.
 */
import { grown } from "../grown.ts";
import { NONE } from "./datagram-store.ts";

export class FlowTable {
  /** First and last waiting entry, or -1. */
  head = new Int32Array(0);
  tail = new Int32Array(0);
  /** Bytes that wait, including bookkeeping. */
  bytes = new Int32Array(0);
  /** Bytes that the flow may still send in this turn. */
  credit = new Int32Array(0);
  /** While entries are waiting: its ring in the queue, and its neighbours there. */
  ring = new Uint8Array(0);
  next = new Int32Array(0);
  previous = new Int32Array(0);
  /** Start of the current rate measurement, and bytes since then. */
  windowAt = new Float64Array(0);
  windowBytes = new Float64Array(0);
  /** Recent payload rate, in bytes per millisecond. */
  rate = new Float64Array(0);
  /**
   * For detecting calls (path-watch.ts): the last window in which it sent, its datagrams in that window, and the windows in which it sent
   * enough.
   */
  steadyIn = new Int32Array(0);
  steadyCount = new Uint8Array(0);
  steadyWindows = new Uint8Array(0);
  /** The lane that it keeps as long as no lane is late and this one is not full; -1 before the first. */
  lane = new Int8Array(0);
  /** Evidence that the sender slows down after a loss (responsive.ts). */
  outEvidence = new Uint8Array(0);
  /** Evidence that the flow needs order. */
  outOrder = new Uint8Array(0);
  /** First byte of the last datagram that could be QUIC. */
  outFirst = new Uint8Array(0);
  /** The same for arriving datagrams. */
  inWindowAt = new Float64Array(0);
  inBytes = new Float64Array(0);
  inRate = new Float64Array(0);
  inEvidence = new Uint8Array(0);
  inFirst = new Uint8Array(0);

  reserve(flow: number): void {
    const before = this.head.length;
    if (flow < before) return;
    const size = Math.max(64, 2 ** Math.ceil(Math.log2(flow + 1)));
    this.head = grown(this.head, new Int32Array(size)).fill(NONE, before);
    this.tail = grown(this.tail, new Int32Array(size));
    this.bytes = grown(this.bytes, new Int32Array(size));
    this.credit = grown(this.credit, new Int32Array(size));
    this.ring = grown(this.ring, new Uint8Array(size));
    this.next = grown(this.next, new Int32Array(size));
    this.previous = grown(this.previous, new Int32Array(size));
    this.windowAt = grown(this.windowAt, new Float64Array(size)).fill(Number.NEGATIVE_INFINITY, before);
    this.windowBytes = grown(this.windowBytes, new Float64Array(size));
    this.rate = grown(this.rate, new Float64Array(size));
    this.steadyIn = grown(this.steadyIn, new Int32Array(size));
    this.steadyCount = grown(this.steadyCount, new Uint8Array(size));
    this.steadyWindows = grown(this.steadyWindows, new Uint8Array(size));
    const lane = new Int8Array(size).fill(NONE);
    lane.set(this.lane);
    this.lane = lane;
    this.inWindowAt = grown(this.inWindowAt, new Float64Array(size)).fill(Number.NEGATIVE_INFINITY, before);
    this.inBytes = grown(this.inBytes, new Float64Array(size));
    this.inRate = grown(this.inRate, new Float64Array(size));
    this.inEvidence = grown(this.inEvidence, new Uint8Array(size));
    this.outEvidence = grown(this.outEvidence, new Uint8Array(size));
    this.outOrder = grown(this.outOrder, new Uint8Array(size));
    this.outFirst = grown(this.outFirst, new Uint8Array(size));
    this.inFirst = grown(this.inFirst, new Uint8Array(size));
  }

  /** Resets the entry of a flow that has nothing waiting, because its slot may be reused for another flow. */
  forget(flow: number): void {
    if (flow >= this.head.length) return;
    this.windowAt[flow] = Number.NEGATIVE_INFINITY;
    this.windowBytes[flow] = 0;
    this.rate[flow] = 0;
    this.steadyIn[flow] = 0;
    this.steadyCount[flow] = 0;
    this.steadyWindows[flow] = 0;
    this.lane[flow] = NONE;
    this.inWindowAt[flow] = Number.NEGATIVE_INFINITY;
    this.inBytes[flow] = 0;
    this.inRate[flow] = 0;
    this.inEvidence[flow] = 0;
    this.outEvidence[flow] = 0;
    this.outOrder[flow] = 0;
  }
}
