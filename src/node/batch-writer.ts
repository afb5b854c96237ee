import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { NativeModule } from "./native-module.ts";
import { descriptorOf } from "./tcp-tuning.ts";

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
  /** Writes past the stream while it holds nothing: less work for a batch that the system takes whole. */
  readonly #writeDirectly: NativeModule["tcpWrite"];
  #isWaiting = false;
  #isEnding = false;

  constructor(stream: Duplex, source: BatchSource, native: NativeModule | undefined) {
    this.#stream = stream;
    this.#source = source;
    this.#mustCopy = !(stream instanceof Socket);
    // Not of a class that encrypts what it is given.
    const isBare = Object.getPrototypeOf(stream) === Socket.prototype;
    this.#writeDirectly = isBare ? native?.tcpWrite : undefined;
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
      const left = this.#writeNow(batch);
      if (left.length === 0) {
        this.#source.handleTransmitted();
        continue;
      }
      this.#isWaiting = true;
      this.#stream.write(this.#mustCopy ? left.slice() : left, this.#onWritten);
      if (this.#stream.writableLength === 0) {
        this.#isWaiting = false;
        this.#source.handleTransmitted();
      }
    }
    if (this.#isEnding && !this.#isWaiting) this.#stream.end();
  }

  /** @returns what the system did not take at once */
  #writeNow(batch: Uint8Array): Uint8Array {
    if (this.#writeDirectly === undefined || this.#stream.writableLength > 0) return batch;
    const descriptor = descriptorOf(this.#stream);
    if (descriptor === undefined) return batch;
    const written = this.#writeDirectly(descriptor, batch, batch.length);
    return written === 0 ? batch : batch.subarray(written);
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
