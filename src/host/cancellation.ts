import type { Loop, Timer } from "./loop.ts";

/**
 * Ends what has been begun and is no longer wanted: an attempt to connect, a handshake, a look-up. Whoever has begun it cancels;
 * whoever does it listens, or asks.
 */
export class Cancellation {
  readonly #callbacks = new Set<() => void>();
  #isCancelled = false;
  #isExpired = false;
  #leave: () => void = () => {};
  #timer: Timer | undefined;

  /** True for good once {@link cancel} was called, here or at a parent, or the time was up. */
  get isCancelled(): boolean {
    return this.#isCancelled;
  }

  /** True if it is cancelled because its own time was up. */
  get isExpired(): boolean {
    return this.#isExpired;
  }

  cancel(): void {
    if (this.#isCancelled) return;
    this.#isCancelled = true;
    this.release();
    const callbacks = [...this.#callbacks];
    this.#callbacks.clear();
    for (const callback of callbacks) callback();
  }

  /**
   * Calls back once it is cancelled, within {@link cancel}; never within this call, also where it is cancelled already.
   *
   * @returns a function after which `callback` is not called any more
   */
  onCancel(callback: () => void): () => void {
    // The same function may listen twice.
    const own = () => callback();
    this.#callbacks.add(own);
    if (this.#isCancelled) {
      void Promise.resolve().then(() => {
        if (this.#callbacks.delete(own)) callback();
      });
    }
    return () => this.#callbacks.delete(own);
  }

  /**
   * One that is cancelled with this one, and by itself after a time. It has to be released once what it is for has ended.
   */
  within(loop: Loop, timeoutMs: number): Cancellation {
    const child = new Cancellation();
    if (this.#isCancelled) {
      child.cancel();
      return child;
    }
    child.#leave = this.onCancel(() => child.cancel());
    child.#timer = loop.after(
      timeoutMs,
      () => {
        child.#isExpired = true;
        child.cancel();
      },
      true,
    );
    return child;
  }

  /** Parts it from its parent and stops its time. It can still be cancelled by itself. */
  release(): void {
    this.#leave();
    this.#timer?.cancel();
  }
}
