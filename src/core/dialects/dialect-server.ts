import type { Dialect } from "../../wire/dialects/dialect.ts";
import {
  FRAME_KEEPALIVE,
  FRAME_MALFORMED,
  FRAME_TARGET,
  MAX_UDP_BYTES,
} from "../../wire/dialects/dialect.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyAddress, makeAddress } from "../../wire/socket-address.ts";
import { REPLY_COMMAND_UNSUPPORTED, REPLY_SUCCEEDED } from "../../wire/socks5.ts";
import type { Counters, DropReason, RefusalReason } from "../counters.ts";
import { Deadlines } from "../deadlines.ts";
import { ProtocolError } from "../errors.ts";
import { Fifo } from "../fifo.ts";
import { Socks5ServerConnection } from "../handshakes/socks5-server.ts";
import { IdleLists } from "../idle-lists.ts";
import { DatagramBatch } from "../session/datagram-batch.ts";
import { SendPool } from "../session/queue/send-pool.ts";
import type { DatagramTap } from "../tap.ts";
import type { DialectConnection } from "./dialect-connection.ts";
import { deadlineOf, deadlineOfQueue } from "./dialect-connection.ts";
import { DialectFlows } from "./dialect-flows.ts";
import { DialectLink } from "./dialect-link.ts";
import type { DialectServerOptions } from "./dialect-server-options.ts";
import type { DialectServerOutput } from "./dialect-server-output.ts";
import type { FrameReceiver } from "./frame-reader.ts";
import type { RemoteTable } from "./remote-table.ts";
import { tapNumber } from "./remote-table.ts";

const NONE = -1;
/** Milliseconds within which uses count as one in the order of idleness. */
const IDLE_GRAIN_MS = 100;
/** Lists of connections in {@link IdleLists}. */
const SHAKING_HANDS = 0;
const OPEN = 1;
const NO_ADDRESS = makeAddress("0.0.0.0", 0)!;

/**
 * The server end of all connections in dialects. Does no I/O and reads no clock: after each `handle*`, drain
 * {@link pollOutput}, send {@link outgoing} on, drain {@link pollDirty}, then arm one timer for {@link nextTimeout}. Bytes
 * passed in are borrowed until the call returns. A client's error ends only its own connection.
 */
export class DialectServer implements FrameReceiver<DialectConnection> {
  readonly counters: Counters;
  /** Datagrams for targets. `association` is the flow, `context` the slot in {@link remotes}. */
  readonly outgoing = new DatagramBatch(1024);

  readonly #options: DialectServerOptions;
  readonly #outputs = new Fifo<DialectServerOutput>();
  readonly #deadlines = new Deadlines();
  readonly #connections: (DialectConnection | undefined)[] = [];
  readonly #freeConnections: number[] = [];
  readonly #connectionsByIdleness = new IdleLists(IDLE_GRAIN_MS);
  readonly #dirty: number[] = [];
  readonly #pool = new SendPool();
  readonly #flows: DialectFlows;

