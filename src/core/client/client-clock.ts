/** What time it is, for the ids of keys: by the system's clock, or by a server's where that one was found to be wrong. */
export class ClientClock {
  /** Milliseconds since 1970 at the time 0 of this machine's clock. */
  #offset = 0;
  /** By server: how far its clock is before the system's. */
  readonly #errors = new Map<number, number>();

  /** The system's time is `unixMs`, in milliseconds since 1970, at `now`. */
  handleWallClock(now: number, unixMs: number): void {
    this.#offset = unixMs - now;
  }

  /** A server has sent its time, as it did not know an id that was made by ours. */
  handleServerTime(now: number, server: number, unixMs: number): void {
    this.#errors.set(server, unixMs - now - this.#offset);
  }

  forgetServerTime(server: number): void {
    this.#errors.delete(server);
  }

  /** Milliseconds since 1970, as a server has it. */
  unixMs(now: number, server: number): number {
    return now + this.#offset + (this.#errors.get(server) ?? 0);
  }
}
