import { createHash, createHmac } from "node:crypto";
import { TunnelClient } from "../../src/core/client/client.ts";
import type { ClientOutput, TunnelClientOptions } from "../../src/core/client/client-parts.ts";
import type { Cryptography } from "../../src/core/handshakes/credentials.ts";
import { decodeKeptSessions, encodeKeptSessions } from "../../src/core/server/restart/kept-sessions.ts";
import { TunnelServer } from "../../src/core/server/server.ts";
import type { TunnelServerOptions } from "../../src/core/server/server-options.ts";
import type { ServerOutput } from "../../src/core/server/server-output.ts";
import type { UnreachableKind } from "../../src/wire/capsule.ts";
import type { AddressBytes } from "../../src/wire/socket-address.ts";
import { formatAddress, makeAddress } from "../../src/wire/socket-address.ts";
import { SERVER_DEFAULTS } from "./server-defaults.ts";

/** Reproducible bytes in place of random ones. */
export function seededCryptography(seed: number): Cryptography {
  let counter = 0;
  return {
    hmac: (key, data) => new Uint8Array(createHmac("sha256", key).update(data).digest()),
    random: (length) => {
      const hash = createHash("sha512").update(`${seed}/${counter++}`).digest();
      return new Uint8Array(hash.subarray(0, length));
    },
  };
}

/** One TCP connection in memory: bytes in both directions, each piece with its time of arrival. */
interface Wire {
  readonly lane: number;
  readonly way: number;
  readonly connection: number;
  readonly toServer: { at: number; bytes: Uint8Array }[];
  readonly toClient: { at: number; bytes: Uint8Array }[];
  readonly record: ConnectionRecord;
}

/** The bytes that each end has written on a connection, whether they arrived or not. */
export interface ConnectionRecord {
  readonly lane: number;
  readonly fromClient: Uint8Array[];
  readonly fromServer: Uint8Array[];
}

export interface Arrival {
  readonly association: number;
  readonly remote: string;
  readonly payload: string;
}

export interface NetworkOptions {
  readonly client?: Partial<TunnelClientOptions>;
  readonly server?: Partial<TunnelServerOptions>;
  /** One-way delay, in milliseconds. */
  readonly latencyMs?: number;
  /** Largest piece in which bytes arrive; 0 does not split them. */
  readonly cutBytes?: number;
}

/**
 * A client and a server in virtual time. Every target echoes from the address that it was reached at. `names` resolves names.
 * Each association sends from its own port, 40000 and up.
 */
export class Network {
  now = 1_000;
  readonly client: TunnelClient;
  server: TunnelServer;
  readonly names = new Map<string, string>();
  /** Datagrams that applications received. */
  readonly arrived: Arrival[] = [];
  /** Datagrams that targets received: `port of the association > target: payload`. */
  readonly atTargets: string[] = [];
  readonly clientEvents: ClientOutput[] = [];
  /** Connections that the server closed on its own. */
  unexpectedCloses = 0;
  readonly serverEvents: ServerOutput[] = [];
  serverIsUp = true;
  /** While true, no byte arrives anywhere, and neither end learns of it. */
  isStalled = false;
  /** Lanes on which no byte arrives. */
  readonly stalledLanes = new Set<number>();
  /** Ways on which SYNs are dropped, connections refused, or bytes swallowed. */
  readonly ways = new Map<number, "drop" | "refuse" | "swallow">();
  /** All attempts to connect since the start: `TIME way`. */
  readonly attempts: string[] = [];
  /** Connections above this number are refused on the way. */
  maxConnections = Number.POSITIVE_INFINITY;
  /** All connections since the start. */
  readonly records: ConnectionRecord[] = [];
  /** Changes bytes on their way. */
  tamper: (bytes: Uint8Array, isFromServer: boolean) => Uint8Array = (bytes) => bytes;
  echoes = true;
  /** While false, the server's lookups get no answer. */
  answersNames = true;

  readonly #options: NetworkOptions;
  readonly #wires: Wire[] = [];
  readonly #ports = new Map<number, number>();
  #nextPort = 40_000;
  #servers = 0;

