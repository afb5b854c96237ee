import type { ClientOutput } from "../../../src/core/client/client-parts.ts";
import type { Cryptography } from "../../../src/core/handshakes/credentials.ts";
import type { TunnelServer } from "../../../src/core/server/server.ts";
import type { ServerOutput } from "../../../src/core/server/server-output.ts";
import type { AddressBytes } from "../../../src/wire/socket-address.ts";
import { formatAddress, makeAddress } from "../../../src/wire/socket-address.ts";
import { cheapCryptography } from "../cheap-cryptography.ts";
import { check } from "../failure.ts";
import { sourceOf } from "../flow-source.ts";
import { Ledger } from "../ledger.ts";
import type { Settings } from "../settings.ts";
import { makeClient, makeServer } from "./cores.ts";
import { ClientHost, Link } from "./link.ts";
import { ServerSockets } from "./server-sockets.ts";
import { Traffic } from "./traffic.ts";

/** How long a server's host waits for the rest of a connection. */
const CLOSE_MS = 1_000;
const MOST_ROUNDS = 2_000;

/** A name that the server is resolving. */
interface Query {
  readonly query: number;
  readonly name: number;
}

/**
 * Several clients and a server in one process, with everything around them that a host does, and virtual time. The cores are called as the
 * real hosts call them, and in the same order: first outputs, then batches; at the server, batches only of connections that it names.
 */
export class World {
  now = 1_000;
  readonly settings: Settings;
  readonly ledger: Ledger;
  readonly clients: ClientHost[] = [];
  /** Connections that at least one end knows. */
  readonly links: Link[] = [];
  server: TunnelServer;
  serverIsUp = true;
  /** Whether connections are established as bytes arrive, or only by single actions. */
  isWelcoming = true;
  readonly sockets = new ServerSockets();
  readonly traffic: Traffic;
  readonly queries: Query[] = [];
  /** Connections of strangers. */
  readonly foreign: number[] = [];
  /** By name: the answers of resolvers. */
  readonly answers: number[][] = [];
  /** By client: how many existed before, which distinguishes their flows. */
  clientsStarted = 0;
  /** How often a client took a new session because its ids were nearly used up. */
  renewals = 0;
  /** Called with a line for each event, if someone wants to read them. */
  trace: ((line: string) => void) | undefined;

  #exchanges = 0;
  readonly #crypto: Cryptography;
  readonly #linkOf: (Link | undefined)[] = [];
  readonly #key: Uint8Array | undefined;

