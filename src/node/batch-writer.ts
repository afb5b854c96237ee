import { performance } from "node:perf_hooks";
import type { ByteStream } from "./byte-stream.ts";

/** Where batches come from: an endpoint of core, for one connection. */
export interface BatchSource {
  /** The next bytes, lent until {@link handleTransmitted}. @param now  milliseconds of performance.now() */
  pollTransmit(now: number): Uint8Array | undefined;
  handleTransmitted(): void;
}

/** Writes batches to a stream, one write a batch, and the next only when the system has taken the last. */
export class BatchWriter {
  readonly #stream: ByteStream;
  readonly #source: BatchSource;
  #isWaiting = false;
  #isEnding = false;
  #onClosed: (() => void) | undefined;

  constructor(stream: ByteStream, source: BatchSource) {
    this.#stream = stream;
    this.#source = source;
  }

  /** Writes what there is. */
  pump(now: number): void {
    const stream = this.#stream;
    while (!this.#isWaiting) {
      const batch = this.#source.pollTransmit(now);
      if (batch === undefined) break;
      this.#isWaiting = !stream.isClosed && !stream.write(batch);
      if (!this.#isWaiting) this.#source.handleTransmitted();
    }
    if (this.#isEnding && !this.#isWaiting) stream.end();
  }

  /** Ends the stream once all is written. */
  end(): void {
    this.#isEnding = true;
    this.pump(performance.now());
  }

  /** As {@link end}, but destroys the stream after `timeoutMs`. Resolves when it is closed, which it must not be yet. */
  endWithin(timeoutMs: number): Promise<void> {
    return new Promise((done) => {
      const timer = setTimeout(() => this.#stream.destroy(), timeoutMs);
      this.#onClosed = () => {
        clearTimeout(timer);
        done();
      };
      this.end();
    });
  }

  /** To be called when the stream is closed. */
  handleClosed(): void {
    this.#onClosed?.();
  }

  /** To be called when the stream has taken what it did not take at once. */
  handleWritten(): void {
    if (!this.#isWaiting) return;
    this.#isWaiting = false;
    this.#source.handleTransmitted();
    this.pump(performance.now());
  }
}
