import { encodeShutdown, MAX_DATAGRAM_BYTES } from "../../wire/capsule.ts";
import type { ExtensionResponse } from "../../wire/http/upgrade.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import { LATENCY_CLASSES } from "../../wire/latency-class.ts";
import type { ProbePattern } from "../../wire/probe.ts";
import { boundedPattern, encodeMeasure } from "../../wire/probe.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyAddress, sameBytes } from "../../wire/socket-address.ts";
import { Counters } from "../counters.ts";
import { Deadlines } from "../deadlines.ts";
import { ProtocolError } from "../errors.ts";
import { randomSeed } from "../handshakes/credentials.ts";
import type { LanePort } from "../lanes/lane-port.ts";
import { ContextTable } from "../session/context-table.ts";
import { DatagramBatch } from "../session/datagram-batch.ts";
import type { SessionCredentials, Tickets } from "../session/lane.ts";
import { Lane } from "../session/lane.ts";
import { LaneCount } from "../session/lane-count.ts";
import { Measurement } from "../session/probe-train.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import { SendPool, SendQueue } from "../session/send-queue.ts";
import {
  ASSOCIATION_CLOSING,
  ASSOCIATION_ENDED,
  ASSOCIATION_FREE,
  CONTEXT_REFUSED,
  LANE,
  LANE_CONNECTING,
  LANE_HANDSHAKE,
  LANE_HELD,
  LANE_WAITING,
  MAX_ID,
} from "../session/session-model.ts";
import type { SpreadState } from "../session/spread-state.ts";
import { spreadState } from "../session/spread-state.ts";
import type { AssociationReports, LaneReport } from "../status.ts";
import { clientAssociations } from "../status.ts";
import { recordDroppedRows } from "../tap.ts";
import { ClientAssociations } from "./client-associations.ts";
import { ClientCapsules } from "./client-capsules.ts";
import { ClientClock } from "./client-clock.ts";
import { ClientDispatch } from "./client-dispatch.ts";
import { ClientDscp } from "./client-dscp.ts";
import { ClientFlows } from "./client-flows.ts";
import { ClientLatency } from "./client-latency.ts";
import type { ClientOutput, ClientParts, TunnelClientOptions } from "./client-parts.ts";
import {
  DEADLINE_ASSOCIATIONS,
  DEADLINE_CONTEXTS,
  DEADLINE_DISPATCH,
  DEADLINE_FIRST_LANE,
  DEADLINE_FORMER,
  DEADLINE_RACE,
  isServersId,
} from "./client-parts.ts";
import { ClientWays } from "./client-ways.ts";

const NONE = -1;
/** Share of a session's ids after which a new session replaces it. */
const RENEW_SHARE = 7 / 8;
/** How long the former session waits for answers, and then for its connections to end. */
const FORMER_MS = 2_000;
const FORMER_END_MS = 1_000;

const deadlineOfLane = (index: number): number => DEADLINE_FIRST_LANE + 2 * index;
const deadlineOfQueue = (index: number): number => DEADLINE_FIRST_LANE + 2 * index + 1;

/**
 * The client end of a session: lanes come and go, associations and contexts stay. Does no I/O and reads no clock: after each
 * `handle*` or verb, drain {@link pollOutput}, each lane's {@link pollTransmit}, {@link pollReady}, and {@link pollOutput} again, as
 * lanes may be wanted or no longer wanted; then arm one timer for {@link nextTimeout}. Bytes passed in are borrowed until the call returns.
 */
export class TunnelClient {
  readonly counters = new Counters();
  /** Filled by {@link handleStream}; to be sent on before its next call. */
  readonly received = new DatagramBatch(1024);
  readonly contexts: ContextTable;

  readonly #options: TunnelClientOptions;
  readonly #parts: ClientParts;
  readonly #flows: ClientFlows;
  readonly #capsules: ClientCapsules;
  #session: SessionCredentials | undefined;
  #everUp = false;
  #closed = false;
  /** The session should have receipts and has none, or the other way round. */
  #isUnsuited = false;
  /** The server is being shut down. */
  #isMoving = false;
  /** Lanes of the session that will replace this one. */
  #renewal: { readonly lanes: readonly Lane[]; readonly pool: SendPool } | undefined;
  readonly #tickets: Tickets = new Map();
  readonly #clock = new ClientClock();
  readonly #laneCount: LaneCount;
  readonly #ways: ClientWays;
  readonly #dispatch: ClientDispatch;

