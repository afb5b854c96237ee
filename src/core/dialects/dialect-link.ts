import type { Codec } from "../../wire/dialects/dialect.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyBytes } from "../copy-bytes.ts";
import type { Counters } from "../counters.ts";
import type { QueueFraming } from "../session/queue/queue-framing.ts";
import type { SendPool } from "../session/queue/send-pool.ts";
import { SendQueue } from "../session/queue/send-queue.ts";
import { FrameReader } from "./frame-reader.ts";

const FIRST_BATCH_BYTES = 4_096;
const MAX_BATCH_BYTES = 262_144;
/** Most bytes of handshakes and keepalives that may wait for a peer that does not read. */
const MAX_CONTROL_BYTES = 4_096;
/** The queue holds complete frames. In place of a context, each is stored with the length of its header. */
const FRAMES: QueueFraming = {
  headerLength: () => 0,
  writeHeader: (_, at) => at,
  payloadLength: (headerBytes, length) => length - headerBytes,
};
/** Bound for the largest header, which contains a name of 255 bytes. */
const MAX_HEADER_BYTES = 300;

/** Memory in which frames are assembled before they are queued. */
let assembled = new Uint8Array(2_048 + MAX_HEADER_BYTES);

export interface DialectLinkLimits {
  readonly queueBytes: number;
  readonly ageBudgetMs: number;
}

/** Either end of a connection in a dialect: reads frames and writes batches. It allocates no memory until there is traffic. */
export class DialectLink {
  readonly queue: SendQueue;
  /** Whether the handshake is done. Until then, datagrams wait in the queue. */
  isOpen = false;

  readonly #counters: Counters;
  #reader: FrameReader | undefined;
  #codec: Codec | undefined;
  #batch: Uint8Array | undefined;
  #length = 0;
  #isLent = false;
  /** Control bytes to write after the batch that is on loan. */
  #control: Uint8Array[] = [];
  #controlBytes = 0;

  constructor(pool: SendPool, counters: Counters, { queueBytes, ageBudgetMs }: DialectLinkLimits) {
    this.queue = new SendQueue(pool, counters, queueBytes, ageBudgetMs, FRAMES);
    this.#counters = counters;
  }

  /** Sets the codec. Datagrams wait in the queue until {@link open}. */
  use(codec: Codec): void {
    this.#codec = codec;
    this.#reader = new FrameReader(codec);
  }

  /** Begins to write datagrams. Call it once the handshake is done. */
  open(): void {
    this.isOpen = true;
    if (this.codec.hello.length > 0) this.writeControl(this.codec.hello);
  }

  /** The codec from {@link use}. */
  get codec(): Codec {
    return this.#codec!;
  }

  get reader(): FrameReader {
    return this.#reader!;
  }

  /** Writes bytes ahead of all datagrams that are not in a batch yet. @returns false, without writing, if too many bytes wait */
  writeControl(bytes: Uint8Array): boolean {
    if (!this.#isLent && this.#control.length === 0 && this.#reserve(bytes.length)) {
      this.#batch!.set(bytes, this.#length);
      this.#length += bytes.length;
      return true;
    }
    if (this.#controlBytes + bytes.length > MAX_CONTROL_BYTES) return false;
    this.#control.push(bytes);
    this.#controlBytes += bytes.length;
    return true;
  }

  /**
   * Sends a datagram, or queues it while a batch is on loan. `data` is copied. A payload whose length the other end does not accept is
   * dropped.
   *
   * @param slot  the flow's in the pool
   * @param flow  the flow's number on the wire
   */
  writeDatagram(
    now: number,
    slot: number,
    flow: number,
    isNew: boolean,
    address: AddressBytes,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const { codec } = this;
    const { tap } = this.#counters;
    if (length < codec.minPayload() || length > codec.maxPayload(address)) {
      this.#counters.drops.too_long++;
      if (tap !== undefined) this.queue.record(tap, "too_long", slot, 0, data, offset, length);
      return;
    }
    const size = codec.headerLength(address) + length;
    const mayBypass = this.isOpen && !this.#isLent && this.queue.isEmpty && this.#control.length === 0;
    if (mayBypass && this.#reserve(size)) {
      const at = codec.writeHeader(this.#batch!, this.#length, flow, isNew, address, length);
      copyBytes(data, offset, length, this.#batch!, at);
      this.#length += size;
      this.#counters.datagramsOut++;
      this.#counters.bytesOut += length;
      if (tap !== undefined) this.queue.record(tap, undefined, slot, 0, data, offset, length);
      return;
    }
    if (assembled.length < size) assembled = new Uint8Array(65_536 + MAX_HEADER_BYTES);
    const at = codec.writeHeader(assembled, 0, flow, isNew, address, length);
    copyBytes(data, offset, length, assembled, at);
    this.queue.push(now, slot, at, assembled, 0, size);
  }

  /** Bytes for the connection, on loan until {@link handleTransmitted}. */
  pollTransmit(now: number): Uint8Array | undefined {
    if (this.#isLent) return undefined;
    for (const bytes of this.#control) {
      this.#reserve(bytes.length);
      this.#batch!.set(bytes, this.#length);
      this.#length += bytes.length;
    }
    this.#control = [];
    this.#controlBytes = 0;
    if (this.isOpen && !this.queue.isEmpty) {
      this.#reserve(Math.min(MAX_BATCH_BYTES / 2, this.queue.bytes + MAX_HEADER_BYTES) + 65_536);
      this.#length = this.queue.fill(now, this.#batch!, this.#length);
    }
    if (this.#length === 0) return undefined;
    this.#isLent = true;
    return this.#batch!.subarray(0, this.#length);
  }

  /** Takes back the bytes of the last {@link pollTransmit}. */
  handleTransmitted(): void {
    this.#isLent = false;
    this.#length = 0;
    // An idle connection should keep little memory.
    if (this.queue.isEmpty && this.#batch !== undefined && this.#batch.length > 65_536)
      this.#batch = undefined;
  }

  get isDrained(): boolean {
    return !this.#isLent && this.#length === 0 && this.#control.length === 0 && this.queue.isEmpty;
  }

  #reserve(size: number): boolean {
    const wanted = this.#length + size;
    if (this.#batch !== undefined && wanted <= this.#batch.length) return true;
    if (wanted > MAX_BATCH_BYTES) return false;
    const larger = new Uint8Array(Math.max(FIRST_BATCH_BYTES, 2 ** Math.ceil(Math.log2(wanted))));
    if (this.#batch !== undefined) larger.set(this.#batch.subarray(0, this.#length));
    this.#batch = larger;
    return true;
  }
}