  /** @param counters  the process's, which its other endpoints share */
  constructor(options: DialectServerOptions, counters: Counters) {
    this.#options = options;
    this.counters = counters;
    this.#flows = new DialectFlows({
      options,
      counters,
      outputs: this.#outputs,
      deadlines: this.#deadlines,
      pool: this.#pool,
      connections: this.#connections,
    });
    this.#pool.owner = {
      associationOf: tapNumber,
      localOf: () => undefined,
      remoteOf: (flow) => this.remotes.target[this.remotes.onlySlotOf(flow)],
    };
  }

  get remotes(): RemoteTable {
    return this.#flows.remotes;
  }

  get connectionCount(): number {
    return this.#connectionsByIdleness.size(SHAKING_HANDS) + this.#connectionsByIdleness.size(OPEN);
  }

  get flowCount(): number {
    return this.#flows.count;
  }

  // Events

  /**
   * Accepts a connection.
   *
   * @param how      its dialect; or, if it begins with SOCKS5, the dialects that its request may choose
   * @param request  the address of its SOCKS5 request, if the host has read that
   * @returns its number, for all later calls
   */
  handleAccept(now: number, how: Dialect | readonly Dialect[], request?: AddressBytes): number {
    const lists = this.#connectionsByIdleness;
    const dialects = "codec" in how ? undefined : how;
    if (dialects !== undefined && lists.size(SHAKING_HANDS) >= this.#options.maxHalfOpen) {
      this.#evict(SHAKING_HANDS, "half_open_limit");
    }
    if (this.connectionCount >= this.#options.maxConnections) {
      this.#evict(lists.size(OPEN) > 0 ? OPEN : SHAKING_HANDS, "tunnel_limit");
    }
    const index = this.#freeConnections.pop() ?? this.#connections.length;
    const connection: DialectConnection = {
      index,
      link: new DialectLink(this.#pool, this.counters, this.#options),
      socks: dialects && new Socks5ServerConnection(now, undefined, dialects),
      dialect: undefined,
      target: this.#options.target,
      isConnected: false,
      flows: new Map(),
      startedAt: now,
      heardAt: now,
      usedAt: now,
      lookups: 0,
      isDirty: false,
      isClosing: false,
    };
    this.#connections[index] = connection;
    if ("codec" in how) this.#open(now, connection, how, request);
    else lists.touch(now, index, SHAKING_HANDS);
    this.#arm(connection);
    return index;
  }

  /**
   * Handles bytes of a connection, which may be split anywhere. Stops once {@link outgoing} is full or must be sent on before the next
   * frame.
   *
   * @returns the end offset of the consumed bytes: drain the outputs, send `outgoing` on, then call again with the rest
   */
  handleStream(now: number, index: number, chunk: Uint8Array, offset: number, end: number): number {
    const { outgoing } = this;
    outgoing.count = 0;
    outgoing.data = chunk;
    const connection = this.#connections[index];
    if (connection === undefined || connection.isClosing) return end;
    connection.heardAt = now;
    if (connection.socks !== undefined) {
      return this.#shakeHands(now, connection, connection.socks, chunk, offset, end);
    }
    const at = connection.link.reader.readInto(now, connection, chunk, offset, end, outgoing, this);
    if (at !== FRAME_MALFORMED) return at;
    this.counters.refused.protocol_error++;
    this.#close(connection, new ProtocolError("ERR_DIALECT_MALFORMED", connection.dialect!.name));
    return end;
  }

  #shakeHands(
    now: number,
    connection: DialectConnection,
    socks: Socks5ServerConnection,
    chunk: Uint8Array,
    offset: number,
    end: number,
  ): number {
    socks.handleStream(now, chunk.subarray(offset, end));
    let behind = 0;
    for (let output = socks.pollOutput(); output !== undefined; output = socks.pollOutput()) {
      if (output.kind === "write") {
        connection.link.writeControl(output.bytes);
        this.#markDirty(connection);
      } else if (output.kind === "closed") {
        this.counters.refused.socks_refused++;
        this.#close(connection, output.error);
        return end;
      } else if (output.command !== "dialect") socks.reply(REPLY_COMMAND_UNSUPPORTED, NO_ADDRESS);
      else {
        socks.reply(REPLY_SUCCEEDED, NO_ADDRESS);
        // The chunk completed the request, so all of the surplus is at its end.
        behind = socks.surplus.length;
        connection.link.writeControl((socks.pollOutput() as { bytes: Uint8Array }).bytes);
        this.#open(now, connection, output.dialect, output.address);
      }
    }
    return end - behind;
  }

  #open(
    now: number,
    connection: DialectConnection,
    dialect: Dialect,
    request: AddressBytes | undefined,
  ): void {
    connection.socks = undefined;
    connection.dialect = dialect;
    connection.link.use(dialect.codec("server", request));
    connection.link.open();
    this.#connectionsByIdleness.touch(now, connection.index, OPEN);
    this.#markDirty(connection);
    this.#arm(connection);
  }

  handleOtherFrame(connection: DialectConnection): void {
    const { reader, codec } = connection.link;
    const { frame } = reader;
    if (frame.kind === FRAME_KEEPALIVE) {
      const answer = codec.answerKeepalive(this.#options.unixSeconds());
      // A client that does not read gets no more answers.
      if (answer !== undefined && connection.link.writeControl(answer)) this.#markDirty(connection);
    } else if (frame.kind === FRAME_TARGET) {
      connection.target = copyAddress(frame.addresses, frame.addressOffset, frame.addressLength);
      connection.isConnected = true;
    }
  }

  handleDatagramFrame(now: number, connection: DialectConnection): boolean {
    const { counters, outgoing } = this;
    const flows = this.#flows;
    const { remotes } = flows;
    const { frame, data } = connection.link.reader;
    const length = frame.dataEnd - frame.dataOffset;
    const hasAddress = frame.addressLength > 0;
    const address = hasAddress ? frame.addresses : connection.target;
    if (address === undefined || length > MAX_UDP_BYTES) {
      this.#dropIncoming(address === undefined ? "refused_target" : "too_long", connection, address);
      return true;
    }
    const addressOffset = hasAddress ? frame.addressOffset : 0;
    const addressLength = hasAddress ? frame.addressLength : address.length;
    const isMany = connection.dialect!.flows > 1;
    let flow = connection.flows.get(isMany ? frame.flow : 0) ?? NONE;
    let slot = flow === NONE ? NONE : remotes.find(flow, address, addressOffset, addressLength);
    if (isMany && flow !== NONE && (slot === NONE || frame.isNew || flows.isDns[flow] !== frame.isDns)) {
      // The client now uses the number for another flow, which gets a port of its own.
      if (outgoing.count > 0) return false;
      flows.close(flow);
      flow = NONE;
      slot = NONE;
    }
    if (flow === NONE) {
      if (outgoing.count > 0 && flows.isFullFor(connection)) return false;
      flow = flows.open(now, connection, isMany ? frame.flow : 0, isMany && frame.isDns);
      if (flow === NONE) {
        this.#dropIncoming("association_limit", connection, address);
        return true;
      }
    }
    if (slot === NONE) {
      if (remotes.idle.size(connection.index) >= this.#options.maxRemotes) {
        if (outgoing.count > 0) return false;
        flows.removeRemote(remotes.idle.oldest(connection.index));
      }
      slot = flows.addRemote(now, connection, flow, copyAddress(address, addressOffset, addressLength));
      if (slot === NONE) {
        this.#dropIncoming("unresolved", connection, address);
        return true;
      }
    }
    this.#touch(now, connection, flow, slot);
    const state = flows.state[slot];
    if (state === "denied") this.#dropIncoming("refused_target", connection, address);
    else if (state === "asked") flows.lookups.hold(slot, data, frame.dataOffset, length);
    else {
      counters.datagramsIn++;
      counters.bytesIn += length;
      outgoing.add(flow, slot, frame.dataOffset, length);
    }
    return true;
  }

  /** Drops the datagram that was just read. @param address  the datagram's, or its connection's */
  #dropIncoming(reason: DropReason, connection: DialectConnection, address: Uint8Array | undefined): void {
    const { drops, tap } = this.counters;
    drops[reason]++;
    if (tap === undefined) return;
    const { frame, data } = connection.link.reader;
    const remote =
      address === frame.addresses
        ? copyAddress(frame.addresses, frame.addressOffset, frame.addressLength)
        : connection.target;
    const length = frame.dataEnd - frame.dataOffset;
    tap.record(true, reason, NONE, undefined, remote, data, frame.dataOffset, length);
  }

  /** Records the datagrams of {@link outgoing} with a tap. */
  recordOutgoing(tap: DatagramTap): void {
    const { data, count, association, context, offset, length } = this.outgoing;
    for (let i = 0; i < count; i++) {
      const remote = this.remotes.target[context[i]];
      tap.record(true, undefined, tapNumber(association[i]), undefined, remote, data, offset[i], length[i]);
    }
  }

  /** Drops a datagram of {@link outgoing} whose flow has ended since, because its connection has failed. @param data  its payloads */
  dropOutgoing(index: number, data: Uint8Array): void {
    const { association, offset, length } = this.outgoing;
    const { drops, tap } = this.counters;
    drops.unknown_context++;
    const flow = tapNumber(association[index]);
    tap?.record(true, "unknown_context", flow, undefined, undefined, data, offset[index], length[index]);
  }

  /** Handles the answer to a `resolve` output; then send {@link outgoing} on. @param addresses  in order of preference; empty if none */
  handleResolved(now: number, query: number, addresses: readonly AddressBytes[]): void {
    const { outgoing, counters } = this;
    outgoing.count = 0;
    const { remotes, lookups, state } = this.#flows;
    const lookup = lookups.finish(query);
    if (lookup === undefined) return;
    const { slot, owner } = lookup;
    if (addresses.length === 0) {
      // The next datagram to the name starts another lookup.
      this.#flows.removeRemote(slot);
      return;
    }
    this.#flows.setTarget(slot, addresses.find(this.#options.permits));
    if (state[slot] === "denied") {
      lookups.dropHeld("refused_target", slot);
      return;
    }
    const held = lookups.takeHeld(slot);
    outgoing.data = new Uint8Array(held.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const datagram of held) {
      outgoing.data.set(datagram, at);
      outgoing.add(remotes.flow[slot], slot, at, datagram.length);
      counters.datagramsIn++;
      counters.bytesIn += datagram.length;
      at += datagram.length;
    }
    this.#touch(now, owner, remotes.flow[slot], slot);
  }

  /** Sends a datagram to the client of a flow. @param remote  its IPv4 or IPv6 sender */
  handleDatagram(
    now: number,
    flow: number,
    data: Uint8Array,
    offset: number,
    length: number,
    remote: AddressBytes,
  ): void {
    const connection = this.#flows.owner[flow];
    if (connection === undefined) return;
    const slot = this.remotes.findTarget(flow, remote);
    const isAny = connection.dialect!.addresses === "any" && !connection.isConnected;
    if (slot === NONE && !(isAny && this.#flows.hears(flow, remote))) {
      const { drops, tap } = this.counters;
      drops.filtered++;
      tap?.record(false, "filtered", tapNumber(flow), undefined, remote, data, offset, length);
      return;
    }
    this.#touch(now, connection, flow, slot);
    // With one address per flow, the client knows the remote only by the address that it chose itself.
    const named = isAny ? remote : this.remotes.address[slot]!;
    const { link } = connection;
    link.writeDatagram(now, flow, this.#flows.wireId[flow], false, named, data, offset, length);
    this.#deadlines.setEarlier(deadlineOfQueue(connection.index), link.queue.expiresAt);
    this.#markDirty(connection);
  }

  /** Handles that the client has ended its side: writes what is left, then closes. */
  handleEnded(index: number): void {
    const connection = this.#connections[index];
    if (connection !== undefined) this.#close(connection, undefined);
  }

  /** Handles that a connection is closed, and frees its number. */
  handleDisconnected(index: number): void {
    const connection = this.#connections[index];
    if (connection === undefined) return;
    this.#end(connection);
    this.#connections[index] = undefined;
    this.#freeConnections.push(index);
  }

  handleTimeout(now: number): void {
    for (let key = this.#deadlines.takeDue(now); key !== NONE; key = this.#deadlines.takeDue(now)) {
      const connection = this.#connections[key >> 1];
      if (connection === undefined || connection.isClosing) continue;
      if (key === deadlineOfQueue(connection.index)) {
        connection.link.queue.expire(now);
        this.#deadlines.set(key, connection.link.queue.expiresAt);
      } else this.#expire(now, connection);
    }
  }

  #expire(now: number, connection: DialectConnection): void {
    if (connection.socks !== undefined) {
      if (now < this.#silentAt(connection)) this.#arm(connection);
      else {
        this.counters.refused.handshake_timeout++;
        this.#close(connection, undefined);
      }
      return;
    }
    if (now >= this.#silentAt(connection)) {
      this.#close(connection, undefined);
      return;
    }
    this.#flows.expire(now, connection);
    this.#arm(connection);
  }

  #arm(connection: DialectConnection): void {
    const at = Math.min(this.#silentAt(connection), this.#flows.expiresAt(connection));
    this.#deadlines.set(deadlineOf(connection.index), at);
  }

  /** When a connection ends if nothing more arrives. */
  #silentAt({ socks, dialect, startedAt, heardAt, usedAt }: DialectConnection): number {
    const { handshakeTimeoutMs, idleTimeoutMs } = this.#options;
    if (socks !== undefined) return startedAt + handshakeTimeoutMs;
    const { keepaliveMs, idleMs } = dialect!;
    return (keepaliveMs === undefined ? usedAt : heardAt) + (idleMs ?? idleTimeoutMs);
  }

  /** When to call {@link handleTimeout}; Infinity for never. */
  nextTimeout(): number {
    return this.#deadlines.next();
  }

  pollOutput(): DialectServerOutput | undefined {
    const output = this.#outputs.shift();
    // Freed only now, because the host must close the port before the number is used again.
    if (output?.kind === "release") this.#flows.handleReleased(output.flow);
    return output;
  }

  /** The next connection that may have data to write, or -1. */
  pollDirty(): number {
    for (let index = this.#dirty.pop(); index !== undefined; index = this.#dirty.pop()) {
      const connection = this.#connections[index];
      if (connection === undefined) continue;
      connection.isDirty = false;
      return index;
    }
    return NONE;
  }

  /** Bytes for a connection, on loan until {@link handleTransmitted}. */
  pollTransmit(now: number, index: number): Uint8Array | undefined {
    return this.#connections[index]?.link.pollTransmit(now);
  }

  handleTransmitted(index: number): boolean {
    this.#connections[index]?.link.handleTransmitted();
    return true;
  }

  /** Closes all connections. */
  close(): void {
    for (const connection of this.#connections)
      if (connection !== undefined) this.#close(connection, undefined);
  }

  #touch(now: number, connection: DialectConnection, flow: number, slot: number): void {
    connection.usedAt = now;
    this.#connectionsByIdleness.refresh(now, connection.index);
    this.#flows.touch(now, flow, slot);
  }

  // Ends

  #evict(list: number, reason: RefusalReason): void {
    const connection = this.#connections[this.#connectionsByIdleness.oldest(list)];
    if (connection === undefined) return;
    this.counters.refused[reason]++;
    this.#close(connection, undefined);
  }

  #close(connection: DialectConnection, error: ProtocolError | undefined): void {
    if (connection.isClosing) return;
    this.#end(connection);
    this.#outputs.push({ kind: "close", connection: connection.index, error });
  }

  #end(connection: DialectConnection): void {
    if (connection.isClosing) return;
    connection.isClosing = true;
    for (const flow of [...connection.flows.values()]) this.#flows.close(flow, "no_lane");
    this.#connectionsByIdleness.remove(connection.index);
    this.#deadlines.clear(deadlineOf(connection.index));
    this.#deadlines.clear(deadlineOfQueue(connection.index));
  }

  #markDirty(connection: DialectConnection): void {
    if (connection.isDirty) return;
    connection.isDirty = true;
    this.#dirty.push(connection.index);
  }
}
