/**
 * Limits how fast TCP that is relayed beside a session is read, so that it does not delay a call in the session.
 *
 * A download whose sender fills the link's queue, as CUBIC does, delays everything that shares the link. The relay receives it, and a
 * receiver can slow down the sender: unread bytes fill the receive buffer, and the advertised window then opens only as fast as the relay
 * reads. rLEDBAT (RFC 9840) does this with the window of each connection and the delay of its own packets. Here, all relayed connections
 * of a direction share one rate, which also works if their round trips differ, and the delay is that of the session's datagrams
 * (path-watch.ts). For uploads, the relay is the sender. As in LEDBAT (RFC 6817 §2.4.2), the rate follows the distance between the time
 * that packets wait in the queue and a target for it:
 *
 *     off ── the queue is long, or unknown, and there is a call ──► drain ── the queue has ended ──► hold
 *      ▲                                                                │                                │
 *      └──────────────── the queue is not ours: released ◄──────────────┴────────────────────────────────┘
 *
 * *Drain* bounds the receive buffer, which autotuning has made large. A window that has been advertised remains valid, so at first
 * everything that arrives is read, or the system would drop it. Then almost nothing is read until the buffer is full and the queue has
 * ended; the link stays full meanwhile. An upload has no such window, so almost nothing of it is read from the start. *Hold* changes the
 * rate by a proportional and an integral part, like PIE (RFC 8033 §4.2). A change shows after one and a half round trips. While the queue
 * is short, the rate grows, and the growth accelerates. Now and then the rate is halved for a round trip, to measure the delay of the
 * empty path again (LEDBAT++ has such slowdowns too).
 *
 * The queue is *unknown* if transfers have moved for as long as the session has measured the delay, because the smallest delay may then
 * include the queue that they fill: a call that begins during a download would otherwise wait until CUBIC's next loss shows a shorter delay.
 * If a drain shows none, there was no queue.
 *
 * LEDBAT yields to others that fill the queue until it has no rate left. That would help nobody here, because the queue would remain. So
 * if the queue remains although less is read, or although the rate has halved or reached its floor, the limit is released, first for
 * 15 s and then for longer.
 */
const TARGET_MS = 5;
/** A limit begins when the queue has been longer than this for this time, while transfers move at least this many bytes per millisecond. */
const LONG_MS = 15;
const LONG_FOR_MS = 150;
const MIN_RATE = 25;
/**
 * Receive buffer in round trips, which Linux doubles. A closed window reopens once a sixteenth of the buffer is free, which should be less
 * than a round trip.
 */
const BUFFER_TRIPS = 2.5;
/** Growth of a buffer that was too small, at the next limit, and its largest size. A target may be farther away than the server. */
const BUFFER_GROWTH = 4;
const MAX_BUFFER_TRIPS = 40;
const MIN_BUFFER_BYTES = 65_536;
/**
 * In drain: the time in which everything is read while the old window is used up; then the share of the earlier rate; the longest time;
 * how long the queue has to be short; and how long a queue of unknown length may remain hidden.
 */
const TIGHTEN_MS = 1_200;
const DRAIN_SHARE = 0.1;
const DRAIN_FOR_MS = 5_000;
const DRAINED_FOR_MS = 120;
const MAX_HIDDEN_MS = 2_000;
/** Shares of the earlier rate with which hold begins: after a queue that ended, and after one that only became shorter. */
const BEGIN_SHARE = 0.92;
const DOUBTFUL_SHARE = 0.6;
/** Change of the rate per half round trip: for a queue of a round trip, and for one that has grown by as much since the last tick. */
const INTEGRAL = 0.02;
const PROPORTIONAL = 0.25;
const MAX_CHANGE = 0.3;
const MIN_RTT_MS = 20;
/** Growth of the rate per half round trip while the queue is short: at first, at most, and its acceleration. */
const GROWTH = 0.004;
const MAX_GROWTH = 0.05;
const ACCELERATION = 0.06;
/** Longest queue that counts as short. */
const SHORT_MS = 2 * TARGET_MS;
/** Others fill the queue if it has been longer than that for this time, and the rate has fallen to this share. */
const FOREIGN_MS = 2_000;
const FOREIGN_SHARE = 0.5;
const RELEASE_MS = 15_000;
const MAX_RELEASE_MS = 120_000;
/** After this time in hold, the next release is a short one again. */
const PROVED_MS = 10_000;
/** A rate counts as used if this share of it is moved. A limit ends whose rate is unused for this time. */
const USED_SHARE = 0.5;
const UNUSED_MS = 5_000;
/** How long a limit remains without samples of the delay. */
const BLIND_MS = 2_000;
/** How often the delay of the empty path has to be measured, and the longest delay that counts as empty. */
const EMPTY_INTERVAL_MS = 8_000;
const EMPTY_MS = 1;
const SLOW_SHARE = 0.5;
/** How long the smallest delay is known after it was measured without transfers, and after a drain that found no queue. */
const KNOWN_MS = 10_000;
const PROBED_MS = 60_000;
/** After a pause this long, earlier rates are forgotten. */
const REST_MS = 500;
const MEAN_MS = 400;
const RECENT_MS = 100;
const NONE = Number.POSITIVE_INFINITY;

