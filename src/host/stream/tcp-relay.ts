import type { Loop, Timer } from "../loop.ts";
import type { ByteStream, ByteStreamEvents } from "./byte-stream.ts";
import type { PacedReader, TransferPacer, TransferPacing } from "./transfer-pacer.ts";

/** Idle time after which a half-closed connection is reset; the same as `tcp.closing` in OpenBSD's pf. */
const HALF_OPEN_IDLE_MS = 900_000;

export interface RelayOptions {
  /** Both are closed. */
  readonly onClosed?: () => void;
  readonly halfOpenIdleMs?: number;
  /** Default: as fast as the connections accept data. */
  readonly pacing?: TransferPacing | undefined;
}

/**
 * Relays between two connections until both directions have ended. A FIN is passed on as a FIN, which leaves the other direction open; a
 * reset, or any other failure, as a reset. While one accepts no more, the other is not read, so at most one chunk waits for each.
 *
 * @param near  like `far`, the relay's from now on; no bytes are lent to it
 */
export function relayTcp(near: ByteStream, far: ByteStream, loop: Loop, options: RelayOptions = {}): void {
  new TcpRelay(near, far, loop, options).start();
}

class TcpRelay {
  readonly #loop: Loop;
  readonly #halfOpenIdleMs: number;
  readonly #onClosed: (() => void) | undefined;
  readonly #near: RelayEnd;
  readonly #far: RelayEnd;
  /** Since one direction has ended. */
  #timer: Timer | undefined;
  #activeAt = 0;

  constructor(near: ByteStream, far: ByteStream, loop: Loop, options: RelayOptions) {
    this.#loop = loop;
    this.#halfOpenIdleMs = options.halfOpenIdleMs ?? HALF_OPEN_IDLE_MS;
    this.#onClosed = options.onClosed;
    const pacers = options.pacing?.pacersFor(far);
    this.#near = new RelayEnd(near, this, pacers?.up);
    this.#far = new RelayEnd(far, this, pacers?.down);
    this.#near.other = this.#far;
    this.#far.other = this.#near;
  }

  start(): void {
    this.#near.stream.handTo(this.#near);
    this.#far.stream.handTo(this.#far);
    this.#near.stream.resume();
    this.#far.stream.resume();
  }

  handleActivity(): void {
    if (this.#timer !== undefined) this.#activeAt = this.#loop.now();
  }

  /** Nothing else notices a peer that vanishes after its FIN, because a stream that was read to its end is not read any more. */
  handleHalfOpen(): void {
    this.#activeAt = this.#loop.now();
    this.#timer ??= this.#loop.after(this.#halfOpenIdleMs, this.#handleTimeout, true);
  }

  reset(): void {
    for (const { stream, isClosed } of [this.#near, this.#far]) if (!isClosed) stream.reset();
  }

  handleClosed(): void {
    if (!this.#near.isClosed || !this.#far.isClosed) return;
    this.#timer?.cancel();
    this.#onClosed?.();
  }

  readonly #handleTimeout = (): void => {
    const left = this.#activeAt + this.#halfOpenIdleMs - this.#loop.now();
    if (left > 0) this.#timer = this.#loop.after(left, this.#handleTimeout, true);
    else this.reset();
  };
}

/** One of the two connections. */
class RelayEnd implements ByteStreamEvents, PacedReader {
  readonly stream: ByteStream;
  readonly #relay: TcpRelay;
  other!: RelayEnd;
  isClosed = false;
  readonly #pacer: TransferPacer | undefined;
  /** Why it is not read: the other connection accepts no more, or it is not its turn. */
  #isBlocked = false;
  #isWaiting = false;
  /** Limit for one read, in bytes; 0 for none. */
  #most = 0;
  /** Its peer has sent a FIN. */
  #hasEnded = false;
  /** The FIN of the other connection's peer was passed on. */
  #isFinished = false;

  constructor(stream: ByteStream, relay: TcpRelay, pacer: TransferPacer | undefined) {
    this.#pacer = pacer;
    this.stream = stream;
    this.#relay = relay;
  }

  onBytes(chunk: Uint8Array, length: number): void {
    this.#relay.handleActivity();
    const bytes = length === chunk.length ? chunk : chunk.subarray(0, length);
    if (!this.other.stream.write(bytes, false, this.stream.reusesMemory)) this.#isBlocked = true;
    if (this.#pacer?.spend(length, this) === true) this.#isWaiting = true;
    else this.#limitReads(0, 0);
    if (this.#isBlocked || this.#isWaiting) this.stream.pause();
  }

  onWritten(): void {
    this.#relay.handleActivity();
    this.other.handleTaken();
  }

  /** The other connection has accepted the bytes that were lent to it. */
  handleTaken(): void {
    this.#isBlocked = false;
    if (!this.#isWaiting) this.stream.resume();
  }

  #limitReads(most: number, bufferBytes: number): void {
    if (most === this.#most) return;
    this.#most = most;
    this.stream.limitReads?.(most, bufferBytes);
  }

  // PacedReader

  proceed(most: number, bufferBytes: number): void {
    this.#isWaiting = false;
    this.#limitReads(most, bufferBytes);
    if (!this.#isBlocked) this.stream.resume();
  }

  onEnd(): void {
    this.#hasEnded = true;
    this.#relay.handleHalfOpen();
    // This is called only while nothing is lent to the other connection.
    this.other.#isFinished = true;
    this.other.stream.end();
  }

  onClose(error: Error | undefined): void {
    this.isClosed = true;
    if (error !== undefined || !this.#hasEnded || !this.#isFinished) this.#relay.reset();
    this.#relay.handleClosed();
  }
}
