import type { AddressBytes } from "../../wire/socket-address.ts";
import type { DropReason } from "../counters.ts";
import { SendQueue } from "../session/queue/send-queue.ts";
import type { ReceivedDatagrams } from "../session/received-datagrams.ts";
import { Tunnel } from "../session/tunnel.ts";
import type { MasqueParts } from "./masque-parts.ts";
import { DEADLINE_CONNECT, DEADLINE_FIRST_QUEUE } from "./masque-parts.ts";
import type { MasqueRequest } from "./masque-request.ts";

const NONE = -1;
const NEVER = Number.POSITIVE_INFINITY;
/** How long datagrams may wait for the answer to a request if the age budget is shorter, in milliseconds. */
const ANSWER_MS = 1_000;
/** Most bytes that may wait for the answer to a request. */
const ANSWER_BYTES = 131_072;
const CONTROL_BYTES = 1_048_576;
/** Most requests at a time, and most of them without an answer. */
const MAX_REQUESTS = 4_096;
const MAX_UNANSWERED = 64;
/** Wait after a failed connection to the proxy, in milliseconds. It doubles with each further failure, up to the second value. */
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5_000;
const MAX_COUNTED_FAILURES = 16;

/** The requests of a client of standard MASQUE, each of which is a lane: connects them, queues their datagrams, and ends them. */
export class MasqueRequests {
  /** Whether the proxy has answered and has not failed since. */
  isUp = false;
  /** Number of open requests. */
  openCount = 0;
  /** By association: the request that further targets may join. */
  readonly joinable: (MasqueRequest | undefined)[] = [];

  readonly #parts: MasqueParts;
  /** By lane. */
  readonly #byLane: (MasqueRequest | undefined)[] = [];
  readonly #freeLanes: number[] = [];
  /** Requests that have datagrams but no connection, oldest first. */
  readonly #wanting = new Set<MasqueRequest>();
  readonly #ready: MasqueRequest[] = [];
  #unanswered = 0;
  #failures = 0;
  #connectAfter = 0;
  /** Whether the proxy lets clients bind; undefined until it has answered. */
  #offersBind: boolean | undefined;
  #hasFailed = false;
  #isClosed = false;

  constructor(parts: MasqueParts) {
    this.#parts = parts;
  }

  at(lane: number): MasqueRequest | undefined {
    return this.#byLane[lane];
  }

  /** Whether a request has not ended. */
  has(request: MasqueRequest): boolean {
    return this.#byLane[request.index] === request;
  }

  get isFull(): boolean {
    return this.#byLane.length - this.#freeLanes.length >= MAX_REQUESTS;
  }

  make(association: number, target: AddressBytes, mayAskBind: boolean): MasqueRequest {
    const { pool, counters, options } = this.#parts;
    const asksBind = mayAskBind && this.#offersBind !== false;
    const request: MasqueRequest = {
      index: this.#freeLanes.pop() ?? this.#byLane.length,
      association,
      target,
      asksBind,
      state: "idle",
      mayBind: asksBind,
      slotById: new Map(),
      nextId: 2,
      waiting: new SendQueue(
        pool,
        counters,
        Math.min(ANSWER_BYTES, options.queueBytes),
        Math.max(ANSWER_MS, options.ageBudgetMs),
      ),
      tunnel: undefined,
      isReady: false,
    };
    this.#byLane[request.index] = request;
    if (asksBind) this.joinable[association] = request;
    return request;
  }

  // Datagrams

  /** Sends a datagram of context `id`, or queues it until the request is answered. */
  send(
    now: number,
    request: MasqueRequest,
    id: number,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    if (request.state === "open") {
      request.tunnel!.writeDatagram(now, request.index, id, data, offset, length);
      this.markReady(request);
    } else {
      request.waiting.push(now, request.index, id, data, offset, length);
      this.#want(now, request);
    }
  }

  /** As {@link send}, for rows `first` to `end - 1`. */
  sendAll(
    now: number,
    request: MasqueRequest,
    id: number,
    received: ReceivedDatagrams,
    first: number,
    end: number,
  ): void {
    if (request.state === "open") {
      request.tunnel!.writeDatagrams(now, request.index, id, received, first, end);
      this.markReady(request);
    } else {
      request.waiting.pushAll(now, request.index, id, received, first, end);
      this.#want(now, request);
    }
  }

  /** Drops the datagrams that wait for context `id`, which is about to end. */
  dropContext(request: MasqueRequest, id: number, reason: DropReason): void {
    this.#parts.pool.dropContexts(request.index, (context) => (context === id ? reason : undefined));
  }

  writeControl(request: MasqueRequest, capsule: Uint8Array): void {
    request.tunnel!.writeControl(capsule);
    this.markReady(request);
  }

  markReady(request: MasqueRequest): void {
    if (request.isReady) return;
    request.isReady = true;
    this.#ready.push(request);
  }

  /** Takes an open request that may have something to write. @returns its lane, or -1 */
  takeReady(): number {
    for (let request = this.#ready.pop(); request !== undefined; request = this.#ready.pop()) {
      request.isReady = false;
      if (this.has(request) && request.state === "open") return request.index;
    }
    return NONE;
  }

