import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { delaysOf } from "../../src/host/doctor/delays.ts";
import type { Probe } from "../../src/wire/probe.ts";
import {
  boundedPattern,
  decodeProbe,
  encodeMeasure,
  encodeProbe,
  MAX_ARRIVALS,
  MAX_PROBES,
} from "../../src/wire/probe.ts";
import { Network } from "./network.ts";

const SINGLE = { periodMs: 20, leadMs: 0, gapMs: 0, count: 50, bytes: 200 };
const QUIET = { ...SINGLE, periodMs: 250, count: 10, bytes: 0 };

function started(): Network {
  const network = new Network();
  network.start();
  network.advance(100);
  return network;
}

describe("a measurement of delay", () => {
  it("counts every probe in both directions, and the time between them", () => {
    const network = started();
    const measurement = network.client.measure(network.now, SINGLE, SINGLE)!;
    network.settle();
    network.advance(2_000);
    expect(measurement.down.map(({ sequence }) => sequence)).toEqual(Array.from({ length: 50 }, (_, i) => i));
    expect(measurement.up.length).toBeGreaterThanOrEqual(49);
    for (const samples of [measurement.up, measurement.down]) {
      expect(Math.max(...delaysOf(samples).values())).toBeLessThan(1);
      const sent = samples.map(({ sentMs }) => sentMs);
      for (let i = 1; i < sent.length; i++) expect(sent[i] - sent[i - 1]).toBeCloseTo(20, 0);
    }
  });

  it("measures the direction that was not requested with few probes", () => {
    const network = started();
    const measurement = network.client.measure(network.now, SINGLE, QUIET)!;
    network.settle();
    network.advance(3_000);
    expect([measurement.up.length, measurement.down.length]).toEqual([50, 10]);
  });

  it("gets the first of three probes answered at once, and does not count that one", () => {
    const network = started();
    const groups = { periodMs: 100, leadMs: 20, gapMs: 5, count: 9, bytes: 0 };
    const measurement = network.client.measure(network.now, groups, { ...QUIET, count: 1 })!;
    network.settle();
    network.advance(1_000);
    expect(measurement.sent).toBe(9);
    const offsets = measurement.up.map(({ sentMs }) => Math.round(sentMs - measurement.up[0].sentMs));
    // Probes that arrived after the last answer are not reported.
    expect(offsets).toEqual([0, 20, 25, 100, 120, 125, 200]);
    expect(measurement.down.length).toBe(1);
  });

  it("ends after its number of probes, with its lane, and when another begins", () => {
    const network = started();
    network.client.measure(network.now, { ...SINGLE, count: 1 }, { ...SINGLE, count: 30_000 });
    network.settle();
    network.advance(200);
    const second = network.client.measure(network.now, SINGLE, { ...QUIET, count: 0 })!;
    network.settle();
    network.advance(2_000);
    expect(second.down.length).toBe(0);
    network.client.measure(network.now, SINGLE, SINGLE);
    network.settle();
    network.cutConnections();
    network.advance(10_000);
    expect(network.client.isUp).toBe(true);
  });

  it("above the bounds costs the measured end no more than at the bounds", () => {
    const network = started();
    const greedy = { periodMs: 0, leadMs: 0, gapMs: 0, count: 2 ** 40, bytes: 2 ** 40 };
    network.carryToServer(encodeMeasure(greedy));
    network.settle();
    const before = network.client.counters.datagramsIn;
    network.advance(1_000);
    expect(network.client.isUp).toBe(true);
    expect(network.client.counters.datagramsIn).toBe(before);
    expect(boundedPattern(greedy)).toEqual({ ...greedy, periodMs: 5, count: MAX_PROBES, bytes: 1_400 });
  });

  it("does not start without a lane", () => {
    const network = new Network();
    expect(network.client.measure(0, SINGLE, SINGLE)).toBeUndefined();
  });
});

describe("a PROBE", () => {
  const clock = fc.nat(2 ** 32 - 1);
  const arrival = fc.record({ sequence: fc.nat(MAX_PROBES), clock });
  const probe: fc.Arbitrary<Probe> = fc.record({
    clock,
    wantsAnswer: fc.boolean(),
    sequence: fc.nat(MAX_PROBES),
    arrivals: fc.array(arrival, { maxLength: MAX_ARRIVALS }),
  });
  /** The value alone. */
  const partOf = (capsule: Uint8Array) => capsule.subarray(4 + (capsule[4] < 0x40 ? 1 : 2));

  it("reads back as it was written, padded or not", () => {
    fc.assert(
      fc.property(probe, fc.nat(1_400), (one, bytes) => {
        const value = partOf(encodeProbe(one, bytes));
        expect(value.length).toBeGreaterThanOrEqual(bytes);
        expect(decodeProbe(value, 0, value.length)).toEqual(one);
      }),
    );
  });

  it("is malformed if it is cut short or reports too many probes, and is never read beyond its end", () => {
    fc.assert(
      fc.property(probe, (one) => {
        const value = partOf(encodeProbe(one, 0));
        for (let end = 0; end < value.length; end++) expect(decodeProbe(value, 0, end)).toBeUndefined();
      }),
    );
    const many = Array.from({ length: MAX_ARRIVALS + 1 }, () => ({ sequence: 0, clock: 0 }));
    const value = partOf(encodeProbe({ clock: 0, wantsAnswer: false, sequence: 0, arrivals: many }, 0));
    expect(decodeProbe(value, 0, value.length)).toBeUndefined();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => void decodeProbe(bytes, 0, bytes.length)),
    );
  });
});
