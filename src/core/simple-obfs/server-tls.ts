import { copyBytes } from "../copy-bytes.ts";
import type { Deliver } from "../stream-coding.ts";
import { ObfsTls } from "./obfs-tls.ts";
import {
  APPLICATION_DATA,
  HANDSHAKE,
  MAX_RECORD_BYTES,
  readClientHello,
  serverHello,
} from "./tls-records.ts";

/** simple-obfs `tls` at the server. */
export class ObfsTlsServer extends ObfsTls {
  readonly hasStarted = true;
  readonly #random: (length: number) => Uint8Array;
  readonly #unixSeconds: () => number;
  /** The session id of the ClientHello, once that has arrived. */
  #sessionId: Uint8Array | undefined;
  /** The ClientHello, as far as it has arrived. */
  #hello = new Uint8Array(0);
  #have = 0;
  #hasAnswered = false;

  constructor(random: (length: number) => Uint8Array, unixSeconds: () => number) {
    super();
    this.#random = random;
    this.#unixSeconds = unixSeconds;
  }

  override get mayEnd(): boolean {
    return this.#sessionId !== undefined && super.mayEnd;
  }

  encode(bytes: Uint8Array): Uint8Array {
    if (bytes.length === 0) return bytes;
    let hello: Uint8Array = new Uint8Array(0);
    let type = APPLICATION_DATA;
    if (!this.#hasAnswered) {
      this.#hasAnswered = true;
      hello = serverHello(this.#sessionId ?? this.#random(32), this.#random, this.#unixSeconds());
      // The first record looks like the server's Finished.
      type = HANDSHAKE;
    }
    return this.records.write(hello, type, bytes, 0);
  }

  protected get wanted(): number {
    return this.#sessionId === undefined ? HANDSHAKE : APPLICATION_DATA;
  }

  protected override begin(length: number): string | undefined {
    if (this.#sessionId !== undefined) return undefined;
    if (length === 0 || length > MAX_RECORD_BYTES) return `a ClientHello of ${length} bytes`;
    this.#hello = new Uint8Array(length);
    return undefined;
  }

  protected override take(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): void {
    if (this.#sessionId !== undefined) {
      deliver(bytes, offset, end);
      return;
    }
    copyBytes(bytes, offset, end - offset, this.#hello, this.#have);
    this.#have += end - offset;
  }

  protected override finish(deliver: Deliver): string | undefined {
    if (this.#sessionId !== undefined) return undefined;
    const read = readClientHello(this.#hello);
    this.#hello = new Uint8Array(0);
    if (read === undefined) return "no ClientHello with a session ticket";
    this.#sessionId = read.sessionId;
    if (read.ticket.length > 0) deliver(read.ticket, 0, read.ticket.length);
    return undefined;
  }
}
