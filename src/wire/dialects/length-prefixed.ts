/** `length 2 | payload`, in network order: the frames of udptunnel and udp-over-tcp. */
import { readUint16, writeUint16 } from "../network-order.ts";
import type { Codec, Frame } from "./dialect.ts";
import { FRAME_OTHER, incomplete, MAX_UDP_BYTES, setPayload } from "./dialect.ts";

const HEADER_BYTES = 2;
const NOTHING = new Uint8Array(0);

export interface LengthPrefixedOptions {
  /** Bytes that a client sends first. */
  readonly hello: Uint8Array;
  readonly isClient: boolean;
  /** Smallest payload that is sent. */
  readonly minBytes: number;
  /** Largest payload of the first frame that is sent. */
  readonly firstMaxBytes: number;
}

export class LengthPrefixed implements Codec {
  readonly hello: Uint8Array;
  readonly #greeting: Uint8Array;
  readonly #minBytes: number;
  readonly #firstMaxBytes: number;
  #isGreeted: boolean;
  #isFirst = true;

  constructor({ hello, isClient, minBytes, firstMaxBytes }: LengthPrefixedOptions) {
    this.hello = isClient ? hello : NOTHING;
    this.#greeting = hello;
    this.#isGreeted = isClient || hello.length === 0;
    this.#minBytes = minBytes;
    this.#firstMaxBytes = firstMaxBytes;
  }

  read(bytes: Uint8Array, offset: number, end: number, frame: Frame): number {
    if (!this.#isGreeted) return this.#readGreeting(bytes, offset, end, frame);
    if (end - offset < HEADER_BYTES) return incomplete(frame, HEADER_BYTES);
    const length = HEADER_BYTES + readUint16(bytes, offset);
    if (end - offset < length) return incomplete(frame, length);
    setPayload(frame, offset + HEADER_BYTES, offset + length);
    return length;
  }

  #readGreeting(bytes: Uint8Array, offset: number, end: number, frame: Frame): number {
    const greeting = this.#greeting;
    if (!beginsLike(bytes, offset, end, greeting)) return -1;
    if (end - offset < greeting.length) return incomplete(frame, greeting.length);
    this.#isGreeted = true;
    frame.kind = FRAME_OTHER;
    return greeting.length;
  }

  headerLength(): number {
    return HEADER_BYTES;
  }

  minPayload(): number {
    return this.#minBytes;
  }

  maxPayload(): number {
    return this.#isFirst ? this.#firstMaxBytes : MAX_UDP_BYTES;
  }

  writeHeader(
    to: Uint8Array,
    at: number,
    _flow: number,
    _isNew: boolean,
    _address: unknown,
    length: number,
  ): number {
    this.#isFirst = false;
    writeUint16(to, at, length);
    return at + HEADER_BYTES;
  }

  keepalive(): undefined {}

  answerKeepalive(): undefined {}
}

/** Whether `bytes[offset..end)` and `whole` are equal up to the length of the shorter one. */
export function beginsLike(bytes: Uint8Array, offset: number, end: number, whole: Uint8Array): boolean {
  const length = Math.min(end - offset, whole.length);
  for (let i = 0; i < length; i++) if (bytes[offset + i] !== whole[i]) return false;
  return true;
}
