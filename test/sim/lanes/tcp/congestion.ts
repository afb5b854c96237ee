/** What congestion control learns from an acknowledgement. Windows in packets, times in milliseconds. */
export interface AckSample {
  /** Packets that this acknowledgement newly covers, cumulatively or by SACK. */
  delivered: number;
  /** Packets newly detected as lost. */
  lost: number;
  inFlight: number;
  priorInFlight: number;
  /** -1 without a sample. */
  rtt: number;
  minRtt: number;
  /** Bytes delivered, and the time that took: the rate sample of Cheng and Cardwell; -1 without one. */
  rateBytes: number;
  rateInterval: number;
  /** `delivered` of the connection when the newest packet acknowledged was sent. */
  priorDelivered: number;
  totalDelivered: number;
  isAppLimited: boolean;
  isCwndLimited: boolean;
  inRecovery: boolean;
}

export interface CongestionControl {
  cwnd: number;
  ssthresh: number;
  /** Bytes per millisecond; Infinity without pacing. */
  pacingRate: number;
  /** Whether Proportional Rate Reduction (RFC 6937) sets the window in recovery. */
  readonly usesPrr: boolean;
  handleAck(now: number, sample: AckSample): void;
  handleRecovery(now: number, inFlight: number): void;
  handleRecovered(now: number): void;
  /** The recovery was spurious: restores the earlier window. */
  handleUndone(now: number): void;
  handleTimeout(now: number): void;
  handleIdle(idleTimeouts: number): void;
}

export type CongestionName = "reno" | "cubic" | "bbr";

export function makeCongestion(name: CongestionName, random: () => number): CongestionControl {
  if (name === "bbr") return new Bbr(random);
  return new LossBased(name === "cubic");
}

const INITIAL_WINDOW = 10;

/** Reno (RFC 5681) or CUBIC (RFC 9438) with HyStart's delay rule (RFC 9406 without its conservative phase). */
class LossBased implements CongestionControl {
  cwnd = INITIAL_WINDOW;
  ssthresh = Number.POSITIVE_INFINITY;
  pacingRate = Number.POSITIVE_INFINITY;
  readonly usesPrr = true;
  readonly #isCubic: boolean;
  readonly #beta: number;
  #wMax = 0;
  #epochAt = -1;
  #k = 0;
  #origin = 0;
  #estimate = 0;
  #roundEnd = 0;
  #roundMin = Number.POSITIVE_INFINITY;
  #roundSamples = 0;

  constructor(isCubic: boolean) {
    this.#isCubic = isCubic;
    this.#beta = isCubic ? 0.7 : 0.5;
  }

