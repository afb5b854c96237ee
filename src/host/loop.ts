/** A call that is due at a certain time. */
export interface Timer {
  /** Does nothing after the call. */
  cancel(): void;
}

/** The loop that runs everything of one host, and its clock. */
export interface Loop {
  /** Time that never goes back, in milliseconds with fractions. */
  now(): number;
  /**
   * Calls back once, at least `delayMs` later.
   *
   * @param isOptional  true if the program may exit before that; default false
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
