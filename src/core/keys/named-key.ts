import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import { RateLimit } from "./rate-limit.ts";

/** What the holder of a key may do; undefined: as much as anybody. */
export interface KeyLimits {
  /** When it expires, in milliseconds since 1970. */
  readonly expiresAt: number | undefined;
  /** UDP payload in each direction. */
  readonly bitsPerSecond: number | undefined;
  /** In each direction. */
  readonly datagramsPerSecond: number | undefined;
  /** Of all sessions together. */
  readonly maxAssociations: number | undefined;
}

/** A key of somebody, as the host has it. */
export interface KeyEntry extends KeyLimits {
  /** Printable ASCII; unique, as is the key. */
  readonly name: string;
  readonly key: Uint8Array;
}

/** Counted since the server knows the key; directions as in `Counters`. */
export interface KeyCounts {
  datagramsIn: number;
  datagramsOut: number;
  bytesIn: number;
  bytesOut: number;
  /** Datagrams beyond the rate, which were dropped. */
  limited: number;
}

/** A key of somebody, with what its holder has at this server. */
export class NamedKey {
  readonly name: string;
  readonly key: Uint8Array;
  /** Those of its holder now. */
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

  /** Other limits begin with full buckets. */
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

  /** True if something is limited over all of its sessions, which therefore have to be together. */
  get isShared(): boolean {
    return this.#rateIn !== undefined || this.#limits.maxAssociations !== undefined;
  }

  get hasRoomForAssociation(): boolean {
    return this.associations < (this.#limits.maxAssociations ?? Number.POSITIVE_INFINITY);
  }

  isExpired(unixMs: number): boolean {
    return this.#limits.expiresAt !== undefined && unixMs >= this.#limits.expiresAt;
  }

  /** Counts a datagram out of a tunnel. @returns false when it is over the rate, and has to be dropped */
  admitIn(now: number, length: number): boolean {
    if (this.#rateIn?.take(now, length) === false) {
      this.counts.limited++;
      return false;
    }
    this.counts.datagramsIn++;
    this.counts.bytesIn += length;
    return true;
  }

  /** The same for rows `first` to `end - 1` into a tunnel. @returns the end of those that are not over the rate */
  admitRun(now: number, received: ReceivedDatagrams, first: number, end: number): number {
    let row = first;
    while (row < end && this.admitOut(now, received.length(row))) row++;
    // One is counted already.
    if (row < end) this.counts.limited += end - row - 1;
    return row;
  }

  /** The same for a datagram into a tunnel. */
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
