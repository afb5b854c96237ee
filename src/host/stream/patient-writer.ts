import { copyOf } from "../../core/copy-bytes.ts";
import type { ByteStream } from "./byte-stream.ts";

/** Writes the few bytes of a handshake, of which a stream need not take each at once. */
export class PatientWriter {
  readonly #stream: ByteStream;
  readonly #waiting: Uint8Array[] = [];
  #isLent = false;
  #onDrained: (() => void) | undefined;

  constructor(stream: ByteStream) {
    this.#stream = stream;
  }

  /** @param bytes  which are copied if they have to wait */
  write(bytes: Uint8Array): void {
    if (this.#isLent) this.#waiting.push(copyOf(bytes));
    else this.#isLent = !this.#stream.write(bytes, false, true);
  }

  /** Calls back once all is taken, perhaps before it returns; not if the stream is closed before. */
  whenDrained(callback: () => void): void {
    if (this.#isLent) this.#onDrained = callback;
    else callback();
  }

  /** To be called when the stream has taken what it did not take at once. */
  handleWritten(): void {
    this.#isLent = false;
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      this.write(next);
      if (this.#isLent) return;
    }
    const callback = this.#onDrained;
    this.#onDrained = undefined;
    callback?.();
  }
}
