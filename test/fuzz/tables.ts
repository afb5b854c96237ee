import type { TunnelClient } from "../../src/core/client/client.ts";
import type { ContextTable } from "../../src/core/session/context-table.ts";
import { check } from "./failure.ts";
import { flowOf } from "./flow-source.ts";
import type { ClientHost, Link } from "./world/link.ts";
import type { World } from "./world/world.ts";

const NONE = -1;
const MOST_AUTO_LANES = 16;
const LARGEST_ID = 0x3fff_ffff;
/** PROTOCOL.md §4.3. */
const PATIENCE_MS = 15_000;
/** Five minutes, plus the grain of the lists of idle contexts. */
const CONTEXT_IDLE_MS = 301_000;

/** Invariants that always hold, and are cheap enough to check after every step. */
export function checkBounds(world: World): void {
  const { settings, server } = world;
  for (const host of world.clients) {
    if (host.isClosed) continue;
    const { core, open } = host;
    check(core.associationCount === open.length, "the client counts associations wrongly", () => {
      return `${core.associationCount} instead of ${open.length}`;
    });
    check(core.associationCount <= settings.maxAssociations, "the client has too many associations");
    check(core.contexts.size <= settings.maxContexts, "the client has too many contexts");
    const mostLanes = settings.lanes === "auto" ? MOST_AUTO_LANES : settings.lanes;
    check(core.lanesUp <= mostLanes && core.isUp === core.lanesUp > 0, "lanes are counted wrongly");
    const { counters } = core;
    check(counters.datagramsIn === host.rowsDown, "the client counts what comes wrongly");
    check(counters.datagramsOut <= world.ledger.stamped, "the client counts datagrams that were not sent");
  }
  for (const link of world.links) checkPatience(world, link);
  if (!world.serverIsUp) return;
  check(server.counters.datagramsIn === world.sockets.sent, "the server counts what comes wrongly");
  const sessions = server.sessionCount;
  check(sessions <= settings.maxSessions, "too many sessions");
  check(server.lingeringCount <= settings.maxLingering, "too many sessions linger");
  check(server.lingeringCount <= sessions, "more sessions linger than there are");
  check(server.halfOpenCount <= settings.maxHalfOpen, "too many connections are half-open");
  check(server.associationCount <= settings.maxServerAssociations, "the server has too many associations");
  check(
    server.associationCount <= sessions * settings.maxAssociationsPerSession,
    "a session has too many associations",
  );
  check(server.contexts.size <= sessions * settings.maxContextsPerSession, "a session has too many contexts");
  check(server.associationCount >= world.sockets.open.length, "an association with a socket is not counted");
}

/** Expects that a silent peer is given up in time. */
function checkPatience({ now, server }: World, link: Link): void {
  if (!link.isEstablished) return;
  const { client, lane } = link;
  const isClients = link.clientIsOpen && client.lanes[lane] === link && !client.isClosed;
  check(!isClients || now - link.heardByClientAt <= PATIENCE_MS, "a client does not give a silent server up");
  const isServers =
    link.serverIsOpen && link.server === server && link.destroyAt === Number.POSITIVE_INFINITY;
  check(!isServers || now - link.heardByServerAt <= PATIENCE_MS, "a server does not give a silent client up");
}

/** Expects that the tables within each end agree with one another. */
export function checkTables(world: World): void {
  for (const host of world.clients) if (!host.isClosed) checkClient(host, world);
  if (world.serverIsUp) checkServer(world);
}

function checkClient(host: ClientHost, world: World): void {
  const { core } = host;
  const highest = checkContexts(core.contexts, core.contexts.size, world.settings.maxContexts);
  const wireIds = new Set<number>();
  for (let association = 0; association <= highest; association++) {
    if (core.contexts.first(association) === NONE) continue;
    const flow = host.flows[association] ?? NONE;
    check(flow >= 0 && world.ledger.isLive[flow], "contexts of an association that has ended");
    check(core.wireId(association) > 0, "contexts of an association that the server does not know of");
  }
  for (const association of host.open) {
    const id = core.wireId(association);
    if (id === 0) continue;
    check(!wireIds.has(id), "two associations have one id");
    check(id > 0 && id <= LARGEST_ID, "an association's id is out of its range");
    wireIds.add(id);
  }
  const ids = new Set<number>();
  for (const slot of liveContexts(core.contexts)) {
    checkIdle(core.contexts, slot, world.clientNow);
    const id = core.contexts.id[slot];
    check(id > 0 && id <= LARGEST_ID, "a context's id is out of its range", () => `${id}`);
    check(!ids.has(id), "two contexts have one id", () => `${id}`);
    ids.add(id);
  }
}

