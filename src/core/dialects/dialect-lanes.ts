import { ProtocolError } from "../errors.ts";
import { Socks5Client } from "../handshakes/socks5-client.ts";
import type { DialectClientParts } from "./dialect-client-parts.ts";
import { DialectLink } from "./dialect-link.ts";

const NONE = -1;
const NEVER = Number.POSITIVE_INFINITY;
/** Wait before another attempt to connect, in milliseconds. It doubles after each failure, up to the second value. */
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 5_000;
/** A connection that lasted this long, in milliseconds, does not count as a failure. */
const STABLE_MS = 5_000;
/** First key of the lanes' deadlines, of which each lane has two. */
const FIRST_DEADLINE = 1;

/** A connection of one association, or of all if the dialect carries many flows. */
export interface DialectLane {
  readonly index: number;
  state: "idle" | "connecting" | "handshake" | "open" | "closed";
  link: DialectLink;
  socks: Socks5Client | undefined;
  way: number;
  /** Earliest time of the next attempt to connect. */
  retryAt: number;
  retryMs: number;
  openedAt: number;
  heardAt: number;
  usedAt: number;
  keepaliveAt: number;
  isReady: boolean;
}

/** The lanes of a client in a dialect: connects them when there are datagrams, shakes hands, keeps them alive, handles their loss. */
export class DialectLanes {
  /** The way that the next connection will take. */
  way = 0;

  readonly #parts: DialectClientParts;
  readonly #onLost: () => void;
  readonly #lanes: (DialectLane | undefined)[] = [];
  readonly #ready: DialectLane[] = [];
  #isClosed = false;

  /** @param onLost  called when a connection is lost or could not be made */
  constructor(parts: DialectClientParts, onLost: () => void) {
    this.#parts = parts;
    this.#onLost = onLost;
  }

  at(index: number): DialectLane | undefined {
    return this.#lanes[index];
  }

  get openCount(): number {
    return this.#lanes.filter((lane) => lane?.state === "open").length;
  }

  /** The lane of an association that is about to send. */
  use(now: number, association: number): DialectLane {
    const index = this.#parts.isMany ? 0 : association;
    const known = this.#lanes[index];
    if (known !== undefined) {
      known.usedAt = now;
      return known;
    }
    const lane: DialectLane = {
      index,
      state: "idle",
      link: this.#makeLink(),
      socks: undefined,
      way: 0,
      retryAt: 0,
      retryMs: FIRST_RETRY_MS,
      openedAt: 0,
      heardAt: now,
      usedAt: now,
      keepaliveAt: NEVER,
      isReady: false,
    };
    this.#lanes[index] = lane;
    return lane;
  }

