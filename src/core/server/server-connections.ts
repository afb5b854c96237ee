import { encodeShutdown } from "../../wire/capsule.ts";
import type { RefusalReason } from "../counters.ts";
import { ProtocolError } from "../errors.ts";
import { HeadBuffer } from "../handshakes/head-buffer.ts";
import type { LanePort } from "../lanes/lane-port.ts";
import type { CapsuleSet } from "../session/capsule-reader.ts";
import { SendQueue } from "../session/queue/send-queue.ts";
import { Tunnel } from "../session/tunnel.ts";
import type { WhatFor } from "./server-output.ts";
import type { ServerParts } from "./server-parts.ts";
import { DEADLINE_CONNECTION, DEADLINE_QUEUE, deadlineOf } from "./server-parts.ts";
import type { Connection } from "./sessions/server-session.ts";
import type { SessionLifetimes } from "./sessions/session-lifetimes.ts";

const NONE = -1;
/** How long a tunnel stays open after the last answer once its client has ended its side, in milliseconds. */
const HALF_CLOSED_MS = 10_000;
/** Bytes of control capsules that may wait for a client that does not read. */
const CONTROL_BYTES = 1_048_576;

/** The connections of a server from acceptance to their end, and a list of those that may have something to write. */
export class ServerConnections {
  /** Connections without a tunnel, oldest first. */
  readonly halfOpen = new Set<Connection>();
  /** Open tunnels whose clients have ended their side, oldest first. */
  readonly halfClosed = new Set<Connection>();
  tunnelCount = 0;

  readonly #parts: ServerParts;
  readonly #lifetimes: SessionLifetimes;
  readonly #byIndex: (Connection | undefined)[] = [];
  readonly #free: number[] = [];
  readonly #dirty: number[] = [];

  constructor(parts: ServerParts, lifetimes: SessionLifetimes) {
    this.#parts = parts;
    this.#lifetimes = lifetimes;
  }

  at(index: number): Connection | undefined {
    return this.#byIndex[index];
  }

  /** Mean of the tunnels' smoothed round-trip times in milliseconds. */
  get rttMs(): number | undefined {
    let sum = 0;
    let count = 0;
    for (const connection of this.#byIndex) {
      if (connection?.tunnel.rttMs === undefined) continue;
      sum += connection.tunnel.rttMs;
      count++;
    }
    return count === 0 ? undefined : sum / count;
  }

  // Beginnings

  /** Accepts a connection. If its head is to be read here, it counts as half-open. @returns the connection */
  accept(now: number, isNested: boolean): Connection {
    if (this.halfOpen.size >= this.#parts.options.maxHalfOpen) {
      // The oldest is the one most likely to be slow on purpose.
      const [oldest] = this.halfOpen;
      this.refuse(now, oldest, "half_open_limit", undefined);
    }
    const connection = this.add(now, isNested);
    this.halfOpen.add(connection);
    return connection;
  }

  add(now: number, isNested: boolean): Connection {
    const { options, counters, deadlines, pool } = this.#parts;
    const { queueBytes, ageBudgetMs, heartbeatMs, handshakeTimeoutMs } = options;
    const index = this.#free.pop() ?? this.#byIndex.length;
    const queue = new SendQueue(pool, counters, queueBytes, ageBudgetMs);
    const connection: Connection = {
      index,
      state: "head",
      tunnel: new Tunnel(queue, counters, { heartbeatMs, controlBytes: CONTROL_BYTES }),
      head: new HeadBuffer(),
      challenges: 0,
      lane: 0,
      session: undefined,
      request: undefined,
      isDirty: false,
      hasEnded: false,
      isNested,
    };
    this.#byIndex[index] = connection;
    deadlines.set(deadlineOf(index, DEADLINE_CONNECTION), now + handshakeTimeoutMs);
    return connection;
  }

  /** Begins the tunnel of a connection whose handshake is done. */
  open(now: number, connection: Connection, known: CapsuleSet, port?: LanePort): void {
    this.halfOpen.delete(connection);
    connection.state = "open";
    this.tunnelCount++;
    connection.tunnel.open(now, known, port);
    connection.tunnel.handleTimeout(now);
    this.arm(connection);
    this.markDirty(connection);
    if (connection.hasEnded) this.#halfClose(now, connection);
  }

  // Output

  send(connection: Connection, bytes: Uint8Array): void {
    connection.tunnel.writeControl(bytes);
    this.markDirty(connection);
  }

  /** Sends SHUTDOWN on every lane. */
  announceShutdown(reason: "done" | "moving"): void {
    for (const connection of this.#byIndex) {
      if (connection?.state !== "open" || connection.session?.kind !== "native") continue;
      this.send(connection, encodeShutdown(reason));
    }
  }

  /** Closes the connections whose requests have not been judged, because no more requests are accepted. */
  closeHalfOpen(now: number): void {
    for (const connection of [...this.halfOpen]) this.close(now, connection);
  }

