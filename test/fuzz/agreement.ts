import type { ContextTable } from "../../src/core/session/context-table.ts";
import { CONTEXT_REFUSED } from "../../src/core/session/session-model.ts";
import { formatAddress } from "../../src/wire/socket-address.ts";
import { check } from "./failure.ts";
import { flowOf } from "./flow-source.ts";
import { SHORTEST_PAYLOAD } from "./ledger.ts";
import { checkBounds, checkTables, contextWithId, liveContexts } from "./tables.ts";
import type { ClientHost } from "./world/link.ts";
import type { World } from "./world/world.ts";

/** Longer than heartbeats need to detect a dead lane, a lane needs to reconnect, and a refusal is remembered. */
const QUIET_MS = 32_000;
const MOST_QUIET_MS = 90_000;
const STEP_MS = 500;
const MOST_ROUNDS = 3;
/** Time between a datagram that may be lost and one that must arrive. */
const RETRY_MS = 100;
/** Time within which all arrivals are receipted, and waiting datagrams are sent or too old. */
const RECEIPTED_MS = 11_000;

/**
 * Ends all faults, lets the ends notice that, and then expects them to agree: every flow gets through in both directions with at most one
 * datagram lost, and afterwards both ends know the same contexts.
 *
 * @throws FuzzFailure if they do not agree
 */
export function bringToAgreement(world: World): void {
  world.trace?.("quiet");
  for (let round = 0; ; round++) {
    const { renewals } = world;
    quieten(world);
    for (const host of world.clients) probe(world, host);
    // The state of a session that was replaced meanwhile proves nothing.
    if (world.renewals === renewals) {
      compare(world);
      break;
    }
    // There are so few ids that the probes themselves use them up.
    if (round === MOST_ROUNDS) {
      check(world.settings.maxId !== undefined, "a client takes one new session after another");
      break;
    }
  }
  checkBounds(world);
  checkTables(world);
  checkStores(world);
}

/** Expects that datagrams that were receipted, dropped or lost with a lane no longer take memory. */
function checkStores(world: World): void {
  world.advance(RECEIPTED_MS, true);
  for (const { core } of world.clients) {
    check(core.storedBytes === 0, "a client keeps datagrams", () => `${core.storedBytes} bytes`);
  }
  check(
    world.server.storedBytes === 0,
    "the server keeps datagrams",
    () => `${world.server.storedBytes} bytes`,
  );
}

/** Ends all faults in the surroundings of both ends. */
function quieten(world: World): void {
  if (!world.serverIsUp) world.startServer();
  world.isWelcoming = true;
  for (const host of world.clients) if (host.isClosed) world.startClient(host.index);
  for (const link of [...world.links]) {
    if (link.clientLoses) world.loseClientSide(link);
    if (link.serverLoses) world.loseServerSide(link);
    link.isSlow = false;
    link.up.isStalled = false;
    link.down.isStalled = false;
  }
  const begin = world.now;
  for (;;) {
    attend(world);
    const { lanes } = world.settings;
    const isUp = world.clients.every(({ core }) =>
      lanes === "auto" ? core.lanesUp > 0 : core.lanesUp === lanes,
    );
    const passed = world.now - begin;
    if (isUp && passed >= QUIET_MS) return;
    check(passed < MOST_QUIET_MS, "a lane stays down", () => {
      return world.clients.map(({ core }) => `${core.lanesUp} of ${world.settings.lanes} up`).join(", ");
    });
    world.advance(STEP_MS, true);
  }
}

/** Delivers everything in flight and does what the cores ask of their hosts, until the ends have nothing more to send. */
export function attend(world: World): void {
  for (let round = 0; ; round++) {
    check(round < 1_000, "the ends ask their hosts without end");
    world.exchange();
    const pending = world.links.find((link) => world.isPending(link));
    if (pending !== undefined) world.completeConnect(pending);
    else if (world.queries.length > 0) {
      const found = world.answers[world.queries[0].name];
      world.resolve(
        0,
        found.map((address) => world.ledger.addresses[address]),
        found,
      );
    } else return;
  }
}

/** Sends to each address that a flow of the client has a context for, and gets an answer. */
function probe(world: World, host: ClientHost): void {
  const { core } = host;
  for (const association of [...host.open]) {
    const addresses = new Set([association % world.settings.addresses]);
    for (let slot = core.contexts.first(association); slot >= 0; slot = core.contexts.next(slot)) {
      addresses.add(world.ledger.indexOf(core.contexts.address[slot]!));
    }
    for (const address of addresses) {
      if (!world.ledger.isDenied(address)) probeAddress(world, host, association, address);
    }
    if (world.settings.filtering === "endpoint-independent") probeSenders(world, host, association);
  }
}

function probeAddress(world: World, host: ClientHost, association: number, address: number): void {
  const { renewals } = world;
  const isOpen = () => host.open.includes(association);
  const sent = insist(
    world,
    isOpen,
    () => world.traffic.send(host, association, address, SHORTEST_PAYLOAD),
    "a flow is dead, from its application",
    () => `client ${host.index}, association ${association} to ${describe(world, address)}`,
  );
  if (sent < 0 || world.renewals > renewals) return;
  const target = world.ledger.targetOf(sent);
  const at = world.sockets.associationOf[host.flows[association]] ?? -1;
  insist(
    world,
    () => world.sockets.flows[at] >= 0,
    () => world.traffic.receive(at, target, SHORTEST_PAYLOAD),
    "a flow is dead, to its application",
    () => `server's association ${at} from ${describe(world, target)}`,
  );
}