  constructor(options: NetworkOptions = {}) {
    this.#options = options;
    this.client = new TunnelClient({
      lanes: 1,
      ways: [{ authority: "server.test:3456", server: 0 }],
      psk: undefined,
      crypto: seededCryptography(1),
      heartbeatMs: 5_000,
      handshakeTimeoutMs: 5_000,
      ageBudgetMs: 100,
      queueBytes: 1_048_576,
      maxAssociations: 4096,
      maxContexts: 65_536,
      idleTimeoutMs: 60_000,
      activeIdleTimeoutMs: 300_000,
      ...options.client,
    });
    this.server = this.#makeServer();
  }

  #makeServer(options: Partial<TunnelServerOptions> = {}): TunnelServer {
    return new TunnelServer({
      ...SERVER_DEFAULTS,
      crypto: seededCryptography(100 + this.#servers++),
      ...this.#options.server,
      ...options,
    });
  }

  start(): void {
    this.client.start(this.now);
    this.settle();
  }

  /** Sends `payload` of an association to `HOST:PORT`. */
  send(association: number, target: string, payload: string): void {
    const at = target.lastIndexOf(":");
    const address = makeAddress(target.slice(0, at), Number(target.slice(at + 1)))!;
    const bytes = new TextEncoder().encode(payload);
    this.client.handleDatagram(this.now, association, bytes, 0, bytes.length, address, 0, address.length);
  }

  /** Delivers a datagram from `source` to the server's socket for an association. */
  receive(association: number, source: string, payload: string): void {
    const at = source.lastIndexOf(":");
    const remote = makeAddress(source.slice(0, at), Number(source.slice(at + 1)))!;
    const bytes = new TextEncoder().encode(payload);
    this.server.handleDatagram(this.now, association, bytes, 0, bytes.length, remote);
  }

  /** Delivers an ICMP error to the server's socket for an association. */
  unreachable(association: number, target: string, kind: UnreachableKind, mtu = 0): void {
    const at = target.lastIndexOf(":");
    const remote = makeAddress(target.slice(0, at), Number(target.slice(at + 1)))!;
    this.server.handleUnreachable(this.now, association, remote, kind, mtu);
  }

  /** What the client has reported about its session: up, down, resumed, renewed. */
  get sessionEvents(): string[] {
    return this.clientEvents.map(({ kind }) => kind).filter((kind) => kind.startsWith("session-"));
  }

  /** Errors reported to applications: `association target reason mtu`. */
  get told(): string[] {
    return this.clientEvents.flatMap((event) =>
      event.kind === "unreachable"
        ? [`${event.association} ${formatAddress(event.remote)} ${event.reason} ${event.mtu}`]
        : [],
    );
  }

  /** Advances time and runs each end's deadlines. */
  advance(ms: number): void {
    const end = this.now + ms;
    this.settle();
    for (;;) {
      const next = this.#nextEvent();
      if (next > end) break;
      this.now = Math.max(this.now, next);
      if (this.client.nextTimeout() <= this.now) this.client.handleTimeout(this.now);
      if (this.serverIsUp && this.server.nextTimeout() <= this.now) this.server.handleTimeout(this.now);
      this.settle();
    }
    this.now = end;
  }

  /** Ends every connection; both ends learn of it at once. */
  cutConnections(lane?: number): void {
    for (const wire of this.#wires.filter((one) => lane === undefined || one.lane === lane)) {
      this.#wires.splice(this.#wires.indexOf(wire), 1);
      this.client.handleDisconnected(this.now, wire.lane, new Error("cut"));
      this.server.handleDisconnected(this.now, wire.connection);
    }
    this.settle();
  }