  constructor(settings: Settings) {
    this.settings = settings;
    this.ledger = new Ledger(settings);
    this.traffic = new Traffic(this);
    this.#crypto = cheapCryptography(settings.seed);
    this.#key = settings.hasKey ? this.#crypto.random(16) : undefined;
    for (let name = 0; name < this.ledger.targetCount; name++) {
      this.answers.push(this.ledger.isName(name) ? this.ledger.answersFor(name).slice(0, 1) : []);
    }
    this.server = makeServer(this.settings, this.#key, this.#crypto);
    for (let index = 0; index < settings.clients; index++) this.startClient(index);
  }

  /** What the clients' clocks show. */
  get clientNow(): number {
    return this.now + this.settings.clockOffsetMs;
  }

  // Clients

  startClient(index: number): void {
    const core = makeClient(this.settings, this.#key, this.#crypto);
    const host = new ClientHost(index, core, this.ledger);
    this.clients[index] = host;
    this.clientsStarted++;
    this.trace?.(`client ${index} starts`);
    core.start(this.clientNow);
    this.drainClient(host);
  }

  /** Ends a client in an orderly way. Its connections end after the bytes in flight. */
  closeClient(host: ClientHost): void {
    this.trace?.(`client ${host.index} ends`);
    host.isClosed = true;
    host.core.close();
    this.drainClient(host);
    for (const link of [...this.links]) {
      if (link.client !== host || !link.clientIsOpen) continue;
      link.clientIsOpen = false;
      this.#endClientSide(link);
    }
    host.forgetAll();
    host.lanes.length = 0;
  }

  openAssociation(host: ClientHost, expires: boolean): number {
    const { core } = host;
    const flow = this.ledger.beginFlow(host.index);
    const association = core.openAssociation(this.clientNow, sourceOf(flow), expires);
    this.trace?.(`client ${host.index} opens association ${association}, flow ${flow}`);
    if (association < 0) this.ledger.endFlow(flow);
    else host.enter(association, flow);
    this.drainClient(host);
    return association;
  }

  closeAssociation(host: ClientHost, association: number): void {
    this.trace?.(`client ${host.index} closes association ${association}`);
    host.forget(association);
    host.core.closeAssociation(this.clientNow, association);
    this.drainClient(host);
  }

  // The server's sockets

  /** The socket of one of the server's associations has failed. */
  failSocket(association: number): void {
    this.trace?.(`server's association ${association}: its socket fails`);
    this.server.handleSocketFailed(this.now, association);
    this.drainServer();
  }

  /** Answers the server's queries. */
  resolve(at: number, addresses: readonly AddressBytes[], found: readonly number[]): void {
    const [{ query, name }] = this.queries.splice(at, 1);
    for (const address of found) this.ledger.noteFound(name, address);
    this.trace?.(`server finds ${addresses.map(formatAddress).join(" ") || "nothing"} for query ${query}`);
    this.server.handleResolved(this.now, query, addresses);
    this.sockets.send(this.server, this.ledger);
    this.drainServer();
  }

  // Connections

  /** The connection that a lane requested is established. */
  completeConnect(link: Link): void {
    const { server } = this;
    link.server = server;
    link.connection = server.handleAccept(this.now);
    link.clientIsOpen = true;
    link.serverIsOpen = true;
    this.#linkOf[link.connection] = link;
    this.trace?.(`client ${link.client.index} lane ${link.lane} is connected: connection ${link.connection}`);
    this.drainServer();
    link.client.core.handleConnected(this.clientNow, link.lane);
    this.drainClient(link.client);
  }

  /** The connection that a lane requested cannot be made. */
  refuseConnect(link: Link): void {
    this.trace?.(`client ${link.client.index} lane ${link.lane} is not connected`);
    this.#removeLink(link);
    if (link.client.lanes[link.lane] !== link) return;
    link.client.lanes[link.lane] = undefined;
    link.client.core.handleDisconnected(this.clientNow, link.lane, new Error("refused"));
    this.drainClient(link.client);
  }

  /** True for a link whose connection is not established yet. */
  isPending(link: Link): boolean {
    return link.server === undefined;
  }

  /** Up to `count` bytes arrive at the server; the end follows the last one if the client has closed. */
  deliverUp(link: Link, count: number): boolean {
    const { up } = link;
    if (up.isStalled || link.isCut || !link.serverIsOpen) return false;
    const bytes = up.take(count);
    if (bytes.length > 0) {
      this.trace?.(`connection ${link.connection}: ${bytes.length} bytes come to the server`);
      for (let at = 0; at < bytes.length && link.serverIsOpen; ) {
        const next = link.server!.handleStream(this.now, link.connection, bytes, at, bytes.length);
        this.#checkProgress(at, next, bytes.length, this.server.outgoing.count);
        at = next;
        this.sockets.send(this.server, this.ledger);
        this.#handleServerOutputs();
      }
      bytes.fill(0xaa);
      link.heardByServerAt = this.now;
      this.drainServer();
    }
    this.#takeMore(link);
    if (up.isEnded && up.size === 0 && link.serverIsOpen) {
      this.loseServerSide(link);
      return true;
    }
    return bytes.length > 0;
  }

  /** Up to `count` bytes arrive at the client; the end follows the last one if the server has closed. */
  deliverDown(link: Link, count: number): boolean {
    const { down, client } = link;
    if (down.isStalled || link.isCut || !link.clientIsOpen) return false;
    const bytes = down.take(count);
    if (bytes.length > 0) {
      this.trace?.(`connection ${link.connection}: ${bytes.length} bytes come to client ${client.index}`);
      const { lanesUp } = client.core;
      for (let at = 0; at < bytes.length && link.clientIsOpen; ) {
        const next = client.core.handleStream(this.clientNow, link.lane, bytes, at, bytes.length);
        this.#checkProgress(at, next, bytes.length, client.core.received.count);
        at = next;
        client.deliver();
      }
      if (client.core.lanesUp > lanesUp) link.isEstablished = true;
      link.heardByClientAt = this.now;
      bytes.fill(0xaa);
      this.drainClient(client);
    }
    this.#takeMore(link);
    if (down.isEnded && down.size === 0 && link.clientIsOpen) {
      this.loseClientSide(link);
      return true;
    }
    return bytes.length > 0;
  }

  #checkProgress(from: number, to: number, end: number, rows: number): void {
    check(to <= end && (to > from || rows > 0), "handleStream makes no progress", () => `${from} to ${to}`);
  }

  /** Accepts the sender's batch of each pipe that has room again. */
  #takeMore(link: Link): void {
    const { pipeBytes } = this.settings;
    if (link.clientWaits && link.up.size < pipeBytes) {
      link.clientWaits = false;
      if (link.clientIsOpen) {
        link.client.core.handleTransmitted(link.lane);
        this.#pumpClient(link);
      }
    }
    if (link.serverWaits && link.down.size < pipeBytes) {
      link.serverWaits = false;
      if (link.serverIsOpen && link.server === this.server) {
        this.server.handleTransmitted(link.connection);
        this.#pumpServer(link);
      }
    }
  }

