/** One timer for a machine of core: armed for its next deadline, never cleared when that moves back. */
export class DeadlineTimer {
  readonly #onDeadline: () => void;
  #timer: NodeJS.Timeout | undefined;
  #armedFor = Number.POSITIVE_INFINITY;

  constructor(onDeadline: () => void) {
    this.#onDeadline = onDeadline;
  }

  /**
   * @param deadline  when to wake, in the clock of `now`; Infinity for never
   * @param now       milliseconds of the monotonic clock
   */
  arm(deadline: number, now: number): void {
    if (deadline >= this.#armedFor) return;
    clearTimeout(this.#timer);
    this.#armedFor = deadline;
    this.#timer = setTimeout(
      () => {
        this.#armedFor = Number.POSITIVE_INFINITY;
        this.#onDeadline();
      },
      Math.max(0, Math.ceil(deadline - now)),
    );
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#armedFor = Number.POSITIVE_INFINITY;
  }
}
