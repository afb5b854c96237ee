import type { CloseReason } from "../../wire/capsule.ts";
import {
  CAPSULE_COMPRESSION_ACK,
  CAPSULE_COMPRESSION_ASSIGN,
  encodeCompressionClose,
  MAX_DATAGRAM_BYTES,
  readNumber,
  readNumbers,
} from "../../wire/capsule.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import { LATENCY_CLASSES } from "../../wire/latency-class.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyAddress } from "../../wire/socket-address.ts";
import type { AssociationClient } from "../client/association-client.ts";
import { ClientAssociations, IDLE_ANSWERED, IDLE_QUIET } from "../client/client-associations.ts";
import { ClientLatency } from "../client/client-latency.ts";
import type { ClientOutput } from "../client/client-parts.ts";
import { Counters, dropReasonOf } from "../counters.ts";
import { Deadlines } from "../deadlines.ts";
import { ProtocolError } from "../errors.ts";
import { Fifo } from "../fifo.ts";
import { randomSeed } from "../handshakes/credentials.ts";
import { ContextTable } from "../session/context-table.ts";
import { DatagramBatch } from "../session/datagram-batch.ts";
import { SendPool } from "../session/queue/send-pool.ts";
import type { SendQueue } from "../session/queue/send-queue.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import { ASSOCIATION_ENDED } from "../session/session-model.ts";
import type { SpreadState } from "../session/spread-state.ts";
import { spreadState } from "../session/spread-state.ts";
import type { CapsuleReceiver } from "../session/tunnel.ts";
import type { AssociationReports } from "../status.ts";
import { clientAssociations } from "../status.ts";
import { recordDroppedRows } from "../tap.ts";
import { MasqueRefusal } from "./connect-udp-upgrade.ts";
import { MasqueContexts } from "./masque-contexts.ts";
import type { MasqueClientOptions, MasqueParts } from "./masque-parts.ts";
import {
  DEADLINE_ASSOCIATIONS,
  DEADLINE_CONNECT,
  DEADLINE_CONTEXTS,
  DEADLINE_FIRST_QUEUE,
} from "./masque-parts.ts";
import type { MasqueRequest } from "./masque-request.ts";
import { MasqueRequests } from "./masque-requests.ts";

const NONE = -1;
const STATUS_FORBIDDEN = 403;

/** What the host should request for a `connect` output. */
export interface MasqueTarget {
  readonly target: AddressBytes;
  readonly bind: boolean;
}

/**
 * A client of standard MASQUE (RFC 9298). Each target of an association has a request of its own. If the proxy lets it bind
 * (draft-ietf-masque-connect-udp-listen), an association has a single request for all its targets except names. A lane is a request.
 * There is no session: after a connection is lost, the next datagrams request their targets again. Does no I/O, see
 * {@link AssociationClient}.
 */
export class MasqueClient implements AssociationClient, CapsuleReceiver<MasqueRequest> {
  readonly counters = new Counters();
  readonly received = new DatagramBatch(1024);
  readonly contexts: ContextTable;
  readonly steadyLanes = 0;
  readonly rttMs = undefined;
  /** Always 0, because the carrier is the only way. */
  readonly way = 0;

  readonly #options: MasqueClientOptions;
  readonly #associations = new ClientAssociations();
  readonly #outputs = new Fifo<ClientOutput>();
  readonly #deadlines = new Deadlines();
  readonly #latency: ClientLatency;
  readonly #requests: MasqueRequests;
  readonly #targets: MasqueContexts;
  readonly #numbers = [0];