  armQueue(request: MasqueRequest): void {
    const key = DEADLINE_FIRST_QUEUE + request.index;
    this.#parts.deadlines.setEarlier(key, queueOf(request).expiresAt);
  }

  expireQueue(now: number, lane: number): void {
    const request = this.#byLane[lane]!;
    const queue = queueOf(request);
    queue.expire(now);
    this.#parts.deadlines.set(DEADLINE_FIRST_QUEUE + lane, queue.expiresAt);
    if (queue.isEmpty) this.#wanting.delete(request);
  }

  // Connections

  /** Connects for a request that has datagrams, at once or in its turn. */
  #want(now: number, request: MasqueRequest): void {
    this.armQueue(request);
    if (request.state !== "idle" || this.#isClosed) return;
    this.#wanting.add(request);
    this.connectWanting(now);
  }

  connectWanting(now: number): void {
    const { deadlines, outputs } = this.#parts;
    for (const request of this.#wanting) {
      if (now < this.#connectAfter) {
        deadlines.set(DEADLINE_CONNECT, this.#connectAfter);
        return;
      }
      if (this.#unanswered >= MAX_UNANSWERED) return;
      this.#wanting.delete(request);
      // After a failure a single request finds out whether the proxy is back.
      if (this.#failures > 0) this.#connectAfter = now + this.#retryMs;
      request.state = "connecting";
      this.#unanswered++;
      outputs.push({ kind: "connect", lane: request.index, way: 0 });
    }
  }

  get #retryMs(): number {
    return Math.min(LAST_RETRY_MS, FIRST_RETRY_MS * 2 ** (this.#failures - 1));
  }

  /** Opens a request that the proxy has accepted. @param isBound  whether the proxy lets it bind */
  open(now: number, request: MasqueRequest, isBound: boolean): void {
    const { pool, counters, options } = this.#parts;
    this.#unanswered--;
    this.#failures = 0;
    request.state = "open";
    this.openCount++;
    const queue = new SendQueue(pool, counters, options.queueBytes, options.ageBudgetMs);
    // Without the extension there are no heartbeats.
    request.tunnel = new Tunnel(queue, counters, { heartbeatMs: NEVER, controlBytes: CONTROL_BYTES });
    request.tunnel.open(now, isBound ? "bind" : "datagram");
    if (request.asksBind) this.#offersBind = isBound;
    request.mayBind = isBound;
    if (!isBound) this.#endJoining(request);
  }

  /** Reports that the proxy can be used, unless it has reported that before. */
  reportUp(): void {
    if (this.isUp) return;
    this.isUp = true;
    this.#hasFailed = false;
    this.#parts.outputs.push({ kind: "session-up", isAnother: false });
  }

  /** Handles that the proxy could not be reached. */
  handleFailure(now: number, error: Error | undefined): void {
    this.#failures = Math.min(this.#failures + 1, MAX_COUNTED_FAILURES);
    this.#connectAfter = now + this.#retryMs;
    // Open requests may still be served.
    if (this.#hasFailed || this.openCount > 0) return;
    this.#hasFailed = true;
    this.isUp = false;
    this.#parts.outputs.push({ kind: "session-down", error });
  }

  /** Handles that the proxy has refused a request, and can therefore be reached. */
  handleRefused(): void {
    this.#failures = 0;
  }

  // Ends

  /** Closes a request that has lost its connection. Datagrams that its tunnel had queued wait for the next one. */
  disconnect(request: MasqueRequest): void {
    if (request.state === "open") {
      this.openCount--;
      request.waiting.takeFlow(request.index);
    } else if (request.state === "connecting") this.#unanswered--;
    request.state = "idle";
    request.tunnel = undefined;
    request.mayBind = request.asksBind;
  }

  /** Connects a request again if datagrams wait in it. */
  reconnect(now: number, request: MasqueRequest): void {
    if (!request.waiting.isEmpty) this.#want(now, request);
  }

  /** Ends a request if it has no context left. Its contexts have taken their waiting datagrams with them. */
  endIfUnused(request: MasqueRequest): void {
    if (request.slotById.size > 0 || !this.has(request)) return;
    const { outputs, deadlines } = this.#parts;
    if (request.state !== "idle") outputs.push({ kind: "disconnect", lane: request.index, error: undefined });
    this.disconnect(request);
    this.#wanting.delete(request);
    deadlines.clear(DEADLINE_FIRST_QUEUE + request.index);
    this.#endJoining(request);
    this.#byLane[request.index] = undefined;
    this.#freeLanes.push(request.index);
  }

  #endJoining(request: MasqueRequest): void {
    if (this.joinable[request.association] === request) this.joinable[request.association] = undefined;
  }

  close(): void {
    this.#isClosed = true;
    this.#wanting.clear();
    for (const request of this.#byLane) {
      if (request === undefined) continue;
      // Nothing can send them any more.
      this.#parts.pool.removeFlow(request.index, "no_lane");
      this.#parts.deadlines.clear(DEADLINE_FIRST_QUEUE + request.index);
      if (request.state === "idle") continue;
      this.#parts.outputs.push({ kind: "disconnect", lane: request.index, error: undefined });
      this.disconnect(request);
    }
  }
}

function queueOf({ tunnel, waiting }: MasqueRequest): SendQueue {
  return tunnel?.queue ?? waiting;
}
