import { expect, it } from "vitest";
import { SharedLatency } from "../../../src/host/udp/shared-latency.ts";
import type { LatencyClass } from "../../../src/wire/latency-class.ts";

it("a shared socket has the class of its most sensitive association, or the given one without any", () => {
  const applied: LatencyClass[] = [];
  const shared = new SharedLatency("bulk", (latency) => applied.push(latency));
  shared.set(3, "bulk");
  shared.set(5, "balanced");
  shared.set(9, "interactive");
  shared.set(9, "interactive");
  expect(applied).toEqual(["balanced", "interactive"]);
  shared.set(9, "bulk");
  shared.remove(5);
  expect(applied.slice(2)).toEqual(["balanced", "bulk"]);
  shared.remove(5);
  shared.remove(3);
  shared.remove(9);
  expect(applied).toHaveLength(4);
});

it("an association less sensitive than the given class lowers it once there is no other", () => {
  const applied: LatencyClass[] = [];
  const shared = new SharedLatency("interactive", (latency) => applied.push(latency));
  shared.set(0, "bulk");
  shared.remove(0);
  expect(applied).toEqual(["bulk", "interactive"]);
});
