import {
  CLOSE_NONE,
  MASK_BYTES,
  MAX_FRAME_HEADER_BYTES,
  type MaskBytes,
  OPCODE_BINARY,
  OPCODE_CLOSE,
  OPCODE_PONG,
  writeFrameHeader,
} from "../../wire/http/websocket-frame.ts";
import { copyBytes } from "../copy-bytes.ts";

/** Most bytes of one message. */
export const MESSAGE_BYTES = 262_144;
/** Number of masks that are drawn at once. */
const MASKS = 64;
const NOTHING = new Uint8Array(0);

/** Writes the frames of one end of a WebSocket. It returns its own memory, valid until the next call. */
export class WebSocketWriter {
  readonly #isServer: boolean;
  readonly #random: (length: number) => Uint8Array;
  readonly #maskBytes: MaskBytes;
  #frame: Uint8Array = NOTHING;
  #masks: Uint8Array = NOTHING;
  #nextMask = 0;

  constructor(isServer: boolean, random: (length: number) => Uint8Array, maskBytes: MaskBytes) {
    this.#isServer = isServer;
    this.#random = random;
    this.#maskBytes = maskBytes;
  }

  /** A binary message with `bytes[offset..end)`, at most {@link MESSAGE_BYTES}. */
  message(bytes: Uint8Array, offset: number, end: number): Uint8Array {
    return this.#frameOf(OPCODE_BINARY, bytes, offset, end);
  }

  pong(payload: Uint8Array): Uint8Array {
    return this.#frameOf(OPCODE_PONG, payload, 0, payload.length);
  }

  /** @param code  {@link CLOSE_NONE} for a frame without one */
  close(code: number): Uint8Array {
    const payload = code === CLOSE_NONE ? NOTHING : Uint8Array.of(code >> 8, code);
    return this.#frameOf(OPCODE_CLOSE, payload, 0, payload.length);
  }

  #frameOf(opcode: number, bytes: Uint8Array, offset: number, end: number): Uint8Array {
    const length = end - offset;
    if (this.#frame.length < MAX_FRAME_HEADER_BYTES + length) {
      this.#frame = new Uint8Array(Math.max(256, 2 ** Math.ceil(Math.log2(MAX_FRAME_HEADER_BYTES + length))));
    }
    const frame = this.#frame;
    const mask = this.#isServer ? undefined : this.#drawMask();
    const at = writeFrameHeader(frame, opcode, length, mask);
    if (mask === undefined) copyBytes(bytes, offset, length, frame, at);
    else this.#maskBytes(bytes, offset, end, frame, at, mask, 0);
    return frame.subarray(0, at + length);
  }

  /** Takes an unpredictable mask (RFC 6455 §10.3). */
  #drawMask(): Uint8Array {
    if (this.#nextMask === this.#masks.length) {
      this.#masks = this.#random(MASKS * MASK_BYTES);
      this.#nextMask = 0;
    }
    this.#nextMask += MASK_BYTES;
    return this.#masks.subarray(this.#nextMask - MASK_BYTES, this.#nextMask);
  }
}
