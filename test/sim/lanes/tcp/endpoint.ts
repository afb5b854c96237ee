import type { EventLoop, Wakeable } from "../event-loop.ts";
import type { Packet, Sink } from "../link.ts";
import type { AckSample, CongestionControl } from "./congestion.ts";
import { HEADER_BYTES, MSS, TcpPacket } from "./packet.ts";
import { RateReduction } from "./rate-reduction.ts";
import { TcpReceiver } from "./receiver.ts";
import { RoundTrips } from "./round-trips.ts";
import { SendBuffer } from "./send-buffer.ts";

const MIN_RTO = 200;
const DELAYED_ACK = 40;
const DUPLICATE_ACKS = 3;

/**
 * Loss detection: RACK with DSACK and Eifel, as in Linux; the two thresholds of RFC 9002, without undo; or as in ngtcp2, whose
 * packet threshold is half of the packets in flight, and which undoes spurious losses.
 */
export type Recovery = "rack" | "quic" | "ngtcp2";
/** RFC 9002 §6.1. */
const PACKET_THRESHOLD = 3;
const MAX_PACKET_THRESHOLD = 256;
const TIME_THRESHOLD = 9 / 8;

export interface TcpEvents {
  /** In-order bytes, borrowed until the call returns. */
  onRead(now: number, chunk: Uint8Array, length: number): void;
  /** There is room again after a partial write. */
  onWritable(now: number): void;
}

interface Segment {
  seq: number;
  length: number;
  sentAt: number;
  /** State of the connection at the time of sending, for rate samples. */
  delivered: number;
  deliveredAt: number;
  firstSentAt: number;
  isAppLimited: boolean;
  isSacked: boolean;
  isLost: boolean;
  isInFlight: boolean;
  retransmits: number;
  /** Number of the transmission, as QUIC numbers packets. */
  number: number;
}

const WAKE_RETRANSMIT = 0;
const WAKE_REORDER = 1;
const WAKE_PACE = 2;
const WAKE_ACK = 3;

/**
 * One end of a TCP connection, close to Linux: SACK, RACK-TLP (RFC 8985), PRR (RFC 6937), delayed acknowledgements,
 * TCP_NODELAY and TCP_NOTSENT_LOWAT. Bytes are real; the receiver reads them from the sender's memory.
 */
export class TcpEndpoint implements Wakeable {
  peer!: TcpEndpoint;
  events: TcpEvents = { onRead: () => {}, onWritable: () => {} };
  retransmitted = 0;
  timeouts = 0;
  isDead = false;

