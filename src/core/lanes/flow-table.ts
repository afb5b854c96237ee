/** What an endpoint's session queues know of each flow (an association, by its slot). A flow is of one session. */
import { grown } from "../grown.ts";
import { NONE } from "./datagram-store.ts";

export class FlowTable {
  /** First and last entry that wait, or -1. */
  head = new Int32Array(0);
  tail = new Int32Array(0);
  /** Bytes that wait, with bookkeeping. */
  bytes = new Int32Array(0);
  /** Bytes that it may still send in this turn. */
  credit = new Int32Array(0);
  /** Which ring of its queue it stands in while it has something waiting, and its neighbours there. */
  ring = new Uint8Array(0);
  next = new Int32Array(0);
  previous = new Int32Array(0);
  /** Begin of the time over which its rate is being taken, and bytes since. */
  windowAt = new Float64Array(0);
  windowBytes = new Float64Array(0);
  /** Bytes per millisecond of payload, lately. */
  rate = new Float64Array(0);
  /** The lane that it keeps while none is late or full; -1 before it has one. */
  lane = new Int8Array(0);
  /** How much speaks for a sender that slows down for loss (responsive.ts). */
  outEvidence = new Uint8Array(0);
  /** How much speaks for one that wants order. */
  outOrder = new Uint8Array(0);
  /** First byte of the last datagram that may have been QUIC. */
  outFirst = new Uint8Array(0);
  /** The same of what arrives, and its rate as above. */
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

  /** Forgets what is known of a flow that has nothing waiting: its slot may stand for another one. */
  forget(flow: number): void {
    if (flow >= this.head.length) return;
    this.windowAt[flow] = Number.NEGATIVE_INFINITY;
    this.windowBytes[flow] = 0;
    this.rate[flow] = 0;
    this.lane[flow] = NONE;
    this.inWindowAt[flow] = Number.NEGATIVE_INFINITY;
    this.inBytes[flow] = 0;
    this.inRate[flow] = 0;
    this.inEvidence[flow] = 0;
    this.outEvidence[flow] = 0;
    this.outOrder[flow] = 0;
  }
}