  endShortcuts(): void {
    for (const connection of this.#byIndex) connection?.tunnel.endShortcuts();
  }

  markDirty(connection: Connection): void {
    if (connection.isDirty) return;
    connection.isDirty = true;
    this.#dirty.push(connection.index);
  }

  /** Takes a connection off the dirty list. @returns its index, or -1 if the list is empty */
  takeDirty(): number {
    for (let index = this.#dirty.pop(); index !== undefined; index = this.#dirty.pop()) {
      const connection = this.#byIndex[index];
      if (connection === undefined) continue;
      connection.isDirty = false;
      return index;
    }
    return NONE;
  }

  // Deadlines

  handleTimeout(now: number, index: number): void {
    const connection = this.#byIndex[index]!;
    if (connection.state === "closing") return;
    if (connection.state !== "open") {
      this.refuse(now, connection, "handshake_timeout", undefined);
      return;
    }
    if (connection.hasEnded) {
      const association = connection.session!.associationById.get(0)!;
      const endsAt = this.#parts.associations.idle.lastUsed(association) + HALF_CLOSED_MS;
      if (now >= endsAt) this.close(now, connection);
      else this.#parts.deadlines.set(deadlineOf(index, DEADLINE_CONNECTION), endsAt);
      return;
    }
    connection.tunnel.handleTimeout(now);
    this.markDirty(connection);
    if (this.check(now, connection)) this.arm(connection);
  }

  /** Updates the deadline of a connection from its tunnel. */
  arm({ index, tunnel }: Connection): void {
    this.#parts.deadlines.set(deadlineOf(index, DEADLINE_CONNECTION), tunnel.nextTimeout());
  }

  expireQueue(now: number, index: number): void {
    const { queue } = this.#byIndex[index]!.tunnel;
    queue.expire(now);
    this.#parts.deadlines.set(deadlineOf(index, DEADLINE_QUEUE), queue.expiresAt);
  }

  // Ends

  /** Closes a connection if its tunnel has failed. @returns false if it has */
  check(now: number, connection: Connection): boolean {
    const { error } = connection.tunnel;
    if (error === undefined) return true;
    this.#parts.counters.refused.protocol_error++;
    this.close(now, connection, error);
    return false;
  }

  /** See `TunnelServer.handleEnded`. */
  handleEnded(now: number, index: number): void {
    const connection = this.#byIndex[index];
    if (connection === undefined || connection.state === "closing" || connection.hasEnded) return;
    connection.hasEnded = true;
    if (connection.state === "head" || connection.session?.kind === "native") this.close(now, connection);
    else if (connection.state === "open") this.#halfClose(now, connection);
  }

  #halfClose(now: number, connection: Connection): void {
    const { tunnel } = connection;
    if (!tunnel.reader.atBoundary) {
      // RFC 9297 §3.3.
      tunnel.fail(new ProtocolError("ERR_STREAM_TRUNCATED", "the client closed its side"));
      this.check(now, connection);
      return;
    }
    this.halfClosed.add(connection);
    this.#parts.deadlines.set(deadlineOf(connection.index, DEADLINE_CONNECTION), now + HALF_CLOSED_MS);
  }

  /** See `TunnelServer.handleDisconnected`. */
  handleDisconnected(now: number, index: number): void {
    const connection = this.#byIndex[index];
    if (connection === undefined) return;
    this.#byIndex[index] = undefined;
    this.#free.push(index);
    this.#parts.deadlines.clear(deadlineOf(index, DEADLINE_CONNECTION));
    this.#parts.deadlines.clear(deadlineOf(index, DEADLINE_QUEUE));
    this.#detach(now, connection);
    // The lookup of its target may still be answered.
    connection.state = "closing";
  }

  /** Refuses a connection: counts the reason, sends the response if there is one, and closes. */
  refuse(
    now: number,
    connection: Connection,
    reason: RefusalReason,
    response: Uint8Array | undefined,
    detail = "",
  ): void {
    this.#parts.counters.refused[reason]++;
    if (response !== undefined) this.send(connection, response);
    this.close(now, connection, undefined, { reason, detail });
  }

  /** Gives a connection to the host, with all bytes that were read from it. */
  giveAway(now: number, connection: Connection, surplus: Uint8Array, what: WhatFor): void {
    const { index, head } = connection;
    this.#detach(now, connection);
    connection.state = "closing";
    this.#parts.outputs.push({
      ...what,
      ...{ connection: index, head: head.bytes.slice(0, head.length), surplus: surplus.slice() },
    });
  }

  /** Closes a connection. @param error  the client's, in an open tunnel */
  close(
    now: number,
    connection: Connection,
    error?: ProtocolError,
    refusal?: { reason: RefusalReason; detail: string },
  ): void {
    if (connection.state === "closing") return;
    this.#detach(now, connection);
    connection.state = "closing";
    this.#parts.outputs.push({ kind: "close", connection: connection.index, error, refusal });
  }

  /** Removes a connection from its session and from the counts. */
  #detach(now: number, connection: Connection): void {
    connection.tunnel.endShortcuts();
    this.halfOpen.delete(connection);
    this.halfClosed.delete(connection);
    if (connection.state === "open") this.tunnelCount--;
    const { session } = connection;
    connection.session = undefined;
    if (session !== undefined) this.#lifetimes.leave(now, session, connection);
  }
}
