/** Ids that are remembered; a power of two. */
const PLACES = 2_048;
const LARGEST = 0x7fff_ffff;

/**
 * Why the associations or contexts are gone that a server has recently refused or ended. Capsules for them may still be on their way. The
 * table is small, and newer ids overwrite old ones.
 */
export class EndedIds<Reason extends string> {
  readonly #reasons: readonly Reason[];
  #ids: Int32Array | undefined;
  #reasonOf: Uint8Array | undefined;

  /** @param reasons  all that there are, at most 256 */
  constructor(reasons: readonly Reason[]) {
    this.#reasons = reasons;
  }

  /** @param id  ignored unless it is positive and below 2^31; valid ids are */
  note(id: number, reason: Reason): void {
    if (id <= 0 || id > LARGEST) return;
    this.#ids ??= new Int32Array(PLACES);
    this.#reasonOf ??= new Uint8Array(PLACES);
    const place = id & (PLACES - 1);
    this.#ids[place] = id;
    this.#reasonOf[place] = this.#reasons.indexOf(reason);
  }

  /** @returns undefined if the id has not ended here, or is forgotten */
  reasonOf(id: number): Reason | undefined {
    const place = id & (PLACES - 1);
    return id > 0 && this.#ids?.[place] === id ? this.#reasons[this.#reasonOf![place]] : undefined;
  }
}
