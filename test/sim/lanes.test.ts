import { describe, expect, it } from "vitest";
import type { EndOptions } from "./lanes/end.ts";
import { growingLanes } from "./lanes/growing.ts";
import type { Pauses } from "./lanes/late.ts";
import { lateEnds } from "./lanes/late.ts";
import type { InnerTcp, Load, LoadResult, Scenario } from "./lanes/scenario.ts";
import { run } from "./lanes/scenario.ts";
import { ScheduledLanes } from "./lanes/scheduled.ts";
import { FixedLanes } from "./lanes/single.ts";
import type { Recovery } from "./lanes/tcp/endpoint.ts";

const LINK = {
  mbit: 20,
  rtt: 50,
  queue: 100,
  loss: 0.01,
  congestion: "bbr",
  duration: 6_000,
  warmup: 2_000,
} as const;
const OURS = {
  ...LINK,
  lanes: 16,
  age: 100,
  end: (options) => new ScheduledLanes(options),
} satisfies Partial<Scenario>;
const BEFORE = {
  ...LINK,
  lanes: 1,
  age: 100,
  end: (options) => new FixedLanes(options),
} satisfies Partial<Scenario>;
const VOICE: Load = { flow: 0, perSecond: 50, bytes: 200 };
const OVERLOAD: Load = { flow: 1, perSecond: 2_500 };

