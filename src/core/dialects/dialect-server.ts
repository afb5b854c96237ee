import type { Dialect } from "../../wire/dialects/dialect.ts";
import {
  FRAME_DATAGRAM,
  FRAME_INCOMPLETE,
  FRAME_KEEPALIVE,
  FRAME_TARGET,
  MAX_UDP_BYTES,
} from "../../wire/dialects/dialect.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import {
  ATYP_DOMAIN,
  addressDomain,
  addressPort,
  copyAddress,
  copyOf,
  makeAddress,
} from "../../wire/socket-address.ts";
import { REPLY_COMMAND_UNSUPPORTED, REPLY_SUCCEEDED } from "../../wire/socks5.ts";
import type { Counters, DropReason, RefusalReason } from "../counters.ts";
import { Deadlines } from "../deadlines.ts";
import { ProtocolError } from "../errors.ts";
import { Socks5ServerConnection } from "../handshakes/socks5-server.ts";
import { IdleLists } from "../idle-lists.ts";
import { Permissions } from "../server/permissions.ts";
import type { Filtering } from "../server/server-associations.ts";
import { DatagramBatch } from "../session/datagram-batch.ts";
import { SendPool } from "../session/send-queue.ts";
import type { DatagramTap } from "../tap.ts";
import type { DialectLinkLimits } from "./dialect-link.ts";
import { DialectLink } from "./dialect-link.ts";
import { RemoteTable } from "./remote-table.ts";

const NONE = -1;
const IDLE_GRAIN_MS = 100;
/** Lists of connections by idleness. */
const SHAKING_HANDS = 0;
const OPEN = 1;
/** Names that are looked up for a connection at the same time, and datagrams that wait for one, and bytes that wait in all. */
const LOOKUPS = 64;
const HELD_DATAGRAMS = 8;
const HELD_BYTES = 1_048_576;
const NO_ADDRESS = makeAddress("0.0.0.0", 0)!;

/** Whether datagrams are sent to a remote: it is permitted, it is not, or its name is being looked up. */
type RemoteState = "known" | "denied" | "asked";

interface Lookup {
  readonly slot: number;
  readonly generation: number;
  readonly owner: Connection;
}

/** All durations in milliseconds, sizes in bytes. */
export interface DialectServerOptions extends DialectLinkLimits {
  /** Where datagrams of dialects without addresses go; an IP or a name. */
  readonly target: AddressBytes | undefined;
  /** The server's own resolver, for datagrams that are for it. */
  readonly nameserver: AddressBytes | undefined;
  /** True if an IPv4 or IPv6 address may be sent to. */
  readonly permits: (target: AddressBytes) => boolean;
  /** False: datagrams to names are passed on as such, for another server to resolve. */
  readonly resolvesNames: boolean;
  /** Which senders are heard by flows with many addresses. */
  readonly filtering: Filtering;
  /** Past it, the connection that has been idle longest ends. */
  readonly maxConnections: number;
  /** Connections in their SOCKS5 handshake. Past it, the oldest ends. */
  readonly maxHalfOpen: number;
  /** Of all connections. Past it, a connection that opens one loses its idlest; one that has none makes the one with most do so. */
  readonly maxFlows: number;
  /** Of one connection. Past it, it loses its idlest. */
  readonly maxFlowsPerConnection: number;
  /** Remote addresses of one connection. Past it, the idlest is forgotten. */
  readonly maxRemotes: number;
  readonly handshakeTimeoutMs: number;
  readonly idleTimeoutMs: number;
  /** A random 32-bit number. */
  readonly seed: number;
  readonly unixSeconds: () => number;
}

export type DialectServerOutput =
  /** A flow begins, which has a UDP port of its own. */
  | { readonly kind: "open"; readonly flow: number }
  /** The flow has ended. */
  | { readonly kind: "release"; readonly flow: number }
  /** Write the remaining batches of `connection`, then close it. @param error  the client's, if it is one */
  | { readonly kind: "close"; readonly connection: number; readonly error: ProtocolError | undefined }
  /** Look up a name and call {@link DialectServer.handleResolved}. */
  | { readonly kind: "resolve"; readonly query: number; readonly name: string; readonly port: number };

interface Connection {
  readonly index: number;
  readonly link: DialectLink;
  /** Set until the SOCKS5 request is known. */
  socks: Socks5ServerConnection | undefined;
  /** Set from then on. */
  dialect: Dialect | undefined;
  /** Where datagrams without an address go. */
  target: AddressBytes | undefined;
  /** True if the client has named that. */
  isConnected: boolean;
  /** Flow by its number on the wire; of a dialect with one flow, by 0. */
  readonly flows: Map<number, number>;
  startedAt: number;
  heardAt: number;
  usedAt: number;
  lookups: number;
  isDirty: boolean;
  isClosing: boolean;
}

