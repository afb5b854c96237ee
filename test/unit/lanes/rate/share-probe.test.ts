import { describe, expect, it } from "vitest";
import { ShareProbe } from "../../../../src/core/lanes/rate/probes/share-probe.ts";

/** The result of a pause of 10 ms at time 100, if packets waited 40 ms before it and this long after it. */
function judge(after: number): number {
  const probe = new ShareProbe();
  probe.begin(100, 10, 2_500, 50);
  probe.note(100, 40, 1_000_000);
  probe.note(110, after, 1_000_000);
  expect(probe.judge(200, 120, 2_500)).toBe(true);
  return probe.others;
}

describe("ShareProbe", () => {
  it("reports that nobody else sends if the queue becomes shorter by the pause", () => {
    expect(judge(30)).toBe(0);
  });

  it("reports that others have half of the link if it becomes shorter by half of that", () => {
    expect(judge(35)).toBe(0.5);
  });

  it("reports that others have the whole link if the pause changes nothing", () => {
    expect(judge(40)).toBe(1);
  });

  it.each([
    ["a slow path", 250, false],
    ["a fast path", 2_500, true],
  ])(
    "on %s, a fifth of the link is other senders only if it is more than a packet (%d bytes/ms: %s)",
    (_, rate, hasOthers) => {
      const probe = new ShareProbe();
      probe.begin(100, 20, rate, 50);
      probe.note(100, 40, 1_000_000);
      probe.note(120, 24, 1_000_000);
      expect(probe.judge(300, 200, rate)).toBe(true);
      expect(probe.others).toBeCloseTo(0.2);
      expect(probe.hasOthers).toBe(hasOthers);
    },
  );

  it("reports nothing if no frame was sent just before", () => {
    const probe = new ShareProbe();
    probe.begin(100, 10, 2_500, 50);
    probe.note(110, 30, 1_000_000);
    expect(probe.judge(200, 120, 2_500)).toBe(false);
  });
});
