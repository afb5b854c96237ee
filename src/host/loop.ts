/** A call that is due at some time. */
export interface Timer {
  /** Does nothing once it was called back. */
  cancel(): void;
}

/** The loop that everything of one host runs on, and its clock. */
export interface Loop {
  /** Time that never goes back, in milliseconds with fractions. */
  now(): number;
  /**
   * Calls back once, at least `delayMs` later.
   *
   * @param isOptional  true if the program may end before; default false
   */
  after(delayMs: number, callback: () => void, isOptional?: boolean): Timer;
  /** Calls back in the next turn of the loop, in the order of the calls. */
  nextTurn(callback: () => void): void;
}

/** Resolves in the next turn of the loop. */
export function nextTurn(loop: Loop): Promise<void> {
  return new Promise((done) => loop.nextTurn(done));
}

/** Resolves at least `delayMs` later. */
export function wait(loop: Loop, delayMs: number): Promise<void> {
  return new Promise((done) => void loop.after(delayMs, done));
}
