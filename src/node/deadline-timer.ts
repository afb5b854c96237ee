import { performance } from "node:perf_hooks";

/** One timer for a machine of core: armed for its next deadline, and left alone when that is postponed. */
export class DeadlineTimer {
  readonly #onDeadline: () => void;
  #timer: NodeJS.Timeout | undefined;
  #armedFor = Number.POSITIVE_INFINITY;

  constructor(onDeadline: () => void) {
    this.#onDeadline = onDeadline;
  }

  /** @param deadline  when to wake, in milliseconds of performance.now(); Infinity for never */
  arm(deadline: number): void {
    if (deadline >= this.#armedFor) return;
    clearTimeout(this.#timer);
    this.#armedFor = deadline;
    this.#timer = setTimeout(
      () => {
        this.#armedFor = Number.POSITIVE_INFINITY;
        this.#onDeadline();
      },
      Math.max(0, Math.ceil(deadline - performance.now())),
    );
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#armedFor = Number.POSITIVE_INFINITY;
  }
}
