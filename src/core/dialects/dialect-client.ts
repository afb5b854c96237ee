import { FRAME_MALFORMED, MAX_UDP_BYTES } from "../../wire/dialects/dialect.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { ATYP_DOMAIN, copyAddress, sameBytes } from "../../wire/socket-address.ts";
import type { AssociationClient } from "../client/association-client.ts";
import type { ClientOutput } from "../client/client-parts.ts";
import type { DropReason } from "../counters.ts";
import { Counters } from "../counters.ts";
import { Deadlines } from "../deadlines.ts";
import { ProtocolError } from "../errors.ts";
import { Fifo } from "../fifo.ts";
import { DatagramBatch } from "../session/datagram-batch.ts";
import { SendPool } from "../session/queue/send-pool.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import type { SpreadState } from "../session/spread-state.ts";
import { spreadState } from "../session/spread-state.ts";
import { recordDroppedRows } from "../tap.ts";
import { DialectAssociations } from "./dialect-associations.ts";
import type { DialectClientOptions, DialectClientParts } from "./dialect-client-parts.ts";
import type { DialectLane } from "./dialect-lanes.ts";
import { DialectLanes } from "./dialect-lanes.ts";
import type { FrameReceiver } from "./frame-reader.ts";
import type { RemoteTable } from "./remote-table.ts";

const NONE = -1;
const DEADLINE_ASSOCIATIONS = 0;

/**
 * A client of another program's server, in that program's dialect. An association connects with its first datagram, and again with the
 * next one after its connection is lost. The interface is that of `TunnelClient`; a lane is a connection.
 */
export class DialectClient implements AssociationClient, FrameReceiver<DialectLane> {
  readonly counters = new Counters();
  readonly received = new DatagramBatch(1024);
  /** See {@link AssociationClient}. It is 0 because {@link pollReady} returns every connection that has something to write. */
  readonly steadyLanes = 0;

  readonly #options: DialectClientOptions;
  readonly #isMany: boolean;
  readonly #outputs = new Fifo<ClientOutput>();
  readonly #deadlines = new Deadlines();
  readonly #associations: DialectAssociations;
  readonly #lanes: DialectLanes;

