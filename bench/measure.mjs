// The measures. Each starts its tunnels anew in every round and runs them in turn: A B C, in the next round B C A.
import { cpus } from "node:os";
import { flood, hold, open, ping, startTarget } from "./load.mjs";
import { cpuNs, descriptorLimit, residentBytes, sleep } from "./processes.mjs";
import { BARE } from "./subjects.mjs";

/** @typedef {import("./subjects.mjs").Subject} Subject */
/** @typedef {import("./subjects.mjs").Running} Running */
/** @typedef {import("./load.mjs").Target} Target */
/** @typedef {import("./load.mjs").Load} Load */
/** @typedef {{ measure: string, subject: string, round: number } & Record<string, any>} BenchRecord */
/**
 * @typedef {object} Plan
 * @property {Subject[]} subjects
 * @property {number} rounds
 * @property {number} seconds  of a window
 * @property {boolean} isQuick
 * @property {(record: BenchRecord) => void} record
 * @property {(text: string) => void} note
 */
/** @typedef {{ subject: Subject, tunnel: Running, target: Target }} Lane */

/** Loss that still counts as none at a rate below the tunnel's highest. */
export const LOSS_LIMIT = 0.001;
/** The rate at which CPU times are compared. */
export const EQUAL_RATE = 60_000;
const OURS = "underpass";
const WARM_UP = { size: 1200, sockets: 1, burst: 1, rate: 50_000, seconds: 0.6 };
/** A flood makes other code hot, which the engine has not compiled yet. */
const FLOOD_WARM_UP = { size: 1200, sockets: 1, burst: 64, rate: 0, seconds: 0.6 };
/** So does one of many associations. It comes after all others, because a session with many has no shortcuts for minutes. */
const MANY = 1_000;
const MANY_WARM_UP = { ...FLOOD_WARM_UP, sockets: MANY, burst: 16 };
/** Too few to make the engine compile anything. */
const WAKE = { size: 1200, sockets: 1, burst: 1, rate: 50, seconds: 0.4 };
/** Time after which a tunnel's queues are empty. */
const DRAIN_MS = 120;

/**
 * @param {Subject[]} subjects @param {"sink" | "echo"} mode @param {(lanes: Lane[]) => Promise<void>} use
 * @param {number} [associations]  bound @param {Load} [warmUp]
 */
async function withTunnels(subjects, mode, use, associations, warmUp = WARM_UP) {
  /** @type {Lane[]} */
  const lanes = [];
  try {
    for (const subject of subjects) {
      const target = await startTarget(mode);
      lanes.push({ subject, target, tunnel: await subject.start(target.port, associations) });
    }
    for (const { subject, tunnel } of lanes) {
      if (subject === BARE) continue;
      await (mode === "sink" ? flood(tunnel.port, warmUp) : open(tunnel.port, warmUp));
    }
    await sleep(DRAIN_MS);
    await use(lanes);
  } finally {
    for (const { tunnel, target } of lanes) {
      await tunnel.stop();
      target.stop();
    }
  }
}

/** One window of load, one way. Rates per second, CPU in µs of a datagram that arrived, delays in µs. @param {Lane} lane @param {Load} load */
async function oneWay({ tunnel, target }, load) {
  await target.report();
  const before = [tunnel.local, tunnel.server].map((pid) => (pid === undefined ? 0 : cpuNs(pid)));
  const { sent, seconds } = await flood(tunnel.port, load);
  await sleep(DRAIN_MS);
  const after = [tunnel.local, tunnel.server].map((pid) => (pid === undefined ? 0 : cpuNs(pid)));
  const taken = await target.report();
  const [localUs, serverUs] = after.map((ns, end) => (ns - before[end]) / 1000 / Math.max(1, taken.count));
  return {
    size: load.size,
    sockets: load.sockets,
    burst: load.burst,
    rate: load.rate,
    offered: sent / seconds,
    // Under flood, queues that drain afterwards do not count towards the rate.
    delivered: taken.count / (load.rate > 0 ? seconds : Math.max(taken.seconds, seconds)),
    sent,
    localUs,
    serverUs,
    ...taken,
    lost: sent - taken.count,
  };
}

/**
 * Each round starts with another subject, because the first is the least warm. The first round includes the subject without a
 * tunnel.
 *
 * @param {Subject[]} subjects @param {number} round
 */
