import { describe, expect, it } from "vitest";
import {
  ASSOCIATE,
  CONNECT,
  DIALECT_REQUESTS,
  GREETING,
  HANDSHAKE_MS,
  MAX_CONNECTIONS,
  PASSWORD,
  Socks5Siege,
  Socks5World,
} from "../../../hostile/socks5.ts";
import { concat } from "../../cuts.ts";

const HANDSHAKE = concat(GREETING, PASSWORD, ASSOCIATE);

describe("the SOCKS5 server", () => {
  it("closes a client that falls silent after any byte of its handshake after 10 s, and counts it", async () => {
    const world = await Socks5World.open();
    const callers = [];
    for (let length = 0; length < HANDSHAKE.length; length++) {
      const caller = await world.call();
      caller.send(HANDSHAKE.slice(0, length));
      callers.push(caller);
    }
    await world.pass(HANDSHAKE_MS - 200);
    expect(callers.filter(({ isClosed }) => isClosed)).toEqual([]);
    await world.pass(400);
    expect(callers.filter(({ isClosed }) => !isClosed)).toEqual([]);
    expect(world.stats.refused.socks_refused).toBe(HANDSHAKE.length);
  });

  it.each(["end", "destroy"] as const)(
    "has all its places again after clients %s after any byte",
    async (how) => {
      const world = await Socks5World.open();
      for (let round = 0; round < 4; round++) {
        for (let length = 0; length <= HANDSHAKE.length; length++) {
          const caller = await world.call();
          caller.send(HANDSHAKE.slice(0, length));
          if (length % 2 === 0) await world.pass(2);
          caller.stream[how]();
        }
      }
      await world.pass(10);
      // None of them is refused or makes room for another.
      const callers = [];
      for (let i = 0; i < MAX_CONNECTIONS; i++) callers.push(await world.call());
      await world.pass(10);
      expect(callers.filter(({ isClosed }) => isClosed)).toEqual([]);
      expect(world.stats.refused.socks_refused).toBe(0);
    },
  );

  it("serves a client that sends one byte at a time, and closes one that takes longer than 10 s", async () => {
    const world = await Socks5World.open();
    const [quick, slow] = [await world.call(), await world.call()];
    const before = world.now;
    for (const [at, byte] of HANDSHAKE.entries()) {
      await world.pass(200);
      quick.send(Uint8Array.of(byte));
      if (at % 2 === 0) slow.send(Uint8Array.of(HANDSHAKE[at / 2]));
    }
    expect(world.now - before).toBeLessThan(HANDSHAKE_MS);
    await world.pass(HANDSHAKE_MS);
    expect([quick.isClosed, slow.isClosed]).toEqual([false, true]);
    expect(quick.heard.slice(0, 6)).toEqual([5, 2, 1, 0, 5, 0]);
    expect(slow.heard).toEqual([5, 2]);
  });

  it("ignores bytes after a UDP ASSOCIATE, and passes those after a CONNECT on", async () => {
    const world = await Socks5World.open();
    const { caller, port } = await world.associate();
    for (let i = 0; i < 20; i++) caller.send(new Uint8Array(65_536));
    await world.exchange(port, "still here");
    expect(caller.isClosed).toBe(false);
    const early = Uint8Array.from({ length: 60_000 }, (_, i) => i);
    const connecting = await world.call();
    connecting.send(concat(GREETING, PASSWORD, CONNECT), early.slice(0, 30_000), early.slice(30_000));
    await world.until(() => world.page[0]?.length === early.length);
    expect(Uint8Array.from(world.page[0])).toEqual(early);
  });

  it("keeps a place for an honest client while others hold connections without a request", async () => {
    const world = await Socks5World.open();
    const silent = [];
    for (let i = 0; i < MAX_CONNECTIONS; i++) silent.push(await world.call());
    const { port } = await world.associate();
    await world.exchange(port, "here");
    // The oldest has made room.
    expect(silent.map(({ isClosed }) => isClosed).indexOf(false)).toBe(1);
    expect(world.stats.refused.socks_refused).toBe(1);
  });

  it("keeps its last place for a client that is making its request, however fast others come, for a second", async () => {
    const world = await Socks5World.open();
    const established = [];
    for (let i = 0; i < MAX_CONNECTIONS - 1; i++) {
      const caller = await world.call();
      caller.send(GREETING, PASSWORD, CONNECT);
      await world.until(() => caller.heard.length >= 14);
      established.push(caller);
    }
    const callers = [await world.call()];
    const [slow] = callers;
    for (let i = 0; i < 50; i++) {
      callers.push(await world.call());
      slow.send(HANDSHAKE.slice(i, i + 1));
      await world.pass(2);
    }
    expect(slow.heard.slice(0, 6)).toEqual([5, 2, 1, 0, 5, 0]);
    expect(callers.filter(({ isClosed }) => !isClosed)).toEqual([slow]);
    expect(world.stats.refused.socks_refused).toBe(50);
    slow.stream.destroy();
    await world.pass(10);
    // A client that only holds the place has it for a second.
    const silent = await world.call();
    await world.pass(1_010);
    const next = await world.call();
    next.send(GREETING, PASSWORD, ASSOCIATE);
    await world.until(() => next.heard.length >= 14);
    expect([silent.isClosed, next.isClosed]).toEqual([true, false]);
    expect(established.filter(({ isClosed }) => isClosed)).toEqual([]);
  });

  it.each([
    ["hev", DIALECT_REQUESTS.hev],
    ["uot", DIALECT_REQUESTS.uot],
    ["CONNECT", CONNECT],
  ])("has all its places again after connections for %s", async (_, request) => {
    const world = await Socks5World.open();
    for (let i = 0; i < 3 * MAX_CONNECTIONS; i++) {
      const caller = await world.call();
      caller.send(GREETING, PASSWORD, request);
      await world.until(() => caller.heard.length >= 14);
      expect(caller.heard.slice(0, 6)).toEqual([5, 2, 1, 0, 5, 0]);
      caller.stream.destroy();
    }
    await world.pass(10);
    const { port } = await world.associate();
    await world.exchange(port, "here");
    expect(world.stats.refused.socks_refused).toBe(0);
  });

  it("counts connections for UDP apart from its own, with the limit of associations", async () => {
    const world = await Socks5World.open();
    const callers = [];
    for (let i = 0; i < 3 * MAX_CONNECTIONS; i++) {
      const caller = await world.call();
      caller.send(GREETING, PASSWORD, DIALECT_REQUESTS.hev);
      await world.until(() => caller.heard.length >= 14);
      callers.push(caller);
    }
    await world.pass(2_000);
    expect(callers.filter(({ isClosed }) => !isClosed)).toHaveLength(MAX_CONNECTIONS / 2);
    const { port } = await world.associate();
    await world.exchange(port, "here");
    expect(world.stats.refused.socks_refused).toBe(0);
  });

  it.each([1, 2, 3])(
    "serves an honest client among hostile ones, and forgets them (2,000 steps, seed %i)",
    async (seed) => {
      const siege = await Socks5Siege.open(seed);
      for (let i = 0; i < 2_000; i++) await siege.step();
      await siege.end();
      for (const count of Object.values(siege.seen)) expect(count).toBeGreaterThan(20);
    },
  );
});