  #makeLink(): DialectLink {
    const { options, pool, counters } = this.#parts;
    const { dialect } = options;
    const link = new DialectLink(pool, counters, options);
    const request = dialect.opening.kind === "socks5" ? dialect.opening.request : undefined;
    link.use(dialect.codec("client", request));
    return link;
  }

  // Connecting

  /** Connects a lane if datagrams wait in it, and marks it as ready. Call it after writing datagrams. */
  handleWritten(now: number, lane: DialectLane): void {
    const { queue } = lane.link;
    if (lane.state === "idle" && !queue.isEmpty) {
      if (now >= lane.retryAt) this.#connect(now, lane);
      else this.#arm(lane);
    }
    this.#parts.deadlines.setEarlier(deadlineOfQueue(lane.index), queue.expiresAt);
    this.markReady(lane);
  }

  #connect(now: number, lane: DialectLane): void {
    if (this.#isClosed) return;
    lane.state = "connecting";
    lane.heardAt = now;
    lane.way = this.way;
    this.#parts.deadlines.clear(deadlineOf(lane.index));
    this.#parts.outputs.push({ kind: "connect", lane: lane.index, way: lane.way });
  }

  handleConnected(now: number, index: number): void {
    const lane = this.#lanes[index];
    if (lane?.state !== "connecting") return;
    const { opening } = this.#parts.options.dialect;
    if (opening.kind === "socks5") {
      lane.state = "handshake";
      lane.socks = new Socks5Client(opening.request, undefined, opening.command);
      lane.link.writeControl(lane.socks.start());
      this.#arm(lane);
    } else this.#open(now, lane);
    this.markReady(lane);
  }

  /** Handles bytes of a lane in its handshake. @returns the end offset of the consumed bytes */
  shakeHands(now: number, lane: DialectLane, chunk: Uint8Array, offset: number, end: number): number {
    let bytes = chunk.subarray(offset, end);
    for (;;) {
      const answer = lane.socks!.handleStream(bytes);
      if (answer === "need") return end;
      if (answer instanceof Uint8Array) {
        lane.link.writeControl(answer);
        this.markReady(lane);
        // The rest of the bytes is already in the handshake's buffer, which may complete another message.
        bytes = new Uint8Array(0);
        continue;
      }
      if (answer.kind === "failed") {
        this.disconnect(now, lane, answer.error);
        return end;
      }
      this.#open(now, lane);
      return end - answer.surplus.length;
    }
  }

  #open(now: number, lane: DialectLane): void {
    const { dialect, unixSeconds } = this.#parts.options;
    lane.socks = undefined;
    lane.state = "open";
    lane.openedAt = now;
    lane.heardAt = now;
    lane.usedAt = now;
    lane.link.open();
    const keepalive = lane.link.codec.keepalive(unixSeconds());
    if (keepalive !== undefined) lane.link.writeControl(keepalive);
    lane.keepaliveAt = now + (dialect.keepaliveMs ?? NEVER);
    this.#arm(lane);
    this.markReady(lane);
  }

  // Output

  markReady(lane: DialectLane): void {
    if (lane.isReady || (lane.state !== "open" && lane.state !== "handshake")) return;
    lane.isReady = true;
    this.#ready.push(lane);
  }

  /** Takes a lane that may have something to write. @returns its index, or -1 */
  takeReady(): number {
    const lane = this.#ready.pop();
    if (lane === undefined) return NONE;
    lane.isReady = false;
    return lane.index;
  }

  // Deadlines

  /** Handles a deadline that is due. @param key  the deadline's */
  handleTimeout(now: number, key: number): void {
    const lane = this.#lanes[(key - FIRST_DEADLINE) >> 1];
    if (lane === undefined || lane.state === "closed") return;
    if (key === deadlineOfQueue(lane.index)) {
      lane.link.queue.expire(now);
      this.#parts.deadlines.set(key, lane.link.queue.expiresAt);
    } else this.#handleLaneTimeout(now, lane);
  }

  #handleLaneTimeout(now: number, lane: DialectLane): void {
    const { handshakeTimeoutMs, dialect, unixSeconds } = this.#parts.options;
    if (lane.state === "idle") {
      if (!lane.link.queue.isEmpty) this.#connect(now, lane);
      return;
    }
    if (lane.state === "handshake") {
      if (now < lane.heardAt + handshakeTimeoutMs) this.#arm(lane);
      else this.disconnect(now, lane, new ProtocolError("ERR_HANDSHAKE_TIMEOUT", dialect.name));
      return;
    }
    if (lane.state !== "open") return;
    if (now >= this.#silentAt(lane)) {
      const isLost = dialect.keepaliveMs !== undefined;
      const error = isLost ? new ProtocolError("ERR_HEARTBEAT_LOST", dialect.name) : undefined;
      this.disconnect(now, lane, error);
      return;
    }
    if (now >= lane.keepaliveAt) {
      lane.keepaliveAt = now + dialect.keepaliveMs!;
      const keepalive = lane.link.codec.keepalive(unixSeconds());
      if (keepalive !== undefined && lane.link.writeControl(keepalive)) this.markReady(lane);
    }
    this.#arm(lane);
  }

  #arm(lane: DialectLane): void {
    this.#parts.deadlines.set(deadlineOf(lane.index), this.#dueAt(lane));
  }

  #dueAt(lane: DialectLane): number {
    switch (lane.state) {
      case "idle":
        return lane.link.queue.isEmpty ? NEVER : lane.retryAt;
      case "handshake":
        return lane.heardAt + this.#parts.options.handshakeTimeoutMs;
      case "open":
        return Math.min(lane.keepaliveAt, this.#silentAt(lane));
      default:
        return NEVER;
    }
  }

  /** When an open connection ends if nothing more arrives. */
  #silentAt({ heardAt, usedAt }: DialectLane): number {
    const { keepaliveMs, clientIdleMs } = this.#parts.options.dialect;
    return (keepaliveMs === undefined ? usedAt : heardAt) + (clientIdleMs ?? NEVER);
  }

  // Ends

  handleDisconnected(now: number, index: number, error: Error | undefined): void {
    const lane = this.#lanes[index];
    if (lane === undefined || lane.state === "idle" || lane.state === "closed") return;
    this.#lose(now, lane, error);
  }

  /** Closes a lane whose only association has ended. */
  handleUnused(now: number, lane: DialectLane): void {
    this.disconnect(now, lane, undefined);
    lane.retryAt = 0;
    lane.retryMs = FIRST_RETRY_MS;
  }

  disconnect(now: number, lane: DialectLane, error: ProtocolError | undefined): void {
    if (lane.state !== "idle" && lane.state !== "closed") {
      this.#parts.outputs.push({ kind: "disconnect", lane: lane.index, error });
    }
    this.#lose(now, lane, error);
  }

  /** Handles the loss of a connection, and drops the datagrams that waited for it. */
  #lose(now: number, lane: DialectLane, error: Error | undefined): void {
    const { options, deadlines } = this.#parts;
    const wasStable = lane.state === "open" && now - lane.openedAt >= STABLE_MS;
    lane.link.queue.clear();
    lane.link = this.#makeLink();
    lane.state = "idle";
    lane.socks = undefined;
    lane.keepaliveAt = NEVER;
    if (error !== undefined && !wasStable) this.way = (lane.way + 1) % options.ways;
    if (wasStable || error === undefined) lane.retryMs = FIRST_RETRY_MS;
    lane.retryAt = now + (error === undefined ? 0 : lane.retryMs);
    if (error !== undefined) lane.retryMs = Math.min(MAX_RETRY_MS, 2 * lane.retryMs);
    deadlines.clear(deadlineOf(lane.index));
    deadlines.clear(deadlineOfQueue(lane.index));
    this.#onLost();
  }

  /** Closes all connections that are not open. */
  close(): void {
    this.#isClosed = true;
    const { outputs, deadlines } = this.#parts;
    for (const lane of this.#lanes) {
      if (lane === undefined) continue;
      if (lane.state === "connecting" || lane.state === "handshake") {
        outputs.push({ kind: "disconnect", lane: lane.index, error: undefined });
        lane.state = "closed";
      }
      deadlines.clear(deadlineOf(lane.index));
      deadlines.clear(deadlineOfQueue(lane.index));
    }
  }
}

function deadlineOf(lane: number): number {
  return FIRST_DEADLINE + 2 * lane;
}

function deadlineOfQueue(lane: number): number {
  return FIRST_DEADLINE + 2 * lane + 1;
}