function besideBare(subjects, round) {
  const first = round % subjects.length;
  const turned = [...subjects.slice(first), ...subjects.slice(0, first)];
  return round === 0 ? [BARE, ...turned] : turned;
}

/** Floods as fast as the system accepts datagrams: sizes, bursts, and many associations. @param {Plan} plan */
export async function measureFlood({ subjects, rounds, seconds, isQuick, record }) {
  /** @typedef {[size: number, sockets: number, burst: number, isForAll: boolean]} Case */
  /** @type {Case[]} */
  const cases = isQuick
    ? [
        [1200, 1, 64, true],
        [1200, 1, 1, true],
        [64, 1, 64, true],
        [1200, 1, 16, false],
        [1200, 64, 16, false],
      ]
    : [
        ...[1200, 512, 64].flatMap((size) =>
          [64, 1].map((burst) => /** @type {Case} */ ([size, 1, burst, true])),
        ),
        // Compares many associations with one at the same burst.
        [1200, 1, 16, false],
        ...[64, MANY].flatMap((sockets) =>
          [16, 1].map((burst) => /** @type {Case} */ ([1200, sockets, burst, false])),
        ),
      ];
  for (let round = 0; round < rounds; round++) {
    await withTunnels(besideBare(subjects, round), "sink", async (lanes) => {
      for (const lane of lanes) if (lane.subject !== BARE) await oneWay(lane, FLOOD_WARM_UP);
      let areManyWarm = false;
      for (const [size, sockets, burst, isForAll] of cases) {
        const measured = lanes.filter(
          ({ subject }) => isForAll || subject.isBuild || [OURS, BARE.name].includes(subject.name),
        );
        if (sockets === MANY && !areManyWarm) {
          for (const lane of measured) if (lane.subject !== BARE) await oneWay(lane, MANY_WARM_UP);
          areManyWarm = true;
        }
        for (const lane of measured) {
          const { name } = lane.subject;
          const result = await oneWay(lane, { size, sockets, burst, rate: 0, seconds });
          record({ measure: "flood", subject: name, round, ...result });
        }
      }
    });
  }
}

/** CPU at an equal rate. @param {Plan} plan */
export async function measureCpu({ subjects, rounds, seconds, isQuick, record }) {
  for (let round = 0; round < rounds; round++) {
    await withTunnels(besideBare(subjects, round), "sink", async (lanes) => {
      for (const burst of isQuick ? [1] : [1, 16]) {
        for (const lane of lanes) {
          const load = { size: 1200, sockets: 1, burst, rate: EQUAL_RATE, seconds };
          record({ measure: "cpu", subject: lane.subject.name, round, ...(await oneWay(lane, load)) });
        }
      }
    });
  }
}

/** Fixed rates, one way and with answers, whether the tunnel keeps up or not. @param {Plan} plan */
export async function measureRate({ subjects, rounds, seconds: most, isQuick, record }) {
  const seconds = Math.min(most, 0.8);
  const rates = isQuick
    ? [10_000, 40_000, 100_000, 200_000]
    : [5_000, 20_000, 40_000, 60_000, 90_000, 130_000, 180_000, 270_000];
  const answeredRates = isQuick ? [1_000, 20_000] : [1_000, 5_000, 20_000, 40_000];
  for (let round = 0; round < Math.min(rounds, 3); round++) {
    await withTunnels(besideBare(subjects, round), "sink", async (lanes) => {
      for (const rate of rates) {
        for (const lane of lanes) {
          const result = await oneWay(lane, { size: 1200, sockets: 1, burst: 1, rate, seconds });
          record({ measure: "rate", subject: lane.subject.name, round, ...result });
        }
      }
    });
    const answering = besideBare(subjects, round).filter(({ isTwoWay }) => isTwoWay);
    await withTunnels(answering, "echo", async (lanes) => {
      for (const rate of answeredRates) {
        for (const { subject, tunnel } of lanes) {
          const load = { size: 1200, sockets: 1, burst: 1, rate, seconds };
          const { sent, ...taken } = await open(tunnel.port, load);
          record({
            measure: "round-trip",
            subject: subject.name,
            round,
            ...{ size: 1200, sockets: 1, burst: 1, rate, sent, ...taken },
            ...{
              offered: sent / taken.seconds,
              delivered: taken.count / taken.seconds,
              lost: sent - taken.count,
            },
          });
        }
      }
    });
  }
}

