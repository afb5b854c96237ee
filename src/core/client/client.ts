import { encodeShutdown } from "../../wire/capsule.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import { LATENCY_CLASSES } from "../../wire/latency-class.ts";
import type { ProbePattern } from "../../wire/probe.ts";
import { boundedPattern, encodeMeasure } from "../../wire/probe.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { Counters } from "../counters.ts";
import { Deadlines } from "../deadlines.ts";
import { Fifo } from "../fifo.ts";
import { randomSeed } from "../handshakes/credentials.ts";
import type { PathWatch } from "../lanes/transfers/path-watch.ts";
import { ContextTable } from "../session/context-table.ts";
import { DatagramBatch } from "../session/datagram-batch.ts";
import { Measurement } from "../session/probe-train.ts";
import { EndedContexts } from "../session/queue/ended-contexts.ts";
import { SendPool } from "../session/queue/send-pool.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import {
  ASSOCIATION_ENDED,
  LANE,
  LANE_CONNECTING,
  LANE_HANDSHAKE,
  LANE_HELD,
  LANE_WAITING,
  MAX_ID,
} from "../session/session-model.ts";
import type { Shortcut, Shortcuts } from "../session/shortcuts.ts";
import type { SpreadState } from "../session/spread-state.ts";
import { spreadState } from "../session/spread-state.ts";
import type { AssociationReports, LaneReport } from "../status.ts";
import { clientAssociations } from "../status.ts";
import { ClientAssociations } from "./client-associations.ts";
import { ClientCapsules } from "./client-capsules.ts";
import { ClientClock } from "./client-clock.ts";
import { ClientDatagrams } from "./client-datagrams.ts";
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
  DEADLINE_PARALLEL,
  DEADLINE_RACE,
  deadlineOfLane,
  deadlineOfQueue,
} from "./client-parts.ts";
import { ClientShortcuts } from "./client-shortcuts.ts";
import { ClientDispatch } from "./lanes/client-dispatch.ts";
import { ClientLanes } from "./lanes/client-lanes.ts";
import type { Lane } from "./lanes/lane.ts";
import { LaneCount } from "./lanes/lane-count.ts";
import { UnmeasuredPath } from "./lanes/unmeasured-path.ts";

const NONE = -1;
const NO_LIMIT = Number.POSITIVE_INFINITY;

/**
 * The client end of a session, whose associations and contexts outlive its lanes. It does no I/O and reads no clock. After each `handle*`
 * or verb, drain {@link pollOutput}, each lane's {@link pollTransmit}, {@link pollReady}, and {@link pollOutput} again, because the number
 * of lanes may have changed; then arm one timer for {@link nextTimeout}. Bytes passed in are borrowed until the call returns.
 */
export class TunnelClient {
  readonly counters = new Counters();
  /** Filled by {@link handleStream}; send it on before the next call. */
  readonly received = new DatagramBatch(1024);
  readonly contexts: ContextTable;

  readonly #options: TunnelClientOptions;
  readonly #parts: ClientParts;
  readonly #flows: ClientFlows;
  readonly #capsules: ClientCapsules;
  readonly #clock = new ClientClock();
  readonly #laneCount: LaneCount;
  readonly #unmeasured: UnmeasuredPath;
  readonly #lanes: ClientLanes;
  readonly #dispatch: ClientDispatch;
  readonly #datagrams: ClientDatagrams;
  readonly #shortcuts: ClientShortcuts;

