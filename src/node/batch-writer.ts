import { Socket } from "node:net";
import type { Duplex } from "node:stream";

/** Where batches come from: an endpoint of core, for one connection. */
export interface BatchSource {
  /** The next bytes, lent until {@link handleTransmitted}. */
  pollTransmit(): Uint8Array | undefined;
  handleTransmitted(): void;
}

/** Writes batches to a stream, one write a batch, and the next only when the system has taken the last. */
export class BatchWriter {
  readonly #stream: Duplex;
  readonly #source: BatchSource;
  /** A stream that is no socket may keep the memory it was given. */
  readonly #mustCopy: boolean;
  #isWaiting = false;
  #isEnding = false;

  constructor(stream: Duplex, source: BatchSource) {
    this.#stream = stream;
    this.#source = source;
    this.#mustCopy = !(stream instanceof Socket);
  }

  /** Writes what there is. */
  pump(): void {
    while (!this.#isWaiting) {
      const batch = this.#source.pollTransmit();
      if (batch === undefined) break;
      if (this.#stream.destroyed || this.#stream.writableEnded) {
        this.#source.handleTransmitted();
        continue;
      }
      this.#isWaiting = true;
      this.#stream.write(this.#mustCopy ? batch.slice() : batch, this.#onWritten);
      if (this.#stream.writableLength === 0) {
        this.#isWaiting = false;
        this.#source.handleTransmitted();
      }
    }
    if (this.#isEnding && !this.#isWaiting) this.#stream.end();
  }

  /** Ends the stream once all is written. */
  end(): void {
    this.#isEnding = true;
    this.pump();
  }

  readonly #onWritten = (): void => {
    // Called on the next tick for a write that was done at once, too: only an empty stream ends the wait.
    if (!this.#isWaiting || this.#stream.writableLength > 0) return;
    this.#isWaiting = false;
    this.#source.handleTransmitted();
    this.pump();
  };
}