/** The highest rate with loss under LOSS_LIMIT. @param {Plan} plan */
export async function measureCapacity({ subjects, rounds, seconds, isQuick, record }) {
  /** @type {Map<string, number>} */
  const found = new Map();
  for (let round = 0; round < rounds; round++) {
    await withTunnels(besideBare(subjects, round), "sink", async (lanes) => {
      for (const burst of isQuick ? [1] : [1, 16]) {
        for (const lane of lanes) {
          const { name } = lane.subject;
          const key = `${name} ${burst}`;
          const load = { size: 1200, sockets: 1, burst, seconds: Math.min(seconds, 0.6) };
          const result = await highestRate(lane, load, found.get(key), isQuick);
          found.set(key, Math.max(result.offered, 1_000));
          record({ measure: "capacity", subject: name, round, ...result });
        }
      }
    });
  }
}

const MAX_STEPS = 18;

/**
 * Brackets the rate, then halves the bracket. Tries a failed rate once more, because other programs may have disturbed it.
 *
 * @param {Lane} lane @param {Omit<Load, "rate">} load @param {number | undefined} near  a result of an earlier round
 * @param {boolean} isQuick  coarser, without second tries
 */
async function highestRate(lane, load, near, isQuick) {
  /** @type {Awaited<ReturnType<typeof oneWay>> | undefined} */
  let best;
  const all = { count: 0, corrupt: 0, duplicate: 0, reordered: 0 };
  let isOfGenerator = false;
  /** @param {number} rate */
  const passes = async (rate) => {
    for (let tries = 0; tries < (isQuick ? 1 : 2); tries++) {
      const result = await oneWay(lane, { ...load, rate });
      all.count += result.count;
      all.corrupt += result.corrupt;
      all.duplicate += result.duplicate;
      all.reordered += result.reordered;
      isOfGenerator = result.offered < 0.97 * rate;
      const isWithoutLoss = result.lost <= LOSS_LIMIT * result.sent;
      if (isWithoutLoss && result.offered > (best?.offered ?? 0)) best = result;
      if (isWithoutLoss && !isOfGenerator) return true;
    }
    return false;
  };
  // Steps grow while they keep their direction, which soon makes up for a disturbed earlier round.
  let factor = near === undefined ? 1.6 : 1.15;
  const grow = () => {
    factor = Math.min(1.6, factor * factor);
  };
  let low = near ?? 20_000;
  let high = low;
  let steps = 0;
  while (steps++ < MAX_STEPS && low > 1_000 && !(await passes(low))) {
    [low, high] = [low / factor, low];
    grow();
  }
  if (high === low) {
    high = low * factor;
    while (steps++ < MAX_STEPS && (await passes(high))) {
      grow();
      [low, high] = [high, high * factor];
    }
  }
  while (steps++ < MAX_STEPS && high / low > (isQuick ? 1.3 : 1.08)) {
    const middle = Math.sqrt(low * high);
    if (await passes(middle)) low = middle;
    else high = middle;
  }
  return { ...(best ?? { ...load, rate: low, offered: 0, delivered: 0 }), ...all, isOfGenerator };
}

/** One outstanding datagram. @param {Plan} plan */
export async function measurePing({ subjects, rounds, isQuick, record }) {
  const answering = [BARE, ...subjects.filter(({ isTwoWay }) => isTwoWay)];
  for (let round = 0; round < rounds; round++) {
    await withTunnels(answering, "echo", async (lanes) => {
      for (const size of isQuick ? [1200] : [1200, 64]) {
        for (const { subject, tunnel } of lanes) {
          const result = await ping(tunnel.port, size, isQuick ? 2_000 : 5_000);
          record({ measure: "ping", subject: subject.name, round, size, ...result });
        }
      }
    });
  }
}

const HELD = [0, 1_000, 10_000];
const HOLD_PER_SECOND = 2_500;
const SETTLE_MS = 1_000;
const NEW = [1_000, 5_000];
const ASSOCIATIONS_OF_SET_UP = 2 * NEW[1] * cpus().length;

