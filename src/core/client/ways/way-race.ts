/**
 * Chooses among several ways by which a client's lanes can connect.
 *
 * While no lane is up, the ways are tried in order, each with a head start before the next (RFC 8305 §5). A way has worked when the server
 * has accepted a lane. It is kept until the last lane is lost, and comes first for some time after it was found (RFC 6555 §4.2), so that a
 * lost connection does not cost the head starts again. After that the given order applies again, since the network may have changed.
 */

/** Enough for several round trips over a long path: a proxy, TLS and the handshakes of both ends. */
export const HEAD_START_MS = 1_000;
export const KEPT_MS = 600_000;
const FIRST_BACKOFF_MS = 200;
const MAX_BACKOFF_MS = 5_000;
const NONE = -1;
const NEVER = Number.POSITIVE_INFINITY;

/** A way to a server. */
export interface Way {
  /** The value of the Host field. */
  readonly authority: string;
  /** Number of the server. Ways with the same number lead to the same server, where a session can be resumed. */
  readonly server: number;
}

/** Time before an attempt after `attempts` failed ones. @param random  0 to 255 */
export function backoff(attempts: number, random: number): number {
  const most = Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** Math.min(attempts, 10));
  return most * (0.5 + random / 510);
}

export class WayRace {
  /** When {@link next} is to be called; Infinity for never. */
  dueAt = NEVER;

  readonly #ways: readonly Way[];
  readonly #random: () => number;
  #kept = 0;
  #keptAt = Number.NEGATIVE_INFINITY;
  #order: readonly number[] = [];
  /** Bits of the ways that were tried since the last back-off. */
  #tried = 0;
  #latest = NONE;
  #backoffs = 0;

  /**
   * @param ways    in order of preference, at most 30
   * @param random  returns 0 to 255
   */
  constructor(ways: readonly Way[], random: () => number) {
    this.#ways = ways;
    this.#random = random;
  }

  /** The way that last worked; initially the first. */
  get kept(): number {
    return this.#kept;
  }

  /** False with a single way, whose lanes try again by themselves. */
  get isRace(): boolean {
    return this.#ways.length > 1;
  }

  /**
   * Begins a round of attempts, because no lane is up.
   *
   * @param hasSession  whether there is a session, so that ways to its server come first
   * @param isLost      whether a lane was up before, so that the first attempt is not made at once
   */
  begin(now: number, hasSession: boolean, isLost: boolean): void {
    const ways = this.#ways;
    const isKept = now - this.#keptAt < KEPT_MS;
    const rank = (way: number): number => {
      if (hasSession && ways[way].server !== ways[this.#kept].server) return 2;
      return isKept && way === this.#kept ? 0 : 1;
    };
    this.#order = [...ways.keys()].sort((a, b) => rank(a) - rank(b) || a - b);
    this.#tried = 0;
    this.#latest = NONE;
    this.#backoffs = 0;
    this.dueAt = isLost ? now + this.#backoff() : now;
  }

  /**
   * Chooses the next way once {@link dueAt} is reached.
   *
   * @param underWay  bits of the ways that are being tried
   * @returns a way to try now, or -1
   */
  next(now: number, underWay: number): number {
    const way = this.#order.find((one) => ((this.#tried | underWay) & (1 << one)) === 0);
    if (way === undefined) {
      this.#tried = 0;
      this.#latest = NONE;
      this.dueAt = now + this.#backoff();
      return NONE;
    }
    this.#tried |= 1 << way;
    this.#latest = way;
    this.dueAt = now + HEAD_START_MS;
    return way;
  }

  /** An attempt has failed. If it was the latest one, the next is due. */
  handleFailed(now: number, way: number): void {
    if (way === this.#latest) this.dueAt = now;
  }

  /** Ends the wait before the next round, if there is one. */
  retry(now: number): void {
    this.#backoffs = 0;
    if (this.dueAt !== NEVER) this.dueAt = now;
  }

  /** The server has accepted a lane. @returns true if it took a different way than the lane before it */
  handleWorked(now: number, way: number): boolean {
    this.dueAt = NEVER;
    const isOther = way !== this.#kept;
    if (isOther || now - this.#keptAt >= KEPT_MS) this.#keptAt = now;
    this.#kept = way;
    return isOther;
  }

  #backoff(): number {
    return backoff(this.#backoffs++, this.#random());
  }
}