  constructor(options: TunnelClientOptions) {
    this.#options = options;
    this.#laneCount = new LaneCount(options.lanes, options.isLocal === true);
    this.#unmeasured = new UnmeasuredPath(this.#laneCount);
    this.contexts = new ContextTable(randomSeed(options.crypto));
    const associations = new ClientAssociations();
    const laneByIndex: Lane[] = [];
    this.#parts = {
      options,
      maxId: options.maxId ?? MAX_ID,
      counters: this.counters,
      received: this.received,
      outputs: new Fifo(),
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
      isClosed: false,
      pool: new SendPool(options.datapath),
      queueOwner: {
        associationOf: (flow) => flow,
        localOf: (flow) => associations.source[flow],
        remoteOf: (flow, id) => this.#remoteOf(flow, id),
      },
      formerOwner: {
        associationOf: (flow) => flow,
        localOf: (flow) => associations.source[flow],
        remoteOf: (_, id) => this.#formerRemoteOf(id),
      },
      scheduler: undefined,
      ended: new EndedContexts(),
      contextById: new Map(),
      associationById: new Map(),
      nextAssociationId: 1,
      nextContextId: 2,
      former: undefined,
      laneOf: (association) => laneByIndex[associations.lane[association]],
      controlLaneOf: (association) => this.#lanes.controlLaneOf(association),
      registrationLanes: (association) => this.#lanes.registrationLanes(association),
      connectHeld: (now) => this.#lanes.connectHeld(now),
      endUnwantedLanes: (now) => this.#lanes.endUnwanted(now),
      removeFlow: (association, reason) => this.#lanes.removeFlow(association, reason),
      dropEnded: () => this.#parts.ended.drop(this.#parts.scheduler ?? this.#parts.pool),
      failLane: (now, lane, error) => this.#lanes.fail(now, lane, error),
      moveAway: (now) => this.#lanes.renewal.moveAway(now),
      renewIfDue: (now, serversId) => this.#lanes.renewal.renewIfDue(now, serversId),
    };
    this.#parts.pool.owner = this.#parts.queueOwner;
    this.#flows = new ClientFlows(this.#parts);
    this.#capsules = new ClientCapsules(this.#parts, this.#flows);
    this.#dispatch = new ClientDispatch(this.#parts, this.#laneCount);
    this.#datagrams = new ClientDatagrams(this.#parts, this.#flows, this.#dispatch);
    this.#lanes = new ClientLanes(
      this.#parts,
      this.#flows,
      this.#dispatch,
      this.#laneCount,
      this.#unmeasured,
      this.#clock,
    );
    this.#shortcuts = new ClientShortcuts(this.#parts, this.#flows, this.#capsules, this.#lanes);
  }

  // Getters

  get shortcuts(): Shortcuts {
    return this.contexts.shortcuts;
  }

  /** True when at least one lane is up. */
  get isUp(): boolean {
    return this.#parts.isUp;
  }

  get associationCount(): number {
    return this.#parts.associations.count;
  }

  get lanesUp(): number {
    return this.#lanes.upCount;
  }

  /** Index in the options of the way that last worked, which the session's lanes take. */
  get way(): number {
    return this.#lanes.ways.kept;
  }

  /** The best lane's smoothed round-trip time in milliseconds. */
  get rttMs(): number | undefined {
    const times = this.#parts.lanes.flatMap((lane) => (lane.isUp ? (lane.tunnel?.rttMs ?? []) : []));
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** The current state of its lanes. */
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
   * Measures delay on a lane and replaces any earlier measurement there. A server without this feature sends no PROBE.
   *
   * @param own    the PROBEs of this end
   * @param peers  the PROBEs that the server should send
   * @returns the results, or undefined if no lane is up
   */
  measure(now: number, own: ProbePattern, peers: ProbePattern): Measurement | undefined {
    const lane = this.#parts.lanes.find(({ isUp }) => isUp);
    if (lane === undefined) return undefined;
    const measurement = new Measurement(now, own);
    lane.tunnel!.probes = measurement;
    lane.tunnel!.writeControl(encodeMeasure(boundedPattern(peers)));
    this.#lanes.arm(lane);
    return measurement;
  }

  get spread(): SpreadState {
    const { scheduler } = this.#parts;
    return spreadState(scheduler === undefined ? [] : [scheduler]);
  }

  /** What a session with receipts sees of its path. */
  get pathWatch(): PathWatch | undefined {
    return this.#parts.scheduler?.watch;
  }

  /** In a session with receipts: payload bytes that wait for lanes, or are on lanes without a receipt. */
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

  /** The application's own address, if known. */
  sourceOf(association: number): AddressBytes | undefined {
    return this.#parts.associations.source[association];
  }

  /** Whether an association is open. An evicted one is not, even before {@link pollOutput} has said so, and neither is -1. */
  isLive(association: number): boolean {
    return this.#parts.associations.isLive(association);
  }

  /** Id on the wire of an association; 0 before it has one. */
  wireId(association: number): number {
    return this.#parts.associations.openId(association);
  }

  // Events

  /** Connects for the first time. */
  start(now: number): void {
    this.#lanes.ways.start(now);
  }

  /**
   * Sets the system's time at `now` to `unixMs`, in milliseconds since 1970. A client with a named key needs it before
   * {@link handleConnected}.
   */
  handleWallClock(now: number, unixMs: number): void {
    this.#clock.handleWallClock(now, unixMs);
  }

  /** The connection requested by a `connect` output has been made. */
  handleConnected(now: number, index: number): void {
    const lane = this.#parts.laneByIndex[index];
    if (this.#parts.isClosed || lane.state !== LANE_CONNECTING) return;
    lane.handleConnected(now, this.#lanes.credentialsFor(lane));
    this.#lanes.arm(lane);
  }

  /**
   * Makes waiting attempts at once, regardless of earlier failures, because the machine may be on another network. The host first ends
   * existing connections and current attempts.
   */
  handleNetworkChange(now: number): void {
    if (this.#parts.isClosed) return;
    for (const lane of this.#parts.laneByIndex) {
      if (lane.state !== LANE_WAITING) continue;
      lane.retry(now);
      this.#lanes.arm(lane);
    }
    this.#lanes.ways.retry(now);
  }

  /**
   * Connecting failed, or the connection has ended, for any reason.
   *
   * @returns true if this was expected and is no failure, because this client has asked the server to end the session
   */
  handleDisconnected(now: number, index: number, error: Error | undefined): boolean {
    const lane = this.#parts.laneByIndex[index];
    if (lane.state === LANE_WAITING || lane.state === LANE_HELD) return false;
    const isExpected = this.#lanes.renewal.hasEnded(lane);
    this.#lanes.handleLost(now, lane, error);
    return isExpected;
  }

  /**
   * Handles bytes of a lane's connection, in chunks of any size. Stops when {@link received} is full, or has to be sent on before the next
   * capsule.
   *
   * @returns the end offset of the consumed bytes: send on `received`, then call again with the rest
   */
  handleStream(now: number, index: number, chunk: Uint8Array, offset: number, end: number): number {
    const lane = this.#parts.laneByIndex[index];
    this.#dispatch.stir();
    this.received.count = 0;
    let at = offset;
    if (lane.state === LANE_HANDSHAKE) {
      at = lane.handleHead(now, this.#lanes.credentialsFor(lane), chunk, offset, end);
      const { answer } = lane;
      if (answer?.kind === "accepted") this.#lanes.handleAccepted(now, lane, answer.extension);
      else if (answer?.kind === "failed") this.#lanes.fail(now, lane, answer.error);
      else if (answer?.kind === "reconnect") this.#lanes.failSilently(now, lane);
    }
    if (!lane.isUp) return end;
    at = lane.tunnel!.readCapsules(now, lane, chunk, at, end, this.received, this.#capsules);
    if (!lane.isUp) return end;
    if (this.#laneCount.isSampling || lane.tunnel!.isMetered) this.#sampleRoundTrip(now, lane);
    this.#lanes.checkTunnel(now, lane);
    return at;
  }

  /**
   * Releases datagrams of a session with receipts that were held to restore order. Call it after the batches of {@link handleStream} and
   * after {@link handleTimeout}, before polling anything to send.
   *
   * @returns true if {@link received} has some: send them on, then call again
   */
  takeReleased(now: number): boolean {
    const { scheduler, former } = this.#parts;
    return (scheduler !== undefined || former !== undefined) && this.#capsules.takeReleased(now);
  }

  #sampleRoundTrip(now: number, lane: Lane): void {
    const tunnel = lane.tunnel!;
    const roundTrip = tunnel.takeRoundTrip();
    if (roundTrip === undefined) return;
    // The former session may have taken another way.
    const isCurrent = this.#parts.lanes.includes(lane);
    if (isCurrent && this.#laneCount.sample(roundTrip)) this.#lanes.renewal.handlePath(now);
    this.#unmeasured.handleRoundTrip(now, tunnel, roundTrip);
    if ((isCurrent && this.#laneCount.isSampling) || tunnel.isMetered) tunnel.sendHeartbeat(now);
  }

  /** A batch from {@link pollTransmit} has been written. @returns whether there may be another */
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
      else if (key === DEADLINE_FORMER) this.#lanes.renewal.handleTimeout(now);
      else if (key === DEADLINE_DISPATCH) this.#dispatch.handleTimeout(now);
      else if (key === DEADLINE_RACE) this.#lanes.ways.handleTimeout(now);
      else if (key === DEADLINE_PARALLEL) this.#lanes.attempts.handleTimeout(now);
      else {
        const lane = this.#parts.laneByIndex[(key - DEADLINE_FIRST_LANE) >> 1];
        if (key === deadlineOfLane(lane.index)) this.#lanes.handleTimeout(now, lane);
        else this.#lanes.expireQueue(now, lane);
      }
    }
  }

  /** When to call {@link handleTimeout}; Infinity for never. */
  nextTimeout(): number {
    return this.#parts.deadlines.next();
  }

  pollOutput(): ClientOutput | undefined {
    const { outputs, associations } = this.#parts;
    for (let output = outputs.shift(); output !== undefined; output = outputs.shift()) {
      if (output.kind === "unreachable" && !this.#flows.takeReport(output.remote)) continue;
      if (output.kind === "association-closed") {
        const { association } = output;
        if (associations.state[association] === ASSOCIATION_ENDED) this.#flows.forget(association, "forget");
      }
      return output;
    }
    return undefined;
  }

  /**
   * True if only {@link pollTransmit} has to be polled, because no output is pending and no session spreads its datagrams. Most turns begin
   * and end this way.
   */
  get isPlain(): boolean {
    const { outputs, scheduler, former } = this.#parts;
    return outputs.length === 0 && scheduler === undefined && former === undefined;
  }

  /** Whether {@link pollTransmit} may have bytes for a lane's connection. */
  mayTransmit(now: number, index: number): boolean {
    if (this.#parts.scheduler !== undefined || this.#parts.former !== undefined) this.#dispatch.dispatch(now);
    return !(this.#parts.laneByIndex[index].tunnel?.isDrained ?? true);
  }

  /**
   * The next flow that native I/O may carry by itself. To be called when nothing is left to write. A host that cannot do so calls
   * `shortcuts.decline`.
   */
  pollShortcut(): Shortcut | undefined {
    return this.#shortcuts.poll();
  }

  /** Whether the next bytes of a lane's connection may go to shortcuts. To be called only when everything read so far was handled. */
  mayReadShortcuts(index: number): boolean {
    return this.#parts.laneByIndex[index].tunnel?.mayReadShortcuts ?? false;
  }

  /**
   * A shortcut has carried datagrams, which count as if they had passed through this client. To be called before the next call with a later
   * time, and before counters are read.
   *
   * @param time    time of the last datagram
   * @param bytes   payload bytes of all datagrams
   * @param length  payload bytes of the last one
   */
  handleShortcut(time: number, shortcut: Shortcut, count: number, bytes: number, length: number): void {
    this.#shortcuts.handleCarried(time, shortcut, count, bytes, length);
  }

  /** The application of an association now has another address, so its shortcuts end. */
  handleMoved(association: number): void {
    this.#shortcuts.endOf(association);
  }

  /** Bytes for a lane's connection, on loan until {@link handleTransmitted}. */
  pollTransmit(now: number, index: number): Uint8Array | undefined {
    const lane = this.#parts.laneByIndex[index];
    this.#dispatch.dispatch(now);
    const bytes = lane.tunnel?.pollTransmit(now);
    if (!lane.queue.isEmpty) this.#parts.deadlines.setEarlier(deadlineOfQueue(index), lane.queue.expiresAt);
    return bytes;
  }

  /** Whether the lane's session has more to send than the path takes. */
  isLimited(now: number, index: number): boolean {
    return this.#parts.laneByIndex[index].tunnel?.isLimited(now) ?? false;
  }

  /**
   * The next lane of a session with receipts that became able to write while others wrote, or -1. After {@link pollTransmit} of every
   * lane, call it until it returns -1.
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
   * @returns its slot, or -1 if there are too many and none of them may expire: datagrams of -1 are dropped (`association_limit`)
   */
  openAssociation(now: number, source: AddressBytes | undefined, expires: boolean): number {
    if (this.associationCount >= this.#options.maxAssociations && !this.#flows.evictAssociation(now)) {
      this.counters.refused.association_limit++;
      return NONE;
    }
    const lane = this.#lanes.leastLoaded();
    lane.load++;
    const slot = this.#parts.associations.open(now, source, expires, lane.index);
    this.#parts.latency.handleOpened(slot);
    this.#parts.dscp.handleOpened(slot);
    if (expires) this.#flows.armAssociations();
    return slot;
  }

  /** Closes an association, if it {@link isLive}. */
  closeAssociation(now: number, association: number): void {
    // An evicted one keeps its slot until its output is polled; otherwise, that output would end the next association in the slot.
    if (!this.isLive(association)) return;
    this.#flows.endAssociation(now, association, "done");
    if (this.#parts.associations.state[association] === ASSOCIATION_ENDED)
      this.#flows.forget(association, "forget");
  }

  /**
   * Sends one datagram of an association into the tunnel, or queues it while that is down.
   *
   * @param association  from {@link openAssociation}; the datagram is dropped as association_limit unless it {@link isLive}
   * @param address      buffer with the remote address at `addressOffset`; borrowed, like `data`
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
    this.#datagrams.send(now, association, data, offset, length, address, addressOffset, addressLength);
  }

  /**
   * Sets the DSCP (RFC 2474) of the datagrams that follow, 0 to 63, initially 0. The server sets it on everything that the association
   * sends. A change within 250 ms of the previous one has no effect, so repeat the call for each datagram.
   */
  handleDscp(now: number, association: number, dscp: number): void {
    this.#flows.handleDscp(now, association, dscp);
  }

  /** Sends rows `first` to `end - 1` of one association to one remote address; see {@link handleDatagram}. */
  handleDatagrams(
    now: number,
    association: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
    address: AddressBytes,
  ): void {
    this.#datagrams.sendRows(now, association, received, first, end, address);
  }

  #remoteOf(flow: number, id: number): AddressBytes | undefined {
    const { contextById, ended } = this.#parts;
    const slot = contextById.get(id) ?? NONE;
    return slot !== NONE && this.contexts.association[slot] === flow
      ? this.contexts.address[slot]
      : ended.remoteOf(flow, id);
  }

  #formerRemoteOf(id: number): AddressBytes | undefined {
    const { former } = this.#parts;
    const slot = former?.contextById.get(id) ?? NONE;
    const isSame = slot !== NONE && former!.generation[slot] === this.contexts.generation[slot];
    return isSame ? this.contexts.address[slot] : undefined;
  }

  /** Ends the session in an orderly way: drain the lanes, then close their connections. */
  close(): void {
    if (this.#parts.isClosed) return;
    this.#parts.isClosed = true;
    for (const lane of this.#parts.laneByIndex) {
      if (lane.isUp) {
        lane.tunnel!.allowance = NO_LIMIT;
        lane.tunnel!.writeControl(encodeShutdown("done"));
      } else this.#lanes.rest(lane);
      this.#parts.deadlines.clear(deadlineOfLane(lane.index));
    }
    this.#parts.deadlines.clear(DEADLINE_ASSOCIATIONS);
    this.#parts.deadlines.clear(DEADLINE_CONTEXTS);
    this.#parts.deadlines.clear(DEADLINE_FORMER);
    this.#parts.deadlines.clear(DEADLINE_DISPATCH);
    this.#parts.deadlines.clear(DEADLINE_RACE);
    this.#parts.deadlines.clear(DEADLINE_PARALLEL);
  }
}