/** Resident memory of both ends, by associations. @param {Plan} plan */
export async function measureMemory({ subjects, rounds, isQuick, record, note }) {
  const limit = descriptorLimit();
  const held = HELD.filter((count) => count + 200 <= limit);
  if (held.length < HELD.length) {
    note(
      `memory: at most ${limit} descriptors are permitted here; raise ulimit -n for ${HELD.at(-1)} associations`,
    );
  }
  for (let round = 0; round < Math.min(rounds, 3); round++) {
    for (const subject of subjects.filter(({ name, isBuild, isTwoWay }) =>
      isQuick ? name === OURS || isBuild : isTwoWay,
    )) {
      const target = await startTarget("echo");
      // Workers share a bound, and all senders may end up at one worker.
      const tunnel = await subject.start(target.port, (Number(HELD.at(-1)) + 1000) * cpus().length);
      /** @type {(() => void)[]} */
      const holders = [];
      let open = 0;
      let answered = 0;
      for (const associations of held) {
        if (associations > open) {
          const holder = await hold(tunnel.port, associations - open, HOLD_PER_SECOND);
          holders.push(holder.stop);
          answered += holder.answered;
          open = associations;
        }
        await sleep(SETTLE_MS);
        const [local, server] = [tunnel.local, tunnel.server].map((pid) => residentBytes(Number(pid)));
        record({ measure: "memory", subject: subject.name, round, associations, answered, local, server });
      }
      for (const release of holders) release();
      await tunnel.stop();
      target.stop();
    }
  }
}

/** New associations: the time to the answer of each one's first datagram. @param {Plan} plan */
export async function measureSetUp({ subjects, rounds, isQuick, record }) {
  // Each worker of a server has its share of the descriptors, and tunnels have a quarter. Beyond that, associations are evicted.
  const limit = (0.7 * descriptorLimit()) / cpus().length;
  const counts = NEW.filter((count) => count + NEW[0] <= limit && !(isQuick && count > NEW[0]));
  const answering = subjects.filter(({ isTwoWay }) => isTwoWay);
  for (let round = 0; round < rounds; round++) {
    await withTunnels(
      besideBare(answering, round),
      "echo",
      async (lanes) => {
        for (const associations of counts) {
          for (const { subject, tunnel } of lanes) {
            const ends = [tunnel.local, tunnel.server];
            const before = ends.map((pid) => (pid === undefined ? 0 : cpuNs(pid)));
            const { stop, answered, ...taken } = await hold(tunnel.port, associations, 0);
            await sleep(DRAIN_MS);
            const [localUs, serverUs] = ends.map((pid, end) =>
              pid === undefined ? 0 : (cpuNs(pid) - before[end]) / 1000 / associations,
            );
            stop();
            const perSecond = answered / taken.seconds;
            const result = { associations, answered, perSecond, localUs, serverUs, ...taken };
            record({ measure: "set-up", subject: subject.name, round, ...result });
          }
        }
      },
      ASSOCIATIONS_OF_SET_UP,
      // A flood of one flow would be carried by shortcuts in some builds, and warm up the script in others.
      WAKE,
    );
  }
}

const COLD_SOCKETS = 64;

/**
 * The first two seconds after the start, before the engine has compiled anything. Each rate gets fresh ends.
 *
 * @param {Plan} plan
 */
export async function measureCold({ subjects, rounds, isQuick, record }) {
  const rates = isQuick ? [40_000, 80_000] : [20_000, 40_000, 60_000, 80_000, 100_000, 150_000];
  for (let round = 0; round < rounds; round++) {
    for (const rate of rates) {
      for (const subject of subjects) {
        const target = await startTarget("sink");
        const tunnel = await subject.start(target.port);
        await flood(tunnel.port, WAKE);
        await sleep(DRAIN_MS);
        const load = { size: 1200, sockets: COLD_SOCKETS, burst: 1, rate, seconds: 2 };
        const result = await oneWay({ subject, tunnel, target }, load);
        record({ measure: "cold", subject: subject.name, round, ...result });
        await tunnel.stop();
        target.stop();
      }
    }
  }
}

export const MEASURES = {
  flood: measureFlood,
  rate: measureRate,
  cpu: measureCpu,
  ping: measurePing,
  capacity: measureCapacity,
  memory: measureMemory,
  "set-up": measureSetUp,
  cold: measureCold,
};
