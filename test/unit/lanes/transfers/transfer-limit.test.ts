import { describe, expect, it } from "vitest";
import { TransferLimit } from "../../../../src/core/lanes/transfers/transfer-limit.ts";
import { seededRandom } from "../../random.ts";

const TICK = 20;
const RTT = 50;
/** 20 Mbit/s, in bytes per millisecond. */
const CAPACITY = 2_500;
const DEEPEST_QUEUE_MS = 100;
/** Ticks until a change in reading shows in the arrivals. */
const DELAY_TICKS = 4;

/** A download whose sender fills the queue as far as the receive buffer permits, beside others that use a share of the link. */
class Download {
  capacity = CAPACITY;
  /** The rate of others, in bytes per millisecond, and whether they keep the queue filled. */
  foreign = 0;
  isQueueForeign = false;
  hasCall = true;
  now = 0;
  standing = 0;
  /** The smallest delay that the session has measured. */
  least = 0;
  readonly limit = new TransferLimit(false);
  #unread = 0;
  readonly #bufferBytes = 600_000;
  readonly #read: number[] = [];
  #bytes = 0;

  tick(): void {
    this.now += TICK;
    const free = this.capacity - this.foreign;
    const isFull = this.#unread >= this.#bufferBytes;
    const unbounded = this.standing < DEEPEST_QUEUE_MS ? 1.3 * free : free;
    const sent = isFull ? Math.min(unbounded, this.#read.at(-DELAY_TICKS) ?? free) : unbounded;
    const before = this.standing;
    const growth = (TICK * (sent + this.foreign - this.capacity)) / this.capacity;
    this.standing = Math.max(0, Math.min(DEEPEST_QUEUE_MS, before + growth));
    if (this.isQueueForeign) this.standing = Math.max(this.standing, 80);
    const arrived =
      before > 0 ? Math.min(free, Math.max(sent, free - this.capacity / 1e3)) : Math.min(sent, free);
    const read = Math.min(this.limit.rate, arrived + this.#unread / TICK);
    this.#unread = Math.max(0, this.#unread + TICK * (arrived - read));
    this.#read.push(read);
    this.#bytes += read * TICK;
    this.least = Math.min(this.least, this.standing);
    this.limit.tick(this.now, read * TICK, this.standing - this.least, this.least, RTT, this.hasCall);
  }

  /** @returns the rate of reading, in bytes per millisecond, and the longest queue */
  run(ms: number): { rate: number; longest: number } {
    const [bytes, end] = [this.#bytes, this.now + ms];
    let longest = 0;
    while (this.now < end) {
      this.tick();
      longest = Math.max(longest, this.standing);
    }
    return { rate: (this.#bytes - bytes) / ms, longest };
  }
}

describe("the limit of transfers beside a call", () => {
  it("ends the queue that a download fills, and leaves it nine tenths of the link", () => {
    const download = new Download();
    download.run(5_000);
    const { rate, longest } = download.run(30_000);
    expect(longest).toBeLessThan(25);
    expect(rate).toBeGreaterThan(0.9 * CAPACITY);
  });

  it("reads next to nothing of an upload at once, and first all of a download, whose window stands", () => {
    const [up, down] = [true, false].map((isUp) => {
      const limit = new TransferLimit(isUp);
      let now = 0;
      const tick = (standing: number) => {
        now += TICK;
        limit.tick(now, TICK * CAPACITY, standing, 0, RTT, true);
      };
      while (now < 2_000) tick(0);
      while (limit.state === "off") tick(40);
      tick(40);
      return limit;
    });
    expect([up, down].map(({ state }) => state)).toEqual(["drain", "drain"]);
    expect(up.rate).toBeLessThan(0.2 * CAPACITY);
    expect(down.rate).toBeGreaterThan(CAPACITY);
  });

  it("is off without a call, and when the call is over", () => {
    const download = new Download();
    download.hasCall = false;
    download.run(5_000);
    expect(download.limit.rate).toBe(Number.POSITIVE_INFINITY);
    download.hasCall = true;
    download.run(1_000);
    expect(download.limit.rate).toBeLessThan(Number.POSITIVE_INFINITY);
    download.hasCall = false;
    download.tick();
    expect(download.limit.rate).toBe(Number.POSITIVE_INFINITY);
  });

  it("finds the queue of a download that moved before the delay was measured", () => {
    const download = new Download();
    download.hasCall = false;
    download.run(5_000);
    download.hasCall = true;
    download.least = Number.POSITIVE_INFINITY;
    download.run(4_000);
    const { rate, longest } = download.run(10_000);
    expect(longest).toBeLessThan(25);
    expect(rate).toBeGreaterThan(0.9 * CAPACITY);
  });

  it("finds no queue on a path that transfers do not fill, and slows them down for less than 2 s a minute", () => {
    for (const isUp of [true, false]) {
      const limit = new TransferLimit(isUp);
      const rates: number[] = [];
      for (let now = TICK; now < 60_000; now += TICK) {
        limit.tick(now, TICK * Math.min(limit.rate, CAPACITY / 4), 0, 0, RTT, true);
        rates.push(limit.rate);
      }
      expect(rates.filter((rate) => rate < CAPACITY / 4).length).toBeGreaterThan(0);
      expect(TICK * rates.filter((rate) => rate < Number.POSITIVE_INFINITY).length).toBeLessThan(2_000);
    }
  });

  it("trusts a delay that was measured while nothing moved", () => {
    const limit = new TransferLimit(false);
    let now = 0;
    for (; now < 1_000; now += TICK) limit.tick(now, 0, 0, 0, RTT, true);
    for (; now < 10_000; now += TICK) {
      limit.tick(now, TICK * CAPACITY, 0, 0, RTT, true);
      expect(limit.state).toBe("off");
    }
  });

  it("is released when others fill the queue, for longer each time", () => {
    const download = new Download();
    download.isQueueForeign = true;
    const changes: number[] = [];
    let wasOff = true;
    for (let at = 0; at < 200_000; at += TICK) {
      download.tick();
      const isOff = download.limit.rate === Number.POSITIVE_INFINITY;
      if (isOff !== wasOff) changes.push(download.now);
      wasOff = isOff;
    }
    const lasting = changes.slice(1).map((time, i) => time - changes[i]);
    const limited = lasting.filter((_, i) => i % 2 === 0);
    const released = lasting.filter((_, i) => i % 2 === 1);
    expect(Math.max(...limited)).toBeLessThan(6_000);
    expect(released[0]).toBeGreaterThan(14_000);
    for (const [i, time] of released.slice(1).entries()) expect(time).toBeGreaterThan(1.9 * released[i]);
  });

  it("is released when others start to fill the queue while it applies", () => {
    const download = new Download();
    download.run(10_000);
    expect(download.limit.state).toBe("hold");
    download.isQueueForeign = true;
    download.run(8_000);
    expect(download.limit.state).toBe("off");
  });

  it("is released when others fill the queue beside a transfer at the lowest rate", () => {
    const limit = new TransferLimit(false);
    let now = TICK;
    const run = (ms: number, rate: number, standing: number) => {
      for (const end = now + ms; now < end; now += TICK)
        limit.tick(now, TICK * Math.min(rate, limit.rate), standing, 0, RTT, true);
    };
    run(2_000, 40, 60);
    run(1_000, 40, 0);
    expect(limit.state).toBe("hold");
    run(8_000, 40, 60);
    expect(limit.state).toBe("off");
  });

  it("permits a larger buffer after one that was too small for a distant target", () => {
    const limit = new TransferLimit(false);
    const buffers: number[] = [];
    for (let now = TICK; now < 60_000; now += TICK) {
      const isLimited = limit.state !== "off";
      const most = isLimited ? Math.min(limit.bufferBytes / 200, CAPACITY) : CAPACITY;
      if (isLimited && buffers.at(-1) !== limit.bufferBytes) buffers.push(limit.bufferBytes);
      limit.tick(now, TICK * Math.min(limit.rate, most), most < CAPACITY ? 0 : 40, 0, RTT, true);
    }
    expect(buffers.length).toBeGreaterThan(1);
    expect(Math.max(...buffers)).toBeGreaterThan(200 * CAPACITY);
  });

  it("follows a link whose rate falls to a third and recovers", () => {
    const download = new Download();
    download.run(10_000);
    download.capacity = CAPACITY / 3;
    download.run(4_000);
    const less = download.run(5_000);
    expect(less.longest).toBeLessThan(60);
    expect(less.rate).toBeGreaterThan(0.8 * (CAPACITY / 3));
    download.capacity = CAPACITY;
    download.run(8_000);
    expect(download.run(5_000).rate).toBeGreaterThan(0.85 * CAPACITY);
  });

  it("always leaves a minimum to transfers, whatever is measured", () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = seededRandom(seed);
      const draw = () => random() / 2 ** 32;
      const limit = new TransferLimit(false);
      for (let now = TICK; now < 60_000; now += TICK) {
        const standing = draw() < 0.1 ? -1 : draw() * 300;
        limit.tick(now, draw() * 100_000, standing, draw() * 300, draw() * 300, draw() < 0.999);
        expect(limit.rate).toBeGreaterThanOrEqual(25);
      }
    }
  });
});
