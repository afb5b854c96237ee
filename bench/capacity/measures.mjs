// Measures of a server, each in its own process (run.mjs): memory, CPU time, and the first bounds reached.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { DEFAULTS, Simulation } from "./simulation.mjs";

/** The model of a user. */
export const LANES = 4;
export const ASSOCIATIONS = 20;
/** Time between arriving users, so that few are in their handshakes at once. */
const PACE_MS = 5;
const HEARTBEAT_MS = DEFAULTS.heartbeatMs;
const DATAGRAMS = 20_000;
/** Datagrams in a turn, as in a batch of a busy socket. */
const BURST = 10;

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc");

/** Bytes of JavaScript's heap and buffers after garbage collection. */
function memory() {
  collect();
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** @param {number} users */
function unbounded(users) {
  return {
    maxSessions: users + 16,
    maxLingering: users + 16,
    maxTunnels: 4 * users * LANES + 64,
    maxAssociations: users * ASSOCIATIONS + 64,
  };
}

/** @param {Simulation} simulation @param {number} users @param {number} lanes @param {number} associations @param {number} targets */
function fill(simulation, users, lanes, associations, targets) {
  for (let i = 0; i < users; i++) {
    const user = simulation.addUser(lanes);
    simulation.advance(PACE_MS);
    if (associations > 0) simulation.openAssociations(user, associations, targets);
  }
  // Lets the last users arrive and everybody get a heartbeat.
  simulation.advance(2 * HEARTBEAT_MS);
  const { sessionCount, associationCount, tunnelCount } = simulation.server;
  const isFull = sessionCount === users && associationCount === users * associations;
  if (!isFull || tunnelCount !== users * lanes) {
    throw new Error(`${sessionCount} sessions, ${tunnelCount} lanes and ${associationCount} associations`);
  }
}

/** Bytes of a server that holds this much. */
function memoryOf(/** @type {[number, number, number, number]} */ ...what) {
  const before = memory();
  const simulation = new Simulation(unbounded(what[0]));
  fill(simulation, ...what);
  simulation.dropUsers();
  const bytes = memory() - before;
  // Keeps the simulation alive until here.
  if (simulation.server.sessionCount !== what[0]) throw new Error("sessions have ended");
  return bytes;
}

/** Bytes of each kind of state, by differences. */
function memoryByKind(/** @type {number} */ users) {
  memoryOf(50, LANES, ASSOCIATIONS, 2);
  const single = memoryOf(users, 1, 0, 0) / users;
  const bare = memoryOf(users, LANES, 0, 0) / users;
  const doubled = memoryOf(users, 2 * LANES, 0, 0) / users;
  const full = memoryOf(users, LANES, ASSOCIATIONS, 1) / users;
  const wide = memoryOf(users, LANES, ASSOCIATIONS, 2) / users;
  const lane = (doubled - bare) / LANES;
  const context = (wide - full) / ASSOCIATIONS;
  return {
    single,
    session: bare - LANES * lane,
    lane,
    association: (full - bare) / ASSOCIATIONS - context,
    context,
  };
}

function memoryInAll(/** @type {number} */ users) {
  return { users, bytes: memoryOf(users, LANES, ASSOCIATIONS, 1) };
}

/** @param {Simulation} simulation @param {() => void} run @returns {number} milliseconds that the server takes */
function serverTime(simulation, run) {
  const from = simulation.serverMs;
  run();
  return simulation.serverMs - from;
}

/** CPU time of a server with this many users. */
function times(/** @type {number} */ users) {
  // Warms up the compiler before the measurement.
  fill(new Simulation(unbounded(200)), 200, LANES, ASSOCIATIONS, 1);
  const simulation = new Simulation(unbounded(users));
  collect();
  const session = serverTime(simulation, () => fill(simulation, users, LANES, ASSOCIATIONS, 1)) / users;
  const rounds = 2;
  const heartbeats = serverTime(simulation, () => simulation.advance(rounds * HEARTBEAT_MS)) / rounds;
  const one = simulation.users[0];
  const exchange = (/** @type {number} */ count) => {
    for (let i = 0; i < count; i += BURST) {
      for (let j = 0; j < BURST; j++) simulation.sendOne(one, one.associations[(i + j) % ASSOCIATIONS]);
      simulation.advance(1);
    }
    simulation.advance(200);
  };
  exchange(DATAGRAMS);
  const before = simulation.atTargets;
  const idle = (heartbeats * (DATAGRAMS / BURST + 200)) / HEARTBEAT_MS;
  const taken = serverTime(simulation, () => exchange(DATAGRAMS)) - idle;
  const datagram = taken / (simulation.atTargets - before);
  return { users, session, heartbeats, datagram };
}

/** The server dies and another starts, with the default bound of connections in their handshakes and with a larger one. */
function reconnects(/** @type {number} */ users) {
  const wide = { ...unbounded(users), maxHalfOpen: users * LANES };
  const simulation = new Simulation(wide);
  fill(simulation, users, LANES, ASSOCIATIONS, 1);
  return {
    users,
    raised: reconnect(simulation, wide),
    bounded: reconnect(simulation, unbounded(users)),
  };
}

/** @param {Simulation} simulation @param {object} bounds  of the new server */
function reconnect(simulation, bounds) {
  const from = simulation.now;
  const count = simulation.users.length;
  let half = 0;
  const cpuMs = serverTime(simulation, () => {
    simulation.restartServer(bounds);
    const { server } = simulation;
    simulation.advance(120_000, () => server.sessionCount >= count / 2);
    half = simulation.now - from;
    simulation.advance(120_000, () => server.sessionCount >= count);
  });
  const all = simulation.now - from;
  const refused = simulation.server.counters.refused.half_open_limit;
  simulation.advance(10_000);
  return { half, all, cpuMs, refused };
}

/** Users arrive at a server with the default bounds, and each uses its associations. */
function bounds(/** @type {number} */ users) {
  const simulation = new Simulation();
  /** @type {Map<string, number>} */
  const first = new Map();
  const look = () => {
    const { refused, drops } = simulation.server.counters;
    for (const [reason, count] of Object.entries({ ...refused, ...drops })) {
      if (count > 0 && !first.has(reason)) first.set(reason, simulation.users.length);
    }
  };
  for (let i = 0; i < users; i++) {
    const user = simulation.addUser(LANES);
    simulation.advance(150);
    simulation.openAssociations(user, ASSOCIATIONS, 1);
    simulation.advance(100);
    simulation.sendAll(user, 1);
    simulation.advance(100);
    look();
  }
  const { server } = simulation;
  const { refused, drops } = server.counters;
  const up = simulation.users.filter(({ client }) => client.isUp).length;
  return {
    users,
    up,
    sessions: server.sessionCount,
    lanes: server.tunnelCount,
    associations: server.associationCount,
    reasons: [...first].map(([reason, at]) => ({ reason, at, count: refused[reason] ?? drops[reason] })),
  };
}

/** All connections of users of a server with the default bounds end at once. */
function lingering(/** @type {number} */ users) {
  const simulation = new Simulation();
  // A session without associations has nothing to resume.
  fill(simulation, users, LANES, 1, 1);
  simulation.cutAll();
  simulation.advance(60_000);
  const { refused } = simulation.server.counters;
  const resumed = simulation.users.filter(({ client }) => client.counters.resumed > 0).length;
  return { users, resumed, evicted: refused.session_evicted, sessions: simulation.server.sessionCount };
}

export const MEASURES = { memoryByKind, memoryInAll, times, reconnects, bounds, lingering };
