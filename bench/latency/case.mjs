// One case: a link, a tunnel over it, flows through the tunnel, and competing traffic.
import { execFileSync } from "node:child_process";
import { cpus } from "node:os";
import { json, sleep } from "../processes.mjs";
import { freeUdpPort } from "../subjects.mjs";
import { meterCpu } from "./cpu.mjs";
import { ADDRESS, layLink, NEAR, startTarget, TRAFFIC, words } from "./hosts.mjs";
import { runInner, runRival } from "./rivals.mjs";
import { WAYS } from "./ways.mjs";

/** @typedef {import("./scenarios.mjs").Scenario} Scenario */
/** @typedef {import("./subjects.mjs").Subject} Subject */
/** @typedef {import("./subjects.mjs").Running} Running */
/** @typedef {import("./ways.mjs").WayName} WayName */
/** @typedef {import("./hosts.mjs").Link} Link */
/** @typedef {import("./hosts.mjs").LinkCounts} LinkCounts */
/** @typedef {import("./hosts.mjs").Target} Target */
/** @typedef {{ warmUp: number, seconds: number, drain: number }} Times  s; the drain is the wait for answers */
/**
 * Datagrams that arrived in one direction or came back: delays in ms; the number of overtaken ones, and by how many others.
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
 * `kind` is the direction of the tally.
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
 * @property {number} [tries]  all but the last were disturbed
 * @property {number} corrupt
 * @property {FlowResult[]} flows
 * @property {LinkCounts} [link]  during the counted time
 * @property {{ name: string, mbits: number }[]} streams  rivals', or of an inner transfer
 * @property {import("./cpu.mjs").CpuShares} cpu
 */

const INNER_SETTLE_MS = 1500;

/** The near host's port of the connection that has sent most over the link. */
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
  // Subjects without answers are measured one way.
  const shape = subject.isTwoWay ? numbered : `${numbered.replace(/,(stream|back)=[^,]+/g, "")},back=0`;
  return `${shape},to=${to}`;
}

/** @param {any} near  the sender's report @param {any} far  the target's report @returns {FlowResult[]} */
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

/** Throttles one connection for a while. @param {NonNullable<Scenario["lane"]>} lane @param {Link} link @param {Times} times */
async function throttleLane({ at, until, rate }, link, { warmUp, seconds }) {
  await sleep((warmUp + at) * 1000);
  const port = busiestConnection();
  link.command(`port ${port} rate ${rate}`);
  if (until >= seconds) return;
  await sleep((until - at) * 1000);
  link.command(`port ${port} free`);
}

/**
 * Runs flows through the tunnels, beside rivals and changes of the link.
 *
 * @param {Scenario} scenario @param {Subject} subject @param {Running[]} tunnels @param {Link} link @param {Target} target
 * @param {import("./cpu.mjs").Pids} pids @param {number} seed @param {Times} times
 */
async function runFlows(scenario, subject, tunnels, link, target, pids, seed, times) {
  const { warmUp, seconds, drain } = times;
  const flows = tunnels.flatMap(({ to }, session) =>
    (scenario.flows ?? []).map((flow) => flowFor(flow, subject, session, scenario, to)),
  );
  for (const { at, both } of scenario.changes ?? [])
    link.command(`after ${warmUp + at} ${words("both", both).join(" ")}`);
  const counted = async () => {
    await sleep(warmUp * 1000);
    await link.counts();
    const cpu = meterCpu(pids);
    await sleep(seconds * 1000);
    return { link: await link.counts(), cpu: cpu() };
  };
  const hasLanes = tunnels[0].local !== undefined;
  const [near, window, , ...rates] = await Promise.all([
    json(NEAR, [TRAFFIC, "send", tunnels[0].to, warmUp, seconds, drain, seed, ...flows]),
    counted(),
    scenario.lane && hasLanes ? throttleLane(scenario.lane, link, times) : undefined,
    ...(scenario.rivals ?? []).map((rival) => runRival(rival, tunnels[0], warmUp, seconds)),
  ]);
  const far = await target.report();
  const streams = (scenario.rivals ?? []).map(({ congestion, direction, count = 1 }, i) => ({
    name: `${count === 1 ? "" : `${count} `}${congestion} ${direction}`,
    mbits: rates[i],
  }));
  return { corrupt: near.corrupt + far.corrupt, flows: flowResults(near, far), streams, ...window };
}

/** @param {NonNullable<Scenario["inner"]>} inner @param {Running} tunnel @param {number} port @param {import("./cpu.mjs").Pids} pids @param {Times} times */
async function runTransfer(inner, tunnel, port, pids, { seconds }) {
  await sleep(INNER_SETTLE_MS);
  const cpu = meterCpu(pids);
  const goodput = await runInner(inner, port, tunnel, seconds);
  const streams = Object.entries(goodput).map(([name, mbits]) => ({ name, mbits }));
  return { corrupt: 0, flows: [], streams, cpu: cpu() };
}

/**
 * @param {Scenario} scenario @param {WayName} wayName @param {Subject} subject @param {number} round @param {number} seed
 * @param {Times} times @returns {Promise<CaseRecord>}
 */
export async function runCase(scenario, wayName, subject, round, seed, times) {
  const { group, name, x, inner, sessions = 1, rivals = [] } = scenario;
  const own = { ...times, seconds: Math.max(times.seconds, scenario.seconds ?? 0) };
  const link = await layLink(scenario.link, seed);
  /** @type {(() => Promise<unknown>)[]} */
  const stops = [link.stop];
  try {
    const target = inner === undefined ? await startTarget() : undefined;
    if (target !== undefined) stops.unshift(target.stop);
    const port = target?.port ?? (await freeUdpPort());
    const way = await WAYS[wayName]();
    stops.unshift(way.stop);
    const wantsTcp = rivals.some(({ by }) => by === "tunnel");
    /** @type {Running[]} */
    const tunnels = [];
    for (let i = 0; i < sessions; i++) {
      const tunnel = await subject.start(way, port, wantsTcp);
      stops.unshift(tunnel.stop);
      tunnels.push(tunnel);
    }
    const of = (/** @type {"local" | "server"} */ end) =>
      tunnels.map((tunnel) => tunnel[end]).filter((pid) => pid !== undefined);
    const pids = { local: of("local"), server: of("server"), relays: way.pids() };
    const results =
      target === undefined || inner !== undefined
        ? await runTransfer(/** @type {"quic"} */ (inner), tunnels[0], port, pids, own)
        : await runFlows(scenario, subject, tunnels, link, target, pids, seed, own);
    const { seconds } = own;
    return {
      ...{ measure: "latency", group, scenario: name, x, subject: subject.name, way: wayName },
      ...{ round, seed, seconds },
      ...results,
    };
  } finally {
    for (const stop of stops) await stop();
  }
}

/** A warning if other programs disturbed a case, or an empty text. @param {CaseRecord} record */
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
