import { beforeEach, describe, expect, it } from "vitest";
import type { PlainPeer } from "./plain-peer.ts";
import { PlainWorld } from "./plain-peer.ts";

/** 198.51.100.7:53 as the bind draft encodes it. */
const TARGET = "04 c6336407 0035";
const UNCOMPRESSED_2 = "11 02 02 00";
const ACK_2 = "120102";

describe("a tunnel to one target", () => {
  let world: PlainWorld;
  let peer: PlainPeer;

  beforeEach(() => {
    world = new PlainWorld();
    peer = world.connect();
    peer.request("198.51.100.7/53");
  });

  it("skips the capsules of the bind draft as unknown", () => {
    peer.send(`11 08 02 ${TARGET} 11 01 ff 12 01 02 13 01 00 13 00 00 03 00 68 69`);
    expect(world.atTargets).toEqual(["0 > 198.51.100.7:53: hi"]);
    expect(peer.isClosed).toBe(false);
    expect(peer.take()).toBe("");
  });

  it("drops datagrams of contexts other than 0, and datagrams of senders other than the target", () => {
    peer.send("00 03 02 68 69");
    world.receive(0, "198.51.100.7:54", "x");
    world.receive(0, "198.51.100.8:53", "x");
    expect(world.atTargets).toEqual([]);
    expect(peer.take()).toBe("");
    world.receive(0, "198.51.100.7:53", "ho");
    expect(peer.take()).toBe("000300686f");
  });
});

describe("a bound tunnel", () => {
  let world: PlainWorld;
  let peer: PlainPeer;

  beforeEach(() => {
    world = new PlainWorld();
    peer = world.connect();
    peer.bind();
  });

  it("receives from strangers while its uncompressed context is open, whatever the filter", () => {
    world.receive(0, "198.51.100.7:53", "early");
    expect(peer.take()).toBe("");
    peer.send(UNCOMPRESSED_2);
    expect(peer.take()).toBe(ACK_2);
    world.receive(0, "198.51.100.7:53", "hi");
    expect(peer.take()).toBe("000a0204c6336407003568 69".replaceAll(" ", ""));
    world.receive(0, "[2001:db8::1]:53", "hi");
    expect(peer.take()).toBe("0016020620010db8000000000000000000000001003568 69".replaceAll(" ", ""));
    peer.send("13 01 02");
    world.receive(0, "198.51.100.7:53", "late");
    expect(peer.take()).toBe("");
    expect(peer.isClosed).toBe(false);
  });

  it("receives from strangers without a context for each of them", () => {
    peer.send(UNCOMPRESSED_2);
    for (let port = 1; port <= 1_000; port++) world.receive(0, `198.51.100.7:${port}`, "x");
    expect(world.server.contexts.size).toBe(0);
  });

  it("is not ended by a stranger's datagram that has no room for its address", () => {
    peer.send(UNCOMPRESSED_2);
    peer.take();
    world.receive(0, "[2001:db8::1]:53", "x".repeat(65_527));
    world.receive(0, "[2001:db8::1]:53", "x".repeat(65_509));
    expect(peer.take()).toBe("");
    expect(world.server.counters.drops.too_long).toBe(2);
    world.receive(0, "[2001:db8::1]:53", "x".repeat(65_508));
    // The longest value that a client accepts: the context in one byte, and 65,527.
    expect(peer.take().slice(0, 12)).toBe("008000fff802");
  });

  it("receives nothing from strangers that the target policy denies", () => {
    peer.send(UNCOMPRESSED_2);
    peer.take();
    world.receive(0, "10.0.0.1:53", "x");
    expect(peer.take()).toBe("");
    expect(world.server.counters.drops.filtered).toBe(1);
  });

  it("stays alive when only strangers send", () => {
    peer.send(UNCOMPRESSED_2);
    for (let i = 0; i < 3; i++) {
      world.pass(400_000);
      world.receive(0, "198.51.100.7:53", "x");
    }
    expect(peer.isClosed).toBe(false);
    world.pass(700_000);
    expect(peer.isClosed).toBe(true);
  });

  it("still receives from registered targets on compressed contexts once its uncompressed context is closed", () => {
    peer.send(`${UNCOMPRESSED_2} 11 08 04 ${TARGET} 13 01 02`);
    expect(peer.take()).toBe("120102120104");
    world.receive(0, "198.51.100.7:53", "hi");
    world.receive(0, "198.51.100.7:54", "hi");
    expect(peer.take()).toBe("0003046869");
  });

  it("may open the uncompressed context again under another id", () => {
    peer.send(`${UNCOMPRESSED_2} 13 01 02 11 02 04 00`);
    expect(peer.take()).toBe("120102120104");
    peer.send(`00 0a 04 ${TARGET} 68 69`);
    expect(world.atTargets).toEqual(["0 > 198.51.100.7:53: hi"]);
  });

  it("silently drops datagrams of a closed context", () => {
    peer.send(`11 08 02 ${TARGET} 13 01 02 00 03 02 68 69`);
    expect(peer.take()).toBe(ACK_2);
    expect(world.atTargets).toEqual([]);
    expect(peer.isClosed).toBe(false);
  });

  it("gets contexts with a denied target or an id above 2^30 closed, and may not use either again", () => {
    peer.send("11 08 02 04 0a000001 0035");
    expect(peer.take()).toBe("130102");
    peer.send(`11 0f c0 00 00 00 40 00 00 00 ${TARGET}`);
    expect(peer.take()).toBe("1308c000000040000000");
    expect(peer.isClosed).toBe(false);
    peer.send(`11 08 02 ${TARGET}`);
    expect(peer.isClosed).toBe(true);
  });

  it("accepts ids in any order", () => {
    peer.send("11 08 06 04 c6336407 0001 11 08 02 04 c6336407 0002 11 08 04 04 c6336407 0003");
    expect(peer.take()).toBe("120106120102120104");
  });

  it.each([
    ["an id that is in use", `11 08 02 ${TARGET} 11 08 02 04 c6336407 0036`],
    ["the same registration twice", `11 08 02 ${TARGET} 11 08 02 ${TARGET}`],
    ["an id that was closed", `11 08 02 ${TARGET} 13 01 02 11 08 02 ${TARGET}`],
    ["the id of a closed uncompressed context", `${UNCOMPRESSED_2} 13 01 02 ${UNCOMPRESSED_2}`],
    ["an id of the uncompressed context for an address", `${UNCOMPRESSED_2} 11 08 02 ${TARGET}`],
    ["an address that has a context", `11 08 02 ${TARGET} 11 08 04 ${TARGET}`],
    ["a second uncompressed context", `${UNCOMPRESSED_2} 11 02 04 00`],
    ["context 0", `11 08 00 ${TARGET}`],
    ["an odd id", `11 08 01 ${TARGET}`],
    ["IP version 5", "11 08 02 05 c6336407 0035"],
    ["an IPv6 address of 4 bytes", "11 08 02 06 c6336407 0035"],
    ["an uncompressed context with an address", `11 08 02 00 c6336407 0035`],
    ["nothing behind its id", "11 01 02"],
    ["nothing at all", "11 00"],
    ["an acknowledgement of what the server never registered", "12 01 01"],
    ["the end of context 0", "13 01 00"],
    ["a datagram of context 0", "00 03 00 68 69"],
    ["an uncompressed datagram of IP version 5", `${UNCOMPRESSED_2} 00 0a 02 05 c6336407 0035 6869`],
  ])("ends with %s", (_, hex) => {
    peer.send(hex);
    expect(peer.isClosed).toBe(true);
    expect(world.server.counters.refused.protocol_error).toBe(1);
  });

  it("treats an IPv4-mapped target as IPv4 and gets its answers", () => {
    peer.send(`${UNCOMPRESSED_2} 00 16 02 06 00000000000000000000ffffc6336407 0035 6869`);
    expect(world.atTargets).toEqual(["0 > 198.51.100.7:53: hi"]);
    peer.take();
    world.receive(0, "198.51.100.7:53", "ho");
    expect(peer.take()).toBe("000a0204c63364070035686f");
  });

  it("with fallback uses context 0 for its own target and other contexts beside it", () => {
    const other = world.connect();
    other.request("198.51.100.7/53", ["Connect-UDP-Bind: ?1"]);
    other.send(`00 03 00 68 69 11 02 02 00 00 0a 02 04 c6336408 0035 68 6f`);
    expect(world.atTargets).toEqual(["1 > 198.51.100.7:53: hi", "1 > 198.51.100.8:53: ho"]);
    other.take();
    world.receive(1, "198.51.100.7:53", "hm");
    expect(other.take()).toBe("000300686d");
  });
});

