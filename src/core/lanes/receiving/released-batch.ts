/** Memory for datagrams that were held for order (resequencer.ts) while the host sends them on. */
import type { DatagramBatch } from "../../session/datagram-batch.ts";

/** Room for any datagram, and for many of the usual size. */
const BYTES = 131_072;

export class ReleasedBatch {
  /** There from the first use. */
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