  /** The client's system reports that the connection is over. */
  loseClientSide(link: Link): void {
    link.clientLoses = false;
    if (!link.clientIsOpen) return;
    link.clientIsOpen = false;
    this.trace?.(`connection ${link.connection}: client ${link.client.index} hears that it is over`);
    this.#endClientSide(link);
    if (link.client.lanes[link.lane] !== link) return;
    link.client.lanes[link.lane] = undefined;
    link.client.core.handleDisconnected(this.clientNow, link.lane, new Error("lost"));
    this.drainClient(link.client);
  }

  /** The client's machine is on another network: its host ends all connections and attempts, then reports that. */
  changeNetwork(host: ClientHost): void {
    this.trace?.(`client ${host.index} is on another network`);
    for (const link of host.lanes.splice(0)) {
      if (link === undefined) continue;
      this.#releaseClientSide(link);
      host.core.handleDisconnected(this.clientNow, link.lane, new Error("the network has changed"));
    }
    host.core.handleNetworkChange(this.clientNow);
    this.drainClient(host);
  }

  /** The server's system reports that the connection is over. */
  loseServerSide(link: Link): void {
    link.serverLoses = false;
    if (!link.serverIsOpen) return;
    link.serverIsOpen = false;
    this.trace?.(`connection ${link.connection}: the server hears that it is over`);
    link.destroyAt = Number.POSITIVE_INFINITY;
    link.down.isEnded = true;
    if (this.#linkOf[link.connection] === link) this.#linkOf[link.connection] = undefined;
    this.server.handleDisconnected(this.now, link.connection);
    this.drainServer();
    if (!link.clientIsOpen) this.#removeLink(link);
  }

  /** The client's host releases a connection, or gives up making it. */
  #releaseClientSide(link: Link): void {
    if (this.isPending(link)) this.#removeLink(link);
    else if (link.clientIsOpen) {
      link.clientIsOpen = false;
      this.#endClientSide(link);
    }
  }

