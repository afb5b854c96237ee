import type { Loop, Timer } from "./loop.ts";

/**
 * Cancels work that is no longer needed: an attempt to connect, a handshake, a look-up. The caller that started the work cancels it; the
 * code that does the work listens or checks.
 */
export class Cancellation {
  readonly #callbacks = new Set<() => void>();
  #isCancelled = false;
  #isExpired = false;
  #leave: () => void = () => {};
  #timer: Timer | undefined;

  /** True from the time that {@link cancel} was called, here or on a parent, or the time was up. */
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
   * Calls back once it is cancelled, within {@link cancel}; never within this call, even if it is cancelled already.
   *
   * @returns a function that removes the callback
   */
  onCancel(callback: () => void): () => void {
    // The same function may be registered twice.
    const own = () => callback();
    this.#callbacks.add(own);
    if (this.#isCancelled) {
      void Promise.resolve().then(() => {
        if (this.#callbacks.delete(own)) callback();
      });
    }
    return () => this.#callbacks.delete(own);
  }

  /** Returns a cancellation that is cancelled with this one, or after a time. Release it when its work has ended. */
  within(loop: Pick<Loop, "after">, timeoutMs: number): Cancellation {
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

  /** Detaches it from its parent and stops its timer. It can still be cancelled by itself. */
  release(): void {
    this.#leave();
    this.#timer?.cancel();
  }
}
