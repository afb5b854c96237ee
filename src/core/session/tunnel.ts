import {
  CAPSULE_COMPRESSION_ACK,
  CAPSULE_DATAGRAM,
  CAPSULE_HEARTBEAT,
  CAPSULE_HEARTBEAT_ECHO,
  datagramHeaderLength,
  encodeHeartbeatEcho,
  MAX_PAYLOAD_BYTES,
  readNumber,
  readNumbers,
  writeDatagramHeader,
} from "../../wire/capsule.ts";
import { CAPSULE_PARITY, CAPSULE_PARITY_LIMIT, encodeParityLimit, MAX_GROUP } from "../../wire/parity.ts";
import { decodeProbe } from "../../wire/probe.ts";
import { CAPSULE_RECEIPT, readSequence, SEQUENCE_BYTES } from "../../wire/receipt.ts";
import { varintLengthFrom } from "../../wire/varint.ts";
import type { Counters } from "../counters.ts";
import type { Datapath } from "../datapath/datapath.ts";
import { RUN_INTS } from "../datapath/datapath.ts";
import { ProtocolError } from "../errors.ts";
import type { LanePort } from "../lanes/lane-port.ts";
import type { CapsuleSet } from "./capsule-reader.ts";
import { CapsuleReader, READ_CAPSULE, READ_NEED } from "./capsule-reader.ts";
import type { DatagramBatch } from "./datagram-batch.ts";
import { Heartbeats } from "./heartbeats.ts";
import type { ProbeTrain } from "./probe-train.ts";
import { ControlQueue } from "./queue/control-queue.ts";
import type { SendQueue } from "./queue/send-queue.ts";
import type { ReceivedDatagrams } from "./received-datagrams.ts";
import { ShortcutEpoch } from "./shortcuts.ts";

const FIRST_BATCH_BYTES = 16_384;
const MAX_BATCH_BYTES = 262_144;
const NEVER = Number.POSITIVE_INFINITY;

export interface TunnelLimits {
  /** Milliseconds between heartbeats. */
  readonly heartbeatMs: number;
  /** Most bytes of control capsules that may wait for a peer that does not read. */
  readonly controlBytes: number;
}

/** Interprets the capsules of a tunnel. `owner` is the connection or lane of the tunnel. */
export interface CapsuleReceiver<Owner> {
  /**
   * Handles a datagram of context `id` with the payload `data[payload..end)`: adds it to the batch, or drops and counts it. Calls the
   * tunnel's `fail` if the peer broke the rules.
   */
  handleDatagramCapsule(
    now: number,
    owner: Owner,
    id: number,
    data: Uint8Array,
    payload: number,
    end: number,
  ): void;
  /**
   * Handles a run of datagrams of context `id`, as {@link handleDatagramCapsule} would one by one, which is called instead if this is
   * undefined. Their payloads are at `batch.offset` and `batch.length` from index `first` to `end - 1`, with `bytes` in total. Not used in
   * sessions with receipts.
   */
  handleDatagramRun?(
    now: number,
    owner: Owner,
    id: number,
    batch: DatagramBatch,
    first: number,
    end: number,
    bytes: number,
  ): void;
  /** Handles any other capsule, in the tunnel's `reader`. @returns false if the owner has given up the tunnel */
  handleControlCapsule(now: number, owner: Owner): boolean;
}

/**
 * The protocol over one TCP connection, from the upgrade on, the same for both ends: splits input into capsules, gathers
 * output into batches, and keeps heartbeats. The session interprets the capsules.
 */
export class Tunnel {
  readonly queue: SendQueue;
  /** Why the tunnel has failed; its owner then closes it. */
  error: ProtocolError | undefined;
  /** A measurement of delay, whose PROBEs are sent and answered here. The owner updates its timer after setting it. */
  probes: ProbeTrain | undefined;
  /** Bytes of datagrams that may still be sent, with their headers; Infinity for no limit. Not used in a session with receipts. */
  allowance = NEVER;
  /** Ends whenever something other than a datagram is written or read. */
  epoch = new ShortcutEpoch(this);

  readonly #datapath: Datapath;
  readonly #limits: TunnelLimits;
  readonly #counters: Counters;
  #reader: CapsuleReader | undefined;
  #extension = false;
  /** Set in a session with receipts, whose scheduler supplies the datagrams, so that {@link queue} stays empty. */
  #port: LanePort | undefined;
  /** Sequence number of the last DATAGRAM capsule, in a session with receipts. */
  #datagramSequence = 0;
  #batch: Uint8Array | undefined;
  #batchLength = 0;
  /** The bytes of the batch that were lent last. */
  #view: Uint8Array | undefined;
  #lent = false;
  readonly #control = new ControlQueue();
  readonly #heartbeats: Heartbeats;
  readonly #numbers: number[] = [0, 0];

