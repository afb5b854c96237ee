const PLACES = 1_024;
/** A context that was answered is not answered again sooner, so that a flood gets no flood back. Milliseconds. */
const REPEAT_MS = 100;

/**
 * Which contexts the peer was lately told to be unknown here. The table is small and forgets by overwriting: a peer
 * that hears of a context twice loses nothing.
 */
export class UnknownContexts {
  #ids: Int32Array | undefined;
  #answeredAt: Float64Array | undefined;

  /** Whether a datagram of the unknown context `id` is to be answered by COMPRESSION_CLOSE; remembers it if so. */
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
