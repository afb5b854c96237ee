const PLACES = 1_024;
/** Time before a context is answered again, so that a flood is not answered with a flood. Milliseconds. */
const REPEAT_MS = 100;
/** How long a refusal is believed, and datagrams that passed it on their way may arrive. Milliseconds. */
const REFUSED_MS = 30_000;

/**
 * The contexts that were lately reported to the peer as unknown. The table is small and forgets by overwriting, as a
 * repeated report does no harm.
 */
export class UnknownContexts {
  #ids: Int32Array | undefined;
  #answeredAt: Float64Array | undefined;

  /** A context is refused: its sender has an answer, and gets no other for a while. */
  noteRefused(now: number, id: number): void {
    this.shallAnswer(now + REFUSED_MS - REPEAT_MS, id);
  }

  /** True if a datagram of the unknown context `id` is to be answered with COMPRESSION_CLOSE, which is remembered. */
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
