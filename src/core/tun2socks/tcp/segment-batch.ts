import { MAX_IP_PACKET_BYTES } from "../../../wire/ip/ip-packet.ts";

/** Numbers of a row: flow, offset of the packet or its virtio-net header, offset of its TCP header, end. */
export const SEGMENT_ROW_INTS = 4;

/** Two packets of any size, each with its header. */
const COPIES_BYTES = 2 * (MAX_IP_PACKET_BYTES + 64);

/** TCP segments for a stack: rows that refer to the caller's data, and rows that refer to copies of reassembled packets. */
export class SegmentBatch {
  readonly rows: Int32Array;
  count = 0;
  readonly copyRows: Int32Array;
  copyCount = 0;
  /** The packets of `copyRows`. */
  readonly copies: Uint8Array;
  #copiesEnd = 0;

  /** @param capacity  in segments @param isUsed  false if there is no stack */
  constructor(capacity: number, isUsed: boolean) {
    this.rows = new Int32Array(isUsed ? capacity * SEGMENT_ROW_INTS : 0);
    this.copyRows = new Int32Array(isUsed ? capacity * SEGMENT_ROW_INTS : 0);
    this.copies = new Uint8Array(isUsed ? COPIES_BYTES : 0);
  }

  /** Whether there is room for a segment of any size. */
  hasRoom(): boolean {
    const { rows, copyRows, copies } = this;
    const most = Math.max(this.count, this.copyCount) * SEGMENT_ROW_INTS;
    return (
      copies.length === 0 ||
      (most < Math.min(rows.length, copyRows.length) && this.#copiesEnd <= copies.length / 2)
    );
  }

  add(flow: number, offset: number, transport: number, end: number): void {
    put(this.rows, this.count++, flow, offset, transport, end);
  }

  /** @param headerBytes  zeros before the packet */
  addCopy(
    flow: number,
    bytes: Uint8Array,
    start: number,
    transport: number,
    end: number,
    headerBytes: number,
  ): void {
    const at = this.#copiesEnd;
    const to = at + headerBytes;
    this.copies.fill(0, at, to);
    this.copies.set(bytes.subarray(start, end), to);
    this.#copiesEnd = to + end - start;
    put(this.copyRows, this.copyCount++, flow, at, to + transport - start, this.#copiesEnd);
  }

  clear(): void {
    this.count = 0;
    this.copyCount = 0;
    this.#copiesEnd = 0;
  }
}

function put(
  rows: Int32Array,
  index: number,
  flow: number,
  offset: number,
  transport: number,
  end: number,
): void {
  const at = index * SEGMENT_ROW_INTS;
  rows[at] = flow;
  rows[at + 1] = offset;
  rows[at + 2] = transport;
  rows[at + 3] = end;
}
