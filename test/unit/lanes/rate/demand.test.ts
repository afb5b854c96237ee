import { describe, expect, it } from "vitest";
import { Demand } from "../../../../src/core/lanes/rate/demand.ts";

describe("Demand", () => {
  it("has room until a limited interval ends in which the rate leaves none, and again 300 ms later", () => {
    const demand = new Demand();
    expect(demand.hasRoom(1_000)).toBe(true);
    demand.end(1_000, true, false);
    expect(demand.hasRoom(1_299)).toBe(false);
    expect(demand.hasRoom(1_300)).toBe(true);
  });

  it("has room while it is limited, if the rate leaves some", () => {
    const demand = new Demand();
    demand.end(1_000, true, true);
    expect(demand.isLimited(1_000)).toBe(true);
    expect(demand.hasRoom(1_000)).toBe(true);
  });

  it("has room while nothing is held, whatever the rate", () => {
    const demand = new Demand();
    demand.end(1_000, false, false);
    expect(demand.isLimited(1_000)).toBe(false);
    expect(demand.hasRoom(1_000)).toBe(true);
  });

  it("is limited, without room, after bulk was blocked at the end of an interval", () => {
    const demand = new Demand();
    demand.isBlocked = true;
    demand.end(1_000, false, false);
    expect(demand.isLimited(1_299)).toBe(true);
    expect(demand.hasRoom(1_299)).toBe(false);
  });
});