  /** Does the same for the oldest connection. */
  cutOldest(): void {
    this.cutConnections(this.#wires[0].lane);
  }

  killServer(): void {
    this.serverIsUp = false;
    for (const wire of this.#wires.splice(0))
      this.client.handleDisconnected(this.now, wire.lane, new Error("reset"));
    this.#ports.clear();
    this.settle();
  }

  startServer(): void {
    this.server = this.#makeServer();
    this.serverIsUp = true;
  }

  /**
   * Ends the server and starts another from its state as bytes, which `change` may alter. Associations keep their ports; data in
   * flight is lost.
   *
   * @param elapsedMs  time without a server
   * @param options    additional options of the next server
   */
  restartServer(
    elapsedMs = 0,
    change = (bytes: Uint8Array) => bytes,
    options: Partial<TunnelServerOptions> = {},
  ): void {
    this.server.suspend(this.now);
    this.settle();
    const portsOf = (association: number) => [this.#ports.get(association) ?? 0, 0] as const;
    const bytes = encodeKeptSessions({
      clock: this.now,
      sessions: this.server.saveSessions(this.now, portsOf),
    });
    this.killServer();
    this.advance(elapsedMs);
    this.server = this.#makeServer(options);
    this.serverIsUp = true;
    const { clock, sessions } = decodeKeptSessions(change(bytes));
    const restored = this.server.restoreSessions(this.now, sessions, this.now - clock);
    for (const { association, ports } of restored) {
      if (ports[0] > 0) this.#ports.set(association, ports[0]);
    }
  }

  get openConnections(): number {
    return this.#wires.length;
  }

  #nextEvent(): number {
    let next = Math.min(this.client.nextTimeout(), this.serverIsUp ? this.server.nextTimeout() : Infinity);
    if (this.isStalled) return next;
    for (const wire of this.#wires) {
      if (this.#isHeldUp(wire)) continue;
      for (const piece of [wire.toServer[0], wire.toClient[0]]) {
        if (piece !== undefined) next = Math.min(next, piece.at);
      }
    }
    return next;
  }

  #isHeldUp({ lane, way }: Wire): boolean {
    return this.stalledLanes.has(lane) || this.ways.has(way);
  }

  /** Handles everything that needs no time to pass. */
  settle(): void {
    for (let rounds = 0; rounds < 10_000; rounds++) {
      if (!this.#settleOnce()) return;
    }
    throw new Error("does not come to rest");
  }

  #settleOnce(): boolean {
    let moved = false;
    for (let output = this.client.pollOutput(); output !== undefined; output = this.client.pollOutput()) {
      moved = true;
      this.#handleClientOutput(output);
    }
    for (let output = this.server.pollOutput(); output !== undefined; output = this.server.pollOutput()) {
      moved = true;
      this.#handleServerOutput(output);
    }
    while (this.client.takeReleased(this.now)) {
      this.#deliverReceived();
      moved = true;
    }
    while (this.server.takeReleased(this.now)) {
      this.#sendOutgoing();
      moved = true;
    }
    const arrival = this.now + (this.#options.latencyMs ?? 0);
    for (const wire of [...this.#wires]) {
      const up = this.client.pollTransmit(this.now, wire.lane);
      if (up !== undefined) {
        wire.record.fromClient.push(up.slice());
        this.#put(wire.toServer, arrival, up);
        this.client.handleTransmitted(wire.lane);
        moved = true;
      }
      const down = this.server.pollTransmit(this.now, wire.connection);
      if (down !== undefined) {
        wire.record.fromServer.push(down.slice());
        this.#put(wire.toClient, arrival, down);
        this.server.handleTransmitted(wire.connection);
        moved = true;
      }
      moved = this.#carry(wire) || moved;
    }
    while (this.server.pollDirty(this.now) >= 0) moved = true;
    return moved;
  }

  #put(pieces: { at: number; bytes: Uint8Array }[], at: number, bytes: Uint8Array): void {
    const size = this.#options.cutBytes || bytes.length;
    for (let offset = 0; offset < bytes.length; offset += size) {
      pieces.push({ at, bytes: bytes.slice(offset, offset + size) });
    }
  }

  #carry(wire: Wire): boolean {
    let moved = false;
    if (this.isStalled || this.#isHeldUp(wire)) return false;
    while (wire.toServer.length > 0 && wire.toServer[0].at <= this.now && this.#wires.includes(wire)) {
      const { bytes } = wire.toServer.shift()!;
      moved = true;
      this.#toServer(wire, bytes);
    }
    while (wire.toClient.length > 0 && wire.toClient[0].at <= this.now && this.#wires.includes(wire)) {
      const { bytes } = wire.toClient.shift()!;
      moved = true;
      this.#toClient(wire, bytes);
    }
    return moved;
  }

  /** Delivers the bytes of a misbehaving server to the client in one piece, on the first connection or another. */
  carryToClient(bytes: Uint8Array, at = 0): void {
    this.#toClient(this.#wires[at], bytes);
    this.settle();
  }

  /** Delivers the bytes of a misbehaving client to the server in one piece, on the first connection or another. */
  carryToServer(bytes: Uint8Array, at = 0): void {
    this.#toServer(this.#wires[at], bytes);
    this.settle();
  }

  #toServer(wire: Wire, sent: Uint8Array): void {
    const bytes = this.tamper(sent, false);
    for (let at = 0; at < bytes.length; ) {
      at = this.server.handleStream(this.now, wire.connection, bytes, at, bytes.length);
      this.#sendOutgoing();
    }
  }

  #toClient(wire: Wire, sent: Uint8Array): void {
    const bytes = this.tamper(sent, true);
    for (let at = 0; at < bytes.length; ) {
      at = this.client.handleStream(this.now, wire.lane, bytes, at, bytes.length);
      this.#deliverReceived();
    }
  }

  #deliverReceived(): void {
    const { received, contexts } = this.client;
    for (let i = 0; i < received.count; i++) {
      const payload = received.data.subarray(received.offset[i], received.offset[i] + received.length[i]);
      this.arrived.push({
        association: received.association[i],
        remote: formatAddress(contexts.address[received.context[i]]!),
        payload: new TextDecoder().decode(payload),
      });
    }
  }

