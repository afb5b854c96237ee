import { seededRandom } from "../../unit/random.ts";
import { drifting } from "./drifting.ts";
import type { End, EndOptions } from "./end.ts";
import type { Wakeable } from "./event-loop.ts";
import { EventLoop } from "./event-loop.ts";
import type { Pauses } from "./late.ts";
import { clumped } from "./late.ts";
import type { Packet, Sink } from "./link.ts";
import { delayed, Link } from "./link.ts";
import type { CongestionName } from "./tcp/congestion.ts";
import { makeCongestion } from "./tcp/congestion.ts";
import type { Recovery } from "./tcp/endpoint.ts";
import { connectTcp, TcpEndpoint } from "./tcp/endpoint.ts";

const UDP_HEADER_BYTES = 28;
/** An inner packet padded to 16 bytes makes 1,232 bytes with WireGuard's header and tag. */
const INNER_MSS = 1_148;
const WIREGUARD_HEADER_BYTES = 16;
const WIREGUARD_TAG_BYTES = 16;
const WIREGUARD_DATA = 4;
/** First byte of a QUIC packet with a short header. */
const QUIC_SHORT = 0x60;
const INNER_NUMBER_OFFSET = 4;

export interface Load {
  readonly flow: number;
  /** Datagrams a second, equally spaced. */
  readonly perSecond: number;
  readonly bytes?: number;
  /** Datagrams sent at once; the rate stays `perSecond`. */
  readonly burst?: number;
  readonly from?: number;
  readonly until?: number;
  /** The server does not echo it, and its delays are those of one direction. */
  readonly isOneWay?: boolean;
}

export interface Competitor {
  readonly congestion: CongestionName;
  readonly from?: number;
  readonly until?: number;
  /** Direction of its data: with the client's datagrams or against them. */
  readonly direction?: "up" | "down";
}

/** A connection whose packets are datagrams of a flow, such as TCP in WireGuard or QUIC; its data goes up. */
export interface InnerTcp {
  readonly flow: number;
  readonly congestion: CongestionName;
  readonly recovery?: Recovery;
  readonly from?: number;
}

/** Rates in Mbit/s, times in milliseconds. */
export interface Scenario {
  readonly mbit: number;
  readonly rtt: number;
  readonly queue: number;
  readonly loss: number;
  readonly burst?: number;
  /** See LinkOptions. */
  readonly losesSent?: boolean;
  readonly jitter?: number;
  /** Pauses of the machine before each link, whose packets then come in clumps. */
  readonly clumps?: Pauses;
  readonly congestion: CongestionName;
  readonly lanes: number;
  /** Not-sent low-water mark; Infinity for a relay in between. */
  readonly lowat?: number;
  /** Makes one end; undefined for bare UDP. */
  readonly end: ((options: EndOptions) => End) | undefined;
  readonly age: number;
  /** By how much the server's clock is fast, in parts per million. */
  readonly drift?: number;
  readonly sessions?: number;
  /** Differences between sessions, by number: the whole round trip, at least `rtt`, and the start of their loads. */
  readonly differences?: readonly { readonly rtt?: number; readonly from?: number }[];
  readonly loads: readonly Load[];
  readonly competitors?: readonly Competitor[];
  readonly inner?: readonly InnerTcp[];
  /** New rates of both directions, or jitter. */
  readonly changes?: readonly { readonly at: number; readonly mbit?: number; readonly jitter?: number }[];
  readonly duration: number;
  /** Datagrams sent before this time do not count. */
  readonly warmup?: number;
  readonly seed: number;
  readonly log?: (line: string) => void;
  readonly logEvery?: number;
}

export interface LoadResult {
  readonly session: number;
  readonly flow: number;
  readonly sent: number;
  readonly received: number;
  readonly loss: number;
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  /** Delivered to the server, Mbit/s of payload. */
  readonly upMbit: number;
  /** Payload delivered to the server in each 100 ms, Mbit/s. */
  readonly series: readonly number[];
  /** Share of datagrams that reached the server after a later one, and the most later ones before any of them. */
  readonly overtaken: number;
  readonly overtakenMost: number;
  /** 99th percentile of the datagrams sent in each second. */
  readonly p99BySecond: readonly number[];
}

export interface Result {
  readonly loads: readonly LoadResult[];
  /** Goodput of each competitor, Mbit/s. */
  readonly competitors: readonly number[];
  /** Goodput of each inner connection, Mbit/s. */
  readonly inner: readonly number[];
  readonly describe: string;
}

class Meter {
  readonly isOneWay: boolean;
  readonly sentAt: number[] = [];
  readonly times: number[] = [];
  readonly timesBySecond: number[][] = [];
  readonly series: number[] = [];
  upBytes = 0;
  upCount = 0;
  highest = -1;
  overtaken = 0;
  overtakenMost = 0;
  received = 0;

