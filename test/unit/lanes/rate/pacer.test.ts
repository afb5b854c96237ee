import { describe, expect, it } from "vitest";
import { Pacer } from "../../../../src/core/lanes/rate/pacer.ts";

/** 1 Mbit/s, with nothing in its bucket. */
function emptyPacer(): Pacer {
  const pacer = new Pacer(125);
  pacer.refill(1_000, 0);
  pacer.spend(3_000);
  return pacer;
}

describe("the pacer", () => {
  it("holds back bulk, but not sparse datagrams, while it is paused", () => {
    const pacer = emptyPacer();
    pacer.pause(100);
    pacer.refill(1_099, 0);
    expect(pacer.maySend).toBe(false);
    expect(pacer.maySendSparse).toBe(true);
  });

  it("does not catch up after a pause", () => {
    const pacer = emptyPacer();
    pacer.pause(100);
    pacer.refill(1_100, 0);
    expect(pacer.maySend).toBe(false);
    pacer.refill(1_101, 0);
    expect(pacer.maySend).toBe(true);
    pacer.spend(126);
    expect(pacer.maySend).toBe(false);
  });

  it("makes up for a late turn, but not for more than 15 ms of it, nor for a pause", () => {
    const pacer = emptyPacer();
    pacer.refill(1_050, 10);
    pacer.spend(3_000 + 10 * 125 - 1);
    expect(pacer.maySend).toBe(true);
    pacer.spend(1);
    expect(pacer.maySend).toBe(false);
    pacer.refill(1_150, 90);
    pacer.spend(3_000 + 15 * 125);
    expect(pacer.maySend).toBe(false);
    pacer.pause(100);
    pacer.refill(1_250, 100);
    expect(pacer.maySend).toBe(false);
  });

  it("makes up for a late turn in all dispatches of that turn, and for less as time passes", () => {
    const pacer = new Pacer(1_000);
    pacer.refill(1_000, 0);
    pacer.spend(3_000);
    pacer.refill(1_015, 15);
    pacer.refill(1_015, 0);
    pacer.refill(1_019, 0);
    pacer.spend(3_000 + 11 * 1_000 - 1);
    expect(pacer.maySend).toBe(true);
    pacer.spend(1);
    expect(pacer.maySend).toBe(false);
  });

  it("makes up for less of a late turn after most lanes were late, and for all again after ten seconds", () => {
    const pacer = emptyPacer();
    pacer.judge(true, 25);
    pacer.refill(1_100, 15);
    pacer.spend(3_000 + 7.5 * 125);
    expect(pacer.maySend).toBe(false);
    pacer.judge(false, 10_000);
    pacer.refill(1_200, 15);
    pacer.spend(3_000 + 7.5 * 125);
    expect(pacer.maySend).toBe(true);
  });

  it("lets sparse datagrams overdraw the bucket up to a limit, and reports when they may be sent again", () => {
    const pacer = emptyPacer();
    pacer.spend(5_000 + 125);
    expect(pacer.maySendSparse).toBe(false);
    expect(pacer.sparseReadyAt).toBe(1_001);
    pacer.refill(1_002, 0);
    expect(pacer.maySendSparse).toBe(true);
  });

  it("reports when bulk may be sent again: after the pause, and after the debt is paid", () => {
    const pacer = emptyPacer();
    pacer.pause(100);
    pacer.spend(1_250);
    expect(pacer.readyAt).toBe(1_110);
  });
});