  constructor(queue: SendQueue, counters: Counters, limits: TunnelLimits) {
    this.queue = queue;
    this.#datapath = queue.datapath;
    this.#counters = counters;
    this.#limits = limits;
    this.#heartbeats = new Heartbeats(limits.heartbeatMs);
  }

  /**
   * Begins the exchange of capsules after the handshake.
   *
   * @param known  the types that were negotiated
   * @param port   set for "receipts"
   */
  open(now: number, known: CapsuleSet, port?: LanePort): void {
    this.#reader = new CapsuleReader(known);
    this.#extension = known === "extension" || known === "receipts";
    this.#port = port;
    port?.scheduler.setBusy(port.number, this.#lent);
    this.#heartbeats.start(now, this.#extension);
    if (port !== undefined) this.writeControl(encodeParityLimit(MAX_GROUP));
  }

  /** Smoothed round-trip time in milliseconds, once a heartbeat has been answered. */
  get rttMs(): number | undefined {
    return this.#heartbeats.rttMs;
  }

  /** Whether {@link allowance} limits what is sent. */
  get isMetered(): boolean {
    return this.allowance !== NEVER;
  }

  /** The type of the capsule that {@link next} has read. */
  get reader(): CapsuleReader {
    return this.#reader!;
  }

  /**
   * Reads capsules of `chunk[offset..end)` into a batch until the batch is full or must be sent on before the next capsule, or until
   * {@link error} is set. `chunk` is borrowed until the batch has been sent on.
   *
   * @returns the end offset of the consumed bytes; call again with the rest once the batch has been sent on
   */
  readCapsules<Owner>(
    now: number,
    owner: Owner,
    chunk: Uint8Array,
    offset: number,
    end: number,
    batch: DatagramBatch,
    receiver: CapsuleReceiver<Owner>,
  ): number {
    const at = this.#readCapsules(now, owner, chunk, offset, end, batch, receiver);
    if (batch.count > 0) this.#counters.histograms.datagramBytes.add("in", batch.length[0]);
    return at;
  }

  #readCapsules<Owner>(
    now: number,
    owner: Owner,
    chunk: Uint8Array,
    offset: number,
    end: number,
    batch: DatagramBatch,
    receiver: CapsuleReceiver<Owner>,
  ): number {
    const reader = this.#reader!;
    let at = offset;
    const readsRuns = this.#port === undefined && receiver.handleDatagramRun !== undefined;
    batch.data = chunk;
    while (!batch.isFull) {
      if (readsRuns && reader.atBoundary) {
        at = this.#readRuns(now, owner, chunk, at, end, batch, receiver);
        if (at === end || this.error !== undefined) return end;
        if (batch.isFull) break;
      }
      if (!this.#next(now, chunk, at, end)) break;
      if (reader.type !== CAPSULE_DATAGRAM) {
        // The capsule may end contexts of earlier rows, so these are sent on first.
        if (batch.count > 0 && reader.type !== CAPSULE_COMPRESSION_ACK) return reader.start;
        at = reader.offset;
        if (!receiver.handleControlCapsule(now, owner) || this.error !== undefined) return end;
        continue;
      }
      at = reader.offset;
      const { data, valueOffset, valueEnd } = reader;
      const id = readNumber(data, valueOffset, valueEnd);
      let payload = valueOffset + varintLengthFrom(data[valueOffset]);
      if (this.#port !== undefined && id >= 0) payload = this.#takeSequence(now, this.#port, payload);
      if (id < 0 || payload < 0 || valueEnd - payload > MAX_PAYLOAD_BYTES) {
        this.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", "DATAGRAM"));
        return end;
      }
      receiver.handleDatagramCapsule(now, owner, id, data, payload, valueEnd);
      if (data !== chunk && batch.count > 0) {
        // The capsule was assembled from two chunks. A batch has one buffer, so the capsule is alone in it.
        batch.data = data;
        return at;
      }
    }
    return batch.isFull && this.error === undefined ? at : end;
  }

  /** Reads the run of datagrams at the beginning of a chunk. @returns its end offset */
  #readRuns<Owner>(
    now: number,
    owner: Owner,
    chunk: Uint8Array,
    offset: number,
    end: number,
    batch: DatagramBatch,
    receiver: CapsuleReceiver<Owner>,
  ): number {
    const { results } = this.#datapath;
    const { runs } = batch;
    let first = batch.count;
    const count = this.#datapath.readRuns(chunk, offset, end, batch.offset, batch.length, first, runs);
    const at = results[0];
    if (count > 0) this.#heartbeats.receivedAt = now;
    for (let run = 0; run < RUN_INTS * count && this.error === undefined; run += RUN_INTS) {
      const behind = runs[run + 1];
      receiver.handleDatagramRun!(now, owner, runs[run], batch, first, behind, runs[run + 2]);
      first = behind;
    }
    return at;
  }

  /** @returns the end offset of the sequence number; -1 if the capsule is too short for one */
  #takeSequence(now: number, { scheduler, number }: LanePort, offset: number): number {
    const { data, valueEnd } = this.#reader!;
    if (valueEnd - offset < SEQUENCE_BYTES) return -1;
    this.#datagramSequence = readSequence(data, offset);
    scheduler.noteFrame(now, number);
    return offset + SEQUENCE_BYTES;
  }