describe("a tunnel whose client has ended its side", () => {
  let world: PlainWorld;
  let peer: PlainPeer;

  beforeEach(() => {
    world = new PlainWorld({ maxTunnels: 3 });
    peer = world.connect();
    peer.request("198.51.100.7/53");
    peer.send("00 03 00 68 69");
    peer.end();
  });

  it("is answered until 10 s after the last answer", () => {
    world.pass(9_000);
    world.receive(0, "198.51.100.7:53", "ho");
    expect(peer.take()).toBe("000300686f");
    world.pass(9_000);
    expect(peer.isClosed).toBe(false);
    world.pass(3_000);
    expect(peer.isClosed).toBe(true);
    expect(world.server.associationCount).toBe(0);
    expect(world.server.nextTimeout()).toBe(Number.POSITIVE_INFINITY);
  });

  it("is ended for a new tunnel at the limit, unlike an open one", () => {
    const second = world.connect();
    second.request("198.51.100.7/53");
    const third = world.connect();
    third.request("198.51.100.7/53");
    const fourth = world.connect();
    expect(fourth.request("198.51.100.7/53")).toMatch(/^HTTP\/1.1 101 /);
    expect([peer, second, third].map(({ isClosed }) => isClosed)).toEqual([true, false, false]);
    expect(world.connect().request("198.51.100.7/53")).toMatch(/^HTTP\/1.1 503 /);
  });

  it("ends at once if its client stopped inside a capsule", () => {
    const other = world.connect();
    other.request("198.51.100.7/53");
    other.send("00 03 00 68");
    other.end();
    expect(other.isClosed).toBe(true);
    expect(world.server.counters.refused.protocol_error).toBe(1);
  });

  it("ends at once if its client has sent no complete request", () => {
    const other = world.connect();
    other.sendBytes(new TextEncoder().encode("GET / HTTP/1.1\r\n"));
    other.end();
    expect(other.isClosed).toBe(true);
  });
});
