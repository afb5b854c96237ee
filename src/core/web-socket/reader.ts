import {
  CLOSE_NONE,
  CLOSE_POLICY,
  CLOSE_PROTOCOL_ERROR,
  CLOSE_TOO_BIG,
  CLOSE_UNSUPPORTED_DATA,
  FINAL,
  frameHeaderLength,
  framePayloadLength,
  MASKED,
  MAX_CONTROL_PAYLOAD_BYTES,
  MAX_FRAME_HEADER_BYTES,
  type MaskBytes,
  OPCODE_BINARY,
  OPCODE_CLOSE,
  OPCODE_CONTINUATION,
  OPCODE_PING,
  OPCODE_PONG,
  OPCODE_TEXT,
  RESERVED_BITS,
} from "../../wire/http/websocket-frame.ts";
import { copyBytes, copyOf } from "../copy-bytes.ts";
import { ProtocolError } from "../errors.ts";

/** Most bytes of a message; ours have at most a quarter of that. */
export const MAX_MESSAGE_BYTES = 1_048_576;
export const MAX_FRAGMENTS = 1_024;

/** A peer's violation of the protocol, and the code of the close frame that reports it. */
export interface WebSocketFault {
  readonly error: ProtocolError;
  readonly code: number;
}

/** Extracts the payloads of binary messages from a WebSocket's stream, without waiting for complete messages. */
export class WebSocketReader {
  /** Code of the peer's close frame, {@link CLOSE_NONE} if it had none. Nothing is read after it. */
  closeCode: number | undefined;
  /** Set once the peer has violated the protocol. Nothing is read after that. */
  fault: WebSocketFault | undefined;
  readonly #isServer: boolean;
  readonly #maskBytes: MaskBytes;
  readonly #header = new Uint8Array(MAX_FRAME_HEADER_BYTES);
  #headerLength = 0;
  #isInPayload = false;
  #opcode = 0;
  #length = 0;
  /** How many bytes of the frame's payload have arrived. */
  #done = 0;
  readonly #mask = new Uint8Array(4);
  readonly #control = new Uint8Array(MAX_CONTROL_PAYLOAD_BYTES);
  #isInMessage = false;
  #messageLength = 0;
  #fragments = 0;
  #ping: Uint8Array | undefined;

  /** @param isServer  whether this end is the server, which must be sent masked frames; a client must not (RFC 6455 §5.1) */
  constructor(isServer: boolean, maskBytes: MaskBytes) {
    this.#isServer = isServer;
    this.#maskBytes = maskBytes;
  }

  /** Whether nothing more is read. */
  get isOver(): boolean {
    return this.fault !== undefined || this.closeCode !== undefined;
  }

