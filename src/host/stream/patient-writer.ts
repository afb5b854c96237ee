import { copyOf } from "../../core/copy-bytes.ts";
import type { ByteStream } from "./byte-stream.ts";

/** Writes the few bytes of a handshake, which a stream may not accept at once. */
export class PatientWriter {
  readonly #stream: ByteStream;
  readonly #waiting: Uint8Array[] = [];
  #isLent = false;
  #onDrained: (() => void) | undefined;

  constructor(stream: ByteStream) {
    this.#stream = stream;
  }

  /** @param bytes  copied if they have to wait */
  write(bytes: Uint8Array): void {
    if (this.#isLent) this.#waiting.push(copyOf(bytes));
    else this.#isLent = !this.#stream.write(bytes, false, true);
  }

  /** Calls back once everything is accepted, perhaps before it returns; not if the stream closes first. */
  whenDrained(callback: () => void): void {
    if (this.#isLent) this.#onDrained = callback;
    else callback();
  }

  /** Call this when the stream has accepted what it did not accept at once. */
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