/**
 * The server end of all connections in dialects. Does no I/O and reads no clock: after each `handle*`, drain
 * {@link pollOutput}, send on {@link outgoing}, drain {@link pollDirty}, then arm one timer for {@link nextTimeout}. Bytes
 * passed in are borrowed until the call returns. An error of a client ends only its own connection.
 */
export class DialectServer {
  readonly counters: Counters;
  /** Datagrams for targets: flow, and slot in {@link remotes}. */
  readonly outgoing = new DatagramBatch(1024);
  readonly remotes: RemoteTable;

  readonly #options: DialectServerOptions;
  readonly #outputs: DialectServerOutput[] = [];
  readonly #deadlines = new Deadlines();
  readonly #pool = new SendPool();
  readonly #connections: (Connection | undefined)[] = [];
  readonly #freeConnections: number[] = [];
  readonly #connectionsByIdleness = new IdleLists(IDLE_GRAIN_MS);
  readonly #dirty: number[] = [];
  /** By flow. */
  readonly #owners: (Connection | undefined)[] = [];
  readonly #wireIds: number[] = [];
  readonly #isDns: boolean[] = [];
  readonly #freeFlows: number[] = [];
  /** A list for each connection. */
  readonly #flowsByIdleness = new IdleLists(IDLE_GRAIN_MS);
  #flowCount = 0;
  readonly #permissions: Permissions;
  /** By slot of {@link remotes}. */
  readonly #grants: number[] = [];
  readonly #states: RemoteState[] = [];
  readonly #lookups = new Map<number, Lookup>();
  #nextQuery = 1;
  readonly #held = new Map<number, Uint8Array[]>();
  #heldBytes = 0;

