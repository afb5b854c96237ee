import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import { RateLimit } from "./rate-limit.ts";

/** Limits for the holder of a key; undefined for no limit beyond those of every client. */
export interface KeyLimits {
  /** When it expires, in milliseconds since 1970. */
  readonly expiresAt: number | undefined;
  /** Rate of UDP payload in each direction. */
  readonly bitsPerSecond: number | undefined;
  /** Rate of datagrams in each direction. */
  readonly datagramsPerSecond: number | undefined;
  /** Most associations of all sessions together. */
  readonly maxAssociations: number | undefined;
}

/** A client's key, as the host supplies it. */
export interface KeyEntry extends KeyLimits {
  /** Printable ASCII. Both the name and the key are unique. */
  readonly name: string;
  readonly key: Uint8Array;
}

/** Counts since the server got the key; directions are as in `Counters`. */
export interface KeyCounts {
  datagramsIn: number;
  datagramsOut: number;
  bytesIn: number;
  bytesOut: number;
  /** Datagrams that were dropped because they exceeded the rate. */
  limited: number;
}

/** A client's key with its state at this server. */
export class NamedKey {
  readonly name: string;
  readonly key: Uint8Array;
  /** Current numbers of its holder. */
  sessions = 0;
  associations = 0;
  readonly counts: KeyCounts = { datagramsIn: 0, datagramsOut: 0, bytesIn: 0, bytesOut: 0, limited: 0 };
  #limits: KeyLimits;
  #rateIn: RateLimit | undefined;
  #rateOut: RateLimit | undefined;

  constructor({ name, key, ...limits }: KeyEntry) {
    this.name = name;
    this.key = key;
    this.#limits = limits;
    this.limits = limits;
  }

  get limits(): KeyLimits {
    return this.#limits;
  }

  /** New limits begin with full buckets. */
  set limits(limits: KeyLimits) {
    const { bitsPerSecond, datagramsPerSecond } = limits;
    const isSameRate =
      this.#rateIn !== undefined &&
      bitsPerSecond === this.#limits.bitsPerSecond &&
      datagramsPerSecond === this.#limits.datagramsPerSecond;
    this.#limits = limits;
    if (isSameRate) return;
    const isLimited = bitsPerSecond !== undefined || datagramsPerSecond !== undefined;
    this.#rateIn = isLimited ? new RateLimit(bitsPerSecond, datagramsPerSecond) : undefined;
    this.#rateOut = isLimited ? new RateLimit(bitsPerSecond, datagramsPerSecond) : undefined;
  }

  /** Whether a limit applies to all of its sessions together, so that one thread has to serve them. */
  get isShared(): boolean {
    return this.#rateIn !== undefined || this.#limits.maxAssociations !== undefined;
  }

  get hasRoomForAssociation(): boolean {
    return this.associations < (this.#limits.maxAssociations ?? Number.POSITIVE_INFINITY);
  }

  isExpired(unixMs: number): boolean {
    return this.#limits.expiresAt !== undefined && unixMs >= this.#limits.expiresAt;
  }

  /** Counts a datagram out of a tunnel. @returns false if it exceeds the rate and has to be dropped */
  admitIn(now: number, length: number): boolean {
    if (this.#rateIn?.take(now, length) === false) {
      this.counts.limited++;
      return false;
    }
    this.counts.datagramsIn++;
    this.counts.bytesIn += length;
    return true;
  }

  /** Counts rows `first` to `end - 1` into a tunnel. @returns the first row that exceeds the rate, or `end` */
  admitRun(now: number, received: ReceivedDatagrams, first: number, end: number): number {
    let row = first;
    while (row < end && this.admitOut(now, received.length(row))) row++;
    // The first of them is counted already.
    if (row < end) this.counts.limited += end - row - 1;
    return row;
  }

  /** Counts a datagram into a tunnel. @returns false if it exceeds the rate and has to be dropped */
  admitOut(now: number, length: number): boolean {
    if (this.#rateOut?.take(now, length) === false) {
      this.counts.limited++;
      return false;
    }
    this.counts.datagramsOut++;
    this.counts.bytesOut += length;
    return true;
  }
}
