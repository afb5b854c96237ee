/**
 * By which way a client's lanes connect, where there are several. While no lane is up they are tried in order, each with a head
 * start before the next (RFC 8305 §5), and a way has worked when the server has accepted a lane. That one is kept until the last
 * lane is lost, and has the first place for some time after it was found (RFC 6555 §4.2), so that a lost connection does not cost
 * head starts again; after that the first one given comes first again, as the network may be another.
 */

/** For a proxy, TLS and both ends' handshakes over a long path: several round trips. */
export const HEAD_START_MS = 1_000;
export const KEPT_MS = 600_000;
const FIRST_BACKOFF_MS = 200;
const MAX_BACKOFF_MS = 5_000;
const NONE = -1;
const NEVER = Number.POSITIVE_INFINITY;

/** A way to a server. */
export interface Way {
  /** Value of the Host field. */
  readonly authority: string;
  /** Ways with the same number lead to the same server, where a session can be resumed. */
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
   * @param ways    in the order of preference, at most 30
   * @param random  gives 0 to 255
   */
  constructor(ways: readonly Way[], random: () => number) {
    this.#ways = ways;
    this.#random = random;
  }

  /** The way that has worked last; at first the first. */
  get kept(): number {
    return this.#kept;
  }

  /** False for one way, whose lanes try again by themselves. */
  get isRace(): boolean {
    return this.#ways.length > 1;
  }

  /**
   * No lane is up.
   *
   * @param hasSession  ways to the server that knows it come first
   * @param isLost      it was up, and so the first attempt is not made at once
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
   * The time {@link dueAt} has come.
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

  /** An attempt has failed. If it was the latest, the next is due. */
  handleFailed(now: number, way: number): void {
    if (way === this.#latest) this.dueAt = now;
  }

  /** Ends the wait before the next round, if there is one. */
  retry(now: number): void {
    this.#backoffs = 0;
    if (this.dueAt !== NEVER) this.dueAt = now;
  }

  /** The server has accepted a lane. @returns true when it has come by another way than the one before it */
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
