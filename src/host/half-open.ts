/** Time that a connection has for its request even if others want its place. */
const GRACE_MS = 1_000;

/** Connections that have made no request yet, and which of them gives way to a newcomer. */
export class HalfOpen<Connection> {
  readonly #graceCount: number;
  /** When each began to wait, oldest first. */
  readonly #since = new Map<Connection, number>();

  /** @param graceCount  beyond so many, the oldest gives way at once */
  constructor(graceCount: number) {
    this.#graceCount = graceCount;
  }

  add(connection: Connection, now: number): void {
    this.#since.set(connection, now);
  }

  delete(connection: Connection): void {
    this.#since.delete(connection);
  }

  /**
   * The oldest is the one most likely to be slow on purpose. But if few wait, because the others have made their requests, newcomers in quick
   * succession would each end the one before, and nobody would get as far as a request.
   *
   * @returns the connection to close for a newcomer; undefined if the newcomer is to be refused
   */
  givingWay(now: number): Connection | undefined {
    for (const [oldest, since] of this.#since) {
      return this.#since.size > this.#graceCount || now - since >= GRACE_MS ? oldest : undefined;
    }
    return undefined;
  }
}
