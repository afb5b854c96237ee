import { Fifo } from "../../core/fifo.ts";
import type { PathWatch } from "../../core/lanes/transfers/path-watch.ts";
import { TransferLimit } from "../../core/lanes/transfers/transfer-limit.ts";
import { makeAddress } from "../../wire/socket-address.ts";
import { splitZone } from "../addresses/endpoint.ts";
import { isLoopback } from "../addresses/outgoing.ts";
import type { Loop, Timer } from "../loop.ts";
import type { ByteStream } from "./byte-stream.ts";

const TICK_MS = 20;
/** Ticks without a byte after which the timer stops until the next byte. */
const REST_TICKS = 100;
/** Bytes of one read: few, so the queue that each read causes is short. */
const TURN_MS = 3;
const MIN_TURN_BYTES = 4_096;
const MAX_TURN_BYTES = 65_536;
const NONE = Number.POSITIVE_INFINITY;

/** One direction of a relay. */
export interface PacedReader {
  /** It may read again. @param most  bytes of one read @param bufferBytes  limit for unread bytes; 0 and 0 for no limits */
  proceed(most: number, bufferBytes: number): void;
}

/** The transfers of one direction, which share its limit: each reads once, and then waits until the others have had their turn. */
export class TransferPacer {
  readonly #loop: Loop;
  readonly #wake: () => void;
  readonly #limit: TransferLimit;
  readonly #waiting = new Fifo<PacedReader>();
  #moved = 0;
  /** Bytes that may be read now; negative if too many have been read. */
  #allowance = 0;
  #refilledAt = 0;
  #timer: Timer | undefined;

  /**
   * @param isUp  to targets: this end sends, instead of bounding a sender by how fast it reads
   * @param wake  called whenever bytes have moved
   */
  constructor(loop: Loop, isUp: boolean, wake: () => void) {
    this.#loop = loop;
    this.#limit = new TransferLimit(isUp);
    this.#wake = wake;
  }

  /** A reader has read. @returns true if it has to wait until {@link PacedReader.proceed} is called; false if there is no limit */
  spend(bytes: number, reader: PacedReader): boolean {
    this.#moved += bytes;
    this.#wake();
    if (!this.isLimited) return false;
    this.#allowance -= bytes;
    this.#waiting.push(reader);
    this.#schedule();
    return true;
  }

  get isLimited(): boolean {
    return this.#limit.rate !== NONE;
  }

  get hasMoved(): boolean {
    return this.#moved > 0;
  }

  /** @param watch  undefined for a session that does not measure its path */
  tick(now: number, watch: PathWatch | undefined, isUp: boolean): void {
    const wasLimited = this.isLimited;
    if (wasLimited) this.#refill(now);
    if (watch === undefined) this.#limit.end();
    else {
      const standing = watch.standing(now, isUp);
      this.#limit.tick(now, this.#moved, standing, watch.least(isUp), watch.minRtt, watch.hasCall(now));
    }
    this.#moved = 0;
    if (!this.isLimited) this.#release();
    else if (!wasLimited) {
      this.#allowance = 0;
      this.#refilledAt = now;
    }
  }

  #release(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    for (let left = this.#waiting.length; left > 0; left--) this.#waiting.shift()!.proceed(0, 0);
  }

  get #turnBytes(): number {
    return Math.round(Math.min(MAX_TURN_BYTES, Math.max(MIN_TURN_BYTES, TURN_MS * this.#limit.rate)));
  }

  #refill(now: number): void {
    const more = this.#limit.rate * (now - this.#refilledAt);
    this.#allowance = Math.min(2 * this.#turnBytes, this.#allowance + more);
    this.#refilledAt = now;
  }

  #schedule(): void {
    if (this.#timer !== undefined || this.#waiting.length === 0) return;
    this.#refill(this.#loop.now());
    const lacking = this.#turnBytes - this.#allowance;
    this.#timer = this.#loop.after(Math.max(1, lacking / this.#limit.rate), this.#serve, true);
  }

  readonly #serve = (): void => {
    this.#timer = undefined;
    this.#refill(this.#loop.now());
    const most = this.#turnBytes;
    for (let left = this.#allowance; left > 0 && this.#waiting.length > 0; left -= most) {
      this.#waiting.shift()!.proceed(most, this.#limit.bufferBytes);
    }
    this.#schedule();
  };
}

/**
 * Limits TCP that is relayed beside a session while the session carries a call, at the rate that core determines (transfer-limit.ts).
 * Connections that end on this machine are not limited, because they do not share the path. Of those that another program on this machine
 * relays, only uploads are: what bounds the sender of a download there is that program's receive buffer, which is too large.
 */
export class TransferPacing {
  /** To targets, and from them. */
  readonly up: TransferPacer;
  readonly down: TransferPacer;
  readonly #loop: Loop;
  readonly #watch: () => PathWatch | undefined;
  #timer: Timer | undefined;
  #restTicks = 0;

  /** @param watch  the session's measurements of its path, if it has any */
  constructor(loop: Loop, watch: () => PathWatch | undefined) {
    this.#loop = loop;
    this.#watch = watch;
    const wake = () => this.#wake();
    this.up = new TransferPacer(loop, true, wake);
    this.down = new TransferPacer(loop, false, wake);
  }

  /** @param far  to a target, or to the first hop on the way there @returns undefined for a direction that is not limited */
  pacersFor({ remoteIp, leadsOn }: ByteStream): Partial<Record<"up" | "down", TransferPacer>> {
    const address = remoteIp === undefined ? undefined : makeAddress(splitZone(remoteIp).ip, 0);
    // Without an address it is a Unix socket.
    if (address !== undefined && !isLoopback(address)) return { up: this.up, down: this.down };
    return leadsOn === true ? { up: this.up } : {};
  }

  #wake(): void {
    if (this.#timer !== undefined || this.#watch() === undefined) return;
    this.#restTicks = 0;
    this.#timer = this.#loop.after(TICK_MS, this.#tick, true);
  }

  readonly #tick = (): void => {
    const now = this.#loop.now();
    this.#restTicks = this.up.hasMoved || this.down.hasMoved ? 0 : this.#restTicks + 1;
    const watch = this.#watch();
    // Bytes that were read before the limit began may take long to be sent, and nothing is read meanwhile.
    const isLimited = this.up.isLimited || this.down.isLimited;
    const isResting = watch === undefined || (this.#restTicks > REST_TICKS && !isLimited);
    this.up.tick(now, isResting ? undefined : watch, true);
    this.down.tick(now, isResting ? undefined : watch, false);
    this.#timer = isResting ? undefined : this.#loop.after(TICK_MS, this.#tick, true);
  };
}
