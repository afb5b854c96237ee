/** The time for the ids of keys: by the system's clock, or by a server's clock if the two were found to differ. */
export class ClientClock {
  /** Milliseconds since 1970 at the time 0 of this machine's clock. */
  #offset = 0;
  /** By server: how far its clock is ahead of the system's. */
  readonly #errors = new Map<number, number>();

  /** Sets the system's time at `now` to `unixMs`, in milliseconds since 1970. */
  handleWallClock(now: number, unixMs: number): void {
    this.#offset = unixMs - now;
  }

  /** A server has sent its time, because it did not accept a key's id that was made with ours. */
  handleServerTime(now: number, server: number, unixMs: number): void {
    this.#errors.set(server, unixMs - now - this.#offset);
  }

  forgetServerTime(server: number): void {
    this.#errors.delete(server);
  }

  /** Milliseconds since 1970 by a server's clock. */
  unixMs(now: number, server: number): number {
    return now + this.#offset + (this.#errors.get(server) ?? 0);
  }
}