  /** The end of a connection follows the bytes in flight. */
  #endClientSide(link: Link): void {
    link.up.isEnded = true;
    link.down.clear();
    if (!link.serverIsOpen) this.#removeLink(link);
  }

  #removeLink(link: Link): void {
    const at = this.links.indexOf(link);
    if (at < 0) return;
    this.links[at] = this.links[this.links.length - 1];
    this.links.pop();
  }

  // The server

  /** Ends the server at once: nothing more is sent. */
  killServer(): void {
    this.trace?.("the server dies");
    this.#endServer((link) => {
      link.clientLoses = true;
    });
  }

  /** Ends the server in an orderly way: clients get the remaining bytes, and SHUTDOWN. */
  closeServer(): void {
    this.trace?.("the server ends");
    this.server.close(this.now);
    this.drainServer();
    this.#endServer((link) => {
      link.down.isEnded = true;
    });
  }

  /** @param endDown  how the client learns of the end of a connection */
  #endServer(endDown: (link: Link) => void): void {
    this.serverIsUp = false;
    for (const link of [...this.links]) {
      if (!link.serverIsOpen) continue;
      link.serverIsOpen = false;
      link.serverWaits = false;
      link.destroyAt = Number.POSITIVE_INFINITY;
      link.up.clear();
      endDown(link);
      if (!link.clientIsOpen) this.#removeLink(link);
    }
    this.#linkOf.length = 0;
    this.sockets.clear();
    this.queries.length = 0;
    this.foreign.length = 0;
  }

  startServer(): void {
    this.trace?.("the server starts");
    this.server = makeServer(this.settings, this.#key, this.#crypto);
    this.sockets.sent = 0;
    this.serverIsUp = true;
  }

  // Time

  /** Lets time pass and wakes the ends at their timeouts. @param flows  whether bytes arrive meanwhile */
  advance(ms: number, flows: boolean): void {
    const end = this.now + ms;
    const { clockOffsetMs } = this.settings;
    if (flows) this.exchange();
    for (;;) {
      let next = this.serverIsUp ? this.server.nextTimeout() : Number.POSITIVE_INFINITY;
      for (const { core, isClosed } of this.clients)
        if (!isClosed) next = Math.min(next, core.nextTimeout() - clockOffsetMs);
      for (const link of this.links) next = Math.min(next, link.destroyAt);
      if (next > end) break;
      // In steps that are exact on every clock, because a host's timer is never early.
      this.now = Math.max(this.now, Math.ceil(next * 1024) / 1024);
      this.wake();
      if (flows) this.exchange();
    }
    this.now = end;
  }

  /** Lets time pass without waking either end, as when a machine sleeps; then all are late. */
  oversleep(ms: number): void {
    this.now += ms;
    this.wake();
  }

  /** Calls the ends whose timeouts are due. */
  wake(): void {
    const { now, clientNow } = this;
    for (const host of this.clients) {
      if (host.isClosed || host.core.nextTimeout() > clientNow) continue;
      host.core.handleTimeout(clientNow);
      check(host.core.nextTimeout() > clientNow, "the client wants to be woken without end");
      this.drainClient(host);
    }
    if (this.serverIsUp && this.server.nextTimeout() <= now) {
      this.server.handleTimeout(now);
      check(this.server.nextTimeout() > now, "the server wants to be woken without end");
      this.drainServer();
    }
    for (let i = this.links.length - 1; i >= 0; i--) {
      if (this.links[i]?.destroyAt <= now) this.loseServerSide(this.links[i]);
    }
  }

  /** Delivers everything in flight and what follows from it, except on slow or stalled links. */
  exchange(): void {
    for (let round = 0; round < MOST_ROUNDS; round++) {
      let moved = false;
      // Each lane gets to be the first.
      const first = this.#exchanges++;
      for (let i = 0; i < this.links.length; i++) {
        const link = this.links[(first + i) % this.links.length];
        if (link.isSlow) continue;
        if (this.isPending(link) && this.isWelcoming && this.serverIsUp) {
          this.completeConnect(link);
          moved = true;
        }
        if (link.up.size > 0 || link.up.isEnded) moved = this.deliverUp(link, 1 << 20) || moved;
        if (link.down.size > 0 || link.down.isEnded) moved = this.deliverDown(link, 1 << 20) || moved;
      }
      if (!moved) return;
    }
    check(false, "the ends do not come to rest");
  }

  // Draining, as hosts do

  drainClient(host: ClientHost): void {
    const { core } = host;
    for (let output = core.pollOutput(); output !== undefined; output = core.pollOutput()) {
      this.#handleClientOutput(host, output);
    }
    while (core.takeReleased(this.clientNow)) host.deliver();
    for (const link of host.lanes) if (link?.clientIsOpen) this.#pumpClient(link);
    for (let lane = core.pollReady(this.clientNow); lane >= 0; lane = core.pollReady(this.clientNow)) {
      const link = host.lanes[lane];
      if (link?.clientIsOpen) this.#pumpClient(link);
    }
    // After all were written, a lane may have ended, or others may be wanted.
    for (let output = core.pollOutput(); output !== undefined; output = core.pollOutput()) {
      this.#handleClientOutput(host, output);
    }
  }

  #pumpClient(link: Link): void {
    const { core } = link.client;
    while (!link.clientWaits) {
      const batch = core.pollTransmit(this.clientNow, link.lane);
      if (batch === undefined) return;
      if (link.serverIsOpen) link.up.append(batch);
      link.clientWaits = link.up.size >= this.settings.pipeBytes;
      if (!link.clientWaits) core.handleTransmitted(link.lane);
    }
  }

  #handleClientOutput(host: ClientHost, output: ClientOutput): void {
    if (this.trace !== undefined) this.trace(`  client ${host.index}: ${describe(output)}`);
    switch (output.kind) {
      case "connect": {
        const link = new Link(host, output.lane);
        check(host.lanes[output.lane] === undefined, "a lane connects twice");
        host.lanes[output.lane] = link;
        this.links.push(link);
        return;
      }
      case "disconnect": {
        const link = host.lanes[output.lane];
        host.lanes[output.lane] = undefined;
        if (link === undefined) return;
        this.#releaseClientSide(link);
        return;
      }
      case "session-renewed":
        this.renewals++;
        return;
      case "association-closed":
        host.forget(output.association);
        return;
      case "unreachable":
        check(host.isLive(output.association), "an error is told of an association that has ended");
    }
  }

  drainServer(): void {
    this.#handleServerOutputs();
    const { server } = this;
    while (server.takeReleased(this.now)) {
      this.sockets.send(this.server, this.ledger);
      this.#handleServerOutputs();
    }
    for (let index = server.pollDirty(this.now); index >= 0; index = server.pollDirty(this.now)) {
      const link = this.#linkOf[index];
      if (link?.serverIsOpen) this.#pumpServer(link);
      else if (this.foreign.includes(index))
        while (server.pollTransmit(this.now, index)) server.handleTransmitted(index);
    }
  }

  #pumpServer(link: Link): void {
    const { server } = this;
    while (!link.serverWaits) {
      const batch = server.pollTransmit(this.now, link.connection);
      if (batch === undefined) break;
      if (link.clientIsOpen) link.down.append(batch);
      link.serverWaits = link.down.size >= this.settings.pipeBytes;
      if (!link.serverWaits) server.handleTransmitted(link.connection);
    }
    if (link.destroyAt < Number.POSITIVE_INFINITY && !link.serverWaits) link.down.isEnded = true;
  }

  #handleServerOutputs(): void {
    const { server } = this;
    for (let output = server.pollOutput(); output !== undefined; output = server.pollOutput()) {
      this.#handleServerOutput(output);
    }
  }

  #handleServerOutput(output: ServerOutput): void {
    if (this.trace !== undefined) this.trace(`  server: ${describe(output)}`);
    switch (output.kind) {
      case "close": {
        const link = this.#linkOf[output.connection];
        if (link !== undefined) {
          link.destroyAt = this.now + CLOSE_MS;
          this.#pumpServer(link);
          return;
        }
        const at = this.foreign.indexOf(output.connection);
        if (at < 0) return;
        this.foreign.splice(at, 1);
        this.server.handleDisconnected(this.now, output.connection);
        return;
      }
      case "release":
        this.sockets.release(output.association);
        return;
      case "resolve": {
        const name = this.ledger.indexOf(makeAddress(output.name, output.port)!);
        check(name >= 0, "the server asks for a name that nobody sent to");
        this.queries.push({ query: output.query, name });
        return;
      }
      case "bind":
        this.server.handleBound(this.now, output.association, ["192.0.2.45:54321"]);
    }
  }
}

function describe(output: ClientOutput | ServerOutput): string {
  return Object.entries(output)
    .map(([name, value]) => `${name} ${value instanceof Uint8Array ? formatAddress(value) : value}`)
    .join(", ");
}