  constructor(options: DialectClientOptions) {
    this.#options = options;
    this.#isMany = options.dialect.flows > 1;
    const parts: DialectClientParts = {
      options,
      isMany: this.#isMany,
      counters: this.counters,
      outputs: this.#outputs,
      deadlines: this.#deadlines,
      pool: new SendPool(),
    };
    this.#associations = new DialectAssociations(parts);
    this.#lanes = new DialectLanes(parts, () => {
      if (this.#isMany) this.#associations.renewContexts();
    });
    const associationOf = (flow: number) => (this.#isMany ? this.contexts.flow[flow] : flow);
    parts.pool.owner = {
      associationOf,
      localOf: (flow) => this.#associations.source[associationOf(flow)],
      remoteOf: (flow) => this.contexts.address[this.#isMany ? flow : this.contexts.onlySlotOf(flow)],
    };
  }

  /** The contexts of all associations. A context is a remote address. */
  get contexts(): RemoteTable {
    return this.#associations.contexts;
  }

  // Getters

  get isUp(): boolean {
    return this.lanesUp > 0;
  }

  get lanesUp(): number {
    return this.#lanes.openCount;
  }

  /** The way that the next connection will take. */
  get way(): number {
    return this.#lanes.way;
  }

  get associationCount(): number {
    return this.#associations.count;
  }

  get rttMs(): undefined {
    return undefined;
  }

  get spread(): SpreadState {
    return spreadState([]);
  }

  sourceOf(association: number): AddressBytes | undefined {
    return this.#associations.source[association];
  }

  isLive(association: number): boolean {
    return this.#associations.isLive(association);
  }

  latencyOf(): LatencyClass {
    return this.#options.latency;
  }

  // Events

  /** Reports at once that the client is up, because each association connects by itself. */
  start(): void {
    this.#outputs.push({ kind: "session-up", isAnother: false });
  }

  handleConnected(now: number, index: number): void {
    this.#lanes.handleConnected(now, index);
  }

  /** Handles the loss of a connection. @returns false, because in no dialect a client can ask for its end */
  handleDisconnected(now: number, index: number, error: Error | undefined): boolean {
    this.#lanes.handleDisconnected(now, index, error);
    return false;
  }

  handleStream(now: number, index: number, chunk: Uint8Array, offset: number, end: number): number {
    const { received } = this;
    received.count = 0;
    received.data = chunk;
    const lane = this.#lanes.at(index);
    if (lane === undefined) return end;
    let at = offset;
    lane.heardAt = now;
    if (lane.state === "handshake") at = this.#lanes.shakeHands(now, lane, chunk, offset, end);
    if (lane.state !== "open") return end;
    at = lane.link.reader.readInto(now, lane, chunk, at, end, received, this);
    if (at !== FRAME_MALFORMED) return at;
    this.counters.refused.protocol_error++;
    const error = new ProtocolError("ERR_DIALECT_MALFORMED", this.#options.dialect.name);
    this.#lanes.disconnect(now, lane, error);
    return end;
  }

  /** Ignores frames that are no datagrams. Nothing that a server sends in them matters here. */
  handleOtherFrame(): void {}

  handleDatagramFrame(now: number, lane: DialectLane): boolean {
    const { counters, received, contexts } = this;
    const { frame } = lane.link.reader;
    const length = frame.dataEnd - frame.dataOffset;
    if (length > MAX_UDP_BYTES) {
      this.#dropIncoming("too_long", lane);
      return true;
    }
    let slot = this.#contextOf(lane);
    if (
      slot === NONE &&
      !this.#isMany &&
      frame.addressLength > 0 &&
      frame.addresses[frame.addressOffset] !== ATYP_DOMAIN
    ) {
      if (contexts.size >= this.#options.maxContexts && received.count > 0) return false;
      const address = copyAddress(frame.addresses, frame.addressOffset, frame.addressLength);
      slot = this.#associations.addContext(now, lane.index, address);
    }
    if (slot === NONE) {
      this.#dropIncoming("unknown_context", lane);
      return true;
    }
    const association = contexts.flow[slot];
    counters.datagramsIn++;
    counters.bytesIn += length;
    lane.usedAt = now;
    if (this.#associations.handleAnswer(now, association, slot)) this.#armAssociations();
    received.add(association, slot, frame.dataOffset, length);
    return true;
  }

  #dropIncoming(reason: DropReason, lane: DialectLane): void {
    const { drops, tap } = this.counters;
    const { frame, data } = lane.link.reader;
    drops[reason]++;
    const length = frame.dataEnd - frame.dataOffset;
    tap?.record(true, reason, NONE, undefined, undefined, data, frame.dataOffset, length);
  }

  /** Finds the context of the frame that was just read. @returns its slot, or -1 */
  #contextOf(lane: DialectLane): number {
    const { contexts } = this;
    const { frame } = lane.link.reader;
    const { addresses, addressOffset, addressLength } = frame;
    if (addressLength === 0) return this.#associations.lastContext(lane.index);
    if (!this.#isMany) return contexts.find(lane.index, addresses, addressOffset, addressLength);
    const address = contexts.address[frame.flow];
    const isSame =
      address?.length === addressLength && sameBytes(address, 0, addresses, addressOffset, addressLength);
    return isSame ? frame.flow : NONE;
  }

  takeReleased(): boolean {
    return false;
  }

  handleTransmitted(index: number): boolean {
    this.#lanes.at(index)?.link.handleTransmitted();
    return true;
  }

  handleTimeout(now: number): void {
    for (let key = this.#deadlines.takeDue(now); key !== NONE; key = this.#deadlines.takeDue(now)) {
      if (key === DEADLINE_ASSOCIATIONS) this.#expireAssociations(now);
      else this.#lanes.handleTimeout(now, key);
    }
  }

  nextTimeout(): number {
    return this.#deadlines.next();
  }

  pollOutput(): ClientOutput | undefined {
    const output = this.#outputs.shift();
    // Freed only now, because the relay must forget the association before its number is used again.
    if (output?.kind === "association-closed") this.#associations.release(output.association);
    return output;
  }

  pollTransmit(now: number, index: number): Uint8Array | undefined {
    const lane = this.#lanes.at(index);
    if (lane === undefined || (lane.state !== "open" && lane.state !== "handshake")) return undefined;
    return lane.link.pollTransmit(now);
  }

  pollReady(): number {
    return this.#lanes.takeReady();
  }

  // Verbs

  openAssociation(now: number, source: AddressBytes | undefined, expires: boolean): number {
    if (this.associationCount >= this.#options.maxAssociations) {
      const { idlest } = this.#associations;
      if (idlest === NONE) {
        this.counters.refused.association_limit++;
        return NONE;
      }
      this.counters.refused.association_evicted++;
      this.#expireAssociation(now, idlest, "association_limit");
    }
    const association = this.#associations.open(now, source, expires);
    if (expires) this.#armAssociations();
    return association;
  }

  closeAssociation(now: number, association: number): void {
    if (!this.isLive(association)) return;
    this.#endAssociation(now, association, "unknown_context");
    this.#associations.release(association);
  }

  /** Dialects carry no DSCP. */
  handleDscp(): void {}

  handleDatagram(
    now: number,
    association: number,
    data: Uint8Array,
    offset: number,
    length: number,
    address: Uint8Array,
    addressOffset = 0,
    addressLength = address.length,
  ): void {
    const context = this.#associations.usableContext(now, association, address, addressOffset, addressLength);
    if (context === NONE) {
      const { dropped, source } = this.#associations;
      const { drops, tap } = this.counters;
      drops[dropped]++;
      const remote = copyAddress(address, addressOffset, addressLength);
      tap?.record(false, dropped, association, source[association], remote, data, offset, length);
      return;
    }
    const lane = this.#lanes.use(now, association);
    this.#write(now, lane, association, context, data, offset, length);
    this.#lanes.handleWritten(now, lane);
  }

  handleDatagrams(
    now: number,
    association: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
    address: AddressBytes,
  ): void {
    const context = this.#associations.usableContext(now, association, address, 0, address.length);
    if (context === NONE) {
      const { dropped, source } = this.#associations;
      const { drops, tap } = this.counters;
      drops[dropped] += end - first;
      recordDroppedRows(tap, dropped, association, source[association], address, received, first, end);
      return;
    }
    const lane = this.#lanes.use(now, association);
    for (let row = first; row < end; row++) {
      this.#write(now, lane, association, context, received.data, received.offset(row), received.length(row));
    }
    this.#lanes.handleWritten(now, lane);
  }

  #write(
    now: number,
    lane: DialectLane,
    association: number,
    context: number,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const isNew = this.#associations.takeIsNew(context);
    const address = this.contexts.address[context]!;
    // The queue serves flows in turn. Contexts need turns of their own only if they share a connection.
    const flow = this.#isMany ? context : association;
    lane.link.writeDatagram(now, flow, context, isNew, address, data, offset, length);
  }

  /** Closes all connections that are not open. The host writes the remaining batches of the others and then closes them. */
  close(): void {
    this.#lanes.close();
  }

  // Associations

  #expireAssociations(now: number): void {
    const next = () => this.#associations.expired(now);
    for (let association = next(); association !== NONE; association = next()) {
      this.#expireAssociation(now, association, "unknown_context");
    }
    this.#armAssociations();
  }

  #armAssociations(): void {
    this.#deadlines.set(DEADLINE_ASSOCIATIONS, this.#associations.expiresAt);
  }

  #expireAssociation(now: number, association: number, reason: DropReason): void {
    this.#endAssociation(now, association, reason);
    this.#outputs.push({ kind: "association-closed", association, reason: "idle" });
  }

  #endAssociation(now: number, association: number, reason: DropReason): void {
    this.#associations.end(association, reason);
    const lane = this.#isMany ? undefined : this.#lanes.at(association);
    if (lane !== undefined) this.#lanes.handleUnused(now, lane);
  }
}