  handleAck(now: number, sample: AckSample): void {
    if (sample.inRecovery) return;
    if (this.cwnd < this.ssthresh) {
      if (this.#isCubic) this.#leaveSlowStart(sample);
      if (sample.isCwndLimited) this.cwnd += sample.delivered;
      return;
    }
    if (!sample.isCwndLimited) {
      // RFC 9438 §5.8: while the application limits the rate, the window does not grow and its clock stands still.
      this.#epochAt = -1;
      return;
    }
    if (this.#isCubic) this.#growCubic(now, sample);
    else this.cwnd += sample.delivered / this.cwnd;
  }

  #leaveSlowStart(sample: AckSample): void {
    if (sample.totalDelivered >= this.#roundEnd) {
      this.#roundEnd = sample.totalDelivered + this.cwnd;
      this.#roundMin = Number.POSITIVE_INFINITY;
      this.#roundSamples = 0;
    }
    if (sample.rtt < 0) return;
    this.#roundMin = Math.min(this.#roundMin, sample.rtt);
    this.#roundSamples++;
    const margin = Math.min(16, Math.max(4, sample.minRtt / 8));
    if (this.cwnd >= 16 && this.#roundSamples >= 8 && this.#roundMin > sample.minRtt + margin) {
      this.ssthresh = this.cwnd;
    }
  }

  #growCubic(now: number, sample: AckSample): void {
    const rtt = sample.rtt > 0 ? sample.rtt : sample.minRtt;
    if (this.#epochAt < 0) {
      this.#epochAt = now;
      this.#estimate = this.cwnd;
      this.#k = this.cwnd < this.#wMax ? Math.cbrt((this.#wMax - this.cwnd) / 0.4) : 0;
      this.#origin = Math.max(this.#wMax, this.cwnd);
    }
    const t = (now - this.#epochAt + rtt) / 1000;
    const target = Math.min(1.5 * this.cwnd, this.#origin + 0.4 * (t - this.#k) ** 3);
    this.#estimate += (((3 * 0.3) / 1.7) * sample.delivered) / this.cwnd;
    if (target > this.cwnd) this.cwnd += ((target - this.cwnd) / this.cwnd) * sample.delivered;
    else this.cwnd += (0.01 / this.cwnd) * sample.delivered;
    if (this.#estimate > this.cwnd) this.cwnd = this.#estimate;
  }

  handleRecovery(): void {
    this.#epochAt = -1;
    this.#wMax = this.cwnd < this.#wMax ? (this.cwnd * (1 + this.#beta)) / 2 : this.cwnd;
    this.ssthresh = Math.max(2, this.cwnd * this.#beta);
  }

  handleRecovered(): void {
    this.cwnd = this.ssthresh;
  }

  handleUndone(): void {
    this.#wMax = Math.max(this.#wMax, this.cwnd);
  }

  handleTimeout(): void {
    this.handleRecovery();
    this.cwnd = 1;
  }

  handleIdle(idleTimeouts: number): void {
    const restart = Math.min(this.cwnd, INITIAL_WINDOW);
    this.cwnd = Math.max(restart, this.cwnd / 2 ** Math.min(idleTimeouts, 16));
    this.#epochAt = -1;
  }
}

const HIGH_GAIN = 2.885;
const CYCLE = [1.25, 0.75, 1, 1, 1, 1, 1, 1];

/** BBR version 1 as in Linux (net/ipv4/tcp_bbr.c, described in draft-cardwell-iccrg-bbr-congestion-control-00). */
class Bbr implements CongestionControl {
  cwnd = INITIAL_WINDOW;
  ssthresh = Number.POSITIVE_INFINITY;
  pacingRate = Number.POSITIVE_INFINITY;
  readonly usesPrr = false;
  readonly #random: () => number;
  #mode: "startup" | "drain" | "probe-bw" | "probe-rtt" = "startup";
  #bandwidths: { round: number; value: number }[] = [];
  #minRtt = Number.POSITIVE_INFINITY;
  #minRttAt = 0;
  #round = 0;
  #roundStart = false;
  #nextRoundDelivered = 0;
  #fullBandwidth = 0;
  #fullCount = 0;
  #isFull = false;
  #cycle = 0;
  #cycleAt = 0;
  #probeDone = -1;
  #priorCwnd = 0;
  #conserves = false;
  #totalDelivered = 0;
  #inRecovery = false;

  constructor(random: () => number) {
    this.#random = random;
  }

  get #bandwidth(): number {
    return this.#bandwidths.length === 0 ? 0 : this.#bandwidths[0].value;
  }

  handleAck(now: number, sample: AckSample): void {
    this.#totalDelivered = sample.totalDelivered;
    this.#updateBandwidth(sample);
    this.#updateCycle(now, sample);
    if (!this.#isFull && this.#roundStart && !sample.isAppLimited) this.#checkFull();
    if (this.#mode === "startup" && this.#isFull) this.#mode = "drain";
    if (this.#mode === "drain" && sample.inFlight <= this.#inflight(1)) this.#enterProbeBw(now);
    this.#updateMinRtt(now, sample);
    this.#setPacing(sample);
    this.#setCwnd(sample);
  }

  #updateBandwidth(sample: AckSample): void {
    this.#roundStart = false;
    if (sample.rateInterval <= 0) return;
    if (sample.priorDelivered >= this.#nextRoundDelivered) {
      this.#nextRoundDelivered = sample.totalDelivered;
      this.#round++;
      this.#roundStart = true;
      this.#conserves = false;
    }
    const value = sample.rateBytes / sample.rateInterval;
    if (sample.isAppLimited && value < this.#bandwidth) return;
    const kept = this.#bandwidths.filter((one) => one.round > this.#round - 10 && one.value > value);
    kept.push({ round: this.#round, value });
    this.#bandwidths = kept;
  }

  #updateCycle(now: number, sample: AckSample): void {
    if (this.#mode !== "probe-bw") return;
    const gain = CYCLE[this.#cycle];
    const isFullLength = now - this.#cycleAt > this.#minRtt;
    let next = isFullLength;
    if (gain > 1) next = isFullLength && (sample.lost > 0 || sample.priorInFlight >= this.#inflight(gain));
    else if (gain < 1) next = isFullLength || sample.priorInFlight <= this.#inflight(1);
    if (!next) return;
    this.#cycle = (this.#cycle + 1) % CYCLE.length;
    this.#cycleAt = now;
  }

  #checkFull(): void {
    if (this.#bandwidth >= this.#fullBandwidth * 1.25) {
      this.#fullBandwidth = this.#bandwidth;
      this.#fullCount = 0;
    } else if (++this.#fullCount >= 3) this.#isFull = true;
  }

  #enterProbeBw(now: number): void {
    this.#mode = "probe-bw";
    this.#cycle = (8 - 1 - (this.#random() % 7)) % 8;
    this.#cycleAt = now;
  }

  #updateMinRtt(now: number, sample: AckSample): void {
    const isExpired = now - this.#minRttAt > 10_000;
    if (sample.rtt >= 0 && (sample.rtt < this.#minRtt || isExpired)) {
      this.#minRtt = sample.rtt;
      this.#minRttAt = now;
    }
    if (isExpired && this.#mode !== "probe-rtt") {
      this.#mode = "probe-rtt";
      this.#priorCwnd = this.cwnd;
      this.#probeDone = -1;
    }
    if (this.#mode !== "probe-rtt") return;
    if (this.#probeDone < 0 && sample.inFlight <= 4) this.#probeDone = now + 200;
    else if (this.#probeDone >= 0 && now > this.#probeDone) {
      this.#minRttAt = now;
      this.cwnd = Math.max(this.cwnd, this.#priorCwnd);
      if (this.#isFull) this.#enterProbeBw(now);
      else this.#mode = "startup";
    }
  }

  #setPacing(sample: AckSample): void {
    const gain =
      this.#mode === "startup"
        ? HIGH_GAIN
        : this.#mode === "drain"
          ? 1 / HIGH_GAIN
          : this.#mode === "probe-bw"
            ? CYCLE[this.#cycle]
            : 1;
    let bandwidth = this.#bandwidth;
    if (bandwidth === 0) {
      if (sample.rtt <= 0) return;
      bandwidth = (this.cwnd * 1500) / sample.rtt;
    }
    const rate = gain * bandwidth * 0.99;
    if (this.#isFull || rate > this.pacingRate || this.pacingRate === Number.POSITIVE_INFINITY) {
      this.pacingRate = rate;
    }
  }

  /** Packets in flight for a gain. */
  #inflight(gain: number): number {
    if (this.#minRtt === Number.POSITIVE_INFINITY || this.#bandwidth === 0) return INITIAL_WINDOW;
    return Math.ceil((gain * this.#bandwidth * this.#minRtt) / 1500) + 3;
  }

  #setCwnd(sample: AckSample): void {
    let cwnd = this.cwnd;
    if (this.#inRecovery) {
      if (sample.lost > 0) cwnd = Math.max(cwnd - sample.lost, 1);
      if (this.#conserves) {
        this.cwnd = this.#bounded(Math.max(cwnd, sample.inFlight + sample.delivered));
        return;
      }
    }
    const gain = this.#mode === "startup" || this.#mode === "drain" ? HIGH_GAIN : 2;
    const target = this.#inflight(gain);
    if (this.#isFull) cwnd = Math.min(cwnd + sample.delivered, target);
    else if (cwnd < target || sample.totalDelivered < INITIAL_WINDOW) cwnd += sample.delivered;
    this.cwnd = this.#bounded(Math.max(cwnd, 4));
  }

  #bounded(cwnd: number): number {
    return this.#mode === "probe-rtt" ? Math.min(cwnd, 4) : cwnd;
  }

  handleRecovery(_now: number, inFlight: number): void {
    if (this.#mode !== "probe-rtt") this.#priorCwnd = this.cwnd;
    this.#inRecovery = true;
    this.#conserves = true;
    this.#nextRoundDelivered = this.#totalDelivered;
    this.cwnd = Math.max(inFlight, 1);
  }

  handleRecovered(): void {
    this.#inRecovery = false;
    this.#conserves = false;
    this.cwnd = Math.max(this.cwnd, this.#priorCwnd);
  }

  handleUndone(): void {
    this.handleRecovered();
  }

  handleTimeout(): void {
    if (!this.#inRecovery) this.#priorCwnd = this.cwnd;
    this.#inRecovery = true;
    this.#conserves = false;
    this.cwnd = 1;
    this.#fullBandwidth = 0;
  }

  handleIdle(): void {
    // A restart from idle is paced at the estimated bandwidth, which needs no change here.
  }
}