  readonly #loop: EventLoop;
  readonly #out: Sink;
  readonly #congestion: CongestionControl;
  readonly #lowat: number;
  readonly #mss: number;
  readonly #isQuic: boolean;
  readonly #isNgtcp2: boolean;
  #nextNumber = 0;
  #largestAcked = -1;
  #latestRtt = 0;
  // Sending.
  readonly #buffer = new SendBuffer();
  #una = 0;
  #nxt = 0;
  #segments: Segment[] = [];
  #inFlight = 0;
  #sackedCount = 0;
  #lostCount = 0;
  #delivered = 0;
  #deliveredBytes = 0;
  #deliveredAt = 0;
  #firstSentAt = 0;
  #appLimited = 0;
  #isBlocked = false;
  #lastSentAt = 0;
  readonly #rtt = new RoundTrips();
  // Recovery.
  #state: "open" | "recovery" | "loss" = "open";
  #recoveryEnd = 0;
  #rackSentAt = -1;
  #rackRtt = 0;
  #backoff = 0;
  #hasProbed = false;
  readonly #reduction = new RateReduction();
  #retransmitAt = Number.POSITIVE_INFINITY;
  #retransmitArmed = Number.POSITIVE_INFINITY;
  #reorderAt = Number.POSITIVE_INFINITY;
  #nextSendAt = 0;
  #paceArmed = false;
  #isGreedy = false;
  // Reordering, and undoing spurious recoveries.
  #highestSacked = 0;
  #isReordered = false;
  #reorderSteps = 1;
  #stepRound = 0;
  #undoCwnd = 0;
  #undoThreshold = 0;
  #retransmitStamp = -1;
  // Receiving.
  readonly #receiver = new TcpReceiver();
  #ackAt = Number.POSITIVE_INFINITY;
  readonly #sample: AckSample = {
    delivered: 0,
    lost: 0,
    inFlight: 0,
    priorInFlight: 0,
    rtt: -1,
    minRtt: 0,
    rateBytes: 0,
    rateInterval: -1,
    priorDelivered: 0,
    totalDelivered: 0,
    isAppLimited: false,
    isCwndLimited: false,
    inRecovery: false,
  };

  /** @param lowat  accepts writes up to this many unsent bytes; Infinity for a relay that accepts everything */
  constructor(
    loop: EventLoop,
    out: Sink,
    congestion: CongestionControl,
    lowat: number,
    mss = MSS,
    recovery: Recovery = "rack",
  ) {
    this.#loop = loop;
    this.#out = out;
    this.#congestion = congestion;
    this.#lowat = lowat;
    this.#mss = mss;
    this.#isNgtcp2 = recovery === "ngtcp2";
    this.#isQuic = recovery === "quic" || this.#isNgtcp2;
  }

  /** Unsent bytes. */
  get unsent(): number {
    return this.#buffer.end - this.#nxt;
  }

  get unacknowledged(): number {
    return this.#buffer.end - this.#una;
  }

  get readBytes(): number {
    return this.#receiver.next;
  }

  get cwnd(): number {
    return this.#congestion.cwnd;
  }

  /** Sends an endless stream. */
  sendForever(): void {
    this.#isGreedy = true;
    this.#trySend(this.#loop.now);
  }

  stopSending(): void {
    this.#isGreedy = false;
    this.#buffer.end = this.#nxt;
  }

  /** @returns the number of bytes accepted; onWritable tells when to try the rest again */
  write(bytes: Uint8Array, offset: number, end: number): number {
    const length = end - offset;
    this.#isBlocked = false;
    const room = this.#lowat === Number.POSITIVE_INFINITY ? length : this.#lowat - this.unsent;
    const taken = room <= 0 ? 0 : Math.min(length, Math.max(room, this.#mss));
    if (taken > 0) {
      this.#buffer.write(bytes, offset, taken);
      this.#trySend(this.#loop.now);
    }
    if (taken < length) this.#isBlocked = true;
    return taken;
  }

  /** Passes the bytes in order up to `end` to the other end's application. */
  #deliverTo(now: number, reader: TcpEndpoint, end: number): void {
    if (this.#isGreedy) this.#buffer.skip(end);
    else this.#buffer.deliver(now, reader, end);
  }

  wake(now: number, what: number): void {
    if (this.isDead) return;
    switch (what) {
      case WAKE_RETRANSMIT:
        this.#retransmitArmed = Number.POSITIVE_INFINITY;
        if (this.#retransmitAt > now) this.#armRetransmit(this.#retransmitAt);
        else this.#handleTimer(now);
        break;
      case WAKE_REORDER:
        if (this.#reorderAt <= now) {
          this.#reorderAt = Number.POSITIVE_INFINITY;
          if (this.#detectLoss(now) > 0) this.#enterRecovery(now);
          this.#trySend(now);
        }
        break;
      case WAKE_PACE:
        this.#paceArmed = false;
        this.#trySend(now);
        break;
      case WAKE_ACK:
        if (this.#ackAt <= now) this.#sendAck();
        break;
    }
  }

  // Sending

  #trySend(now: number): void {
    const congestion = this.#congestion;
    if (this.#segments.length === 0 && this.unsent > 0 && now - this.#lastSentAt > this.#rto()) {
      congestion.handleIdle(Math.floor((now - this.#lastSentAt) / this.#rto()));
    }
    for (;;) {
      if (this.#inFlight >= Math.floor(congestion.cwnd + 1e-9)) break;
      if (this.#lostCount === 0 && this.unsent <= 0 && !this.#isGreedy) {
        this.#appLimited = Math.max(1, this.#delivered + this.#inFlight);
        break;
      }
      if (now < this.#nextSendAt) {
        if (!this.#paceArmed) {
          this.#paceArmed = true;
          this.#loop.at(this.#nextSendAt, this, WAKE_PACE);
        }
        break;
      }
      this.#sendOne(now);
    }
    if (this.#isBlocked && this.unsent * 2 < this.#lowat) {
      this.#isBlocked = false;
      this.events.onWritable(now);
    }
  }

  #sendOne(now: number): void {
    let segment =
      this.#lostCount > 0 ? this.#segments.find((one) => one.isLost && !one.isInFlight) : undefined;
    if (segment === undefined) {
      const length = this.#isGreedy ? this.#mss : Math.min(this.#mss, this.unsent);
      if (this.#isGreedy) this.#buffer.end = Math.max(this.#buffer.end, this.#nxt + length);
      segment = {
        seq: this.#nxt,
        length,
        sentAt: now,
        delivered: 0,
        deliveredAt: 0,
        firstSentAt: 0,
        isAppLimited: false,
        isSacked: false,
        isLost: false,
        isInFlight: false,
        retransmits: -1,
        number: 0,
      };
      this.#nxt += length;
      this.#segments.push(segment);
    } else this.#lostCount--;
    this.#transmit(now, segment);
  }

  #transmit(now: number, segment: Segment): void {
    if (this.#inFlight === 0) {
      this.#firstSentAt = now;
      this.#deliveredAt = now;
    }
    segment.sentAt = now;
    segment.delivered = this.#delivered;
    segment.deliveredAt = this.#deliveredAt;
    segment.firstSentAt = this.#firstSentAt;
    segment.isAppLimited = this.#appLimited > 0;
    segment.isLost = false;
    segment.number = this.#nextNumber++;
    segment.retransmits++;
    if (segment.retransmits > 0) {
      this.retransmitted++;
      if (this.#retransmitStamp < 0) this.#retransmitStamp = now;
    }
    if (!segment.isInFlight) this.#inFlight++;
    segment.isInFlight = true;
    this.#lastSentAt = now;
    this.#reduction.handleSent();
    const rate = this.#congestion.pacingRate;
    if (rate < Number.POSITIVE_INFINITY) {
      const time = (segment.length + HEADER_BYTES) / rate;
      const credit = Math.max(0, now - this.#nextSendAt);
      this.#nextSendAt = now + Math.max(time / 2, time - credit);
    }
    this.#put(segment.seq, segment.length);
    this.#setTimer(now);
  }

  #put(seq: number, length: number): void {
    const receiver = this.#receiver;
    const sacks = receiver.acknowledge(this.#isQuic ? Number.POSITIVE_INFINITY : 3);
    this.#ackAt = Number.POSITIVE_INFINITY;
    const { next, recentStamp, sawDuplicate } = receiver;
    this.#out.send(
      new TcpPacket(this.peer, seq, length, next, sacks, this.#loop.now, recentStamp, sawDuplicate),
    );
    receiver.sawDuplicate = false;
  }

  #sendAck(): void {
    this.#put(this.#nxt, 0);
  }

  // Receiving

  receive(now: number, packet: Packet): void {
    if (this.isDead) return;
    const { seq, length, ack, sacks, stamp, echo, isDuplicate } = packet as TcpPacket;
    const read = length > 0 ? this.#receiveData(now, seq, length, stamp) : 0;
    this.#receiveAck(now, ack, sacks, echo, isDuplicate);
    if (read > 0) this.peer.#deliverTo(now, this, read);
  }

  /** @returns the new end of the bytes in order, 0 if it did not move */
  #receiveData(now: number, seq: number, length: number, stamp: number): number {
    const receiver = this.#receiver;
    const before = receiver.next;
    if (receiver.receive(seq, length, stamp)) this.#sendAck();
    else if (this.#ackAt === Number.POSITIVE_INFINITY) {
      this.#ackAt = now + DELAYED_ACK;
      this.#loop.at(this.#ackAt, this, WAKE_ACK);
    }
    return receiver.next > before ? receiver.next : 0;
  }

  // Acknowledgements

  #receiveAck(
    now: number,
    ack: number,
    sacks: readonly number[] | undefined,
    echo: number,
    isDuplicate: boolean,
  ): void {
    const sample = this.#sample;
    const before = this.#delivered;
    sample.priorInFlight = this.#inFlight;
    sample.isCwndLimited =
      this.#congestion.cwnd < this.#congestion.ssthresh
        ? this.#congestion.cwnd < 2 * this.#inFlight
        : this.#inFlight + 1 >= this.#congestion.cwnd;
    sample.rtt = -1;
    sample.rateInterval = -1;
    let newest: Segment | undefined;
    let count = 0;
    const segments = this.#segments;
    while (count < segments.length && segments[count].seq + segments[count].length <= ack) {
      const segment = segments[count++];
      if (segment.isSacked) this.#sackedCount--;
      else newest = this.#deliver(now, segment, newest);
    }
    if (isDuplicate && this.#isReordered && this.#una >= this.#stepRound) {
      // RFC 8985 §6.2: widens the window by a step for each round trip with a spurious retransmission.
      this.#reorderSteps = Math.min(16, this.#reorderSteps + 1);
      this.#stepRound = this.#nxt;
    }
    if (count > 0) {
      segments.splice(0, count);
      this.#una = ack;
      this.#backoff = 0;
    }
    if (sacks !== undefined) {
      for (const segment of segments) {
        if (segment.isSacked) continue;
        for (let i = 0; i < sacks.length; i += 2) {
          if (segment.seq < sacks[i] || segment.seq + segment.length > sacks[i + 1]) continue;
          newest = this.#deliver(now, segment, newest);
          segment.isSacked = true;
          this.#sackedCount++;
          break;
        }
      }
    }
    if (newest === undefined && count === 0) return;
    if (newest !== undefined) this.#sampleRate(now, newest);
    const lost = this.#sackedCount > 0 || this.#state !== "open" ? this.#detectLoss(now) : 0;
    sample.delivered = this.#delivered - before;
    sample.lost = lost;
    sample.inFlight = this.#inFlight;
    sample.minRtt = this.#rtt.min;
    sample.totalDelivered = this.#delivered;
    if (
      (!this.#isQuic || this.#isNgtcp2) &&
      this.#state === "recovery" &&
      count > 0 &&
      echo >= 0 &&
      echo < this.#retransmitStamp
    ) {
      // Eifel (RFC 3522, RFC 4015): the acknowledged packet was sent before the first retransmission.
      this.#congestion.cwnd = Math.max(this.#congestion.cwnd, this.#undoCwnd);
      this.#congestion.ssthresh = this.#undoThreshold;
      this.#state = "open";
      this.#congestion.handleUndone(now);
    }
    if (this.#state !== "open" && this.#una >= this.#recoveryEnd) {
      const wasRecovery = this.#state === "recovery";
      this.#state = "open";
      if (wasRecovery || !this.#congestion.usesPrr) this.#congestion.handleRecovered(now);
    }
    if (lost > 0) this.#enterRecovery(now);
    sample.inRecovery = this.#state === "recovery";
    this.#congestion.handleAck(now, sample);
    if (this.#state === "recovery" && this.#congestion.usesPrr) {
      const { ssthresh } = this.#congestion;
      this.#congestion.cwnd = this.#reduction.reduce(sample.delivered, this.#inFlight, ssthresh);
    }
    this.#hasProbed = false;
    this.#setTimer(now);
    this.#trySend(now);
  }

  #deliver(now: number, segment: Segment, newest: Segment | undefined): Segment {
    this.#delivered++;
    this.#deliveredBytes += segment.length + HEADER_BYTES;
    this.#deliveredAt = now;
    if (segment.isInFlight) this.#inFlight--;
    else if (segment.isLost) this.#lostCount--;
    segment.isInFlight = false;
    segment.isLost = false;
    const rtt = now - segment.sentAt;
    if (segment.retransmits === 0) {
      if (this.#sample.rtt < 0 || rtt < this.#sample.rtt) this.#sample.rtt = rtt;
      this.#rtt.add(rtt);
      if (segment.seq < this.#highestSacked) this.#isReordered = true;
    }
    this.#highestSacked = Math.max(this.#highestSacked, segment.seq);
    const isSpurious = segment.retransmits > 0 && rtt < this.#rtt.min;
    if (!isSpurious) {
      this.#largestAcked = Math.max(this.#largestAcked, segment.number);
      this.#latestRtt = rtt;
    }
    if (!isSpurious && segment.sentAt >= this.#rackSentAt) {
      this.#rackSentAt = segment.sentAt;
      this.#rackRtt = rtt;
    }
    return newest === undefined || segment.sentAt > newest.sentAt ? segment : newest;
  }

  #sampleRate(now: number, segment: Segment): void {
    const sample = this.#sample;
    this.#firstSentAt = segment.sentAt;
    if (this.#appLimited > 0 && this.#delivered > this.#appLimited) this.#appLimited = 0;
    const sendInterval = segment.sentAt - segment.firstSentAt;
    const ackInterval = now - segment.deliveredAt;
    const interval = Math.max(sendInterval, ackInterval);
    sample.priorDelivered = segment.delivered;
    sample.isAppLimited = segment.isAppLimited;
    if (interval < this.#rtt.min) return;
    sample.rateBytes = (this.#delivered - segment.delivered) * 1500;
    sample.rateInterval = interval;
  }

  /** RACK. @returns the number of segments newly marked lost */
  #detectLoss(now: number): number {
    if (this.#rackSentAt < 0) return 0;
    const isStrict = !this.#isReordered && (this.#sackedCount >= DUPLICATE_ACKS || this.#state !== "open");
    const reorder = isStrict ? 0 : Math.min((this.#reorderSteps * this.#rtt.min) / 4, this.#rtt.smoothed);
    let found = 0;
    let next = Number.POSITIVE_INFINITY;
    for (const segment of this.#segments) {
      if (segment.isSacked || segment.isLost) continue;
      if (segment.sentAt > this.#rackSentAt) continue;
      if (segment.sentAt === this.#rackSentAt && this.#sackedCount === 0) continue;
      const left = this.#isQuic
        ? this.#quicPatience(now, segment)
        : segment.sentAt + this.#rackRtt + reorder - now;
      if (left <= 0) {
        if (segment.isInFlight) this.#inFlight--;
        segment.isInFlight = false;
        segment.isLost = true;
        this.#lostCount++;
        found++;
      } else next = Math.min(next, now + left);
    }
    this.#reorderAt = next;
    if (next < Number.POSITIVE_INFINITY) this.#loop.at(next, this, WAKE_REORDER);
    return found;
  }

  /** How long to wait for a packet after a later one has arrived. */
  #quicPatience(now: number, segment: Segment): number {
    const threshold = this.#isNgtcp2 ? Math.floor(this.#inFlight / 2) : 0;
    const bounded = Math.min(MAX_PACKET_THRESHOLD, Math.max(PACKET_THRESHOLD, threshold));
    if (this.#largestAcked - segment.number >= bounded) return 0;
    return segment.sentAt + TIME_THRESHOLD * Math.max(this.#rtt.smoothed, this.#latestRtt) - now;
  }

  #enterRecovery(now: number): void {
    if (this.#state !== "open") return;
    this.#state = "recovery";
    this.#recoveryEnd = this.#nxt;
    this.#reduction.begin(this.#congestion.cwnd);
    this.#undoCwnd = this.#congestion.cwnd;
    this.#undoThreshold = this.#congestion.ssthresh;
    this.#retransmitStamp = -1;
    this.#congestion.handleRecovery(now, this.#inFlight);
  }

  // Timers

  #rto(): number {
    if (this.#rtt.smoothed === 0) return 1000;
    if (this.#isQuic)
      return (this.#rtt.smoothed + 4 * this.#rtt.variation + DELAYED_ACK) * 2 ** this.#backoff;
    return (this.#rtt.smoothed + Math.max(MIN_RTO, 4 * this.#rtt.variation)) * 2 ** this.#backoff;
  }

  #setTimer(now: number): void {
    if (this.#inFlight === 0 && this.#lostCount === 0) {
      this.#retransmitAt = Number.POSITIVE_INFINITY;
      return;
    }
    let wait = this.#rto();
    if (this.#mayProbe && !this.#isQuic) {
      const probe = 2 * this.#rtt.smoothed + (this.#inFlight === 1 ? MIN_RTO : 2);
      wait = Math.min(wait, probe);
    }
    this.#retransmitAt = now + wait;
    this.#armRetransmit(this.#retransmitAt);
  }

  get #mayProbe(): boolean {
    return this.#state === "open" && this.#sackedCount === 0 && !this.#hasProbed && this.#rtt.smoothed > 0;
  }

  #armRetransmit(at: number): void {
    if (this.#retransmitArmed <= at) return;
    this.#retransmitArmed = at;
    this.#loop.at(at, this, WAKE_RETRANSMIT);
  }

  #handleTimer(now: number): void {
    if (this.#inFlight === 0 && this.#lostCount === 0) return;
    const [oldest] = this.#segments;
    if (this.#isQuic) {
      // RFC 9002 §6.2: the timer only sends a probe; it marks nothing lost.
      this.#backoff = Math.min(this.#backoff + 1, 8);
      if (this.unsent > 0 || this.#isGreedy) this.#sendOne(now);
      else this.#transmit(now, this.#segments.find((one) => !one.isSacked) ?? oldest);
      return;
    }
    const isProbe = this.#mayProbe && now - oldest.sentAt < this.#rto() - 1;
    if (isProbe) {
      this.#hasProbed = true;
      if (this.unsent > 0) this.#sendOne(now);
      else {
        const last = this.#segments.at(-1)!;
        this.#transmit(now, last);
      }
      return;
    }
    this.timeouts++;
    this.#backoff = Math.min(this.#backoff + 1, 8);
    for (const segment of this.#segments) {
      if (segment.isSacked || segment.isLost) continue;
      if (segment.isInFlight) this.#inFlight--;
      segment.isInFlight = false;
      segment.isLost = true;
      this.#lostCount++;
    }
    if (this.#state !== "loss") this.#congestion.handleTimeout(now);
    else this.#congestion.cwnd = 1;
    this.#state = "loss";
    this.#recoveryEnd = this.#nxt;
    this.#nextSendAt = Math.min(this.#nextSendAt, now);
    this.#trySend(now);
    this.#setTimer(now);
  }
}

/** Joins two ends. */
export function connectTcp(one: TcpEndpoint, other: TcpEndpoint): void {
  one.peer = other;
  other.peer = one;
}
