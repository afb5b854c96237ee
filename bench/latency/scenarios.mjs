// The scenarios as data: links, flows, and other traffic on the link.

/** @typedef {import("./hosts.mjs").LinkSpec} LinkSpec */
/** @typedef {import("./hosts.mjs").Direction} Direction */
/**
 * TCP beside the tunnel's datagrams: by iperf3 over the link itself, or through the tunnel's own SOCKS5 server, and on
 * from there by the same way as its datagrams. `count`: streams at once, if by the tunnel.
 *
 * @typedef {{ congestion: string, direction: "up" | "down", by: "link" | "tunnel", count?: number }} Rival
 */
/**
 * @typedef {object} Scenario
 * @property {string} group
 * @property {string} name
 * @property {LinkSpec} link
 * @property {string[]} [flows]  as traffic.c reads them; for each session
 * @property {"quic" | "wireguard"} [inner]  a transfer inside the tunnel, instead of flows
 * @property {number} [sessions]  tunnels of the subject side by side (1)
 * @property {Rival[]} [rivals]
 * @property {{ at: number, both: Direction }[]} [changes]  of the link, in seconds of the counted time
 * @property {{ at: number, until: number, rate: number }} [lane]  the busiest connection's throttle, Mbit/s; 0: nothing passes
 * @property {number} [seconds]  at least so long
 * @property {number} [x]  the place on the axis of the group's plots
 */

/** The link of the trial that set the goals. @type {LinkSpec} */
export const LINK = { rate: 20, delay: 25, loss: 0.01, queue: 100, congestion: "bbr" };
const SIZE = 1200;

/** Answered. @param {number} perSecond @param {string} [name] */
const echo = (perSecond, name = "echo") => `${name},every=${1000 / perSecond},size=${SIZE}`;
/** One way. @param {number} perSecond @param {string} [name] */
const bulk = (perSecond, name = "bulk") => `${name},every=${1000 / perSecond},size=${SIZE},back=0`;
/** G.711 of 20 ms in RTP, both ways. */
const VOICE = "voice,every=20,size=172";
/** Frames of unequal size, one way. */
const VIDEO = `video,every=33.333,count=5-15,size=${SIZE},back=0`;
/** Inputs up; the state of the world down, by the server's own clock. */
const GAME = "game,every=16.667,size=100,stream=16.667:250";
/** A page's DNS lookups, each from its own socket. */
const DNS = "dns,every=500,count=8,size=64,back=180,fresh=1";
/** Datagrams a second that are 60 and 120 % of 20 Mbit/s. */
const [MODERATE, OVERLOAD] = [1200, 2500];

/** In Mbit/s of datagrams. @param {number} perSecond */
const megabits = (perSecond) => (perSecond * SIZE * 8) / 1e6;

/** @param {string} name @param {Partial<LinkSpec>} link @param {number} [scale]  of the loads @returns {Omit<Scenario, "group">[]} */
function moderateAndOverload(name, link, scale = 1) {
  return [
    { name: `${name}, 60 %`, link: { ...LINK, ...link }, flows: [echo(MODERATE * scale)] },
    { name: `${name}, 120 %`, link: { ...LINK, ...link }, flows: [echo(OVERLOAD * scale)] },
  ];
}

/** Without random loss, on which cubic and reno would leave the link nearly empty. @param {string} name @param {string[]} flows @param {Rival} rival @returns {Omit<Scenario, "group">} */
function beside(name, flows, rival) {
  return { name, link: { ...LINK, loss: 0 }, flows, rivals: [rival], seconds: 20 };
}