  /**
   * Whether to deliver the datagram of context `id` that was just read; false if it is a copy, is late, or is held to restore order.
   *
   * @param flow  the context's; -1 for a datagram that must not be held
   */
  acceptsDatagram(now: number, flow: number, id: number, payload: number, end: number): boolean {
    if (this.#port === undefined) return true;
    const { data } = this.#reader!;
    return this.#port.scheduler.accept(now, this.#datagramSequence, flow, id, data, payload, end - payload);
  }

  /**
   * Reads up to the next capsule that is not a heartbeat, a receipt, or about parity.
   *
   * @returns true if `reader` has such a capsule; false if the chunk is used up or {@link error} is set
   */
  #next(now: number, chunk: Uint8Array, offset: number, end: number): boolean {
    const reader = this.#reader!;
    this.#heartbeats.receivedAt = now;
    let at = offset;
    for (;;) {
      const status = reader.next(chunk, at, end);
      if (status === READ_NEED) return false;
      if (status !== READ_CAPSULE) {
        this.fail(new ProtocolError("ERR_CAPSULE_LENGTH", `type ${reader.type}`));
        return false;
      }
      const type = reader.type;
      if (type !== CAPSULE_DATAGRAM) this.endShortcuts();
      if (type === CAPSULE_RECEIPT) this.#handleReceipt(now);
      else if (type === CAPSULE_PARITY) this.#handleParity(now);
      else if (type === CAPSULE_PARITY_LIMIT) this.#handleParityLimit();
      else if (type === CAPSULE_HEARTBEAT || type === CAPSULE_HEARTBEAT_ECHO)
        this.#handleHeartbeat(now, type);
      else return true;
      if (this.error !== undefined) return false;
      at = reader.offset;
    }
  }

