import { DeadlineTimer } from "./deadline-timer.ts";
import type { UdpIo } from "./io/udp-io.ts";
import type { Loop } from "./loop.ts";

/** A machine of core, with the code that connects it to sockets. */
export interface Driven {
  /** A turn begins, before anything is handled in it. */
  begin?(now: number): void;
  /** Carries out the machine's outputs. */
  drain(now: number): void;
  handleTimeout(now: number): void;
  /** @returns Infinity for never */
  nextTimeout(): number;
}

/** A turn of the loop, for code that has input for a machine. */
export interface Turn {
  /** The clock, read once per turn; {@link schedule}, or a drain, follows. */
  now(): number;
  /** Drains once all events of this turn have been handled. */
  schedule(): void;
}

/** Runs a machine of core: drains it at the end of a turn in which something happened, and wakes it for its next deadline. */
export class Driver implements Turn {
  readonly #loop: Loop;
  readonly #udp: Pick<UdpIo, "afterTurn">;
  readonly #driven: Driven;
  readonly #timer: DeadlineTimer;
  #now = 0;
  #isScheduled = false;
  #isStopped = false;

  constructor(loop: Loop, udp: Pick<UdpIo, "afterTurn">, driven: Driven) {
    this.#loop = loop;
    this.#udp = udp;
    this.#driven = driven;
    this.#timer = new DeadlineTimer(loop, () => {
      driven.handleTimeout(loop.now());
      this.drain();
    });
  }

  now(): number {
    if (this.#now === 0) {
      this.#now = this.#loop.now();
      this.#driven.begin?.(this.#now);
    }
    return this.#now;
  }

  schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.#udp.afterTurn(this.#afterTurn);
  }

  drain(): void {
    const now = this.now();
    this.#now = 0;
    this.#driven.drain(now);
    this.arm();
  }

  /** Wakes it for its next deadline; called by code that handled an event without a drain. */
  arm(): void {
    if (!this.#isStopped) this.#timer.arm(this.#driven.nextTimeout());
  }

  /** Stops waking it. Anything scheduled or drained still happens. */
  stop(): void {
    this.#isStopped = true;
    this.#timer.stop();
  }

  readonly #afterTurn = (): void => {
    this.#isScheduled = false;
    this.drain();
  };
}
