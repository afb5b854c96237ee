import type { Codec } from "../../wire/dialects/dialect.ts";
import { FRAME_DATAGRAM, FRAME_INCOMPLETE, FRAME_MALFORMED, Frame } from "../../wire/dialects/dialect.ts";
import type { DatagramBatch } from "../session/datagram-batch.ts";

const FIRST_BYTES = 256;

/** Gets the frames of a connection, each in {@link FrameReader.frame}. `owner` is the connection. */
export interface FrameReceiver<Owner> {
  /**
   * Adds the datagram that was just read to the batch, or drops it.
   *
   * @returns false if something has to end for it first, for which the batch has to be sent on
   */
  handleDatagramFrame(now: number, owner: Owner): boolean;
  /** Any other frame. */
  handleOtherFrame(owner: Owner): void;
}

/** Cuts a stream into a dialect's frames. Copies only what spans chunks, as it comes, and so no more than was sent. */
export class FrameReader {
  readonly frame = new Frame();
  /** Where the payload of the last frame is: the chunk, or memory of the reader. */
  data: Uint8Array = new Uint8Array(0);
  /** Offset in the chunk behind the last frame, or, after {@link FRAME_INCOMPLETE}, its end. */
  offset = 0;

  readonly #codec: Codec;
  /** The beginning of a frame. */
  #partial: Uint8Array = new Uint8Array(0);
  #length = 0;

  constructor(codec: Codec) {
    this.#codec = codec;
  }

  /**
   * Reads the frames of `chunk[offset..end)` until the batch is full or contains something that cannot be combined with the rest.
   *
   * @returns the offset up to which they were consumed, or {@link FRAME_MALFORMED} once all before has been sent on
   */
  readInto<Owner>(
    now: number,
    owner: Owner,
    chunk: Uint8Array,
    offset: number,
    end: number,
    batch: DatagramBatch,
    receiver: FrameReceiver<Owner>,
  ): number {
    let at = offset;
    while (!batch.isFull) {
      const status = this.next(chunk, at, end);
      if (status === FRAME_INCOMPLETE) return end;
      if (status < 0) return batch.count > 0 ? at : FRAME_MALFORMED;
      if (this.frame.kind !== FRAME_DATAGRAM) receiver.handleOtherFrame(owner);
      else if (!receiver.handleDatagramFrame(now, owner)) return at;
      else if (this.data !== chunk && batch.count > 0) {
        // It was assembled from two chunks, and is alone in the batch, which has one buffer.
        batch.data = this.data;
        return this.offset;
      }
      at = this.offset;
    }
    return at;
  }

  /** Reads the next frame of `chunk[offset..end)`. @returns what {@link Codec.read} does */
  next(chunk: Uint8Array, offset: number, end: number): number {
    const { frame } = this;
    if (this.#length > 0) return this.#continue(chunk, offset, end);
    const status = offset === end ? FRAME_INCOMPLETE : this.#codec.read(chunk, offset, end, frame);
    this.data = chunk;
    this.offset = status > 0 ? offset + status : end;
    if (status === FRAME_INCOMPLETE && offset < end) this.#keep(chunk, offset, end);
    return status;
  }

  /** True if the stream may end here. */
  get isBetweenFrames(): boolean {
    return this.#length === 0;
  }

  #continue(chunk: Uint8Array, offset: number, end: number): number {
    const { frame } = this;
    let at = offset;
    for (;;) {
      const wanted = frame.needed - this.#length;
      const taken = Math.min(wanted, end - at);
      this.#keep(chunk, at, at + taken);
      at += taken;
      this.offset = at;
      if (taken < wanted) return FRAME_INCOMPLETE;
      const status = this.#codec.read(this.#partial, 0, this.#length, frame);
      if (status === FRAME_INCOMPLETE) continue;
      this.data = this.#partial;
      // The payload is borrowed from it.
      this.#partial = new Uint8Array(0);
      this.#length = 0;
      return status;
    }
  }

  #keep(chunk: Uint8Array, offset: number, end: number): void {
    const length = this.#length + end - offset;
    if (this.#partial.length === 0) {
      this.#partial = new Uint8Array(Math.max(FIRST_BYTES, length));
    } else if (length > this.#partial.length) {
      const larger = new Uint8Array(2 * length);
      larger.set(this.#partial.subarray(0, this.#length));
      this.#partial = larger;
    }
    this.#partial.set(chunk.subarray(offset, end), this.#length);
    this.#length = length;
  }
}