/** Expects that every sender with a context at the server gets through, unless limits are reached. */
function probeSenders(world: World, host: ClientHost, association: number): void {
  const at = world.sockets.associationOf[host.flows[association]] ?? -1;
  const { contexts } = world.server;
  const senders = new Set<number>();
  for (let slot = contexts.first(at); slot >= 0; slot = contexts.next(slot)) {
    const sender = world.ledger.indexOf(contexts.target[slot]!);
    if (sender >= 0 && !world.ledger.isName(sender)) senders.add(sender);
  }
  for (const sender of senders) {
    insist(
      world,
      () => world.sockets.flows[at] >= 0,
      () => world.traffic.receive(at, sender, SHORTEST_PAYLOAD),
      "a flow is dead, from a sender",
      () => `server's association ${at} from ${describe(world, sender)}`,
      world.settings.isTight,
    );
  }
}

const describe = (world: World, address: number) => formatAddress(world.ledger.addresses[address]);

/** Sends a datagram, and again if it does not arrive; the second one must arrive. @returns its number, -1 if it is pointless */
function insist(
  world: World,
  isMeant: () => boolean,
  send: () => number,
  kind: string,
  detail: () => string,
  mayFail = false,
): number {
  const { renewals } = world;
  for (let attempt = 0; ; attempt++) {
    // A new session has other sockets, so everything is queried again.
    if (!isMeant() || world.renewals > renewals) return -1;
    const number = send();
    attend(world);
    if (world.ledger.hasArrived(number)) return number;
    if (attempt > 0 && mayFail) return -1;
    check(attempt === 0 || !isMeant() || world.renewals > renewals, kind, detail);
    world.advance(RETRY_MS, true);
  }
}

/** Expects that every context that one end would use is known to the other end with the same meaning. */
function compare(world: World): void {
  const { server } = world;
  attend(world);
  for (const host of world.clients) {
    const { core } = host;
    const atServer = new Map<number, number>();
    for (const association of host.open) {
      const at = world.sockets.associationOf[host.flows[association]] ?? -1;
      if (at < 0) continue;
      compareTraits(world, host, association, at);
      for (let slot = server.contexts.first(at); slot >= 0; slot = server.contexts.next(slot)) {
        const id = server.contexts.id[slot];
        atServer.set(id, slot);
        const twin = contextWithId(core, id);
        if (twin >= 0) compareContexts(world, host, twin, slot);
        else
          check(!isUsed(world, slot), "the client does not know a context of the server", () => `id ${id}`);
      }
    }
    for (const slot of liveContexts(core.contexts)) {
      const isDenied = world.ledger.isDenied(world.ledger.indexOf(core.contexts.address[slot]!));
      if (core.contexts.state[slot] === CONTEXT_REFUSED || isDenied || !isFound(core.contexts, slot))
        continue;
      const id = core.contexts.id[slot];
      const twin = atServer.get(id);
      check(twin !== undefined, "the server does not know a context of the client", () => `id ${id}`);
      compareContexts(world, host, slot, twin);
    }
  }
}

function compareTraits(world: World, host: ClientHost, atClient: number, atServer: number): void {
  const source = world.server.source(atServer);
  const isOther = source === undefined || flowOf(source) !== host.flows[atClient];
  // With several lanes an older datagram may arrive last.
  if (isOther || host.core.wireId(atClient) === 0 || world.settings.lanes !== 1) return;
  const [wanted, found] = [host.core.latencyOf(atClient), world.server.latencyOf(atServer) ?? "balanced"];
  check(wanted === found, "the server has another latency class", () => `${found} instead of ${wanted}`);
  const [dscp, other] = [host.core.dscpOf(atClient), world.server.dscpOf(atServer)];
  check(dscp === other, "the server has another DSCP", () => `${other} instead of ${dscp}`);
}

/** Whether the server uses a context for answers. It does not use that of a name, nor one of two contexts for the same address. */
function isUsed({ server, ledger, settings }: World, slot: number): boolean {
  const { contexts } = server;
  const isName = ledger.isName(ledger.indexOf(contexts.address[slot]!));
  return isFound(contexts, slot) && !isName && settings.filtering === "endpoint-independent";
}

/** Whether a context is the one in use for its address: if both ends registered the address, it has two. */
function isFound(contexts: ContextTable, slot: number): boolean {
  const address = contexts.address[slot]!;
  return contexts.find(contexts.association[slot], address, 0, address.length) === slot;
}

function compareContexts(world: World, host: ClientHost, atClient: number, atServer: number): void {
  const { contexts } = host.core;
  const theirs = world.server.contexts;
  const flow = host.flows[contexts.association[atClient]];
  const source = world.server.source(theirs.association[atServer]);
  check(source !== undefined && flowOf(source) === flow, "a context stands for two associations");
  const address = formatAddress(contexts.address[atClient]!);
  const other = formatAddress(theirs.address[atServer]!);
  check(address === other, "a context stands for two addresses", () => `${address}, ${other}`);
}