  constructor(isOneWay: boolean) {
    this.isOneWay = isOneWay;
  }

  /** Datagram `number` has arrived where its delay counts. */
  noteTime(now: number, number: number, warmup: number): void {
    const sentAt = this.sentAt[number];
    if (sentAt < warmup) return;
    this.received++;
    this.times.push(now - sentAt);
    const second = Math.floor(sentAt / 1000);
    this.timesBySecond[second] ??= [];
    this.timesBySecond[second].push(now - sentAt);
  }
}

class UdpPacket implements Packet {
  readonly size: number;
  readonly to: UdpEnd;
  readonly flow: number;
  readonly data: Uint8Array;
  constructor(to: UdpEnd, flow: number, data: Uint8Array) {
    this.to = to;
    this.flow = flow;
    this.data = data;
    this.size = data.length + UDP_HEADER_BYTES;
  }
}

class UdpEnd implements End {
  peer!: UdpEnd;
  onDatagram: End["onDatagram"] = () => {};
  readonly #out: Sink;
  constructor(out: Sink) {
    this.#out = out;
  }
  send(_now: number, flow: number, data: Uint8Array): void {
    this.#out.send(new UdpPacket(this.peer, flow, data.slice()));
  }
  receive(now: number, packet: Packet): void {
    const { flow, data } = packet as UdpPacket;
    this.onDatagram(now, flow, data, 0, data.length);
  }
  describe(): string {
    return "";
  }
}