  constructor(options: MasqueClientOptions) {
    this.#options = options;
    this.contexts = new ContextTable(randomSeed(options.crypto));
    const fallback = LATENCY_CLASSES.indexOf(options.latency ?? "balanced");
    this.#latency = new ClientLatency(options.latencyRules ?? [], fallback);
    const parts: MasqueParts = {
      options,
      counters: this.counters,
      outputs: this.#outputs,
      deadlines: this.#deadlines,
      pool: new SendPool(),
      associations: this.#associations,
      contexts: this.contexts,
      latency: this.#latency,
    };
    const requests = new MasqueRequests(parts);
    parts.pool.owner = {
      associationOf: (flow) => requests.at(flow)?.association ?? NONE,
      localOf: (flow) => this.#associations.source[requests.at(flow)?.association ?? NONE],
      remoteOf: (flow, id) => this.contexts.address[requests.at(flow)?.slotById.get(id) ?? NONE],
    };
    this.#requests = requests;
    this.#targets = new MasqueContexts(parts, requests);
  }

  get isUp(): boolean {
    return this.#requests.isUp;
  }

  get lanesUp(): number {
    return this.#requests.openCount;
  }

  get associationCount(): number {
    return this.#associations.count;
  }

  associationReports(now: number, first: number, slots: number): AssociationReports {
    return clientAssociations(now, this.#associations, this.contexts, first, slots);
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

  latencyOf(association: number): LatencyClass {
    return LATENCY_CLASSES[this.#latency.of(association)];
  }

  /** What a lane requests; undefined if the lane is no longer wanted. */
  targetOf(lane: number): MasqueTarget | undefined {
    const request = this.#requests.at(lane);
    return request && { target: request.target, bind: request.asksBind };
  }

  // Events

  /** Does nothing, because lanes connect once there are datagrams. */
  start(): void {}

  handleConnected(now: number, lane: number, isBound = false): void {
    const request = this.#requests.at(lane);
    if (request?.state !== "connecting") return;
    this.#requests.open(now, request, isBound);
    const waited = takeAll(request.waiting);
    const slots = new Map(request.slotById);
    this.#targets.handleOpened(request, isBound, slots);
    for (const { id, data } of waited) this.#send(now, slots.get(id)!, data, 0, data.length);
    this.#requests.reportUp();
    this.#requests.markReady(request);
    // Its own target may have been evicted, and the others have moved to requests of their own.
    this.#requests.endIfUnused(request);
    this.#requests.connectWanting(now);
  }

  /**
   * Handles the end of a request.
   *
   * @param error  a {@link MasqueRefusal} if the proxy has refused the request
   * @returns whether the request was open. That is no failure, because proxies end the requests of silent targets
   */
  handleDisconnected(now: number, lane: number, error: Error | undefined): boolean {
    const request = this.#requests.at(lane);
    if (request === undefined || request.state === "idle") return false;
    const before = request.state;
    this.#requests.disconnect(request);
    if (error instanceof MasqueRefusal) this.#handleRefusal(now, request, error);
    else if (before === "connecting") this.#requests.handleFailure(now, error);
    if (this.#requests.has(request)) {
      this.#targets.handleDisconnected(request);
      this.#requests.reconnect(now, request);
    }
    this.#requests.connectWanting(now);
    return before === "open";
  }

  #handleRefusal(now: number, request: MasqueRequest, { httpStatus }: MasqueRefusal): void {
    this.#requests.handleRefused();
    this.#targets.handleRefused(now, request, httpStatus === STATUS_FORBIDDEN);
    this.#requests.endIfUnused(request);
  }

  handleStream(now: number, lane: number, chunk: Uint8Array, offset: number, end: number): number {
    const request = this.#requests.at(lane);
    this.received.count = 0;
    if (request?.state !== "open") return end;
    const tunnel = request.tunnel!;
    const at = tunnel.readCapsules(now, request, chunk, offset, end, this.received, this);
    if (tunnel.error !== undefined) {
      this.#outputs.push({ kind: "disconnect", lane, error: tunnel.error });
      this.handleDisconnected(now, lane, tunnel.error);
      return end;
    }
    return at;
  }

  handleDatagramCapsule(
    now: number,
    request: MasqueRequest,
    id: number,
    data: Uint8Array,
    payload: number,
    end: number,
  ): void {
    const { contexts, counters, received } = this;
    const last = received.lastContext;
    const isSame = last !== NONE && contexts.id[last] === id && this.#targets.requestOf(last) === request;
    const slot = isSame ? last : request.slotById.get(id);
    if (slot === undefined) {
      counters.drops.unknown_context++;
      const { association } = request;
      const local = this.#associations.source[association];
      const length = end - payload;
      counters.tap?.record(true, "unknown_context", association, local, undefined, data, payload, length);
      return;
    }
    const association = contexts.association[slot];
    contexts.idle.refresh(now, slot);
    this.#associations.handleAnswers(now, association, 1);
    counters.datagramsIn++;
    counters.bytesIn += end - payload;
    received.add(association, slot, payload, end - payload);
  }

  handleControlCapsule(now: number, request: MasqueRequest): boolean {
    const tunnel = request.tunnel!;
    const { type, data, valueOffset, valueEnd } = tunnel.reader;
    if (type === CAPSULE_COMPRESSION_ASSIGN) {
      const id = readNumber(data, valueOffset, valueEnd);
      // Without an uncompressed context of this client, the proxy may register no senders.
      if (id < 1 || id % 2 === 0)
        tunnel.fail(new ProtocolError("ERR_CONTEXT_MALFORMED", "the proxy sent it"));
      else tunnel.writeControl(encodeCompressionClose(id));
      this.#requests.markReady(request);
      return true;
    }
    if (readNumbers(data, valueOffset, valueEnd, 1, this.#numbers) !== valueEnd) {
      tunnel.fail(new ProtocolError("ERR_CAPSULE_MALFORMED", `type ${type}`));
      return true;
    }
    const [id] = this.#numbers;
    const slot = id === 0 ? undefined : request.slotById.get(id);
    if (slot === undefined) return true;
    if (type === CAPSULE_COMPRESSION_ACK) this.contexts.handle(slot, "ack");
    else this.#targets.handleClosed(now, request, slot);
    return this.#requests.has(request);
  }

  takeReleased(): boolean {
    return false;
  }

  handleTransmitted(lane: number): boolean {
    const tunnel = this.#requests.at(lane)?.tunnel;
    // A batch of an earlier connection no longer belongs to a tunnel.
    if (tunnel?.isLent) tunnel.handleTransmitted();
    return true;
  }

  handleTimeout(now: number): void {
    for (let key = this.#deadlines.takeDue(now); key !== NONE; key = this.#deadlines.takeDue(now)) {
      if (key === DEADLINE_ASSOCIATIONS) this.#expireAssociations(now);
      else if (key === DEADLINE_CONTEXTS) this.#targets.expire(now);
      else if (key === DEADLINE_CONNECT) this.#requests.connectWanting(now);
      else this.#requests.expireQueue(now, key - DEADLINE_FIRST_QUEUE);
    }
  }

  nextTimeout(): number {
    return this.#deadlines.next();
  }

  pollOutput(): ClientOutput | undefined {
    for (let output = this.#outputs.shift(); output !== undefined; output = this.#outputs.shift()) {
      if (output.kind === "unreachable" && !this.#targets.takeReport(output.remote)) continue;
      if (output.kind === "association-closed") this.#forgetAssociation(output.association);
      return output;
    }
    return undefined;
  }

  pollTransmit(now: number, lane: number): Uint8Array | undefined {
    const request = this.#requests.at(lane);
    if (request?.state !== "open") return undefined;
    const bytes = request.tunnel!.pollTransmit(now);
    this.#requests.armQueue(request);
    return bytes;
  }

  pollReady(): number {
    return this.#requests.takeReady();
  }

  // Verbs

  openAssociation(now: number, source: AddressBytes | undefined, expires: boolean): number {
    if (this.associationCount >= this.#options.maxAssociations && !this.#evictAssociation(now)) {
      this.counters.refused.association_limit++;
      return NONE;
    }
    const association = this.#associations.open(now, source, expires, 0);
    this.#latency.handleOpened(association);
    if (expires) this.#armAssociations();
    return association;
  }

  closeAssociation(now: number, association: number): void {
    if (!this.isLive(association)) return;
    this.#endAssociation(now, association, "done");
    this.#forgetAssociation(association);
  }

  handleDatagram(
    now: number,
    association: number,
    data: Uint8Array,
    offset: number,
    length: number,
    address: Uint8Array,
    addressOffset: number,
    addressLength: number,
  ): void {
    const slot =
      length > MAX_DATAGRAM_BYTES
        ? NONE
        : this.#targets.usable(now, association, address, addressOffset, addressLength);
    if (slot !== NONE) {
      this.#send(now, slot, data, offset, length);
      return;
    }
    const reason = length > MAX_DATAGRAM_BYTES ? "too_long" : this.#targets.dropped;
    const { drops, tap } = this.counters;
    drops[reason]++;
    if (tap === undefined) return;
    const remote = copyAddress(address, addressOffset, addressLength);
    const local = this.#associations.source[association];
    tap.record(false, reason, association, local, remote, data, offset, length);
  }

  handleDatagrams(
    now: number,
    association: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
    address: AddressBytes,
  ): void {
    const slot = this.#targets.usable(now, association, address, 0, address.length);
    if (slot === NONE) {
      this.counters.drops[this.#targets.dropped] += end - first;
      const local = this.#associations.source[association];
      recordDroppedRows(
        this.counters.tap,
        this.#targets.dropped,
        association,
        local,
        address,
        received,
        first,
        end,
      );
      return;
    }
    const request = this.#targets.requestOf(slot)!;
    this.#requests.sendAll(now, request, this.contexts.id[slot], received, first, end);
  }

  #send(now: number, slot: number, data: Uint8Array, offset: number, length: number): void {
    const request = this.#targets.requestOf(slot)!;
    this.#requests.send(now, request, this.contexts.id[slot], data, offset, length);
  }

  /** RFC 9298 carries no DSCP. */
  handleDscp(): void {}

  close(): void {
    this.#requests.close();
    for (const key of [DEADLINE_ASSOCIATIONS, DEADLINE_CONTEXTS, DEADLINE_CONNECT])
      this.#deadlines.clear(key);
  }

  // Associations

  #evictAssociation(now: number): boolean {
    const { idlest } = this.#associations;
    if (idlest === NONE) return false;
    this.counters.refused.association_evicted++;
    this.#endAssociation(now, idlest, "evicted");
    this.#outputs.push({ kind: "association-closed", association: idlest, reason: "evicted" });
    return true;
  }

  #endAssociation(now: number, association: number, reason: CloseReason): void {
    this.#targets.releaseAll(association, dropReasonOf(reason));
    this.#associations.handleEnded(now, association);
  }

  #forgetAssociation(association: number): void {
    if (this.#associations.state[association] !== ASSOCIATION_ENDED) return;
    this.#associations.handle(association, "forget");
    this.#associations.release(association);
  }

  #armAssociations(): void {
    const { idle } = this.#associations;
    const quietAt = idle.expiresAt(IDLE_QUIET, this.#options.idleTimeoutMs);
    const answeredAt = idle.expiresAt(IDLE_ANSWERED, this.#options.activeIdleTimeoutMs);
    this.#deadlines.setEarlier(DEADLINE_ASSOCIATIONS, Math.min(quietAt, answeredAt));
  }

  #expireAssociations(now: number): void {
    const { idle } = this.#associations;
    for (const list of [IDLE_QUIET, IDLE_ANSWERED]) {
      const limit = list === IDLE_QUIET ? this.#options.idleTimeoutMs : this.#options.activeIdleTimeoutMs;
      for (let slot = idle.expired(now, list, limit); slot !== NONE; slot = idle.expired(now, list, limit)) {
        this.#endAssociation(now, slot, "idle");
        this.#outputs.push({ kind: "association-closed", association: slot, reason: "idle" });
      }
    }
    this.#armAssociations();
  }
}

/** Empties a queue. @returns its datagrams, with their context ids */
function takeAll(queue: SendQueue): { readonly id: number; readonly data: Uint8Array }[] {
  const all: { readonly id: number; readonly data: Uint8Array }[] = [];
  queue.drainTo((_time, _flow, id, data) => all.push({ id, data }));
  return all;
}
