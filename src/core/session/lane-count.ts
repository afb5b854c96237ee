/**
 * How many lanes a client has, and whether it asks for receipts.
 *
 * Many lanes and receipts bring much over a path that loses or queues, and cost CPU time. On a machine's own path and in a fast LAN
 * they bring nothing: a hole in TCP is repaired within a millisecond. So "auto" measures round trips of the whole path, relays
 * included, as soon as a session is up. One that began in the wrong way is replaced, before much uses it.
 *
 * It starts with a few lanes and doubles them when lanes have become late. Where a relay or the server refuses connections, or
 * ends them at once, those that are up are all that it wants, for a while. After a quiet time it halves them again, as each costs a heartbeat.
 */

const FIRST_LANES = 4;
const MOST_LANES = 16;
/** Round trips in milliseconds: a path shorter than the first needs no receipts, one longer than the second does. */
const NEAR_MS = 2;
const FAR_MS = 10;
/** Samples that all say so, as a busy machine makes single ones long; a very long one counts for three, as it takes long too. */
const SAMPLES = 5;
const VERY_FAR_MS = 30;
/** How often lanes must have become late before there are more, and how long the last ones get to show what they bring. */
const GROW_LATES = 2;
const GROW_MS = 300;
/** Failed attempts in a row, while others are up, after which no more lanes are wanted, and for how long. */
const MAX_FAILURES = 4;
const REFUSED_MS = 300_000;
const QUIET_MS = 60_000;

export class LaneCount {
  /** Most lanes that there may be. */
  readonly most: number;
  /** Lanes that there should be now. */
  wanted: number;
  /** Whether the next new session is asked for with receipts. */
  offersReceipts: boolean;

  readonly #isAuto: boolean;
  #samples = 0;
  #changedAt = Number.NEGATIVE_INFINITY;
  #lates = 0;
  #failures = 0;
  #refusedUntil = Number.NEGATIVE_INFINITY;

  /**
   * @param lanes    fixed number, or as many as help
   * @param isLocal  the server's address is on this machine
   */
  constructor(lanes: number | "auto", isLocal: boolean) {
    this.#isAuto = lanes === "auto";
    this.most = lanes === "auto" ? MOST_LANES : lanes;
    this.offersReceipts = lanes === "auto" ? !isLocal : lanes > 1;
    this.wanted = lanes === "auto" ? 1 : lanes;
  }

  /** More round trips are wanted, one after the other. */
  get isSampling(): boolean {
    return this.#isAuto && this.#samples < SAMPLES;
  }

  /** Takes a round trip in milliseconds. @returns true when {@link offersReceipts} has changed, so that a new session is needed */
  sample(roundTrip: number): boolean {
    if (!this.isSampling) return false;
    this.#samples += roundTrip < VERY_FAR_MS ? 1 : 3;
    const isNear = roundTrip < (this.offersReceipts ? NEAR_MS : FAR_MS);
    if (isNear) this.#samples = SAMPLES;
    if (this.isSampling || isNear !== this.offersReceipts) return false;
    this.offersReceipts = !this.offersReceipts;
    return true;
  }

  /** A session has begun. @param receipts  whether it has them; without them "auto" has one lane */
  begin(now: number, receipts: boolean): void {
    this.#lates = 0;
    this.#changedAt = now;
    // A server without receipts cannot be had with them.
    if (this.offersReceipts && !receipts) this.#samples = SAMPLES;
    if (this.#isAuto) this.wanted = receipts ? FIRST_LANES : 1;
  }

  /** @returns true when more lanes are wanted now. @param timesLate  since the session began */
  grow(now: number, timesLate: number): boolean {
    if (timesLate < this.#lates + GROW_LATES || now - this.#changedAt < GROW_MS) return false;
    this.#lates = timesLate;
    if (!this.#isAuto || this.wanted >= this.most || now < this.#refusedUntil) return false;
    this.wanted = Math.min(this.most, 2 * this.wanted);
    this.#changedAt = now;
    return true;
  }

  /** @returns true when fewer lanes are wanted now. @param lastLateAt  when a lane last became late */
  shrink(now: number, lastLateAt: number): boolean {
    if (!this.#isAuto || this.wanted <= FIRST_LANES) return false;
    if (now - Math.max(this.#changedAt, lastLateAt) < QUIET_MS) return false;
    this.wanted = Math.max(FIRST_LANES, this.wanted / 2);
    this.#changedAt = now;
    return true;
  }

  /** An attempt to connect a lane has failed, or the lane was lost as soon as it was up. @param lanesUp  lanes that are up */
  handleFailed(now: number, lanesUp: number): void {
    if (!this.#isAuto) return;
    if (lanesUp === 0) {
      // Not more lanes than one are refused, but any.
      this.#failures = 0;
      this.#refusedUntil = Number.NEGATIVE_INFINITY;
      return;
    }
    if (++this.#failures < MAX_FAILURES) return;
    this.#failures = 0;
    this.wanted = lanesUp;
    this.#refusedUntil = now + REFUSED_MS;
  }

  /** Lanes come by another way: what was measured and refused was another path. */
  handleOtherWay(): void {
    this.#samples = 0;
    this.#failures = 0;
    this.#refusedUntil = Number.NEGATIVE_INFINITY;
  }

  /** A lane has stayed up for a while. */
  handleProven(): void {
    this.#failures = 0;
  }
}
