import { ReceivedRanges } from "./received-ranges.ts";

/** Receiving by one end of a connection: the bytes in order, and when they must be acknowledged at once, as in Linux. */
export class TcpReceiver {
  /** End of the bytes in order. */
  next = 0;
  /** Stamp of the last packet that arrived in order; -1 before the first. */
  recentStamp = -1;
  /** Whether a copy has arrived that no acknowledgement has reported yet. */
  sawDuplicate = false;

  readonly #ranges = new ReceivedRanges();
  #unacknowledged = 0;
  #mss = 536;
  #quick = 16;

  /** Takes a packet with bytes. @returns whether it must be acknowledged at once */
  receive(seq: number, length: number, stamp: number): boolean {
    const end = seq + length;
    const before = this.next;
    let isUrgent = seq !== before || !this.#ranges.isEmpty;
    if (end > before) {
      if (seq <= before) {
        this.recentStamp = stamp;
        this.next = this.#ranges.takeUpTo(end);
      } else if (this.#ranges.add(seq, end)) this.sawDuplicate = true;
    } else this.sawDuplicate = true;
    this.#mss = Math.max(this.#mss, length);
    this.#unacknowledged += length;
    if (this.#quick > 0) {
      this.#quick--;
      isUrgent = true;
    }
    return isUrgent || this.#unacknowledged > this.#mss;
  }

  /** An acknowledgement leaves. @returns the ranges that it reports, at most `most` */
  acknowledge(most: number): readonly number[] | undefined {
    this.#unacknowledged = 0;
    return this.#ranges.report(most);
  }
}