/** Calls at equal intervals. */
class Every implements Wakeable {
  readonly #loop: EventLoop;
  readonly #interval: number;
  readonly #until: number;
  readonly #call: (now: number) => void;
  constructor(loop: EventLoop, from: number, interval: number, until: number, call: (now: number) => void) {
    this.#loop = loop;
    this.#interval = interval;
    this.#until = until;
    this.#call = call;
    loop.at(from, this);
  }
  wake(now: number): void {
    if (now >= this.#until) return;
    this.#loop.at(now + this.#interval, this);
    this.#call(now);
  }
}

/** Runs one scenario in virtual time: the server echoes the loads' datagrams over two symmetric links. */
export function run(scenario: Scenario): Result {
  const {
    mbit,
    rtt,
    queue,
    loss,
    burst,
    losesSent,
    jitter,
    duration,
    warmup = 1000,
    lanes,
    lowat = 16_384,
  } = scenario;
  const loop = new EventLoop();
  const random = seededRandom(scenario.seed);
  const linkOptions = { rate: mbit * 125, delay: rtt / 2, queue, loss, burst, losesSent, jitter };
  const up = new Link(loop, seededRandom(random()), linkOptions);
  const down = new Link(loop, seededRandom(random()), linkOptions);
  const { clumps } = scenario;
  const toUp = clumps === undefined ? up : clumped(loop, up, seededRandom(scenario.seed + 1), clumps);
  const toDown = clumps === undefined ? down : clumped(loop, down, seededRandom(scenario.seed + 2), clumps);
  const ends: End[] = [];
  const meters: Meter[][] = [];
  const inners: ReturnType<typeof startInner>[] = [];
  for (let session = 0; session < (scenario.sessions ?? 1); session++) {
    const { rtt: ownRtt = rtt, from } = scenario.differences?.[session] ?? {};
    const [client, server] = makePair(
      scenario,
      loop,
      delayed(loop, toUp, (ownRtt - rtt) / 2),
      delayed(loop, toDown, (ownRtt - rtt) / 2),
      lanes,
      lowat,
      random,
    );
    ends.push(client, server);
    const byFlow: Meter[] = [];
    meters.push(byFlow);
    for (const load of scenario.loads) {
      const meter = new Meter(load.isOneWay === true);
      byFlow[load.flow] = meter;
      startLoad(loop, { from, ...load }, client, meter, duration, random);
    }
    const inner = session > 0 ? [] : (scenario.inner ?? []);
    for (const one of inner) inners.push(startInner(loop, one, client, server, random, duration, warmup));
    server.onDatagram = (now, flow, data, offset, length) => {
      const connection = inners.find((one) => one.flow === flow);
      if (connection !== undefined) {
        connection.toServer(now, data, offset);
        return;
      }
      const meter = byFlow[flow];
      noteUp(meter, now, data, offset, length, warmup);
      if (meter.isOneWay) meter.noteTime(now, readNumber(data, offset), warmup);
      else server.send(now, flow, data.slice(offset, offset + length));
    };
    client.onDatagram = (now, flow, data, offset) => {
      const connection = inners.find((one) => one.flow === flow);
      if (connection !== undefined) {
        connection.toClient(now, data, offset);
        return;
      }
      byFlow[flow].noteTime(now, readNumber(data, offset), warmup);
    };
  }
  const rivals = (scenario.competitors ?? []).map((one) =>
    startCompetitor(loop, one, up, down, random, duration, warmup),
  );
  for (const change of scenario.changes ?? []) {
    new Every(loop, change.at, Number.POSITIVE_INFINITY, duration, () => {
      for (const link of [up, down]) {
        if (change.mbit !== undefined) link.rate = change.mbit * 125;
        if (change.jitter !== undefined) link.jitter = change.jitter;
      }
    });
  }
  if (scenario.log !== undefined) {
    const { log } = scenario;
    new Every(loop, 0, scenario.logEvery ?? 100, duration, (now) => {
      const rates = rivals.map((rival) => rival.rate(now).toFixed(1)).join(",");
      log(
        `${now.toFixed(0)} q=${up.waiting.toFixed(1)}/${down.waiting.toFixed(1)} rivals=${rates} ${inners.map((one) => one.describe()).join(" ")} | ${ends.map((end) => end.describe()).join(" | ")}`,
      );
    });
  }
  loop.run(duration + 3000);
  return {
    loads: meters.flatMap((byFlow, session) =>
      scenario.loads.map(({ flow }) => summarize(byFlow[flow], session, flow, warmup, duration)),
    ),
    competitors: rivals.map((rival) => rival.goodput()),
    inner: inners.map((one) => one.goodput()),
    describe: ends.map((end) => end.describe()).join("\n"),
  };
}

function makePair(
  scenario: Scenario,
  loop: EventLoop,
  up: Sink,
  down: Sink,
  lanes: number,
  lowat: number,
  random: () => number,
): [End, End] {
  if (scenario.end === undefined) {
    const client = new UdpEnd(up);
    const server = new UdpEnd(down);
    client.peer = server;
    server.peer = client;
    return [client, server];
  }
  const ours: TcpEndpoint[] = [];
  const theirs: TcpEndpoint[] = [];
  for (let lane = 0; lane < lanes; lane++) {
    const one = new TcpEndpoint(loop, up, makeCongestion(scenario.congestion, random), lowat);
    const other = new TcpEndpoint(loop, down, makeCongestion(scenario.congestion, random), lowat);
    connectTcp(one, other);
    ours.push(one);
    theirs.push(other);
  }
  const { age, drift = 0 } = scenario;
  const client = scenario.end({ loop, lanes: ours, age, random });
  const forServer = { loop, lanes: theirs, age, random };
  return [client, drift === 0 ? scenario.end(forServer) : drifting(scenario.end, forServer, drift)];
}

function startLoad(
  loop: EventLoop,
  load: Load,
  client: End,
  meter: Meter,
  duration: number,
  random: () => number,
): void {
  const { perSecond, bytes = 1200, burst = 1, from = 0, until = duration } = load;
  const interval = (1000 * burst) / perSecond;
  const data = new Uint8Array(bytes);
  new Every(loop, from + (random() / 2 ** 32) * interval, interval, until, (now) => {
    for (let i = 0; i < burst; i++) {
      const number = meter.sentAt.length;
      meter.sentAt.push(now);
      data[0] = number >>> 24;
      data[1] = number >>> 16;
      data[2] = number >>> 8;
      data[3] = number;
      client.send(now, load.flow, data);
    }
  });
}

function readNumber(data: Uint8Array, offset: number): number {
  return ((data[offset] << 24) | (data[offset + 1] << 16) | (data[offset + 2] << 8) | data[offset + 3]) >>> 0;
}

function noteUp(
  meter: Meter,
  now: number,
  data: Uint8Array,
  offset: number,
  length: number,
  warmup: number,
): void {
  const number = readNumber(data, offset);
  const slot = Math.floor(now / 100);
  meter.series[slot] = (meter.series[slot] ?? 0) + (length * 8) / 100_000;
  if (meter.sentAt[number] < warmup) return;
  meter.upBytes += length;
  meter.upCount++;
  if (number > meter.highest) meter.highest = number;
  else {
    meter.overtaken++;
    meter.overtakenMost = Math.max(meter.overtakenMost, meter.highest - number);
  }
}

function startCompetitor(
  loop: EventLoop,
  competitor: Competitor,
  up: Link,
  down: Link,
  random: () => number,
  duration: number,
  warmup: number,
) {
  const { congestion, from = 0, until = duration, direction = "up" } = competitor;
  const [out, back] = direction === "up" ? [up, down] : [down, up];
  const sender = new TcpEndpoint(loop, out, makeCongestion(congestion, random), Number.POSITIVE_INFINITY);
  const receiver = new TcpEndpoint(loop, back, makeCongestion(congestion, random), Number.POSITIVE_INFINITY);
  connectTcp(sender, receiver);
  let before = 0;
  let counted = 0;
  let last = 0;
  let lastAt = 0;
  const start = Math.max(from, warmup);
  new Every(loop, from, Number.POSITIVE_INFINITY, duration, () => sender.sendForever());
  new Every(loop, start, Number.POSITIVE_INFINITY, duration, () => {
    before = receiver.readBytes;
  });
  new Every(loop, until - 1e-6, Number.POSITIVE_INFINITY, duration, () => {
    counted = receiver.readBytes - before;
    sender.stopSending();
  });
  return {
    goodput: () => (counted * 8) / (until - start) / 1000,
    rate: (now: number) => {
      const value = ((receiver.readBytes - last) * 8) / Math.max(1, now - lastAt) / 1000;
      last = receiver.readBytes;
      lastAt = now;
      return value;
    },
  };
}

/** Resembles packet `number` as WireGuard or QUIC sends it. */
function innerDatagram(number: number, size: number, isQuic: boolean): Uint8Array {
  if (isQuic) {
    const data = new Uint8Array(size);
    // Header protection makes the lower bits look random.
    data[0] = QUIC_SHORT + ((number * 7) % 32);
    return data;
  }
  const data = new Uint8Array(WIREGUARD_HEADER_BYTES + 16 * Math.ceil(size / 16) + WIREGUARD_TAG_BYTES);
  data[0] = WIREGUARD_DATA;
  return data;
}

/** Packets of the inner connection in flight, by the number in their datagram. */
function startInner(
  loop: EventLoop,
  inner: InnerTcp,
  client: End,
  server: End,
  random: () => number,
  duration: number,
  warmup: number,
) {
  const packets: Packet[] = [];
  const through = (end: End) => ({
    send: (packet: Packet) => {
      const number = packets.push(packet) - 1;
      const isQuic = inner.recovery !== undefined && inner.recovery !== "rack";
      const data = innerDatagram(number, packet.size, isQuic);
      data[INNER_NUMBER_OFFSET] = number >>> 24;
      data[INNER_NUMBER_OFFSET + 1] = number >>> 16;
      data[INNER_NUMBER_OFFSET + 2] = number >>> 8;
      data[INNER_NUMBER_OFFSET + 3] = number;
      end.send(loop.now, inner.flow, data);
    },
  });
  const sender = new TcpEndpoint(
    loop,
    through(client),
    makeCongestion(inner.congestion, random),
    Number.POSITIVE_INFINITY,
    INNER_MSS,
    inner.recovery,
  );
  const receiver = new TcpEndpoint(
    loop,
    through(server),
    makeCongestion(inner.congestion, random),
    Number.POSITIVE_INFINITY,
    INNER_MSS,
    inner.recovery,
  );
  connectTcp(sender, receiver);
  let before = 0;
  let counted = 0;
  const start = Math.max(inner.from ?? 0, warmup);
  new Every(loop, inner.from ?? 0, Number.POSITIVE_INFINITY, duration, () => sender.sendForever());
  new Every(loop, start, Number.POSITIVE_INFINITY, duration, () => {
    before = receiver.readBytes;
  });
  new Every(loop, duration - 1e-6, Number.POSITIVE_INFINITY, duration, () => {
    counted = receiver.readBytes - before;
    sender.stopSending();
  });
  const deliver = (now: number, data: Uint8Array, offset: number) => {
    const packet = packets[readNumber(data, offset + INNER_NUMBER_OFFSET)];
    packet.to.receive(now, packet);
  };
  return {
    flow: inner.flow,
    describe: () => `inner cwnd=${sender.cwnd.toFixed(0)} retransmitted=${sender.retransmitted}`,
    toServer: deliver,
    toClient: deliver,
    goodput: () => (counted * 8) / (duration - start) / 1000,
  };
}

function summarize(
  meter: Meter,
  session: number,
  flow: number,
  warmup: number,
  duration: number,
): LoadResult {
  const sent = meter.sentAt.filter((at) => at >= warmup).length;
  const times = Float64Array.from(meter.times).sort();
  const at = (share: number) =>
    times.length === 0 ? Number.NaN : times[Math.min(times.length - 1, Math.floor(share * times.length))];
  return {
    session,
    flow,
    sent,
    received: meter.received,
    loss: sent === 0 ? 0 : 1 - meter.received / sent,
    p50: at(0.5),
    p99: at(0.99),
    p999: at(0.999),
    upMbit: (meter.upBytes * 8) / (duration - warmup) / 1000,
    series: Array.from(meter.series, (value) => value ?? 0),
    overtaken: meter.overtaken / Math.max(1, meter.upCount),
    overtakenMost: meter.overtakenMost,
    p99BySecond: Array.from(meter.timesBySecond, (times = []) => {
      times.sort((a, b) => a - b);
      return times[Math.floor(0.99 * times.length)];
    }),
  };
}
