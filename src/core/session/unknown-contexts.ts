const PLACES = 1_024;
/** Milliseconds before a context is reported again, so that a flood does not cause a flood of reports. */
const REPEAT_MS = 100;
/** Milliseconds for which a refused context is not reported: its datagrams may still be on their way. */
const REFUSED_MS = 30_000;

/**
 * The contexts that were recently reported to the peer as unknown. The table is small and overwrites old entries, since a repeated
 * report does no harm.
 */
export class UnknownContexts {
  #ids: Int32Array | undefined;
  #answeredAt: Float64Array | undefined;

  /** Records that a context was refused, so that its datagrams are not reported for a while. */
  noteRefused(now: number, id: number): void {
    this.shallAnswer(now + REFUSED_MS - REPEAT_MS, id);
  }

  /** Whether to answer a datagram of the unknown context `id` with COMPRESSION_CLOSE. Records the answer. */
  shallAnswer(now: number, id: number): boolean {
    this.#ids ??= new Int32Array(PLACES).fill(-1);
    this.#answeredAt ??= new Float64Array(PLACES);
    const place = (id >> 1) % PLACES;
    if (this.#ids[place] === id && now - this.#answeredAt[place] < REPEAT_MS) return false;
    this.#ids[place] = id;
    this.#answeredAt[place] = now;
    return true;
  }
}
