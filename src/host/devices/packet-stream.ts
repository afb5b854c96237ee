import { Fifo } from "../../core/fifo.ts";
import type { PacketBatch } from "../../core/tun2socks/packet-batch.ts";
import type { OnPackets } from "../../core/tun2socks/packet-stream-reader.ts";
import { PacketStreamReader } from "../../core/tun2socks/packet-stream-reader.ts";
import type { ByteStream } from "../stream/byte-stream.ts";

/** Bytes that may wait in a stream that the other end does not read; further packets are dropped. */
export const MAX_WAITING_BYTES = 4 * 1024 * 1024;

/** Consecutive IP packets on a byte stream, both ways. */
export class PacketStream {
  readonly #stream: ByteStream;
  /** Bytes to write once the stream accepts more. */
  readonly #waiting = new Fifo<Uint8Array>();
  #waitingBytes = 0;
  #isWaiting = false;
  #reason: string | undefined;

  /**
   * @param onEnd       called once, later, when the stream is closed
   * @param onWritable  called when it is no longer {@link isBlocked}
   */
  constructor(
    stream: ByteStream,
    onPackets: OnPackets,
    onEnd: (reason: string) => void,
    onWritable: () => void = () => {},
  ) {
    this.#stream = stream;
    const reader = new PacketStreamReader(onPackets);
    stream.start({
      onBytes: (chunk, length) => {
        // The reader lends the chunk to code that may write to it, and keeps nothing of it.
        if (reader.handleStream(chunk, length)) return;
        this.#reason = "it sent something other than IP packets";
        stream.destroy();
      },
      onEnd: () => stream.destroy(),
      onWritten: () => {
        this.#writeRest();
        if (!this.isBlocked) onWritable();
      },
      onClose: (error) => onEnd(this.#reason ?? error?.message ?? "closed by the other end"),
    });
  }

  /** Whether written bytes wait for the other end. */
  get isBlocked(): boolean {
    return this.#isWaiting;
  }

  /** Writes all packets, whose memory is borrowed until it returns. @returns how many were dropped */
  write(packets: PacketBatch): number {
    const { count } = packets;
    if (this.#stream.isClosed) return count;
    const data = joinPackets(packets);
    if (this.#waitingBytes + data.length > MAX_WAITING_BYTES) return count;
    this.#waiting.push(data);
    this.#waitingBytes += data.length;
    if (!this.#isWaiting) this.#writeRest();
    return 0;
  }

  close(): void {
    this.#stream.destroy();
  }

  #writeRest(): void {
    this.#isWaiting = false;
    for (let data = this.#waiting.shift(); data !== undefined; data = this.#waiting.shift()) {
      this.#waitingBytes -= data.length;
      if (this.#stream.isClosed) return;
      if (this.#stream.write(data)) continue;
      this.#isWaiting = true;
      return;
    }
  }
}

/** The packets of a batch, one after another. */
export function joinPackets(packets: PacketBatch): Uint8Array {
  const { count, offset, length } = packets;
  let bytes = 0;
  for (let i = 0; i < count; i++) bytes += length[i];
  const data = new Uint8Array(bytes);
  let at = 0;
  for (let i = 0; i < count; i++) {
    data.set(packets.buffer(i).subarray(offset[i], offset[i] + length[i]), at);
    at += length[i];
  }
  return data;
}
