import { MAX_IP_PACKET_BYTES, PACKET_INVALID, packetLength } from "../../wire/ip/ip-packet.ts";

/** Receives packets as {@link Tun2Socks.handlePackets} does: packet i is `data[offsets[i] .. offsets[i] + lengths[i])`. */
export type OnPackets = (data: Uint8Array, offsets: Int32Array, lengths: Int32Array, count: number) => void;

const BATCH_PACKETS = 1024;

/** Splits a stream into its consecutive IP packets. Copies only packets that span two chunks. */
export class PacketStreamReader {
  readonly #onPackets: OnPackets;
  readonly #offsets = new Int32Array(BATCH_PACKETS);
  readonly #lengths = new Int32Array(BATCH_PACKETS);
  /** The beginning of an incomplete packet. */
  readonly #part = new Uint8Array(MAX_IP_PACKET_BYTES);
  #partLength = 0;

  /** @param onPackets  borrows the memory until it returns, and may modify it */
  constructor(onPackets: OnPackets) {
    this.#onPackets = onPackets;
  }

  /**
   * Handles a chunk of the stream, of any size.
   *
   * @returns false if no valid packet starts where one must; the rest of the stream is then unreadable
   */
  handleStream(chunk: Uint8Array, length: number): boolean {
    let at = 0;
    while (this.#partLength > 0 && at < length) {
      const whole = packetLength(this.#part, 0, this.#partLength);
      if (whole === PACKET_INVALID) return false;
      const missing = whole < 0 ? -whole : whole - this.#partLength;
      const taken = Math.min(missing, length - at);
      this.#part.set(chunk.subarray(at, at + taken), this.#partLength);
      this.#partLength += taken;
      at += taken;
      if (whole !== this.#partLength) continue;
      this.#offsets[0] = 0;
      this.#lengths[0] = whole;
      this.#partLength = 0;
      this.#onPackets(this.#part, this.#offsets, this.#lengths, 1);
    }
    let count = 0;
    let whole = at < length ? packetLength(chunk, at, length) : -1;
    while (whole > 0 && at + whole <= length) {
      this.#offsets[count] = at;
      this.#lengths[count] = whole;
      count++;
      at += whole;
      if (count === BATCH_PACKETS) {
        this.#onPackets(chunk, this.#offsets, this.#lengths, count);
        count = 0;
      }
      whole = at < length ? packetLength(chunk, at, length) : -1;
    }
    if (count > 0) this.#onPackets(chunk, this.#offsets, this.#lengths, count);
    if (whole === PACKET_INVALID) return false;
    if (at < length) {
      this.#part.set(chunk.subarray(at, length), 0);
      this.#partLength = length - at;
    }
    return true;
  }
}
