/** Proportional Rate Reduction (RFC 6937): lowers the window to its target in the course of a recovery. Counts segments. */
export class RateReduction {
  #delivered = 0;
  #sent = 0;
  #priorWindow = 0;

  begin(window: number): void {
    this.#priorWindow = window;
    this.#delivered = 0;
    this.#sent = 0;
  }

  handleSent(): void {
    this.#sent++;
  }

  /** @returns the window after the delivery of some segments */
  reduce(delivered: number, inFlight: number, target: number): number {
    this.#delivered += delivered;
    let allowed = 0;
    if (inFlight > target) {
      allowed = Math.ceil((this.#delivered * target) / this.#priorWindow) - this.#sent;
    } else {
      const limit = Math.max(this.#delivered - this.#sent, delivered) + 1;
      allowed = Math.min(target - inFlight, limit);
    }
    if (this.#sent === 0) allowed = Math.max(allowed, 1);
    return Math.max(1, inFlight + Math.max(0, allowed));
  }
}