export class TransferLimit {
  /** Bytes per millisecond that all transfers together may move; Infinity for no limit. */
  rate = NONE;
  state: "off" | "drain" | "hold" = "off";
  /** Largest receive buffer of a transfer while there is a limit. */
  bufferBytes = 0;
  /** Mean rates of what was moved recently, in bytes per millisecond. */
  #mean = 0;
  #recent = 0;
  #tickAt = 0;
  #sampledAt = 0;
  #standing = 0;
  /** Until when the delay of the empty path counts as known. */
  #knownUntil = 0;
  /** While off: since when the queue has been too long. */
  #longSince = NONE;
  /** When this state began, and the rate and the queue before it. */
  #since = 0;
  #before = 0;
  #standingBefore = 0;
  /** The smallest delay before this drain if the queue was unknown; Infinity if it was long. */
  #leastBefore = NONE;
  /** When the queue was last short (in drain: last long), and the rate then. */
  #turnedAt = 0;
  #shortRate = 0;
  #usedAt = 0;
  #growth = 0;
  /** When the queue was last empty; the rate without slowdowns; and when the present slowdown ends, and its effect. */
  #emptyAt = 0;
  #wanted = 0;
  #slowUntil = 0;
  #settledAt = 0;
  #releasedUntil = 0;
  #release = RELEASE_MS;
  #bufferTrips = BUFFER_TRIPS;
  readonly #tightenMs: number;

  /** @param isUp  whether this end sends, so that no window has to be used up first */
  constructor(isUp: boolean) {
    this.#tightenMs = isUp ? 0 : TIGHTEN_MS;
  }