  /** @param counters  of the process; shared with its other endpoints */
  constructor(options: DialectServerOptions, counters: Counters) {
    this.#options = options;
    this.counters = counters;
    this.remotes = new RemoteTable(options.seed);
    this.#permissions = new Permissions(options.seed);
    this.#pool.owner = {
      associationOf: numberOf,
      localOf: () => undefined,
      remoteOf: (flow) => this.#remoteOf(flow),
    };
  }

  /** For a tap: the remote address of what a flow has queued, if it has only one. */
  #remoteOf(flow: number): AddressBytes | undefined {
    const [slot, ...more] = this.remotes.of(flow);
    return slot === undefined || more.length > 0 ? undefined : this.remotes.target[slot];
  }

  get connectionCount(): number {
    return this.#connectionsByIdleness.size(SHAKING_HANDS) + this.#connectionsByIdleness.size(OPEN);
  }

  get flowCount(): number {
    return this.#flowCount;
  }

  // Events

  /**
   * A connection was accepted.
   *
   * @param how      its dialect; or, for a SOCKS5 client, those that its request may be of
   * @param request  the address of the SOCKS5 request that it has made elsewhere
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
    const connection: Connection = {
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
   * Bytes of a connection, cut anywhere. Stops when {@link outgoing} is full, or has something that cannot be combined with the
   * rest.
   *
   * @returns the offset up to which they were consumed: drain the outputs, send on `outgoing`, then call again with the rest
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
    const { reader } = connection.link;
    let at = offset;
    while (!outgoing.isFull) {
      const status = reader.next(chunk, at, end);
      if (status === FRAME_INCOMPLETE) return end;
      if (status < 0) {
        if (outgoing.count > 0) return at;
        this.counters.refused.protocol_error++;
        this.#close(connection, new ProtocolError("ERR_DIALECT_MALFORMED", connection.dialect!.name));
        return end;
      }
      if (reader.frame.kind !== FRAME_DATAGRAM) this.#handleOther(connection);
      else if (!this.#route(now, connection)) return at;
      else if (reader.data !== chunk && outgoing.count > 0) {
        // It was assembled from two chunks, and is alone in the batch, which has one buffer.
        outgoing.data = reader.data;
        return reader.offset;
      }
      at = reader.offset;
    }
    return at;
  }

  #shakeHands(
    now: number,
    connection: Connection,
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
        // The request was not whole before this chunk.
        behind = socks.surplus.length;
        connection.link.writeControl((socks.pollOutput() as { bytes: Uint8Array }).bytes);
        this.#open(now, connection, output.dialect, output.address);
      }
    }
    return end - behind;
  }

  #open(now: number, connection: Connection, dialect: Dialect, request: AddressBytes | undefined): void {
    connection.socks = undefined;
    connection.dialect = dialect;
    connection.link.use(dialect.codec("server", request));
    connection.link.open();
    this.#connectionsByIdleness.touch(now, connection.index, OPEN);
    this.#markDirty(connection);
    this.#arm(connection);
  }

  #handleOther(connection: Connection): void {
    const { reader, codec } = connection.link;
    const { frame } = reader;
    if (frame.kind === FRAME_KEEPALIVE) {
      const answer = codec.answerKeepalive(this.#options.unixSeconds());
      // A client that does not read gets no more of them.
      if (answer !== undefined && connection.link.writeControl(answer)) this.#markDirty(connection);
    } else if (frame.kind === FRAME_TARGET) {
      connection.target = copyAddress(frame.addresses, frame.addressOffset, frame.addressLength);
      connection.isConnected = true;
    }
  }

  /**
   * Sends the datagram that was just read to its target, or drops it.
   *
   * @returns false when flows or remotes have to end for it, for which {@link outgoing} has to be sent on before
   */
  #route(now: number, connection: Connection): boolean {
    const { counters, outgoing, remotes } = this;
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
    if (isMany && flow !== NONE && (slot === NONE || frame.isNew || this.#isDns[flow] !== frame.isDns)) {
      // The number is another flow's now, with a port of its own.
      if (outgoing.count > 0) return false;
      this.#closeFlow(flow);
      flow = NONE;
      slot = NONE;
    }
    if (flow === NONE) {
      if (outgoing.count > 0 && this.#isFullFor(connection)) return false;
      flow = this.#openFlow(now, connection, isMany ? frame.flow : 0, isMany && frame.isDns);
      if (flow === NONE) {
        this.#dropIncoming("association_limit", connection, address);
        return true;
      }
    }
    if (slot === NONE) {
      if (remotes.idle.size(connection.index) >= this.#options.maxRemotes) {
        if (outgoing.count > 0) return false;
        this.#removeRemote(remotes.idle.oldest(connection.index));
      }
      slot = this.#addRemote(now, connection, flow, copyAddress(address, addressOffset, addressLength));
      if (slot === NONE) {
        this.#dropIncoming("unresolved", connection, address);
        return true;
      }
    }
    this.#touch(now, connection, flow, slot);
    const state = this.#states[slot];
    if (state === "denied") this.#dropIncoming("refused_target", connection, address);
    else if (state === "asked") this.#hold(slot, data, frame.dataOffset, length);
    else {
      counters.datagramsIn++;
      counters.bytesIn += length;
      outgoing.add(flow, slot, frame.dataOffset, length);
    }
    return true;
  }

  /** Drops the datagram that was just read. @param address  its own, or that of its connection */
  #dropIncoming(reason: DropReason, connection: Connection, address: Uint8Array | undefined): void {
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

  #dropHeld(reason: DropReason, slot: number, held: readonly Uint8Array[]): void {
    const { drops, tap } = this.counters;
    drops[reason] += held.length;
    if (tap === undefined) return;
    const association = numberOf(this.remotes.flow[slot]);
    const remote = this.remotes.address[slot];
    for (const data of held) {
      tap.record(true, reason, association, undefined, remote, data, 0, data.length);
    }
  }

  /** For a tap: what is in {@link outgoing}. */
  recordOutgoing(tap: DatagramTap): void {
    const { data, count, association, context, offset, length } = this.outgoing;
    for (let i = 0; i < count; i++) {
      const remote = this.remotes.target[context[i]];
      tap.record(true, undefined, numberOf(association[i]), undefined, remote, data, offset[i], length[i]);
    }
  }

  /** A name was looked up. @param addresses  in order of preference; empty when it has none. Send on {@link outgoing}. */
  handleResolved(now: number, query: number, addresses: readonly AddressBytes[]): void {
    const { outgoing, remotes, counters } = this;
    outgoing.count = 0;
    const lookup = this.#lookups.get(query);
    if (lookup === undefined) return;
    this.#lookups.delete(query);
    const { slot, generation, owner } = lookup;
    owner.lookups--;
    if (remotes.address[slot] === undefined || remotes.generation[slot] !== generation) return;
    const held = this.#takeHeld(slot);
    if (addresses.length === 0) {
      // The next datagram asks again.
      this.#dropHeld("unresolved", slot, held);
      this.#removeRemote(slot);
      return;
    }
    this.#setTarget(slot, addresses.find(this.#options.permits));
    if (this.#states[slot] === "denied") {
      this.#dropHeld("refused_target", slot, held);
      return;
    }
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

  /** A datagram for a flow's client. @param remote  its IPv4 or IPv6 sender */
  handleDatagram(
    now: number,
    flow: number,
    data: Uint8Array,
    offset: number,
    length: number,
    remote: AddressBytes,
  ): void {
    const connection = this.#owners[flow];
    if (connection === undefined) return;
    const slot = this.remotes.findTarget(flow, remote);
    const isAny = connection.dialect!.addresses === "any" && !connection.isConnected;
    if (slot === NONE && !(isAny && this.#hears(flow, remote))) {
      const { drops, tap } = this.counters;
      drops.filtered++;
      tap?.record(false, "filtered", numberOf(flow), undefined, remote, data, offset, length);
      return;
    }
    this.#touch(now, connection, flow, slot);
    // Who gives one address to each flow knows its remote by that alone.
    const named = isAny ? remote : this.remotes.address[slot]!;
    const { link } = connection;
    link.writeDatagram(now, flow, this.#wireIds[flow], false, named, data, offset, length);
    this.#deadlines.setEarlier(deadlineOfQueue(connection.index), link.queue.expiresAt);
    this.#markDirty(connection);
  }

  #hears(flow: number, remote: AddressBytes): boolean {
    switch (this.#options.filtering) {
      case "endpoint-independent":
        return true;
      case "address-dependent":
        return this.#permissions.has(flow, remote);
      case "address-and-port-dependent":
        return false;
    }
  }

  /** The client has ended its side. */
  handleEnded(index: number): void {
    const connection = this.#connections[index];
    if (connection !== undefined) this.#close(connection, undefined);
  }

  /** The connection is closed, and its number is free. */
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

  #expire(now: number, connection: Connection): void {
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
    const flows = this.#flowsByIdleness;
    const { idleTimeoutMs } = this.#options;
    const next = () => flows.expired(now, connection.index, idleTimeoutMs);
    for (let flow = next(); flow !== NONE; flow = next()) this.#closeFlow(flow);
    this.#arm(connection);
  }

  #arm(connection: Connection): void {
    const flowsAt = this.#flowsByIdleness.expiresAt(connection.index, this.#options.idleTimeoutMs);
    this.#deadlines.set(deadlineOf(connection.index), Math.min(this.#silentAt(connection), flowsAt));
  }

  /** When the connection ends if nothing more comes. */
  #silentAt({ socks, dialect, startedAt, heardAt, usedAt }: Connection): number {
    const { handshakeTimeoutMs, idleTimeoutMs } = this.#options;
    if (socks !== undefined) return startedAt + handshakeTimeoutMs;
    const { keepaliveMs, idleMs } = dialect!;
    return (keepaliveMs === undefined ? usedAt : heardAt) + (idleMs ?? idleTimeoutMs);
  }

  /** When {@link handleTimeout} wants to be called; Infinity for never. */
  nextTimeout(): number {
    return this.#deadlines.next();
  }

  pollOutput(): DialectServerOutput | undefined {
    const output = this.#outputs.shift();
    // The slot may be reused only now that the host closes its port.
    if (output?.kind === "release") this.#freeFlows.push(output.flow);
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

  // Flows and remotes

  #isFullFor({ index, dialect }: Connection): boolean {
    return (
      this.#flowsByIdleness.size(index) >= this.#maxFlowsOf(dialect!) ||
      this.#flowCount >= this.#options.maxFlows
    );
  }

  #maxFlowsOf({ flows }: Dialect): number {
    return Math.min(flows, this.#options.maxFlowsPerConnection);
  }

  #openFlow(now: number, connection: Connection, wireId: number, isDns: boolean): number {
    if (this.#isFullFor(connection)) {
      const lists = this.#flowsByIdleness;
      const own = lists.oldest(connection.index);
      const loser = own === NONE ? lists.oldest(this.#fattest()) : own;
      if (loser === NONE) return NONE;
      this.counters.refused.association_evicted++;
      this.#closeFlow(loser);
    }
    const flow = this.#freeFlows.pop() ?? this.#owners.length;
    this.#owners[flow] = connection;
    this.#wireIds[flow] = wireId;
    this.#isDns[flow] = isDns;
    connection.flows.set(wireId, flow);
    this.#flowsByIdleness.touch(now, flow, connection.index);
    this.#deadlines.setEarlier(deadlineOf(connection.index), now + this.#options.idleTimeoutMs);
    this.#flowCount++;
    this.#outputs.push({ kind: "open", flow });
    return flow;
  }

  /** The connection with most flows. */
  #fattest(): number {
    let fattest = 0;
    for (const { index } of this.#connections.filter((each) => each !== undefined)) {
      if (this.#flowsByIdleness.size(index) > this.#flowsByIdleness.size(fattest)) fattest = index;
    }
    return fattest;
  }

  #closeFlow(flow: number): void {
    const connection = this.#owners[flow];
    if (connection === undefined) return;
    for (const slot of [...this.remotes.of(flow)]) this.#removeRemote(slot);
    this.#pool.removeFlow(flow);
    connection.flows.delete(this.#wireIds[flow]);
    this.#flowsByIdleness.remove(flow);
    this.#owners[flow] = undefined;
    this.#flowCount--;
    this.#outputs.push({ kind: "release", flow });
  }

  /** @returns -1 when too many names are being looked up */
  #addRemote(now: number, connection: Connection, flow: number, address: AddressBytes): number {
    const isAsked = address[0] === ATYP_DOMAIN && this.#options.resolvesNames;
    if (isAsked && connection.lookups >= LOOKUPS) return NONE;
    const slot = this.remotes.add(now, flow, address, connection.index);
    const { nameserver, permits, resolvesNames } = this.#options;
    if (isAsked) {
      this.#states[slot] = "asked";
      connection.lookups++;
      const query = this.#nextQuery++;
      this.#lookups.set(query, { slot, generation: this.remotes.generation[slot], owner: connection });
      this.#outputs.push({
        kind: "resolve",
        query,
        name: addressDomain(address),
        port: addressPort(address),
      });
      return slot;
    }
    const target = this.#isDns[flow] ? nameserver : address;
    const isPermitted = target !== undefined && (!resolvesNames || permits(target));
    this.#setTarget(slot, isPermitted ? target : undefined);
    return slot;
  }

  #setTarget(slot: number, target: AddressBytes | undefined): void {
    this.#states[slot] = target === undefined ? "denied" : "known";
    if (target === undefined) {
      this.counters.refused.target_denied++;
      return;
    }
    this.remotes.setTarget(slot, target);
    this.#grants[slot] = this.#permissions.grant(this.remotes.flow[slot], target);
  }

  #removeRemote(slot: number): void {
    if (this.#states[slot] === "known") this.#permissions.revoke(this.#grants[slot]);
    this.#dropHeld("unresolved", slot, this.#takeHeld(slot));
    this.remotes.remove(slot);
  }

  #hold(slot: number, data: Uint8Array, offset: number, length: number): void {
    const held = this.#held.get(slot) ?? [];
    if (held.length >= HELD_DATAGRAMS || this.#heldBytes + length > HELD_BYTES) {
      this.#dropHeld("unresolved", slot, [copyOf(data, offset, length)]);
      return;
    }
    held.push(copyOf(data, offset, length));
    this.#heldBytes += length;
    this.#held.set(slot, held);
  }

  #takeHeld(slot: number): readonly Uint8Array[] {
    const held = this.#held.get(slot) ?? [];
    this.#held.delete(slot);
    for (const { length } of held) this.#heldBytes -= length;
    return held;
  }

  #touch(now: number, connection: Connection, flow: number, slot: number): void {
    connection.usedAt = now;
    this.#connectionsByIdleness.refresh(now, connection.index);
    this.#flowsByIdleness.refresh(now, flow);
    if (slot !== NONE) this.remotes.idle.refresh(now, slot);
  }

  // Ends

  #evict(list: number, reason: RefusalReason): void {
    const connection = this.#connections[this.#connectionsByIdleness.oldest(list)];
    if (connection === undefined) return;
    this.counters.refused[reason]++;
    this.#close(connection, undefined);
  }

  #close(connection: Connection, error: ProtocolError | undefined): void {
    if (connection.isClosing) return;
    this.#end(connection);
    this.#outputs.push({ kind: "close", connection: connection.index, error });
  }

  #end(connection: Connection): void {
    if (connection.isClosing) return;
    connection.isClosing = true;
    for (const flow of [...connection.flows.values()]) this.#closeFlow(flow);
    this.#connectionsByIdleness.remove(connection.index);
    this.#deadlines.clear(deadlineOf(connection.index));
    this.#deadlines.clear(deadlineOfQueue(connection.index));
  }

  #markDirty(connection: Connection): void {
    if (connection.isDirty) return;
    connection.isDirty = true;
    this.#dirty.push(connection.index);
  }
}

function deadlineOf(connection: number): number {
  return 2 * connection;
}

function deadlineOfQueue(connection: number): number {
  return 2 * connection + 1;
}

/** For a tap: a flow's number among associations, where the tunnels of the process have those from 0. */
function numberOf(flow: number): number {
  return -2 - flow;
}
