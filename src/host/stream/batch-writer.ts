import type { Loop } from "../loop.ts";
import type { ByteStream } from "./byte-stream.ts";

/** The source of batches: an endpoint of core, for one connection. */
export interface BatchSource {
  /** The next bytes, on loan until {@link handleTransmitted}. @param now  by the clock of the loop */
  pollTransmit(now: number): Uint8Array | undefined;
  /** @returns whether there may be more */
  handleTransmitted(): boolean;
  /** Whether more is to be sent than the path carries. Default: no. */
  isLimited?(now: number): boolean;
}

/** Writes batches to a stream, one write per batch, and the next one only after the system has accepted the last. */
export class BatchWriter {
  readonly #stream: ByteStream;
  readonly #source: BatchSource;
  readonly #loop: Loop;
  #isWaiting = false;
  #isEnding = false;
  #onClosed: (() => void) | undefined;

  constructor(stream: ByteStream, source: BatchSource, loop: Loop) {
    this.#stream = stream;
    this.#source = source;
    this.#loop = loop;
  }

  /** Writes all batches that are ready. */
  pump(now: number): void {
    const stream = this.#stream;
    while (!this.#isWaiting) {
      const batch = this.#source.pollTransmit(now);
      if (batch === undefined) break;
      this.#isWaiting = !stream.isClosed && !stream.write(batch, this.#source.isLimited?.(now));
      if (!this.#isWaiting && !this.#source.handleTransmitted()) break;
    }
    if (this.#isEnding && !this.#isWaiting) stream.end();
  }

  /** Ends the stream once everything is written. */
  end(): void {
    this.#isEnding = true;
    this.pump(this.#loop.now());
  }

  /** Like {@link end}, but destroys the stream after `timeoutMs`. Resolves when the stream is closed, which it must not be yet. */
  endWithin(timeoutMs: number): Promise<void> {
    return new Promise((done) => {
      const timer = this.#loop.after(timeoutMs, () => this.#stream.destroy());
      this.#onClosed = () => {
        timer.cancel();
        done();
      };
      this.end();
    });
  }

  /** Call this when the stream is closed. */
  handleClosed(): void {
    this.#onClosed?.();
  }

  /** Call this when the stream has accepted what it did not accept at once. */
  handleWritten(): void {
    if (!this.#isWaiting) return;
    this.#isWaiting = false;
    this.#source.handleTransmitted();
    this.pump(this.#loop.now());
  }
}