  /**
   * To be called about every 20 ms.
   *
   * @param bytes     moved since the last call
   * @param standing  how long packets wait in the queue of this direction, in milliseconds; negative while that is unknown
   * @param least     smallest recent delay of this direction, in milliseconds plus a constant
   * @param rtt       smallest round trip, in milliseconds
   */
  tick(now: number, bytes: number, standing: number, least: number, rtt: number, hasCall: boolean): void {
    const elapsed = now - this.#tickAt;
    if (elapsed <= 0) return;
    this.#tickAt = now;
    this.#measure(bytes / elapsed, elapsed);
    if (standing >= 0) {
      this.#sampledAt = now;
      if (elapsed > REST_MS || this.#mean < MIN_RATE) this.#knownUntil = now + KNOWN_MS;
    }
    if (!hasCall || now - this.#sampledAt > BLIND_MS) this.end();
    if (!hasCall) this.#bufferTrips = BUFFER_TRIPS;
    if (!hasCall || standing < 0) return;
    const trip = Math.max(MIN_RTT_MS, rtt);
    if (this.state === "off") this.#look(now, standing, least, trip);
    else if (this.state === "drain") this.#drain(now, standing, least, trip);
    else this.#hold(now, standing, trip, (2 * elapsed) / trip);
    this.#standing = standing;
  }

  /** Lifts the limit. */
  end(): void {
    this.state = "off";
    this.rate = NONE;
    this.#longSince = NONE;
  }

  #measure(rate: number, elapsed: number): void {
    const isRested = elapsed > REST_MS;
    this.#mean += (isRested ? 1 : Math.min(1, elapsed / MEAN_MS)) * (rate - this.#mean);
    this.#recent += (isRested ? 1 : Math.min(1, elapsed / RECENT_MS)) * (rate - this.#recent);
  }

  #look(now: number, standing: number, least: number, trip: number): void {
    const isShort = standing <= LONG_MS;
    if ((isShort && now < this.#knownUntil) || this.#mean < MIN_RATE || now < this.#releasedUntil) {
      this.#longSince = NONE;
      return;
    }
    if (this.#longSince === NONE) this.#longSince = now;
    if (now - this.#longSince < LONG_FOR_MS) return;
    this.state = "drain";
    this.#since = now;
    this.#turnedAt = now;
    this.#before = this.#mean;
    this.#standingBefore = standing;
    this.#leastBefore = isShort ? least : NONE;
    this.bufferBytes = Math.round(Math.max(MIN_BUFFER_BYTES, this.#bufferTrips * trip * this.#before));
    this.rate = 2 * this.#before;
  }

  #drain(now: number, standing: number, least: number, trip: number): void {
    const isQueueKnown = least < this.#leastBefore - SHORT_MS;
    // A queue of unknown length shows once the buffer is full and the sender has noticed.
    const hiddenMs = isQueueKnown ? 0 : Math.min(MAX_HIDDEN_MS, this.bufferBytes / this.#before + 2 * trip);
    if (standing > SHORT_MS || now - this.#since < this.#tightenMs + hiddenMs) this.#turnedAt = now;
    if (now - this.#since >= this.#tightenMs) this.rate = Math.max(MIN_RATE, DRAIN_SHARE * this.#before);
    if (now - this.#turnedAt >= DRAINED_FOR_MS) {
      if (isQueueKnown) this.#begin(now, BEGIN_SHARE * this.#before);
      else this.#finishProbe(now);
    } else if (now - this.#since > DRAIN_FOR_MS) {
      if (standing > this.#standingBefore / 2) this.#free(now);
      else this.#begin(now, DOUBTFUL_SHARE * this.#before);
    }
  }

  #finishProbe(now: number): void {
    this.end();
    this.#knownUntil = now + PROBED_MS;
  }

  #begin(now: number, rate: number): void {
    this.state = "hold";
    this.#wanted = Math.max(MIN_RATE, rate);
    this.rate = this.#wanted;
    this.#since = now;
    this.#turnedAt = now;
    this.#shortRate = this.#wanted;
    this.#usedAt = now;
    this.#growth = 0;
    this.#emptyAt = now;
    this.#slowUntil = 0;
    this.#settledAt = 0;
  }

  #free(now: number): void {
    this.end();
    this.#releasedUntil = now + this.#release;
    this.#release = Math.min(MAX_RELEASE_MS, 2 * this.#release);
  }

  /** @param ticks  half round trips since the last call */
  #hold(now: number, standing: number, trip: number, ticks: number): void {
    const isUsed = this.#recent > USED_SHARE * this.rate;
    if (isUsed) this.#usedAt = now;
    else if (now - this.#usedAt > UNUSED_MS) {
      if (this.#recent > MIN_RATE)
        this.#bufferTrips = Math.min(MAX_BUFFER_TRIPS, BUFFER_GROWTH * this.#bufferTrips);
      this.end();
      return;
    }
    if (standing <= EMPTY_MS) {
      this.#emptyAt = now;
      this.#knownUntil = now + KNOWN_MS;
    }
    if (standing <= SHORT_MS) {
      this.#turnedAt = now;
      this.#shortRate = this.#wanted;
      if (now - this.#since > PROVED_MS) this.#release = RELEASE_MS;
    } else if (
      now - this.#turnedAt > FOREIGN_MS &&
      (this.#wanted <= MIN_RATE || this.#wanted < FOREIGN_SHARE * this.#shortRate)
    ) {
      this.#free(now);
      return;
    }
    if (now - this.#emptyAt > EMPTY_INTERVAL_MS) {
      this.#emptyAt = now;
      this.#slowUntil = now + trip + TARGET_MS;
      this.#settledAt = this.#slowUntil + 2 * trip;
    }
    if (now >= this.#settledAt) this.#adapt(standing, trip, ticks, isUsed);
    this.rate = Math.max(MIN_RATE, (now < this.#slowUntil ? SLOW_SHARE : 1) * this.#wanted);
  }

  #adapt(standing: number, trip: number, ticks: number, isUsed: boolean): void {
    const integral = INTEGRAL * ticks * (TARGET_MS - standing);
    const proportional = PROPORTIONAL * (this.#standing - standing);
    let change = Math.max(-MAX_CHANGE, Math.min(MAX_CHANGE, (integral + proportional) / trip));
    if (standing > TARGET_MS) this.#growth = 0;
    else if (standing < TARGET_MS / 2 && isUsed) {
      this.#growth = Math.min(MAX_GROWTH, Math.max(GROWTH, this.#growth * (1 + ACCELERATION * ticks)));
      change = Math.max(change, this.#growth * ticks);
    }
    // An unused rate proves nothing.
    if (change < 0 || isUsed) this.#wanted = Math.max(MIN_RATE, this.#wanted * (1 + change));
  }
}