/** @type {Record<string, Omit<Scenario, "group">[]>} */
const GROUPS = {
  main: [
    { name: "50/s", link: LINK, flows: [echo(50)] },
    { name: "1,200/s (60 %)", link: LINK, flows: [echo(MODERATE)] },
    { name: "2,500/s (120 %)", link: LINK, flows: [echo(OVERLOAD)] },
    { name: "voice beside 2,500/s", link: LINK, flows: [VOICE, echo(OVERLOAD, "overload")] },
  ],
  load: [200, 600, 1000, 1400, 1700, 2000, 2300, 2900].map((perSecond) => ({
    name: `${perSecond.toLocaleString("en-US")}/s`,
    link: LINK,
    flows: [echo(perSecond)],
    x: megabits(perSecond),
  })),
  loss: [0, 0.001, 0.005, 0.01, 0.02, 0.03, 0.05].map((loss) => ({
    name: `loss ${100 * loss} %`,
    link: { ...LINK, loss },
    flows: [echo(MODERATE)],
    x: 100 * loss,
  })),
  bursts: [0.01, 0.03, 0.05].map((loss) => ({
    name: `loss ${100 * loss} % in bursts of 8`,
    link: { ...LINK, loss, burst: 8 },
    flows: [echo(MODERATE)],
    x: 100 * loss,
  })),
  rtt: [20, 50, 100, 200, 300].map((rtt) => ({
    name: `RTT ${rtt} ms`,
    link: { ...LINK, delay: rtt / 2 },
    flows: [echo(MODERATE)],
    x: rtt,
  })),
  rates: [2, 5, 100].flatMap((rate) =>
    moderateAndOverload(`${rate} Mbit/s`, { rate, moderation: rate > 50 ? 200 : 0 }, rate / 20),
  ),
  queues: [10, 500].flatMap((queue) => moderateAndOverload(`queue ${queue} ms`, { queue })),
  kernels: ["cubic", "reno"].flatMap((congestion) => moderateAndOverload(congestion, { congestion })),
  unsteady: [
    { name: "jitter 10 ms", link: { ...LINK, jitter: 10 }, flows: [echo(MODERATE)] },
    { name: "2 % held back by 10 ms", link: { ...LINK, reorder: 0.02, hold: 10 }, flows: [echo(MODERATE)] },
  ],
  applications: [
    { name: "all at once", link: LINK, flows: [VOICE, VIDEO, GAME, DNS] },
    { name: "all beside 2,500/s", link: LINK, flows: [VOICE, VIDEO, GAME, DNS, echo(OVERLOAD, "overload")] },
  ],
  rivals: [
    ...["cubic", "bbr", "reno"].flatMap((congestion) => [
      beside(`voice beside a ${congestion} download`, [VOICE], { congestion, direction: "down", by: "link" }),
      beside(`1,200/s beside a ${congestion} upload`, [VOICE, echo(MODERATE)], {
        ...{ congestion, direction: "up", by: "link" },
      }),
      beside(`2,500/s one way beside a ${congestion} upload`, [VOICE, bulk(OVERLOAD)], {
        ...{ congestion, direction: "up", by: "link" },
      }),
    ]),
    {
      ...beside("voice beside a cubic download, loss 1 %", [VOICE], {
        ...{ congestion: "cubic", direction: "down", by: "link" },
      }),
      link: LINK,
    },
    // For uploads, and through shadowsocks, the relays' kernels choose it, not the source's.
    .../** @type {const} */ (["down", "up"]).flatMap((direction) =>
      ["bbr", "cubic"].map((congestion) => ({
        ...beside(
          `voice beside a ${congestion} ${direction}load by the tunnel, ${congestion} lanes`,
          [VOICE],
          {
            ...{ congestion, direction, by: "tunnel" },
          },
        ),
        link: { ...LINK, loss: 0, congestion },
      })),
    ),
    .../** @type {const} */ (["down", "up"]).map((direction) => ({
      ...beside(`voice beside eight cubic ${direction}loads by the tunnel`, [VOICE], {
        ...{ congestion: "cubic", direction, by: "tunnel", count: 8 },
      }),
      link: { ...LINK, loss: 0, congestion: "cubic" },
    })),
    {
      ...beside("voice beside two cubic downloads, one by the tunnel", [VOICE], {
        ...{ congestion: "cubic", direction: "down", by: "tunnel" },
      }),
      rivals: ["tunnel", "link"].map((by) => ({ congestion: "cubic", direction: "down", by })),
      link: { ...LINK, loss: 0, congestion: "cubic" },
      seconds: 40,
    },
  ],
  sessions: [
    {
      name: "four sessions of 2,500/s one way",
      link: LINK,
      flows: [bulk(OVERLOAD)],
      sessions: 4,
      seconds: 20,
    },
  ],
  changes: [
    {
      name: "the rate falls to a third",
      link: LINK,
      flows: [`${VOICE},bin=200`, `${echo(OVERLOAD, "overload")},bin=200`],
      changes: [{ at: 8, both: { rate: LINK.rate && LINK.rate / 3 } }],
      seconds: 20,
    },
    {
      name: "the rate rises threefold",
      link: { ...LINK, rate: LINK.rate && LINK.rate / 3 },
      flows: [`${VOICE},bin=200`, `${echo(OVERLOAD, "overload")},bin=200`],
      changes: [{ at: 8, both: { rate: LINK.rate } }],
      seconds: 20,
    },
    {
      name: "a minute of overload",
      link: LINK,
      flows: [`${VOICE},bin=500`, `${echo(OVERLOAD, "overload")},bin=500`],
      seconds: 60,
    },
  ],
  lanes: [
    {
      name: "the busiest connection stalls for ten seconds",
      link: LINK,
      flows: [`${VOICE},bin=200`, `${echo(MODERATE)},bin=200`],
      lane: { at: 3, until: 13, rate: 0 },
      seconds: 20,
    },
    {
      name: "the busiest connection has 100 kbit/s",
      link: LINK,
      flows: [`${VOICE},bin=200`, `${echo(MODERATE)},bin=200`],
      lane: { at: 3, until: 1000, rate: 0.1 },
      seconds: 20,
    },
  ],
  inner: [0, 0.01].flatMap((loss) =>
    /** @type {const} */ (["quic", "wireguard"]).map((inner) => ({
      name: `${inner === "quic" ? "QUIC" : "TCP in WireGuard"}, loss ${100 * loss} %`,
      link: { ...LINK, loss },
      inner,
    })),
  ),
};

/** @type {Scenario[]} */
export const SCENARIOS = Object.entries(GROUPS).flatMap(([group, scenarios]) =>
  scenarios.map((scenario) => ({ group, ...scenario })),
);

/** Axes of the groups that are curves. @type {Record<string, { xName: string, title: string }>} */
export const CURVES = {
  load: { title: "load", xName: "datagrams offered, Mbit/s" },
  loss: { title: "loss of the link", xName: "loss each way, %" },
  bursts: { title: "loss in bursts of 8", xName: "loss each way, %" },
  rtt: { title: "round trip of the link", xName: "ms" },
};
