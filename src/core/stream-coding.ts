import type { ProtocolError } from "./errors.ts";

/** Takes decoded bytes, `bytes[offset..end)`. */
export type Deliver = (bytes: Uint8Array, offset: number, end: number) => void;

/** One end of a connection whose bytes are coded in both directions, without I/O. */
export interface StreamCoding {
  /** False while the other end waits for bytes that only {@link encode} returns. */
  readonly hasStarted: boolean;
  /** Whether the peer may end its stream here. */
  readonly mayEnd: boolean;
  /**
   * Encodes the next bytes to send. An empty array yields what precedes any data.
   *
   * @returns memory of the coding, valid until the next call, or `bytes` itself
   */
  encode(bytes: Uint8Array): Uint8Array;
  /**
   * Decodes `bytes[offset..end)`, a chunk of any size. `deliver` is called for each run of decoded bytes, and may keep a run only if it is
   * not part of `bytes`.
   *
   * @returns why the connection must end; the same for all later calls
   */
  decode(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): ProtocolError | undefined;
}

/** Two codings, one inside the other. */
export class LayeredCoding implements StreamCoding {
  readonly #inner: StreamCoding;
  readonly #outer: StreamCoding;
  #deliver: Deliver = () => {};
  #innerError: ProtocolError | undefined;

  /** @param outer  encodes the output of `inner` */
  constructor(inner: StreamCoding, outer: StreamCoding) {
    this.#inner = inner;
    this.#outer = outer;
  }

  get hasStarted(): boolean {
    return this.#inner.hasStarted && this.#outer.hasStarted;
  }

  get mayEnd(): boolean {
    return this.#outer.mayEnd && this.#inner.mayEnd;
  }

  encode(bytes: Uint8Array): Uint8Array {
    return this.#outer.encode(this.#inner.encode(bytes));
  }

  decode(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): ProtocolError | undefined {
    this.#deliver = deliver;
    const error = this.#outer.decode(bytes, offset, end, this.#toInner);
    return this.#innerError ?? error;
  }

  readonly #toInner: Deliver = (bytes, offset, end) => {
    this.#innerError ??= this.#inner.decode(bytes, offset, end, this.#deliver);
  };
}
