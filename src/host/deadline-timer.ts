import type { Loop, Timer } from "./loop.ts";

/** One timer for a machine of core. It is armed for the next deadline, and left alone when that is postponed. */
export class DeadlineTimer {
  readonly #loop: Loop;
  readonly #onDeadline: () => void;
  #timer: Timer | undefined;
  #armedFor = Number.POSITIVE_INFINITY;

  constructor(loop: Loop, onDeadline: () => void) {
    this.#loop = loop;
    this.#onDeadline = onDeadline;
  }

  /** @param deadline  when to wake, by the clock of the loop; Infinity for never */
  arm(deadline: number): void {
    if (deadline >= this.#armedFor) return;
    this.#timer?.cancel();
    this.#armedFor = deadline;
    this.#timer = this.#loop.after(Math.max(0, Math.ceil(deadline - this.#loop.now())), this.#handleDeadline);
  }

  stop(): void {
    this.#timer?.cancel();
    this.#armedFor = Number.POSITIVE_INFINITY;
  }

  readonly #handleDeadline = (): void => {
    this.#armedFor = Number.POSITIVE_INFINITY;
    this.#onDeadline();
  };
}
