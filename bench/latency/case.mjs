// One case: a link, a tunnel over it, flows through the tunnel, and what is beside them.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus } from "node:os";
import { performance } from "node:perf_hooks";
import { cpuNs, json, sleep } from "../processes.mjs";
import { freeUdpPort } from "../subjects.mjs";
import { ADDRESS, layLink, NEAR, startTarget, TRAFFIC, words } from "./hosts.mjs";
import { runInner, runRival } from "./rivals.mjs";
import { WAYS } from "./ways.mjs";

/** @typedef {import("./scenarios.mjs").Scenario} Scenario */
/** @typedef {import("./subjects.mjs").Subject} Subject */
/** @typedef {import("./subjects.mjs").Running} Running */
/** @typedef {import("./ways.mjs").WayName} WayName */
/** @typedef {import("./hosts.mjs").LinkCounts} LinkCounts */
/** @typedef {{ warmUp: number, seconds: number, drain: number }} Times  s; the drain is how long answers are waited for */
/**
 * What arrived, in one direction or there and back: ms; how many datagrams came after later ones, and by how many
 * numbers.
 *
 * @typedef {object} Tally
 * @property {number} received
 * @property {number} bytes
 * @property {number} duplicate
 * @property {number} p50
 * @property {number} p99
 * @property {number} p999
 * @property {number} max
 * @property {number} overtaken
 * @property {number} overtakenP99
 * @property {number} overtakenMax
 * @property {{ complete: number, p50: number, p99: number }} [frames]
 * @property {{ ms: number, received: number[], p50: number[], p99: number[] }} [bins]
 */
/**
 * `kind` says which direction the tally is of.
 *
 * @typedef {Tally & { name: string, kind: "round" | "down" | "up", sent: number, sentFrames: number, sentBins?: number[],
 *   lateP99: number }} FlowResult
 */
/**
 * @typedef {object} CaseRecord
 * @property {"latency"} measure
 * @property {string} group
 * @property {string} scenario
 * @property {number} [x]
 * @property {string} subject
 * @property {WayName} way
 * @property {number} round
 * @property {number} seed
 * @property {number} seconds
 * @property {number} corrupt
 * @property {FlowResult[]} flows
 * @property {LinkCounts} [link]  in the counted time
 * @property {{ name: string, mbits: number }[]} streams  rivals', or of an inner transfer
 * @property {{ local: number, server: number, relays: number, others: number }} cpu  shares of one core
 */

const USER_HZ = 100;
const INNER_SETTLE_MS = 1500;

/** CPU time of the whole machine that was not idle, s. */
function busySeconds() {
  const [, ...fields] = readFileSync("/proc/stat", "utf8").split("\n")[0].trim().split(/\s+/).map(Number);
  const [user, nice, system, , , irq, softirq, steal] = fields;
  return (user + nice + system + irq + softirq + steal) / USER_HZ;
}

/** The near host's port of the connection over the link that has sent most. */
function busiestConnection() {
  const argv = ["netns", "exec", NEAR, "ss", "-OHtin", "state", "established", "src", ADDRESS.near];
  let [port, most] = [0, -1];
  for (const line of execFileSync("ip", argv, { encoding: "utf8" }).split("\n")) {
    const [own, sent] = [/:(\d+)\s/.exec(line), /bytes_sent:(\d+)/.exec(line)];
    if (own !== null && Number(sent?.[1] ?? 0) > most)
      [port, most] = [Number(own[1]), Number(sent?.[1] ?? 0)];
  }
  if (most < 0) throw new Error("there is no connection over the link");
  return port;
}

/** @param {string} flow @param {Subject} subject @param {number} session @param {Scenario} scenario @param {string} to */
function flowFor(flow, subject, session, scenario, to) {
  const numbered = (scenario.sessions ?? 1) > 1 ? flow.replace(",", `-${session + 1},`) : flow;
  // Who is never answered is measured one way.
  const shape = subject.isTwoWay ? numbered : `${numbered.replace(/,(stream|back)=[^,]+/g, "")},back=0`;
  return `${shape},to=${to}`;
}

/** @param {any} near  what was sent and came back @param {any} far  what the target had @returns {FlowResult[]} */
function flowResults(near, far) {
  return near.flows.map((/** @type {any} */ flow) => {
    const target = far.flows.find((/** @type {any} */ each) => each.flow === flow.flow);
    const kind = flow.round ? "round" : flow.down ? "down" : "up";
    const none = { received: 0, bytes: 0, duplicate: 0, p50: 0, p99: 0, p999: 0, max: 0, overtaken: 0 };
    const tally = flow.round ?? flow.down ?? target?.up ?? { ...none, overtakenP99: 0, overtakenMax: 0 };
    return {
      name: flow.name,
      kind,
      sent: kind === "down" ? (target?.streamed ?? 0) : flow.sent,
      sentFrames: flow.frames,
      ...(flow.sentBins && { sentBins: flow.sentBins }),
      lateP99: flow.late.p99,
      ...tally,
    };
  });
}

