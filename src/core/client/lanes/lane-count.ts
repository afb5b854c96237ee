/**
 * Decides how many lanes a client has, and whether it asks for receipts.
 *
 * Many lanes with receipts help on paths that lose packets or queue them, but cost CPU time. Within one machine or a fast LAN they gain
 * nothing, because TCP repairs a hole within a millisecond. So "auto" measures round trips of the whole path, including relays, from the
 * first request on. A session that began with the wrong choice is replaced before it is much used. But its associations then get new source
 * ports, and over a long path the next session takes a second to connect. So a session through a relay on this machine, such as ss-tunnel,
 * begins with receipts if the server's challenge took long to arrive.
 *
 * The count starts with a few lanes and doubles when lanes have become late. If a relay or the server refuses connections, or ends them
 * at once, the lanes that are up suffice for a while. After a quiet time the count is halved again, because each lane costs heartbeats.
 */

const FIRST_LANES = 4;
const MOST_LANES = 16;
/** Round trips in milliseconds: a path shorter than the first needs no receipts, and one longer than the second does. */
const NEAR_MS = 2;
export const FAR_MS = 10;
/**
 * Samples in agreement that are needed, because both ends answer late while they start or the machine is busy; and the sum of their round
 * trips, in milliseconds, after which fewer suffice. Only the sum bounds the time: a single lane that is overloaded needs seconds for each.
 */
const NEEDED_SAMPLES = 20;
const NEEDED_MS = 500;
/** Time in milliseconds of a first request and its challenge from which the path is probably long. It includes the relay's own connection. */
const LIKELY_FAR_MS = 80;
/** How often lanes must have become late before the count grows, and how long the last additions get to take effect. */
const GROW_LATES = 2;
const GROW_MS = 300;
/** Failed attempts in a row, while other lanes are up, after which no more lanes are wanted, and for how long. */
const MAX_FAILURES = 4;
const REFUSED_MS = 300_000;
const QUIET_MS = 60_000;

export class LaneCount {
  /** Upper bound of {@link wanted}. */
  readonly most: number;
  /** How many lanes the session should have now. */
  wanted: number;
  /** Whether the client asks for receipts in its next new session. */
  offersReceipts: boolean;

  readonly #isAuto: boolean;
  #samples = 0;
  #sampledMs = 0;
  /** The samples have shown whether receipts are needed. */
  #isDecided = false;
  /** {@link offersReceipts} is a guess, which the samples may refute. */
  #isGuess = false;
  /** The server did not give a session the receipts that it was asked for. */
  #lacksReceipts = false;
  #changedAt = Number.NEGATIVE_INFINITY;
  #lates = 0;
  #failures = 0;
  #refusedUntil = Number.NEGATIVE_INFINITY;

  /**
   * @param lanes    a fixed number, or "auto"
   * @param isLocal  whether the server's address is on this machine
   */
  constructor(lanes: number | "auto", isLocal: boolean) {
    this.#isAuto = lanes === "auto";
    this.most = lanes === "auto" ? MOST_LANES : lanes;
    this.offersReceipts = lanes === "auto" ? !isLocal : lanes > 1;
    this.wanted = lanes === "auto" ? 1 : lanes;
  }

  /** Whether more round trips are to be measured, one after the other. */
  get isSampling(): boolean {
    return this.#isAuto && !this.#isDecided;
  }

  /** Whether another session, with receipts, may follow one without them. */
  get mayAddReceipts(): boolean {
    return this.#isAuto && !this.#lacksReceipts && (!this.#isDecided || this.offersReceipts);
  }

  /** Whether receipts were only a guess, so that a session that has them may be replaced although it is in use. */
  get wasGuess(): boolean {
    return this.#isGuess;
  }

  /** Takes the time from a first request to the server's challenge, in milliseconds. A single late answer decides nothing. */
  handleChallenge(elapsed: number): void {
    if (!this.isSampling || this.offersReceipts || elapsed < LIKELY_FAR_MS) return;
    this.offersReceipts = true;
    this.#isGuess = true;
  }

  /** Takes a round trip, in milliseconds. @returns true if {@link offersReceipts} has changed, so that a new session is needed */
  sample(roundTrip: number): boolean {
    if (!this.isSampling) return false;
    this.#samples++;
    this.#sampledMs += roundTrip;
    const isNear = roundTrip < (this.offersReceipts && !this.#isGuess ? NEAR_MS : FAR_MS);
    this.#isDecided = isNear || this.#samples >= NEEDED_SAMPLES || this.#sampledMs >= NEEDED_MS;
    if (!this.#isDecided) return false;
    if (!isNear) this.#isGuess = false;
    if (isNear !== this.offersReceipts) return false;
    this.offersReceipts = !this.offersReceipts;
    return true;
  }

  /**
   * A session has begun.
   *
   * @param offered   whether the client has asked for receipts
   * @param receipts  whether the session has them; without them, "auto" means one lane
   */
  begin(now: number, offered: boolean, receipts: boolean): void {
    this.#lates = 0;
    this.#changedAt = now;
    // A request to resume a session asks for what that session had, which says nothing about the server.
    if (offered) this.#lacksReceipts = !receipts;
    if (this.#isGuess && !receipts) {
      this.#isGuess = false;
      this.offersReceipts = offered;
    }
    // If the server does not support receipts, no sample can change that.
    if (this.#lacksReceipts) this.#isDecided = true;
    if (this.#isAuto) this.wanted = receipts ? FIRST_LANES : 1;
  }

  /** @param timesLate  how often lanes have become late in this session @returns true if more lanes are wanted now */
  grow(now: number, timesLate: number): boolean {
    if (timesLate < this.#lates + GROW_LATES || now - this.#changedAt < GROW_MS) return false;
    this.#lates = timesLate;
    if (!this.#isAuto || this.wanted >= this.most || now < this.#refusedUntil) return false;
    this.wanted = Math.min(this.most, 2 * this.wanted);
    this.#changedAt = now;
    return true;
  }

  /** @param lastLateAt  when a lane last became late @returns true if fewer lanes are wanted now */
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
      // If even the first lane is refused, the number of lanes is not the reason.
      this.#failures = 0;
      this.#refusedUntil = Number.NEGATIVE_INFINITY;
      return;
    }
    if (++this.#failures < MAX_FAILURES) return;
    this.#failures = 0;
    this.wanted = lanesUp;
    this.#refusedUntil = now + REFUSED_MS;
  }

  /** Lanes now take another way, so earlier measurements and refusals no longer apply. */
  handleOtherWay(): void {
    this.#samples = 0;
    this.#isDecided = false;
    this.#failures = 0;
    this.#refusedUntil = Number.NEGATIVE_INFINITY;
  }

  /** A lane has stayed up for a while. */
  handleProven(): void {
    this.#failures = 0;
  }
}
