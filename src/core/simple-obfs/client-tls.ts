import type { Deliver } from "../stream-coding.ts";
import { ObfsTls } from "./obfs-tls.ts";
import {
  APPLICATION_DATA,
  CHANGE_CIPHER_SPEC,
  clientHello,
  HANDSHAKE,
  MAX_TICKET_BYTES,
} from "./tls-records.ts";

/** Types of the server's first records: ServerHello, ChangeCipherSpec, and the first data. All others are APPLICATION_DATA. */
const FIRST_TYPES = [HANDSHAKE, CHANGE_CIPHER_SPEC, HANDSHAKE];
const FIRST_DATA = 2;

/** simple-obfs `tls` at the client. The first bytes are the session ticket of a ClientHello; all others are in records. */
export class ObfsTlsClient extends ObfsTls {
  readonly #serverName: string;
  readonly #random: (length: number) => Uint8Array;
  readonly #unixSeconds: () => number;
  #hasStarted = false;
  /** Records that have arrived, counted up to the first data. */
  #arrived = 0;

  constructor(serverName: string, random: (length: number) => Uint8Array, unixSeconds: () => number) {
    super();
    this.#serverName = serverName;
    this.#random = random;
    this.#unixSeconds = unixSeconds;
  }

  get hasStarted(): boolean {
    return this.#hasStarted;
  }

  encode(bytes: Uint8Array): Uint8Array {
    if (bytes.length === 0) return bytes;
    let at = 0;
    let hello: Uint8Array = new Uint8Array(0);
    if (!this.#hasStarted) {
      this.#hasStarted = true;
      at = Math.min(bytes.length, MAX_TICKET_BYTES);
      hello = clientHello(this.#serverName, bytes.subarray(0, at), this.#random, this.#unixSeconds());
    }
    return this.records.write(hello, APPLICATION_DATA, bytes, at);
  }

  protected get wanted(): number {
    return FIRST_TYPES[this.#arrived] ?? APPLICATION_DATA;
  }

  protected override begin(): undefined {}

  protected override take(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): void {
    if (this.#arrived >= FIRST_DATA) deliver(bytes, offset, end);
  }

  protected override finish(): undefined {
    if (this.#arrived < FIRST_TYPES.length) this.#arrived++;
  }
}