/**
 * @param {Scenario} scenario @param {WayName} wayName @param {Subject} subject @param {number} round @param {number} seed
 * @param {Times} times @returns {Promise<CaseRecord>}
 */
export async function runCase(scenario, wayName, subject, round, seed, { warmUp, seconds, drain }) {
  const counted = Math.max(seconds, scenario.seconds ?? 0);
  const link = await layLink(scenario.link, seed);
  /** @type {(() => Promise<unknown>)[]} */
  const stops = [link.stop];
  try {
    const target = scenario.inner ? undefined : await startTarget();
    if (target) stops.unshift(target.stop);
    const port = target?.port ?? (await freeUdpPort());
    const way = await WAYS[wayName]();
    stops.unshift(way.stop);
    /** @type {Running[]} */
    const tunnels = [];
    for (let i = 0; i < (scenario.sessions ?? 1); i++) {
      const tunnel = await subject.start(way, port);
      stops.unshift(tunnel.stop);
      tunnels.push(tunnel);
    }
    /** CPU time so far, s. */
    const used = () => {
      const of = (/** @type {(number | undefined)[]} */ pids) =>
        pids.reduce((/** @type {number} */ sum, pid) => sum + (pid === undefined ? 0 : cpuNs(pid)), 0) / 1e9;
      const [local, server, relays] = [
        of(tunnels.map((tunnel) => tunnel.local)),
        of(tunnels.map((tunnel) => tunnel.server)),
        of(way.pids()),
      ];
      return { at: performance.now() / 1000, local, server, relays, busy: busySeconds() };
    };
    /** @param {ReturnType<typeof used>} from @param {ReturnType<typeof used>} to */
    const shares = (from, to) => {
      const share = (/** @type {"local" | "server" | "relays" | "busy"} */ name) =>
        (to[name] - from[name]) / (to.at - from.at);
      const [local, server, relays] = [share("local"), share("server"), share("relays")];
      return { local, server, relays, others: Math.max(0, share("busy") - local - server - relays) };
    };
    const common = {
      ...{ measure: /** @type {const} */ ("latency"), group: scenario.group, scenario: scenario.name },
      ...{ x: scenario.x, subject: subject.name, way: wayName, round, seed, seconds: counted },
    };
    if (scenario.inner) {
      await sleep(INNER_SETTLE_MS);
      const before = used();
      const goodput = await runInner(scenario.inner, port, tunnels[0], counted);
      const streams = Object.entries(goodput).map(([name, mbits]) => ({ name, mbits }));
      return { ...common, corrupt: 0, flows: [], streams, cpu: shares(before, used()) };
    }
    const flows = tunnels.flatMap((tunnel, session) =>
      (scenario.flows ?? []).map((flow) => flowFor(flow, subject, session, scenario, tunnel.to)),
    );
    for (const { at, both } of scenario.changes ?? [])
      link.command(`after ${warmUp + at} ${words("both", both).join(" ")}`);
    const atWindow = (async () => {
      await sleep(warmUp * 1000);
      await link.counts();
      const before = used();
      await sleep(counted * 1000);
      return { counts: await link.counts(), cpu: shares(before, used()) };
    })();
    const { lane } = scenario;
    const atLane = (async () => {
      if (lane === undefined || tunnels[0].local === undefined) return;
      await sleep((warmUp + lane.at) * 1000);
      const hit = busiestConnection();
      link.command(`port ${hit} rate ${lane.rate}`);
      if (lane.until >= counted) return;
      await sleep((lane.until - lane.at) * 1000);
      link.command(`port ${hit} free`);
    })();
    const [near, window, ...rivals] = await Promise.all([
      json(NEAR, [TRAFFIC, "send", tunnels[0].to, warmUp, counted, drain, seed, ...flows]),
      atWindow,
      ...(scenario.rivals ?? []).map((rival) => runRival(rival, way, warmUp, counted)),
    ]);
    await atLane;
    const far = await target?.report();
    const streams = (scenario.rivals ?? []).map(({ congestion, direction }, i) => ({
      name: `${congestion} ${direction}`,
      mbits: rivals[i],
    }));
    const corrupt = near.corrupt + far.corrupt;
    return {
      ...common,
      corrupt,
      flows: flowResults(near, far),
      link: window.counts,
      streams,
      cpu: window.cpu,
    };
  } finally {
    for (const stop of stops) await stop();
  }
}

/** What a machine that others use makes of a case: words, or nothing. @param {CaseRecord} record */
export function disturbance({ cpu, link, flows }) {
  const words = [];
  const free = cpus().length - cpu.local - cpu.server - cpu.relays;
  if (cpu.others > 0.5 * free) words.push(`others used ${cpu.others.toFixed(1)} cores`);
  const delivered = link === undefined ? 0 : link.up.delivered + link.down.delivered;
  if (link !== undefined && link.late > 0.01 * delivered) words.push(`the link was late ${link.late} times`);
  const late = Math.max(0, ...flows.map(({ lateP99 }) => lateP99));
  if (late > 5) words.push(`the generator was late by ${late.toFixed(1)} ms`);
  return words.join(", ");
}
