import type { HttpHead } from "../../wire/http/http-head.ts";
import { decodeHead } from "../../wire/http/http-head.ts";
import type { ProtocolError } from "../errors.ts";
import { HeadBuffer } from "../handshakes/head-buffer.ts";
import type { Deliver, StreamCoding } from "../stream-coding.ts";
import { obfsError } from "./obfs-error.ts";

/** simple-obfs `http` at either end: an end's first bytes follow a head of a WebSocket handshake; all others are unchanged. */
export abstract class ObfsHttp implements StreamCoding {
  abstract readonly hasStarted: boolean;
  abstract readonly mayEnd: boolean;
  /** Whether the own head has been sent. */
  protected hasSent = false;
  /** Undefined once the peer's head has arrived. */
  protected head: HeadBuffer | undefined = new HeadBuffer();
  #error: ProtocolError | undefined;

  /** The own head. @param length  of the bytes that follow it at once */
  protected abstract makeHead(length: number): Uint8Array;

  /** @returns what is wrong with the peer's head, which is undefined if it is none */
  protected abstract findFault(head: HttpHead | undefined): string | undefined;

  encode(bytes: Uint8Array): Uint8Array {
    if (this.hasSent || bytes.length === 0) return bytes;
    this.hasSent = true;
    const head = this.makeHead(bytes.length);
    const first = new Uint8Array(head.length + bytes.length);
    first.set(head);
    first.set(bytes, head.length);
    return first;
  }

  decode(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): ProtocolError | undefined {
    if (this.#error !== undefined) return this.#error;
    let at = offset;
    if (this.head !== undefined) {
      at = this.head.take(bytes, offset, end);
      if (at === -1) return undefined;
      const fault = this.findFault(at < 0 ? undefined : decodeHead(this.head.bytes, this.head.length));
      if (fault !== undefined) {
        this.#error = obfsError(fault);
        return this.#error;
      }
      this.head = undefined;
    }
    if (at < end) deliver(bytes, at, end);
    return undefined;
  }
}
