/** Memory for datagrams that the resequencer has released, while the host sends them on. */
import type { DatagramBatch } from "../../session/datagram-batch.ts";

/** Room for a datagram of any size, and for many of the usual size. */
const BYTES = 131_072;

export class ReleasedBatch {
  /** Allocated on first use. */
  bytes = new Uint8Array(0);
  end = 0;

  begin(batch: DatagramBatch): void {
    this.end = 0;
    batch.count = 0;
  }

  hasRoom(batch: DatagramBatch, length: number): boolean {
    if (this.bytes.length === 0) this.bytes = new Uint8Array(BYTES);
    return !batch.isFull && this.end + length <= BYTES;
  }

  finish(batch: DatagramBatch): void {
    batch.data = this.bytes.subarray(0, this.end);
  }
}