function checkServer(world: World): void {
  const { server } = world;
  const { maxSessions, maxContextsPerSession, maxServerAssociations } = world.settings;
  const highest = checkContexts(server.contexts, server.contexts.size, maxSessions * maxContextsPerSession);
  let associations = 0;
  const end = Math.max(highest + 1, world.sockets.flows.length, world.sockets.generations.length);
  // What ends in a call keeps its slots until the host is informed.
  check(end <= maxServerAssociations + 256, "slots of associations are not used again, at the server");
  for (let association = 0; association < end + 64; association++) {
    const source = server.source(association);
    if (source !== undefined) associations++;
    if (association > highest || server.contexts.first(association) === NONE) continue;
    check(source !== undefined, "contexts of an association that has ended, at the server");
    const flow = world.sockets.flows[association] ?? NONE;
    check(flow < 0 || flowOf(source) === flow, "an association's source changed");
  }
  let senders = 0;
  for (const slot of liveContexts(server.contexts)) {
    if (server.contexts.id[slot] % 2 === 0) continue;
    senders++;
    checkIdle(server.contexts, slot, world.now);
  }
  const mostSenders = server.sessionCount * Math.ceil(maxContextsPerSession / 2);
  check(senders <= mostSenders, "senders have too many contexts", () => `${senders}`);
  check(
    associations === server.associationCount,
    "the server counts associations wrongly",
    () => `${server.associationCount} instead of ${associations}`,
  );
}

/** Expects that each end closes its idle contexts. */
function checkIdle(contexts: ContextTable, slot: number, now: number): void {
  const idleMs = now - contexts.idle.lastUsed(slot);
  check(idleMs <= CONTEXT_IDLE_MS, "an idle context is kept", () => `for ${idleMs} ms`);
}

/** @param most  bound of slots. @returns the highest association that has one */
function checkContexts(contexts: ContextTable, size: number, most: number): number {
  let live = 0;
  let highest = NONE;
  for (let slot = 0; slot < contexts.address.length; slot++) {
    const address = contexts.address[slot];
    if (address === undefined) continue;
    live++;
    const association = contexts.association[slot];
    if (association > highest) highest = association;
    const found = contexts.find(association, address, 0, address.length);
    if (found === NONE) continue;
    check(
      contexts.association[found] === association && contexts.address[found] !== undefined,
      "the context that is found for an address is another's",
    );
  }
  check(
    contexts.address.length <= most,
    "slots of contexts are not used again",
    () => `${contexts.address.length}`,
  );
  check(live === size, "contexts are counted wrongly", () => `${size} instead of ${live}`);
  let linked = 0;
  for (let association = 0; association <= highest; association++) {
    for (let slot = contexts.first(association); slot !== NONE; slot = contexts.next(slot)) {
      linked++;
      check(linked <= live, "the contexts of an association are linked in a ring");
      check(contexts.association[slot] === association, "an association's contexts are another's");
    }
  }
  check(linked === live, "contexts are not linked to their association");
  return highest;
}

/** Slots of the existing contexts. */
export function* liveContexts(contexts: ContextTable): Generator<number> {
  for (let slot = 0; slot < contexts.address.length; slot++) {
    if (contexts.address[slot] !== undefined) yield slot;
  }
}

/** The client's context with an id, or -1. */
export function contextWithId(core: TunnelClient, id: number): number {
  for (const slot of liveContexts(core.contexts)) if (core.contexts.id[slot] === id) return slot;
  return NONE;
}