  constructor(options: TunnelClientOptions) {
    this.#options = options;
    this.#laneCount = new LaneCount(options.lanes, options.isLocal === true);
    this.contexts = new ContextTable(randomSeed(options.crypto));
    const associations = new ClientAssociations();
    const laneByIndex: Lane[] = [];
    this.#parts = {
      options,
      maxId: options.maxId ?? MAX_ID,
      counters: this.counters,
      received: this.received,
      outputs: [],
      deadlines: new Deadlines(),
      contexts: this.contexts,
      associations,
      lanes: [],
      latency: new ClientLatency(
        options.latencyRules ?? [],
        LATENCY_CLASSES.indexOf(options.latency ?? "balanced"),
      ),
      dscp: new ClientDscp(),
      laneByIndex,
      isUp: false,
      pool: new SendPool(options.datapath),
      queueOwner: {
        associationOf: (flow) => flow,
        localOf: (flow) => associations.source[flow],
        remoteOf: (flow, id) => this.#remoteOf(flow, id),
      },
      scheduler: undefined,
      contextById: new Map(),
      associationById: new Map(),
      nextAssociationId: 1,
      nextContextId: 2,
      former: undefined,
      laneOf: (association) => laneByIndex[associations.lane[association]],
      controlLaneOf: (association) => this.#controlLaneOf(association),
      registrationLanes: (association) => this.#registrationLanes(association),
      connectHeld: (now) => this.#connectHeld(now),
      endUnwantedLanes: (now) => this.#endUnwantedLanes(now),
      removeFlow: (association) => this.#removeFlow(association),
      failLane: (now, lane, error) => this.#failLane(now, lane, error),
      moveAway: (now) => {
        this.#isMoving = true;
        this.#renewIfDue(now);
      },
      renewIfDue: (now, serversId) => this.#renewIfDue(now, serversId),
    };
    this.#parts.pool.owner = this.#parts.queueOwner;
    this.#flows = new ClientFlows(this.#parts);
    this.#capsules = new ClientCapsules(this.#parts, this.#flows);
    this.#dispatch = new ClientDispatch(this.#parts, this.#laneCount);
    this.#ways = new ClientWays(this.#parts, this.#laneCount, {
      connect: (now, lane, way) => this.#connect(now, lane, way),
      rest: (lane) => this.#rest(lane),
    });
    this.#parts.lanes = this.#makeLanes(0, this.#parts.pool);
  }

  // Getters

  /** True when at least one lane is up. */
  get isUp(): boolean {
    return this.#parts.isUp;
  }

  get associationCount(): number {
    return this.#parts.associations.count;
  }

  get lanesUp(): number {
    return this.#parts.lanes.filter((lane) => lane.isUp).length;
  }

  /** The way, by its index in the options, that has worked last, and that lanes of the session take. */
  get way(): number {
    return this.#ways.kept;
  }

  /** The best lane's smoothed round-trip time in milliseconds. */
  get rttMs(): number | undefined {
    const times = this.#parts.lanes.flatMap((lane) => (lane.isUp ? (lane.tunnel?.rttMs ?? []) : []));
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** Its lanes, as they are now. */
  laneReports(): LaneReport[] {
    const { lanes, scheduler } = this.#parts;
    return lanes.map(({ number, state, isUp, tunnel, way }) => ({
      lane: number,
      state: LANE.name(state),
      rttMs: isUp ? tunnel?.rttMs : undefined,
      isLate: scheduler?.isLate(number) ?? false,
      way,
    }));
  }

  associationReports(now: number, first: number, slots: number): AssociationReports {
    return clientAssociations(now, this.#parts.associations, this.contexts, first, slots);
  }

  /**
   * Measures delay on a lane, in place of an earlier measurement there; a server that cannot do that sends no PROBE.
   *
   * @param own    the PROBEs of this end
   * @param peers  those that the server is to send
   * @returns what is learnt, or undefined when no lane is up
   */
  measure(now: number, own: ProbePattern, peers: ProbePattern): Measurement | undefined {
    const lane = this.#parts.lanes.find(({ isUp }) => isUp);
    if (lane === undefined) return undefined;
    const measurement = new Measurement(now, own);
    lane.tunnel!.probes = measurement;
    lane.tunnel!.writeControl(encodeMeasure(boundedPattern(peers)));
    this.#armLane(lane);
    return measurement;
  }

  get spread(): SpreadState {
    const { scheduler } = this.#parts;
    return spreadState(scheduler === undefined ? [] : [scheduler]);
  }

  /** Bytes of datagrams that wait for lanes, or are on lanes and not receipted, of a session with receipts. */
  get storedBytes(): number {
    const { scheduler, former } = this.#parts;
    return (scheduler?.storedBytes ?? 0) + (former?.scheduler?.storedBytes ?? 0);
  }

  /** The latency class of an association: that of the most sensitive target that it has a context for. */
  latencyOf(association: number): LatencyClass {
    return LATENCY_CLASSES[this.#parts.latency.of(association)];
  }

  /** The DSCP of an association, see {@link handleDscp}. */
  dscpOf(association: number): number {
    return this.#parts.dscp.of(association);
  }

  /** The application's own address, if it is known. */
  sourceOf(association: number): AddressBytes | undefined {
    return this.#parts.associations.source[association];
  }

  /** Id on the wire of an association, 0 before it has one. */
  wireId(association: number): number {
    return this.#parts.associations.openId(association);
  }

  // Events

  /** Connects for the first time. */
  start(now: number): void {
    this.#ways.start(now);
  }

  /**
   * The system's time is `unixMs`, in milliseconds since 1970, at `now`. Only for a client with a key that has a name: to be called
   * before {@link handleConnected}.
   */
  handleWallClock(now: number, unixMs: number): void {
    this.#clock.handleWallClock(now, unixMs);
  }

  /** The connection requested by a `connect` output has been made. */
  handleConnected(now: number, index: number): void {
    const lane = this.#parts.laneByIndex[index];
    if (this.#closed || lane.state !== LANE_CONNECTING) return;
    lane.handleConnected(now, this.#credentialsFor(lane), this.#laneCount.offersReceipts);
    this.#armLane(lane);
  }

  /**
   * The machine may be on another network: attempts that wait are made at once, however often they have failed. The host ends
   * connections and attempts that are under way before.
   */
  handleNetworkChange(now: number): void {
    if (this.#closed) return;
    for (const lane of this.#parts.laneByIndex) {
      if (lane.state !== LANE_WAITING) continue;
      lane.retry(now);
      this.#armLane(lane);
    }
    this.#ways.retry(now);
  }

  /**
   * Connecting failed, or the connection has ended, for any reason.
   *
   * @returns whether that was expected, and so is no failure: this client has asked the server to end the session
   */
  handleDisconnected(now: number, index: number, error: Error | undefined): boolean {
    const lane = this.#parts.laneByIndex[index];
    if (lane.state === LANE_WAITING || lane.state === LANE_HELD) return false;
    const { former } = this.#parts;
    const isExpected = former?.isEnding === true && former.lanes.includes(lane);
    this.#laneLost(now, lane, error);
    return isExpected;
  }

  /**
   * Bytes of a lane's connection, cut anywhere. Stops when {@link received} is full, or contains something that cannot be
   * combined with the rest.
   *
   * @returns the offset up to which they were consumed: send on `received`, then call again with the rest
   */
  handleStream(now: number, index: number, chunk: Uint8Array, offset: number, end: number): number {
    const lane = this.#parts.laneByIndex[index];
    this.#dispatch.stir();
    this.received.count = 0;
    let at = offset;
    if (lane.state === LANE_HANDSHAKE) {
      at = lane.handleHead(now, this.#credentialsFor(lane), chunk, offset, end);
      const { answer } = lane;
      if (answer?.kind === "accepted") this.#laneUp(now, lane, answer.extension);
      else if (answer?.kind === "failed") this.#failLane(now, lane, answer.error);
      else if (answer?.kind === "reconnect") this.#failLaneSilently(now, lane);
    }
    if (!lane.isUp) return end;
    at = lane.tunnel!.readCapsules(now, lane, chunk, at, end, this.received, this.#capsules);
    if (!lane.isUp) return end;
    if (this.#laneCount.isSampling) this.#sampleRoundTrip(now, lane);
    this.#checkTunnel(now, lane);
    return at;
  }

  /**
   * In a session with receipts: datagrams that were held until it was their turn. To be called after the batches of
   * {@link handleStream} and after {@link handleTimeout}, before anything is polled for sending.
   *
   * @returns true when {@link received} has some: send them on, then call again
   */
  takeReleased(now: number): boolean {
    const { scheduler, former } = this.#parts;
    return (scheduler !== undefined || former !== undefined) && this.#capsules.takeReleased(now);
  }

  #sampleRoundTrip(now: number, { tunnel }: Lane): void {
    const roundTrip = tunnel!.takeRoundTrip();
    if (roundTrip === undefined) return;
    if (this.#laneCount.sample(roundTrip)) {
      this.#isUnsuited = this.#session?.receipts !== this.#laneCount.offersReceipts;
      if (this.#isUnsuited && this.#isWorthSwitching) this.#renewIfDue(now);
      else this.#isUnsuited = false;
    }
    if (this.#laneCount.isSampling) tunnel!.sendHeartbeat(now);
  }

  /** A batch from {@link pollTransmit} is written. @returns whether there may be another */
  handleTransmitted(index: number): boolean {
    this.#dispatch.stir();
    return this.#parts.laneByIndex[index].tunnel?.handleTransmitted() ?? false;
  }

  handleTimeout(now: number): void {
    for (
      let key = this.#parts.deadlines.takeDue(now);
      key !== NONE;
      key = this.#parts.deadlines.takeDue(now)
    ) {
      if (key === DEADLINE_ASSOCIATIONS) this.#flows.expireAssociations(now);
      else if (key === DEADLINE_CONTEXTS) this.#flows.expireContexts(now);
      else if (key === DEADLINE_FORMER) this.#endFormer(now);
      else if (key === DEADLINE_DISPATCH) this.#dispatch.handleTimeout(now);
      else if (key === DEADLINE_RACE) this.#ways.handleTimeout(now);
      else {
        const lane = this.#parts.laneByIndex[(key - DEADLINE_FIRST_LANE) >> 1];
        if (key === deadlineOfLane(lane.index)) this.#handleLaneTimeout(now, lane);
        else this.#expireQueue(now, lane);
      }
    }
  }

  /** When {@link handleTimeout} wants to be called; Infinity for never. */
  nextTimeout(): number {
    return this.#parts.deadlines.next();
  }

  pollOutput(): ClientOutput | undefined {
    if (this.#parts.outputs.length === 0) return undefined;
    const output = this.#parts.outputs.shift();
    if (output?.kind === "association-closed") {
      const { association } = output;
      if (this.#parts.associations.state[association] === ASSOCIATION_ENDED)
        this.#flows.forget(association, "forget");
    }
    if (output?.kind === "unreachable") this.#flows.handleReported(output.remote);
    return output;
  }

  /**
   * There is nothing to poll but {@link pollTransmit}: no output, and no session whose datagrams are spread over its lanes. That
   * it is so is what most turns begin and end with.
   */
  get isPlain(): boolean {
    const { outputs, scheduler, former } = this.#parts;
    return outputs.length === 0 && scheduler === undefined && former === undefined;
  }

  /** Whether {@link pollTransmit} may have something for a lane's connection. */
  mayTransmit(now: number, index: number): boolean {
    if (this.#parts.scheduler !== undefined || this.#parts.former !== undefined) this.#dispatch.dispatch(now);
    return !(this.#parts.laneByIndex[index].tunnel?.isDrained ?? true);
  }

  /** Bytes for a lane's connection, on loan until {@link handleTransmitted}. */
  pollTransmit(now: number, index: number): Uint8Array | undefined {
    const lane = this.#parts.laneByIndex[index];
    this.#dispatch.dispatch(now);
    const bytes = lane.tunnel?.pollTransmit(now);
    if (!lane.queue.isEmpty) this.#parts.deadlines.setEarlier(deadlineOfQueue(index), lane.queue.expiresAt);
    return bytes;
  }

  /** Whether more is to be sent in the lane's session than the path takes. */
  isLimited(now: number, index: number): boolean {
    return this.#parts.laneByIndex[index].tunnel?.isLimited(now) ?? false;
  }

  /**
   * In a session with receipts: the next lane that has become able to write while others wrote, or -1. To be called until then,
   * after {@link pollTransmit} of every lane.
   */
  pollReady(now: number): number {
    this.#dispatch.dispatch(now);
    return this.#dispatch.takeReady();
  }

  /** True if nothing is left to write on a lane. */
  isDrained(index: number): boolean {
    return this.#parts.laneByIndex[index].tunnel?.isDrained ?? true;
  }

  // Verbs

  /**
   * Opens an association.
   *
   * @param source   the application's own address, if it is known
   * @param expires  true if it ends when idle; otherwise only {@link closeAssociation} ends it
   * @returns its slot, or -1 when there are too many and none that may expire
   */
  openAssociation(now: number, source: AddressBytes | undefined, expires: boolean): number {
    if (this.associationCount >= this.#options.maxAssociations && !this.#flows.evictAssociation(now)) {
      this.counters.refused.association_limit++;
      return NONE;
    }
    const lane = this.#leastLoadedLane();
    lane.load++;
    const slot = this.#parts.associations.open(now, source, expires, lane.index);
    this.#parts.latency.handleOpened(slot);
    this.#parts.dscp.handleOpened(slot);
    if (expires) this.#flows.armAssociations();
    return slot;
  }

  closeAssociation(now: number, association: number): void {
    this.#flows.endAssociation(now, association, "done");
    if (this.#parts.associations.state[association] === ASSOCIATION_ENDED)
      this.#flows.forget(association, "forget");
  }

  /**
   * Sends one datagram of an association into the tunnel, or queues it while that is down.
   *
   * @param address  buffer with the remote address at `addressOffset`; borrowed, like `data`
   */
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
    const context =
      length > MAX_DATAGRAM_BYTES
        ? NONE
        : this.#flows.usableContext(now, association, address, addressOffset, addressLength);
    if (context === NONE) {
      const reason = length > MAX_DATAGRAM_BYTES ? "too_long" : this.#flows.dropped;
      this.counters.drops[reason]++;
      const { tap } = this.counters;
      if (tap === undefined) return;
      const remote = copyAddress(address, addressOffset, addressLength);
      tap.record(false, reason, association, this.sourceOf(association), remote, data, offset, length);
      return;
    }
    const id = this.contexts.id[context];
    const { scheduler } = this.#parts;
    if (scheduler !== undefined) {
      scheduler.push(now, association, id, this.contexts.lanes[context], data, offset, length);
      this.#dispatch.stir();
      return;
    }
    const lane = this.#parts.laneOf(association);
    if (lane.isUp) lane.tunnel!.writeDatagram(now, association, id, data, offset, length);
    else {
      lane.queue.push(now, association, id, data, offset, length);
      this.#parts.deadlines.setEarlier(deadlineOfQueue(lane.index), lane.queue.expiresAt);
    }
  }

  /**
   * The datagrams that follow have a DSCP (RFC 2474), 0 to 63, at first 0, which the server gives to all that the association
   * sends. A change within 250 ms of the one before has no effect: repeat the call for each datagram.
   */
  handleDscp(now: number, association: number, dscp: number): void {
    this.#flows.handleDscp(now, association, dscp);
  }

  /** Sends rows `first` to `end - 1` of one association to one remote address. */
  handleDatagrams(
    now: number,
    association: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
    address: AddressBytes,
  ): void {
    const context = this.#flows.usableContext(now, association, address, 0, address.length);
    if (context === NONE) {
      const { dropped } = this.#flows;
      this.counters.drops[dropped] += end - first;
      const local = this.sourceOf(association);
      recordDroppedRows(this.counters.tap, dropped, association, local, address, received, first, end);
      return;
    }
    const id = this.contexts.id[context];
    const { scheduler } = this.#parts;
    if (scheduler !== undefined) {
      scheduler.pushAll(now, association, id, this.contexts.lanes[context], received, first, end);
      this.#dispatch.stir();
      return;
    }
    const lane = this.#parts.laneOf(association);
    if (lane.isUp) lane.tunnel!.writeDatagrams(now, association, id, received, first, end);
    else {
      lane.queue.pushAll(now, association, id, received, first, end);
      this.#parts.deadlines.setEarlier(deadlineOfQueue(lane.index), lane.queue.expiresAt);
    }
  }

  #remoteOf(flow: number, id: number): AddressBytes | undefined {
    const { contextById, former } = this.#parts;
    const slot = contextById.get(id) ?? former?.contextById.get(id) ?? NONE;
    return slot !== NONE && this.contexts.association[slot] === flow
      ? this.contexts.address[slot]
      : undefined;
  }

  /** Ends the session in an orderly way: drain the lanes, then close their connections. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const lane of this.#parts.laneByIndex) {
      if (lane.isUp) lane.tunnel!.writeControl(encodeShutdown("done"));
      else this.#rest(lane);
      this.#parts.deadlines.clear(deadlineOfLane(lane.index));
    }
    this.#parts.deadlines.clear(DEADLINE_ASSOCIATIONS);
    this.#parts.deadlines.clear(DEADLINE_CONTEXTS);
    this.#parts.deadlines.clear(DEADLINE_FORMER);
    this.#parts.deadlines.clear(DEADLINE_DISPATCH);
    this.#parts.deadlines.clear(DEADLINE_RACE);
  }

  // Lanes

  #makeLanes(firstIndex: number, pool: SendPool): readonly Lane[] {
    const { queueBytes, ageBudgetMs } = this.#options;
    // In a race each way has a lane of its own.
    const length = Math.max(this.#laneCount.most, this.#options.ways.length);
    return Array.from({ length }, (_, i) => {
      const queue = new SendQueue(pool, this.counters, queueBytes, ageBudgetMs);
      queue.lane = i;
      const lane = new Lane(
        firstIndex + i,
        i,
        queue,
        this.counters,
        this.#tickets,
        this.#clock,
        this.#options,
      );
      this.#parts.laneByIndex[lane.index] = lane;
      return lane;
    });
  }

  /** The session that a lane joins; undefined for a new one. */
  #credentialsFor(lane: Lane): SessionCredentials | undefined {
    return this.#renewal?.lanes.includes(lane) ? undefined : this.#session;
  }

  #armLane(lane: Lane): void {
    this.#parts.deadlines.set(deadlineOfLane(lane.index), lane.nextTimeout());
  }

  #connect(now: number, lane: Lane, way = this.#ways.kept): void {
    lane.connect(now, way);
    this.#armLane(lane);
    this.#parts.outputs.push({ kind: "connect", lane: lane.index, way });
  }

  /** Holds a lane that is not up, and gives up its attempt to connect. One that its session no longer has stays so. */
  #rest(lane: Lane): void {
    if (lane.state === LANE_CONNECTING || lane.state === LANE_HANDSHAKE) {
      this.#parts.outputs.push({ kind: "disconnect", lane: lane.index, error: undefined });
      lane.close();
    } else if (lane.state === LANE_WAITING) lane.hold();
    this.#armLane(lane);
  }

  #handleLaneTimeout(now: number, lane: Lane): void {
    if (lane.isUp) {
      this.#handleProven(lane);
      lane.tunnel!.handleTimeout(now);
      this.#checkTunnel(now, lane);
      // Those that held something when fewer lanes were wanted.
      if (this.#parts.scheduler !== undefined) this.#endUnwantedLanes(now);
    } else if (lane.state === LANE_WAITING) this.#connect(now, lane, this.#wayOfRetry(lane));
    else this.#failLane(now, lane, new ProtocolError("ERR_HANDSHAKE_TIMEOUT", "connecting again"));
    this.#armLane(lane);
  }

  #handleProven(lane: Lane): void {
    if (lane.isProven) return;
    lane.isProven = true;
    this.#laneCount.handleProven();
  }

  #expireQueue(now: number, lane: Lane): void {
    lane.queue.expire(now);
    this.#parts.deadlines.set(deadlineOfQueue(lane.index), lane.queue.expiresAt);
  }

  #laneUp(now: number, lane: Lane, answer: ExtensionResponse): void {
    if (this.#renewal?.lanes.includes(lane)) {
      this.#switchSession(now, lane, answer);
      return;
    }
    const { session, resumed } = answer;
    const isOurs = this.#session !== undefined && sameBytes(session, 0, this.#session.id, 0, session.length);
    if (!(resumed && isOurs) && this.#parts.isUp) {
      // The server has put this lane into another session than the one that other lanes are in.
      lane.tunnel!.open(now, "extension");
      lane.tunnel!.writeControl(encodeShutdown("done"));
      const error = new ProtocolError("ERR_UPGRADE_REFUSED", "the lane did not join its session");
      this.#failLane(now, lane, error);
      return;
    }
    const isNew = !(resumed && isOurs);
    if (!isNew && answer.receipts !== this.#session!.receipts) {
      const detail = "the session has receipts, or has none, at one end alone";
      this.#failLane(now, lane, new ProtocolError("ERR_UPGRADE_REFUSED", detail));
      return;
    }
    if (!this.#parts.isUp) this.#ways.handleWorked(now, lane);
    if (isNew) this.#beginSession(now, lane, answer);
    lane.open(now, this.#portOf(lane));
    const wasUp = this.#parts.isUp;
    this.#parts.isUp = true;
    if (!wasUp) {
      this.#registerAll(now, lane);
      if (this.#everUp && !isNew) this.counters.resumed++;
      this.#parts.outputs.push(
        isNew ? { kind: "session-up", isAnother: this.#everUp } : { kind: "session-resumed" },
      );
      this.#everUp = true;
      this.#connectHeld(now);
    } else if (this.#parts.scheduler === undefined) this.#rebalance(now, lane);
    lane.tunnel!.handleTimeout(now);
    this.#armLane(lane);
    this.#renewIfDue(now);
  }

  #portOf(lane: Lane): LanePort | undefined {
    const { scheduler } = this.#parts;
    return scheduler && { scheduler, number: lane.number };
  }

  /** Connects lanes that were held, until as many as are wanted are up or on their way. */
  #connectHeld(now: number): void {
    if (this.#closed) return;
    let count = this.#parts.lanes.filter((lane) => lane.state !== LANE_HELD).length;
    for (const lane of this.#parts.lanes) {
      if (lane.state !== LANE_HELD || count >= this.#laneCount.wanted) continue;
      this.#connect(now, lane);
      count++;
    }
  }

  /** Starts a session that the server does not know: even contexts keep their ids, odd ones belonged to the old server. */
  #beginSession(now: number, lane: Lane, answer: ExtensionResponse): void {
    this.#session = this.#credentialsOf(lane, answer);
    this.#isUnsuited = false;
    this.#isMoving = false;
    this.#laneCount.begin(now, answer.receipts);
    this.#parts.associations.isConfirmed.fill(0);
    // In the new session these ids may stand for other addresses.
    for (const { queue } of this.#parts.lanes) queue.dropContexts(isServersId);
    for (const [id, slot] of [...this.#parts.contextById]) {
      if (isServersId(id) || this.contexts.state[slot] === CONTEXT_REFUSED) this.#flows.releaseContext(slot);
      else this.contexts.handle(slot, "new session");
    }
    for (let slot = 0; slot < this.#parts.associations.used; slot++) {
      if (this.#parts.associations.state[slot] === ASSOCIATION_CLOSING)
        this.#flows.forget(slot, "new session");
    }
    if (answer.receipts) this.#dispatch.begin();
    else this.#dispatch.end();
  }

  #credentialsOf(lane: Lane, answer: ExtensionResponse): SessionCredentials {
    return { id: answer.session, key: lane.deriveSessionKey(answer), receipts: answer.receipts };
  }

  /** Pins every association to a lane and opens it at the server there. */
  #registerAll(now: number, lane: Lane): void {
    for (let slot = 0; slot < this.#parts.associations.used; slot++) {
      if (this.#parts.associations.state[slot] === ASSOCIATION_FREE) continue;
      this.#pin(slot, lane);
      this.#flows.register(now, slot, lane);
    }
    if (this.#parts.scheduler !== undefined) {
      // They waited when it was not known whether the session would have receipts.
      for (const { queue } of this.#parts.lanes) this.#dispatch.take(queue);
    }
    this.#flows.armAssociations();
  }

  #controlLaneOf(association: number): Lane {
    const { scheduler, lanes } = this.#parts;
    const number = scheduler === undefined ? NONE : scheduler.controlLane();
    return number === NONE ? this.#parts.laneOf(association) : lanes[number];
  }

  #registrationLanes(association: number): number {
    const { scheduler } = this.#parts;
    if (scheduler !== undefined) return scheduler.registrationLanes();
    const lane = this.#parts.laneOf(association);
    return lane.isUp ? 1 << lane.number : 0;
  }

  #removeFlow(association: number): void {
    this.#parts.pool.removeFlow(association);
    this.#parts.scheduler?.removeFlow(association);
    this.#parts.former?.scheduler?.removeFlow(association);
  }

  #pin(slot: number, lane: Lane): void {
    const before = this.#parts.laneOf(slot);
    if (before === lane) return;
    before.load--;
    lane.load++;
    this.#parts.associations.lane[slot] = lane.index;
    lane.queue.takeFlow(slot);
  }

  /** Moves a fair share of associations to this lane from the others that are up. */
  #rebalance(now: number, lane: Lane): void {
    const share = Math.floor(this.associationCount / this.lanesUp);
    for (let slot = 0; slot < this.#parts.associations.used && lane.load < share; slot++) {
      if (this.#parts.associations.state[slot] === ASSOCIATION_FREE || this.#parts.laneOf(slot).load <= share)
        continue;
      this.#pin(slot, lane);
      this.#flows.register(now, slot, lane);
    }
  }

  #leastLoadedLane(): Lane {
    let best = this.#parts.lanes[0];
    for (const lane of this.#parts.lanes) {
      const isBetter = lane.isUp === best.isUp ? lane.load < best.load : lane.isUp;
      if (isBetter) best = lane;
    }
    return best;
  }

  #failLane(now: number, lane: Lane, error: ProtocolError): void {
    this.#parts.outputs.push({ kind: "disconnect", lane: lane.index, error });
    this.#laneLost(now, lane, error);
  }

  #laneLost(now: number, lane: Lane, error: Error | undefined): void {
    const wasUp = lane.isUp;
    const isProven = wasUp && lane.isProven;
    const { former } = this.#parts;
    const isFormer = former?.lanes.includes(lane) ?? false;
    lane.handleLost(now, this.#closed || isFormer);
    if (!isProven && !isFormer) this.#laneCount.handleFailed(now, this.lanesUp);
    this.#holdIfNotWanted(lane);
    this.#armLane(lane);
    const scheduler = isFormer ? former?.scheduler : this.#parts.scheduler;
    if (wasUp) scheduler?.laneDown(now, lane.number);
    this.#dispatch.stir();
    if (!wasUp && !this.#closed && !isFormer) this.#ways.handleFailed(now, lane);
    if (!wasUp || isFormer) return;
    if (this.#leastLoadedLane().isUp) {
      if (scheduler === undefined) this.#moveAssociations(now, lane);
      else this.#flows.registerAgain(lane.number);
      return;
    }
    this.#parts.isUp = false;
    this.#giveUpRenewal();
    for (const other of this.#parts.lanes) {
      // One lane finds out whether the session still exists; the others wait for it.
      if (other === lane || other.state !== LANE_WAITING) continue;
      other.hold();
      this.#armLane(other);
    }
    if (!this.#closed) this.#ways.handleLost(now, this.#session !== undefined);
    if (!this.#closed) this.#parts.outputs.push({ kind: "session-down", error });
  }

  /** Ends lanes that are not wanted any more and hold nothing. */
  #endUnwantedLanes(now: number): void {
    const { lanes, scheduler } = this.#parts;
    for (let i = lanes.length - 1; i >= 0 && this.lanesUp > this.#laneCount.wanted; i--) {
      if (lanes[i].isUp && scheduler!.isIdle(i)) this.#failLaneSilently(now, lanes[i]);
    }
  }

  /** Pins the associations of a lost lane to others that are up. */
  #moveAssociations(now: number, lost: Lane): void {
    for (let slot = 0; slot < this.#parts.associations.used; slot++) {
      if (this.#parts.associations.state[slot] === ASSOCIATION_FREE || this.#parts.laneOf(slot) !== lost)
        continue;
      const target = this.#leastLoadedLane();
      this.#pin(slot, target);
      this.#flows.register(now, slot, target);
    }
  }

  /** A lane that waits to connect again is held when enough others are up, or on their way. */
  #holdIfNotWanted(lane: Lane): void {
    if (lane.state !== LANE_WAITING || this.lanesUp === 0 || !this.#parts.lanes.includes(lane)) return;
    const others = this.#parts.lanes.filter((other) => other !== lane && other.state !== LANE_HELD).length;
    if (others >= this.#laneCount.wanted) lane.hold();
  }

  #checkTunnel(now: number, lane: Lane): void {
    const error = lane.tunnel?.error;
    if (error !== undefined) this.#failLane(now, lane, error);
  }

  // Replacing a session whose ids run out, or which should have receipts, or should not

  /** Connects the first lane of the session that will take over, while this one stays in use. */
  #renewIfDue(now: number, serversId = 0): void {
    const highest = Math.max(this.#parts.nextAssociationId, this.#parts.nextContextId, serversId);
    if (this.#isMoving || this.#isUnsuited || highest >= this.#parts.maxId * RENEW_SHARE) this.#renew(now);
  }

  /** Without receipts a session is only cheaper, which is not worth other source ports for what is in use. */
  get #isWorthSwitching(): boolean {
    return this.#laneCount.offersReceipts || this.associationCount === 0;
  }

  #renew(now: number): void {
    if (!this.#parts.isUp || this.#closed) return;
    if (this.#renewal !== undefined || this.#parts.former !== undefined) return;
    const pool = new SendPool(this.#options.datapath);
    pool.owner = this.#parts.queueOwner;
    const firstIndex = this.#parts.lanes[0].index === 0 ? this.#parts.lanes.length : 0;
    const lanes = this.#makeLanes(firstIndex, pool);
    this.#renewal = { lanes, pool };
    this.#connect(now, lanes[0], this.#wayOfRenewal(this.#ways.kept));
  }

  /** By which way the next session connects, after `last`: that of this one, unless its server is being shut down. */
  #wayOfRenewal(last: number): number {
    const { kept } = this.#ways;
    const { ways } = this.#options;
    if (!this.#isMoving) return kept;
    for (let step = 1; step <= ways.length; step++) {
      const way = (last + step) % ways.length;
      if (ways[way].server !== ways[kept].server) return way;
    }
    // There may be others behind the same address.
    return kept;
  }

  #wayOfRetry(lane: Lane): number {
    const isOfRenewal = this.#renewal?.lanes.includes(lane) ?? false;
    return isOfRenewal ? this.#wayOfRenewal(lane.way) : this.#ways.ofRetry(lane);
  }

  #giveUpRenewal(): void {
    for (const lane of this.#renewal?.lanes ?? []) this.#rest(lane);
    this.#renewal = undefined;
  }

  /**
   * The new session is up: associations and contexts get new ids there. The former one sends what is queued, delivers what
   * still arrives, and ends soon. Contexts with ids of its server are left behind.
   */
  #switchSession(now: number, lane: Lane, answer: ExtensionResponse): void {
    const { lanes, pool } = this.#renewal!;
    this.#renewal = undefined;
    if (!this.#isMoving && this.#isUnsuited && !this.#isWorthSwitching) {
      this.#isUnsuited = false;
      this.#endUnused(now, lane, lanes);
      return;
    }
    this.#parts.former = {
      lanes: this.#parts.lanes,
      scheduler: this.#parts.scheduler,
      contextById: this.#parts.contextById,
      generation: this.contexts.generation.slice(),
      isEnding: false,
    };
    for (const former of this.#parts.lanes) if (!former.isUp) this.#rest(former);
    this.#parts.deadlines.set(DEADLINE_FORMER, now + FORMER_MS);
    this.#parts.lanes = lanes;
    this.#parts.pool = pool;
    this.#session = this.#credentialsOf(lane, answer);
    this.#parts.scheduler = undefined;
    const reason = this.#isMoving ? "moved" : this.#isUnsuited ? "receipts" : "ids";
    this.#isUnsuited = false;
    this.#isMoving = false;
    if (lane.way !== this.#ways.kept) this.#ways.handleWorked(now, lane);
    if (answer.receipts) this.#dispatch.begin();
    this.#laneCount.begin(now, answer.receipts);
    this.#flows.giveNewIds();
    lane.open(now, this.#portOf(lane));
    this.#registerAll(now, lane);
    this.#parts.outputs.push({ kind: "session-renewed", reason });
    this.#connectHeld(now);
    lane.tunnel!.handleTimeout(now);
    this.#armLane(lane);
  }

  /** Ends a session that is up, but was opened for nothing, like a former one. */
  #endUnused(now: number, lane: Lane, lanes: readonly Lane[]): void {
    const generation = this.contexts.generation.slice();
    this.#parts.former = { lanes, scheduler: undefined, contextById: new Map(), generation, isEnding: true };
    this.#parts.deadlines.set(DEADLINE_FORMER, now + FORMER_END_MS);
    lane.open(now, undefined);
    lane.tunnel!.writeControl(encodeShutdown("done"));
    this.#armLane(lane);
  }

  /** Ends the former session, or its connections if the server has not done so in time. */
  #endFormer(now: number): void {
    const former = this.#parts.former!;
    if (former.isEnding) {
      for (const lane of former.lanes) if (lane.isUp) this.#failLaneSilently(now, lane);
      former.scheduler?.dropQueued();
      former.scheduler?.close();
      this.#parts.former = undefined;
      this.#renewIfDue(now);
      return;
    }
    former.isEnding = true;
    for (const lane of former.lanes) if (lane.isUp) lane.tunnel!.writeControl(encodeShutdown("done"));
    this.#parts.deadlines.set(DEADLINE_FORMER, now + FORMER_END_MS);
  }

  #failLaneSilently(now: number, lane: Lane): void {
    this.#parts.outputs.push({ kind: "disconnect", lane: lane.index, error: undefined });
    this.#laneLost(now, lane, undefined);
  }
}
