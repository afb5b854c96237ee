/**
 * Mean rate over the last second, in bytes per millisecond. Counts only whole slots of 100 ms, so a short burst does not appear as a high
 * rate.
 */

const SLOT_MS = 100;
const SLOTS = 10;

export class RecentRate {
  readonly #bytes = new Float64Array(SLOTS);
  #sum = 0;
  /** The place for the next whole slot, and how many there are. */
  #slot = 0;
  #slots = 0;
  #current = 0;
  #slotEndsAt = Number.NEGATIVE_INFINITY;

  note(now: number, bytes: number): void {
    if (now >= this.#slotEndsAt) this.#turn(now);
    this.#current += bytes;
  }

  /** @returns 0 until a slot is whole */
  at(now: number): number {
    if (now >= this.#slotEndsAt) this.#turn(now);
    return this.#slots === 0 ? 0 : this.#sum / (this.#slots * SLOT_MS);
  }

  #turn(now: number): void {
    if (now - this.#slotEndsAt > SLOTS * SLOT_MS) {
      // All slots are older than a second, or there are none yet.
      this.#bytes.fill(0);
      this.#sum = 0;
      this.#slots = 0;
      this.#current = 0;
      this.#slotEndsAt = now + SLOT_MS;
      return;
    }
    for (; this.#slotEndsAt <= now; this.#slotEndsAt += SLOT_MS) {
      this.#sum += this.#current - this.#bytes[this.#slot];
      this.#bytes[this.#slot] = this.#current;
      this.#current = 0;
      this.#slot = (this.#slot + 1) % SLOTS;
      this.#slots = Math.min(SLOTS, this.#slots + 1);
    }
  }
}