/** Goodput of an inner connection, by seed. */
function goodputs(base: typeof OURS | typeof BEFORE, recovery: Recovery, loss: number): number[] {
  const inner: InnerTcp[] = [{ flow: 1, congestion: "cubic", recovery }];
  return Array.from({ length: 12 }, (_, i) => 104 + i).map((seed) => {
    const scenario = { ...base, loss, loads: [], inner, duration: 15_000, warmup: 3_000, seed };
    return run(scenario).inner[0];
  });
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Time is virtual, so every machine gets the same numbers. The seeds differ from those used for tuning. */
describe("lanes over 20 Mbit/s, 50 ms and 1 % loss", () => {
  it("lose no datagram of a voice flow beside an overload, with a 99th percentile below half that of one lane", () => {
    const [voice] = run({ ...OURS, loads: [VOICE, OVERLOAD], seed: 101 }).loads;
    const [before] = run({ ...BEFORE, loads: [VOICE, OVERLOAD], seed: 101 }).loads;
    expect(voice.loss).toBe(0);
    expect(voice.p99).toBeLessThan(before.p99 / 2);
  });

  it("deliver as much as one lane at 60 % load, with a shorter 99th percentile", () => {
    const loads = [{ flow: 0, perSecond: 1_200 }];
    const [ours] = run({ ...OURS, loads, seed: 102 }).loads;
    const [before] = run({ ...BEFORE, loads, seed: 102 }).loads;
    expect(ours.loss).toBeLessThanOrEqual(0.005);
    expect(ours.p99).toBeLessThan(before.p99);
  });
});

describe("lanes while the link changes, or beside another flow,", () => {
  it("lose less than a sixth of a call in the four seconds after 3 Mbit/s have become 1", () => {
    for (const seed of [7, 8, 9]) {
      const loads = [VOICE, { flow: 1, perSecond: 180 }];
      const changes = [{ at: 5_000, mbit: 1 }];
      const scenario = { ...OURS, mbit: 3, loads, changes, duration: 9_000, warmup: 5_000, seed };
      expect(run(scenario).loads[0].loss).toBeLessThan(1 / 6);
    }
  });

  it("recover from a stall of 600 ms: they lose less than 22.5 % of a load of 90 % in the next 2.4 s", () => {
    const loads = [{ flow: 1, perSecond: 1_800 }];
    const changes = [
      { at: 5_000, mbit: 0.02 },
      { at: 5_600, mbit: 20 },
    ];
    const scenario = { ...OURS, losesSent: true, loads, changes, duration: 8_200, warmup: 5_800 };
    const losses = [51, 52, 53, 54, 55, 56].map((seed) => run({ ...scenario, seed }).loads[0].loss);
    expect(mean(losses)).toBeLessThan(0.225);
  });

  it("hold between a quarter and three quarters of the link beside a CUBIC flow", () => {
    const scenario = { ...OURS, loss: 0, loads: [OVERLOAD], duration: 15_000, warmup: 5_000, seed: 103 };
    const { loads, competitors } = run({ ...scenario, competitors: [{ congestion: "cubic" }] });
    expect(loads[0].upMbit).toBeGreaterThan(5);
    expect(competitors[0]).toBeGreaterThan(5);
  });

  // Before, these seeds lost 59 and 37 %: a pause had found others that were not there, and the session grew slowly for three seconds.
  it.each([1, 60])("find a rate that has tripled within a second and a half (seed %i)", (seed) => {
    const loads = [
      { flow: 1, perSecond: 50, bytes: 172 },
      { flow: 2, perSecond: 2_500 },
    ];
    const changes = [{ at: 8_000, mbit: 20 }];
    const times = { duration: 10_500, warmup: 9_500 };
    const [, load] = run({ ...OURS, losesSent: true, mbit: 6.6667, loads, changes, ...times, seed }).loads;
    expect(load.loss).toBeLessThan(1 / 3);
  });

  it("hold their share beside a BBR flow after it has emptied the queue to measure its round trip", () => {
    const loads = [{ ...VOICE, bytes: 172 }, OVERLOAD];
    const times = { duration: 18_000, warmup: 11_000 };
    const scenario = {
      ...OURS,
      loss: 0,
      losesSent: true,
      loads,
      competitors: [{ congestion: "bbr" }],
      ...times,
    } as const;
    const ours = [54, 55, 56, 57].map((seed) => run({ ...scenario, seed }).loads[1].upMbit);
    expect(mean(ours)).toBeGreaterThan(6.5);
  });
});

describe("lanes over a long path, from the beginning of a session whose lanes come up one after the other,", () => {
  const LONG = {
    losesSent: true,
    loads: [{ flow: 1, perSecond: 1_200 }],
    duration: 8_000,
    warmup: 4_000,
  } as const;

  // With seeds 51, 54 and 55, starts over 300 ms ended at a queue that was not there, and then took another 3 s or more.
  it.each([
    [51, 300],
    [54, 300],
    [55, 300],
    [60, 300],
    [51, 200],
    [52, 200],
  ])("lose next to nothing at three fifths of its rate after four seconds (seed %i, %i ms)", (seed, rtt) => {
    const [ours] = run({ ...OURS, ...LONG, rtt, end: growingLanes(rtt), seed }).loads;
    expect(ours.loss).toBeLessThan(0.005);
  });

  // Before, these seeds lost 35, 6 and 5 %: over 300 ms, what waits in a lane that came up four round trips ago may look like a queue.
  it.each([429, 425, 435])(
    "lose next to nothing then between programs that wait for their turn (seed %i)",
    (seed) => {
      const end = lateEnds(growingLanes(300), { shortest: 1, longest: 10, share: 1 / 5 }, () => true);
      const [ours] = run({ ...OURS, ...LONG, rtt: 300, end, seed }).loads;
      expect(ours.loss).toBeLessThan(0.01);
    },
  );
});

describe("lanes over a long path that loses packets in bursts", () => {
  // Runs differ widely: they lose between nothing and 15 %.
  it("lose little at three fifths of the rate", () => {
    const long = { rtt: 300, loss: 0.03, burst: 8, losesSent: true, duration: 16_000, warmup: 4_000 };
    const scenario = { ...OURS, ...long, loads: [{ flow: 1, perSecond: 1_200 }] };
    const seeds = Array.from({ length: 16 }, (_, i) => 519 + i);
    expect(mean(seeds.map((seed) => run({ ...scenario, seed }).loads[0].loss))).toBeLessThan(0.06);
  });
});

describe("lanes over a link that loses packets after sending them, as a radio link does,", () => {
  /** Mean loss over a few seeds. */
  function meanLoss(base: typeof OURS | typeof BEFORE, link: Partial<Scenario>, perSecond: number): number {
    const loads = [{ flow: 1, perSecond }];
    const scenario = { ...base, losesSent: true, ...link, loads, duration: 10_000, warmup: 4_000 };
    return mean([111, 112, 113].map((seed) => run({ ...scenario, seed }).loads[0].loss));
  }

  it("deliver as much as one lane at 120 % of 2 Mbit/s, with a queue several times shorter", () => {
    const before = meanLoss(BEFORE, { mbit: 2 }, 250);
    expect(meanLoss(OURS, { mbit: 2 }, 250)).toBeLessThan(1.05 * before);
  });

  it.each([
    [1, 100, 100],
    [2, 50, 106],
  ])("do not keep the queue of %i Mbit/s and %i ms overflowing", (mbit, queue, first) => {
    const loads = [{ flow: 1, perSecond: 125 * mbit }];
    const scenario = { ...OURS, mbit, queue, losesSent: true, loads, duration: 14_000, warmup: 4_000 };
    const losses = [0, 1, 2, 3, 4, 5].map(
      (number) => run({ ...scenario, seed: first + number }).loads[0].loss,
    );
    expect(Math.max(...losses)).toBeLessThan(0.33);
  });

  it("lose next to nothing at 60 % load when the link loses 5 % of the packets, retransmissions included", () => {
    expect(meanLoss(OURS, { loss: 0.05 }, 1_200)).toBeLessThan(0.001);
  });
});

describe("lanes through machines that hold packets for up to 40 ms, as busy relays do,", () => {
  const CLUMPS: Pauses = { shortest: 5, longest: 40, share: 0.6 };
  const CALL: Load = { flow: 0, perSecond: 50, bytes: 60 };
  const FRAMES: Load = { flow: 1, perSecond: 20, burst: 20, from: 8_000 };

  it.each([
    [2, 100],
    [2, 10],
    [30, 50],
    [50, 5],
  ])("carry bursts after seconds with only a call, at %i ms and %i Mbit/s", (rtt, mbit) => {
    const path = { rtt, mbit, queue: 200, loss: 0, lanes: 4, clumps: CLUMPS };
    const scenario = { ...OURS, ...path, loads: [CALL, FRAMES], duration: 20_000, warmup: 8_000 };
    const seeds = Array.from({ length: 8 }, (_, i) => 311 + i);
    const losses = seeds.map((seed) => run({ ...scenario, seed }).loads[1].loss);
    expect(mean(losses)).toBeLessThan(0.05);
  });
});

describe("lanes between programs that wait up to 40 ms for their turn, as on a busy machine or a telephone,", () => {
  const SEEDS = Array.from({ length: 18 }, (_, i) => 151 + i);

  /** Mean loss over the seeds, with both ends paused. */
  function meanLoss(
    base: typeof OURS | typeof BEFORE,
    pauses: Pauses,
    perSecond: number,
    queue = 100,
  ): number {
    const end = () => lateEnds(base.end, pauses, () => true);
    const loads = [{ flow: 1, perSecond }];
    const scenario = { ...base, queue, losesSent: true, loads, duration: 8_000, warmup: 3_000 };
    return mean(SEEDS.map((seed) => run({ ...scenario, end: end(), seed }).loads[0].loss));
  }

  it("lose little at three fifths of the rate, although they wait for half of the time", () => {
    expect(meanLoss(OURS, { shortest: 5, longest: 40, share: 1 / 2 }, 1_200)).toBeLessThan(0.03);
  });

  it("still use most of the link when they wait for a third of the time", () => {
    expect(meanLoss(OURS, { shortest: 5, longest: 40, share: 1 / 3 }, 2_500)).toBeLessThan(0.42);
  });

  it("do not make a queue of 10 ms overflow by catching up after waits of up to 6 ms", () => {
    const pauses = { shortest: 1, longest: 6, share: 1 / 5 };
    const before = meanLoss(BEFORE, pauses, 2_500, 10);
    expect(meanLoss(OURS, pauses, 2_500, 10)).toBeLessThan(1.12 * before);
  });
});

describe("lanes over a link with spare capacity that loses 5 % of the packets in bursts of eight", () => {
  const BURSTS = { loss: 0.05, burst: 8, losesSent: true, duration: 10_000, warmup: 4_000 } as const;
  const SEEDS = Array.from({ length: 12 }, (_, i) => 131 + i);

  /** Results for 60 % load, one for each seed. */
  function results(base: typeof OURS | typeof BEFORE): LoadResult[] {
    const loads = [{ flow: 1, perSecond: 1_200 }];
    return SEEDS.map((seed) => run({ ...base, ...BURSTS, loads, seed }).loads[0]);
  }

  it("lose next to nothing, with a shorter 99th percentile than one lane", () => {
    const ours = results(OURS);
    const before = results(BEFORE);
    expect(mean(ours.map(({ loss }) => loss))).toBeLessThan(0.005);
    expect(mean(ours.map(({ p99 }) => p99))).toBeLessThan(mean(before.map(({ p99 }) => p99)));
  });
});

describe("lanes over a link whose queue holds 10 ms", () => {
  /** Mean loss and mean 99th percentile of a few seeds. */
  function overload(perSecond: number, queue: number): { loss: number; p99: number } {
    const scenario = { ...OURS, losesSent: true, loads: [{ flow: 1, perSecond }], queue };
    const loads = Array.from({ length: 12 }, (_, i) => 51 + i).map(
      (seed) => run({ ...scenario, duration: 10_000, warmup: 4_000, seed }).loads[0],
    );
    return { loss: mean(loads.map(({ loss }) => loss)), p99: mean(loads.map(({ p99 }) => p99)) };
  }

  it.each([3_000, 5_000])("deliver nearly as much of %i/s as over a queue of 100 ms", (perSecond) => {
    const short = overload(perSecond, 10);
    expect(short.loss).toBeLessThan(1.1 * overload(perSecond, 100).loss);
    expect(short.p99).toBeLessThan(300);
  });

  it("lose hardly more after delay that counted as the path's own has ended", () => {
    const scenario = {
      ...OURS,
      losesSent: true,
      loads: [OVERLOAD],
      queue: 10,
      duration: 9_000,
      warmup: 5_000,
    };
    const loss = (jitter: number) =>
      mean(
        [51, 52, 53, 54, 55, 56, 57, 58].map(
          (seed) => run({ ...scenario, jitter, changes: [{ at: 4_500, jitter: 0 }], seed }).loads[0].loss,
        ),
      );
    expect(loss(15)).toBeLessThan(1.15 * loss(0));
  });
});

describe("four sessions over one link", () => {
  const FOUR = { ...OURS, sessions: 4, loads: [OVERLOAD] } satisfies Partial<Scenario>;

  /** The smallest share in Mbit/s and the longest median round trip of all sessions. */
  function worst(scenario: Scenario): { leastMbit: number; p50: number } {
    const { loads } = run(scenario);
    const leastMbit = Math.min(...loads.map(({ upMbit }) => upMbit));
    return { leastMbit, p50: Math.max(...loads.map(({ p50 }) => p50)) };
  }

  // Before truces existed, the sessions kept the queue full with these seeds, here and below.
  it.each([
    [0.01, 2023],
    [0.01, 2114],
    [0, 1108],
  ])("that start together with a loss of %s do not compete with each other (seed %i)", (loss, seed) => {
    const { leastMbit, p50 } = worst({ ...FOUR, loss, duration: 12_000, warmup: 5_000, seed });
    expect(leastMbit).toBeGreaterThan(19 / 4 / 2);
    expect(p50).toBeLessThan(LINK.rtt + LINK.queue - 25);
  });

  it.each([0.01, 0])("share it evenly within seconds after one has joined the others (loss %s)", (loss) => {
    const differences = [{}, {}, {}, { from: 8_000 }];
    const scenario = { ...FOUR, loss, differences, duration: 16_000, warmup: 12_000 };
    const least = [121, 122].map((seed) => worst({ ...scenario, seed }).leastMbit);
    expect(mean(least)).toBeGreaterThan(0.6 * (18 / 4));
  });

  // At 300 ms, a session competes, and the queue becomes empty only at the end of its truce.
  it.each([
    [200, [54, 56, 64, 67]],
    [300, [64]],
  ])("have half to twice an even share in all of 6 s if they start %i ms apart", (apart, seeds) => {
    const differences = [0, 1, 2, 3].map((number) => ({ from: apart * number }));
    const loads = [{ ...OVERLOAD, isOneWay: true }];
    const scenario = { ...FOUR, losesSent: true, loads, differences, end: growingLanes(LINK.rtt) };
    for (const seed of seeds) {
      const { loads } = run({ ...scenario, duration: 22_000, warmup: 4_000, seed });
      for (const from of [40, 100, 160]) {
        const shares = loads.map(({ series }) => mean(series.slice(from, from + 60)));
        expect(Math.min(...shares)).toBeGreaterThan(18.5 / 4 / 2);
        expect(Math.max(...shares)).toBeLessThan((18.5 / 4) * 2);
      }
    }
  });

  it("keep the queue short again after a competing CUBIC flow has ended", () => {
    const competitors = [{ congestion: "cubic", from: 2_000, until: 10_000 }] as const;
    const scenario = { ...FOUR, loss: 0, competitors, duration: 26_000, warmup: 20_000, seed: 411 };
    const { leastMbit, p50 } = worst(scenario);
    expect(leastMbit).toBeGreaterThan(19 / 4 / 2);
    expect(p50).toBeLessThan(LINK.rtt + LINK.queue - 25);
  });
});

describe("eight sessions over one link", () => {
  // In about one run of 32, the shares are less even. Why is not known.
  it("each get at least half of an even share in all but one of several runs, and three quarters in the middle one", () => {
    const scenario = { ...OURS, sessions: 8, loads: [OVERLOAD], duration: 18_000, warmup: 9_000 };
    const least = [123, 124, 125, 126, 127]
      .map((seed) => Math.min(...run({ ...scenario, seed }).loads.map(({ upMbit }) => upMbit)))
      .sort((a, b) => a - b);
    expect(least[1]).toBeGreaterThan(18 / 8 / 2);
    expect(least[2]).toBeGreaterThan(0.75 * (18 / 8));
  });
});

describe("a call beside a CUBIC flow, which keeps the queue of the link full", () => {
  const SEEDS = Array.from({ length: 16 }, (_, i) => 109 + i);

  it.each([
    [120, "down"],
    [150, "up"],
    [200, "down"],
  ] as const)(
    "of %i ms in the direction %s loses next to nothing and is as fast as bare UDP",
    (queue, direction) => {
      const scenario = { ...OURS, queue, loss: 0, loads: [VOICE], duration: 16_000, warmup: 5_000 };
      const competitors = [{ congestion: "cubic", direction }] as const;
      const p99s = SEEDS.map((seed) => {
        const [ours] = run({ ...scenario, competitors, seed }).loads;
        const [bare] = run({ ...scenario, end: undefined, competitors, seed }).loads;
        expect(ours.loss).toBeLessThan(0.005);
        expect(ours.p50).toBeLessThan(1.1 * bare.p50);
        return { ours: ours.p99, bare: bare.p99 };
      });
      // Whether both copies meet the full queue is chance, and decides on the 99th percentile of a single run.
      expect(mean(p99s.map(({ ours }) => ours))).toBeLessThan(1.25 * mean(p99s.map(({ bare }) => bare)));
    },
  );
});

describe("lanes over a link whose delay varies without reordering", () => {
  it.each([
    [20, 10, 0.01],
    [100, 5, 0.03],
  ])("lose little at three fifths of %i Mbit/s with %i ms of jitter", (mbit, jitter, most) => {
    const loads = [{ flow: 1, perSecond: 60 * mbit }];
    const scenario = { ...OURS, mbit, jitter, loads, duration: 10_000, warmup: 4_000 };
    const losses = [107, 108, 109, 110, 111, 112].map((seed) => run({ ...scenario, seed }).loads[0].loss);
    expect(mean(losses)).toBeLessThan(most);
  });
});

describe("lanes of two machines whose clocks differ by 20 ppm", () => {
  it.each([
    ["fast", 20],
    ["slow", -20],
  ])(
    "lose less than one datagram in 50 after 150 s without traffic, with a %s clock of the server",
    (_, drift) => {
      const loads = [
        { flow: 1, perSecond: 1_200, until: 8_000 },
        { flow: 2, perSecond: 1_200, from: 158_000 },
      ];
      const losses = [51, 52, 53].map((seed) => {
        return run({ ...OURS, loss: 0, drift, loads, duration: 164_000, seed }).loads[1].loss;
      });
      expect(mean(losses)).toBeLessThan(0.02);
    },
  );
});

describe("parity", () => {
  const WITHOUT = (options: EndOptions) => new ScheduledLanes(options, undefined, undefined, 0);

  /** Mean 99th percentile over a few seeds. */
  function meanP99(scenario: Partial<Scenario>, perSecond: number): number {
    const loads = [{ flow: 1, perSecond }];
    const seeds = Array.from({ length: 8 }, (_, i) => 461 + i);
    return mean(seeds.map((seed) => run({ ...OURS, ...scenario, loads, seed }).loads[0].p99));
  }

  it.each([
    [300, 50],
    [600, 50],
    [600, 20],
  ])(
    "takes more than a third off the 99th percentile of %i/s, with a round trip of %i ms",
    (perSecond, rtt) => {
      const before = meanP99({ rtt, end: WITHOUT }, perSecond);
      expect(meanP99({ rtt }, perSecond)).toBeLessThan((2 / 3) * before);
    },
  );

  it("adds nothing to an overload", () => {
    const end = (options: EndOptions) => {
      const lanes = new ScheduledLanes(options);
      all.push(lanes);
      return lanes;
    };
    const all: ScheduledLanes[] = [];
    run({ ...OURS, loads: [VOICE, OVERLOAD], end, seed: 471 });
    for (const { scheduler } of all) {
      expect(scheduler.stats.parities).toBeLessThan(0.002 * scheduler.stats.frames);
    }
  });
});

describe("a transfer inside lanes", () => {
  it.each<[string, Recovery]>([
    ["TCP in WireGuard", "rack"],
    ["QUIC by RFC 9002", "quic"],
    ["QUIC like ngtcp2's", "ngtcp2"],
  ])("of %s has at least 0.85 of one lane's goodput on a clean link", (_, recovery) => {
    expect(mean(goodputs(OURS, recovery, 0))).toBeGreaterThan(0.85 * mean(goodputs(BEFORE, recovery, 0)));
  });

  it("of TCP in WireGuard has more than one lane's goodput under loss", () => {
    expect(mean(goodputs(OURS, "rack", 0.01))).toBeGreaterThan(mean(goodputs(BEFORE, "rack", 0.01)));
  });

  it.each<[string, Recovery]>([
    ["QUIC by RFC 9002", "quic"],
    ["QUIC like ngtcp2's", "ngtcp2"],
  ])("of %s has at least 0.75 of one lane's goodput under loss", (_, recovery) => {
    expect(mean(goodputs(OURS, recovery, 0.01))).toBeGreaterThan(
      0.75 * mean(goodputs(BEFORE, recovery, 0.01)),
    );
  });
});