  /**
   * Reads a chunk of any size.
   *
   * @param to  memory for payloads, at least as long as `bytes`; may be `bytes` itself
   * @returns how many bytes were written to `to`
   */
  read(bytes: Uint8Array, length: number, to: Uint8Array): number {
    let written = 0;
    for (let at = 0; at < length && !this.isOver; ) {
      if (!this.#isInPayload) {
        this.#takeHeaderByte(bytes[at++]);
        continue;
      }
      const count = Math.min(this.#length - this.#done, length - at);
      const isControl = this.#opcode >= OPCODE_CLOSE;
      this.#copy(bytes, at, at + count, isControl ? this.#control : to, isControl ? this.#done : written);
      if (!isControl) written += count;
      at += count;
      this.#done += count;
      if (this.#done === this.#length) this.#endFrame();
    }
    return written;
  }

  /** Payload of the last ping, which the next pong has to repeat (§5.5.3); undefined if there was none since the last call. */
  takePing(): Uint8Array | undefined {
    const ping = this.#ping;
    this.#ping = undefined;
    return ping;
  }

  #takeHeaderByte(byte: number): void {
    const header = this.#header;
    header[this.#headerLength++] = byte;
    if (this.#headerLength < 2 || this.#headerLength < frameHeaderLength(header[1])) return;
    if (this.#isServer) this.#mask.set(header.subarray(this.#headerLength - 4, this.#headerLength));
    this.#headerLength = 0;
    this.#beginFrame();
  }

  #beginFrame(): void {
    const opcode = this.#header[0] & 15;
    const isFinal = (this.#header[0] & FINAL) !== 0;
    const length = framePayloadLength(this.#header);
    this.fault =
      this.#judgeHeader() ??
      (opcode >= OPCODE_CLOSE
        ? judgeControl(opcode, isFinal, length)
        : this.#judgeData(opcode, isFinal, length));
    if (this.fault !== undefined) return;
    this.#opcode = opcode;
    this.#length = length;
    this.#done = 0;
    this.#isInPayload = true;
    if (length === 0) this.#endFrame();
  }

  #judgeHeader(): WebSocketFault | undefined {
    const [first, second] = this.#header;
    if ((first & RESERVED_BITS) !== 0)
      return fault(CLOSE_PROTOCOL_ERROR, "an extension that was not agreed on");
    const isMasked = (second & MASKED) !== 0;
    if (isMasked === this.#isServer) return undefined;
    return fault(CLOSE_PROTOCOL_ERROR, isMasked ? "a masked frame" : "a frame without a mask");
  }

  #judgeData(opcode: number, isFinal: boolean, length: number): WebSocketFault | undefined {
    if (opcode === OPCODE_TEXT) return fault(CLOSE_UNSUPPORTED_DATA, "the peer sends text");
    if (opcode > OPCODE_BINARY) return fault(CLOSE_PROTOCOL_ERROR, `opcode ${opcode}`);
    if ((opcode === OPCODE_CONTINUATION) !== this.#isInMessage) {
      return fault(CLOSE_PROTOCOL_ERROR, "fragments out of order");
    }
    if (!this.#isInMessage) this.#messageLength = this.#fragments = 0;
    this.#messageLength += length;
    this.#fragments++;
    this.#isInMessage = !isFinal;
    if (this.#messageLength > MAX_MESSAGE_BYTES)
      return fault(CLOSE_TOO_BIG, "the payload size is over 1 MiB");
    return this.#fragments > MAX_FRAGMENTS ? fault(CLOSE_POLICY, "more than 1,024 fragments") : undefined;
  }

  #endFrame(): void {
    this.#isInPayload = false;
    if (this.#opcode === OPCODE_PING) this.#ping = copyOf(this.#control.subarray(0, this.#length));
    else if (this.#opcode === OPCODE_CLOSE) this.#takeClose();
  }

  #takeClose(): void {
    const code = this.#control[0] * 256 + this.#control[1];
    if (this.#length === 0) this.closeCode = CLOSE_NONE;
    else if (this.#length === 1 || !isSentCode(code))
      this.fault = fault(CLOSE_PROTOCOL_ERROR, "a close frame without a valid code");
    else this.closeCode = code;
  }

  #copy(from: Uint8Array, start: number, end: number, to: Uint8Array, at: number): void {
    if (this.#isServer) this.#maskBytes(from, start, end, to, at, this.#mask, this.#done);
    else if (from !== to) copyBytes(from, start, end - start, to, at);
    else to.copyWithin(at, start, end);
  }
}

function fault(code: number, what: string): WebSocketFault {
  return { code, error: new ProtocolError("ERR_WEB_SOCKET_MALFORMED", what) };
}

function judgeControl(opcode: number, isFinal: boolean, length: number): WebSocketFault | undefined {
  if (opcode > OPCODE_PONG) return fault(CLOSE_PROTOCOL_ERROR, `opcode ${opcode}`);
  if (isFinal && length <= MAX_CONTROL_PAYLOAD_BYTES) return undefined;
  return fault(CLOSE_PROTOCOL_ERROR, "a control frame that is too long or in fragments");
}

/** Whether a code may be sent in a close frame (§7.4). */
function isSentCode(code: number): boolean {
  if (code >= 3000) return code < 5000;
  return code >= 1000 && code <= 1014 && code !== 1004 && code !== CLOSE_NONE && code !== 1006;
}