  #handleReceipt(now: number): void {
    const { data, valueOffset, valueEnd } = this.reader;
    if (!this.#port!.scheduler.handleReceipt(now, data, valueOffset, valueEnd)) {
      this.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", "RECEIPT"));
    }
  }

  #handleParity(now: number): void {
    const { data, valueOffset, valueEnd } = this.reader;
    const { scheduler, number } = this.#port!;
    if (!scheduler.handleParity(now, number, data, valueOffset, valueEnd)) {
      this.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", "PARITY"));
    }
  }

  #handleParityLimit(): void {
    const { data, valueOffset, valueEnd } = this.reader;
    const { scheduler, number } = this.#port!;
    if (readNumbers(data, valueOffset, valueEnd, 1, this.#numbers) === valueEnd) {
      scheduler.noteParityLimit(number, this.#numbers[0]);
    } else this.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", "PARITY_LIMIT"));
  }

  #handleHeartbeat(now: number, type: number): void {
    const { data, valueOffset, valueEnd } = this.reader;
    if (readNumbers(data, valueOffset, valueEnd, 2, this.#numbers) !== valueEnd) {
      this.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", "HEARTBEAT"));
      return;
    }
    const [sequence, clock] = this.#numbers;
    if (type === CAPSULE_HEARTBEAT) {
      this.writeControl(encodeHeartbeatEcho(sequence, clock));
      return;
    }
    const sample = this.#heartbeats.handleEcho(now, sequence, clock);
    if (sample === undefined) return;
    this.#counters.histograms.roundTripMs.add("", sample);
    this.#port?.scheduler.noteRoundTrip(sample);
  }

  fail(error: ProtocolError): void {
    this.endShortcuts();
    this.error ??= error;
  }

  /** Ends the shortcuts of all its flows. Reports that the host still gets concern datagrams carried before. */
  endShortcuts(): void {
    const { epoch } = this;
    if (!epoch.isUsed) return;
    this.epoch = new ShortcutEpoch(this);
    epoch.end();
  }

  /** Whether the next bytes may go to shortcuts: flows of this tunnel have some, and no part of a capsule is kept here. */
  get mayReadShortcuts(): boolean {
    return this.epoch.hasIn && this.error === undefined && this.#reader!.atBoundary;
  }

  /** A shortcut has sent datagrams. @param length  of the last one */
  handleShortcutSent(count: number, bytes: number, length: number): void {
    this.#counters.datagramsOut += count;
    this.#counters.bytesOut += bytes;
    this.queue.noteBatch(0, length);
  }

  /** A shortcut has received datagrams; the last one, of `length` bytes, arrived at `time`. */
  handleShortcutReceived(time: number, length: number): void {
    this.#heartbeats.receivedAt = Math.max(this.#heartbeats.receivedAt, time);
    this.#counters.histograms.datagramBytes.add("in", length);
  }

  /** Sends a capsule (or a head) before all datagrams that are not in a batch yet. `bytes` is copied. */
  writeControl(bytes: Uint8Array): void {
    this.endShortcuts();
    if (this.#control.isEmpty && !this.#lent && this.#reserve(bytes.length)) {
      this.#batch!.set(bytes, this.#batchLength);
      this.#batchLength += bytes.length;
      return;
    }
    if (this.#control.bytes + bytes.length > this.#limits.controlBytes) {
      this.fail(new ProtocolError("ERR_CONTROL_OVERFLOW", `${this.#control.bytes} bytes are waiting`));
      return;
    }
    this.#control.push(bytes);
  }

  /** Sends one datagram, or queues it while a batch is on loan. `data` is copied. */
  writeDatagram(
    now: number,
    flow: number,
    context: number,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const isFirst = this.#batchLength === 0;
    if (!this.#mayBypassQueue || !this.#append(context, data, offset, length)) {
      this.queue.push(now, flow, context, data, offset, length);
      return;
    }
    if (isFirst) this.queue.noteBatch(0, length);
    const { tap } = this.#counters;
    if (tap !== undefined) this.queue.record(tap, undefined, flow, context, data, offset, length);
  }

  /** Sends or queues rows `first` to `end - 1`, all of one flow and context. */
  writeDatagrams(
    now: number,
    flow: number,
    context: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
  ): void {
    let row = first;
    if (this.#mayBypassQueue) {
      if (this.#batchLength === 0) this.queue.noteBatch(0, received.length(first));
      row = this.#appendRows(context, received, first, end);
      const { tap } = this.#counters;
      if (tap !== undefined) this.queue.recordRows(tap, undefined, flow, context, received, first, row);
    }
    if (row < end) this.queue.pushAll(now, flow, context, received, row, end);
  }

  get #mayBypassQueue(): boolean {
    return (
      !this.#lent &&
      this.queue.isEmpty &&
      this.#control.isEmpty &&
      this.#reader !== undefined &&
      !this.isMetered
    );
  }

  /** Adds a DATAGRAM capsule to the batch. @returns false if it does not fit */
  #append(context: number, data: Uint8Array, offset: number, length: number): boolean {
    if (!this.#reserve(datagramHeaderLength(context, length) + length)) return false;
    const batch = this.#batch!;
    const at = writeDatagramHeader(batch, this.#batchLength, context, length);
    this.#datapath.copy(data, offset, length, batch, at);
    this.#batchLength = at + length;
    this.#counters.datagramsOut++;
    this.#counters.bytesOut += length;
    return true;
  }

  /** Adds as many rows to the batch as fit. @returns the first row that does not */
  #appendRows(context: number, received: ReceivedDatagrams, first: number, end: number): number {
    const datapath = this.#datapath;
    const { results } = datapath;
    const { rows, data } = received;
    let row = first;
    let bytes = 0;
    for (;;) {
      const batch = this.#batch;
      if (batch !== undefined) {
        this.#batchLength = datapath.writeRows(rows, row, end, data, context, batch, this.#batchLength);
        row = results[0];
        bytes += results[1];
        if (row === end) break;
      }
      const length = received.length(row);
      if (!this.#reserve(datagramHeaderLength(context, length) + length)) break;
    }
    this.#counters.datagramsOut += row - first;
    this.#counters.bytesOut += bytes;
    return row;
  }

  /** Whether its session, which has receipts, has more to send than the path takes. */
  isLimited(now: number): boolean {
    return this.#port?.scheduler.isLimited(now) ?? false;
  }

  /**
   * The next bytes for the connection, on loan until {@link handleTransmitted}; undefined if there are none, or if the last ones are still
   * on loan.
   */
  pollTransmit(now: number): Uint8Array | undefined {
    if (this.#lent) return undefined;
    while (!this.#control.isEmpty) {
      const bytes = this.#control.first;
      if (!this.#reserve(bytes.length)) break;
      this.#batch!.set(bytes, this.#batchLength);
      this.#batchLength += bytes.length;
      this.#control.shift();
    }
    if (this.#reader !== undefined && this.#control.isEmpty && this.#hasDatagrams && this.allowance > 0) {
      this.#takeDatagrams(now);
    }
    if (this.#batchLength === 0) return undefined;
    this.#lent = true;
    this.#port?.scheduler.setBusy(this.#port.number, true);
    // Many batches have the length of the one before, and creating a view costs more than a small batch.
    if (this.#view?.length !== this.#batchLength) this.#view = this.#batch!.subarray(0, this.#batchLength);
    return this.#view;
  }

  #takeDatagrams(now: number): void {
    const room = MAX_BATCH_BYTES / 2 - this.#batchLength;
    if (this.#port === undefined) {
      const start = this.#batchLength;
      this.#reserve(room);
      const batch = this.#batch!;
      const out = this.allowance < batch.length - start ? batch.subarray(0, start + this.allowance) : batch;
      this.#batchLength = this.queue.fill(now, out, start);
      this.allowance -= this.#batchLength - start;
      return;
    }
    const { scheduler, number } = this.#port;
    this.#reserve(Math.min(room, scheduler.outputBytes(number)));
    this.#batchLength = scheduler.fill(now, number, this.#batch!, this.#batchLength);
  }

  get #hasDatagrams(): boolean {
    return this.#port === undefined ? !this.queue.isEmpty : this.#port.scheduler.hasOutput(this.#port.number);
  }

  /** Whether the bytes of the last {@link pollTransmit} are still on loan. */
  get isLent(): boolean {
    return this.#lent;
  }

  /** The bytes of the last {@link pollTransmit} are no longer needed. @returns whether there may be more */
  handleTransmitted(): boolean {
    this.#lent = false;
    this.#batchLength = 0;
    this.#port?.scheduler.setBusy(this.#port.number, false);
    return this.#port !== undefined || !this.#control.isEmpty || !this.queue.isEmpty;
  }

  /** True if nothing is left to send. */
  get isDrained(): boolean {
    return !this.#lent && this.#batchLength === 0 && this.#control.isEmpty && !this.#hasDatagrams;
  }

  handleTimeout(now: number): void {
    if (!this.#extension) return;
    const probe = this.probes?.take(now);
    if (probe !== undefined) this.writeControl(probe);
    const silence = this.#heartbeats.silenceAt(now);
    if (silence !== undefined) {
      this.fail(new ProtocolError("ERR_HEARTBEAT_LOST", `nothing arrived for ${Math.round(silence)} ms`));
      return;
    }
    if (this.#heartbeats.isDue(now)) this.sendHeartbeat(now);
  }

  sendHeartbeat(now: number): void {
    this.writeControl(this.#heartbeats.next(now));
  }

  /** Handles the PROBE in {@link reader}, which is ignored outside of a measurement. */
  handleProbe(now: number): void {
    const { data, valueOffset, valueEnd } = this.reader;
    const probe = decodeProbe(data, valueOffset, valueEnd);
    const answer = probe && this.probes?.handleProbe(now, probe);
    if (answer !== undefined) this.writeControl(answer);
    if (probe === undefined) this.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", "PROBE"));
  }

  /** The round trip of the last heartbeat, in milliseconds; undefined if it was taken already. */
  takeRoundTrip(): number | undefined {
    return this.#heartbeats.takeRoundTrip();
  }

  /** When {@link handleTimeout} wants to be called; Infinity for never. Received bytes only postpone it. */
  nextTimeout(): number {
    if (!this.#extension) return NEVER;
    return Math.min(this.#heartbeats.nextTimeout(), this.probes?.nextAt ?? NEVER);
  }

  /** Makes room for `size` more bytes in the batch. @returns false when it may not grow that far */
  #reserve(size: number): boolean {
    const wanted = this.#batchLength + size;
    if (this.#batch !== undefined && wanted <= this.#batch.length) return true;
    if (wanted > MAX_BATCH_BYTES) return false;
    const larger = new Uint8Array(Math.max(FIRST_BATCH_BYTES, 2 ** Math.ceil(Math.log2(wanted))));
    if (this.#batch !== undefined) larger.set(this.#batch.subarray(0, this.#batchLength));
    this.#batch = larger;
    this.#view = undefined;
    return true;
  }
}