  #sendOutgoing(): void {
    const { outgoing, contexts } = this.server;
    const sent: [number, AddressBytes, Uint8Array][] = [];
    for (let i = 0; i < outgoing.count; i++) {
      const target = contexts.target[outgoing.context[i]]!;
      const payload = outgoing.data.slice(outgoing.offset[i], outgoing.offset[i] + outgoing.length[i]);
      sent.push([outgoing.association[i], target, payload]);
    }
    for (const [association, target, payload] of sent) {
      const port = this.#ports.get(association) ?? this.#nextPort++;
      this.#ports.set(association, port);
      this.atTargets.push(`${port} > ${formatAddress(target)}: ${new TextDecoder().decode(payload)}`);
      if (this.echoes) {
        this.server.handleDatagram(this.now, association, payload, 0, payload.length, target);
      }
    }
  }

  #handleClientOutput(output: ClientOutput): void {
    this.clientEvents.push(output);
    if (output.kind === "connect") {
      this.attempts.push(`${Math.round(this.now - 1_000)} ${output.way}`);
      const fault = this.ways.get(output.way);
      if (fault === "drop") return;
      if (!this.serverIsUp || this.#wires.length >= this.maxConnections || fault === "refuse") {
        this.client.handleDisconnected(this.now, output.lane, new Error("refused"));
        return;
      }
      const connection = this.server.handleAccept(this.now);
      const record = { lane: output.lane, fromClient: [], fromServer: [] };
      this.records.push(record);
      this.#wires.push({
        lane: output.lane,
        way: output.way,
        connection,
        toServer: [],
        toClient: [],
        record,
      });
      this.client.handleConnected(this.now, output.lane);
    } else if (output.kind === "disconnect") {
      const index = this.#wires.findIndex((wire) => wire.lane === output.lane);
      if (index < 0) return;
      const [wire] = this.#wires.splice(index, 1);
      if (!this.isStalled && !this.#isHeldUp(wire)) this.server.handleDisconnected(this.now, wire.connection);
    }
  }

  #handleServerOutput(output: ServerOutput): void {
    this.serverEvents.push(output);
    if (output.kind === "close") {
      const index = this.#wires.findIndex((wire) => wire.connection === output.connection);
      const wire = index < 0 ? undefined : this.#wires.splice(index, 1)[0];
      if (wire !== undefined && !this.isStalled) {
        const rest = this.server.pollTransmit(this.now, wire.connection);
        const last = rest && this.tamper(rest.slice(), true);
        if (last !== undefined) {
          for (let at = 0; at < last.length; ) {
            at = this.client.handleStream(this.now, wire.lane, last, at, last.length);
          }
        }
        const error = new Error("closed by the server");
        if (!this.client.handleDisconnected(this.now, wire.lane, error)) this.unexpectedCloses++;
      }
      this.server.handleDisconnected(this.now, output.connection);
    } else if (output.kind === "release") {
      this.#ports.delete(output.association);
    } else if (output.kind === "resolve" && this.answersNames) {
      const answer = this.names.get(output.name);
      const address = answer === undefined ? undefined : makeAddress(answer, output.port);
      this.server.handleResolved(this.now, output.query, address === undefined ? [] : [address]);
      this.#sendOutgoing();
    }
  }
}
