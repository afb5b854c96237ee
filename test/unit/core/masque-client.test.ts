import { beforeEach, describe, expect, it } from "vitest";
import type { ClientOutput } from "../../../src/core/client/client-parts.ts";
import { ConnectUdpUpgrade, MasqueRefusal } from "../../../src/core/masque/connect-udp-upgrade.ts";
import { MasqueClient } from "../../../src/core/masque/masque-client.ts";
import {
  datagramHeaderLength,
  encodeCompressionAck,
  encodeCompressionAssign,
  encodeCompressionClose,
  writeDatagramHeader,
} from "../../../src/wire/capsule.ts";
import { asciiBytes } from "../../../src/wire/http/http-head.ts";
import type { AddressBytes } from "../../../src/wire/socket-address.ts";
import { makeAddress } from "../../../src/wire/socket-address.ts";
import { cheapCryptography } from "../../fuzz/cheap-cryptography.ts";
import { mutate, randomBytes, seededRandom } from "../random.ts";

const [one, two, three] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map((ip) => makeAddress(ip, 53)!);
const name = makeAddress("example.test", 53)!;

function datagram(id: number, text: string): Uint8Array {
  const bytes = new Uint8Array(datagramHeaderLength(id, text.length) + text.length);
  bytes.set(asciiBytes(text), writeDatagramHeader(bytes, 0, id, text.length));
  return bytes;
}

const hex = (...parts: readonly Uint8Array[]) => Buffer.concat(parts).toString("hex");

describe("a client of standard MASQUE", () => {
  let now: number;
  let client: MasqueClient;
  let association: number;

  function open(
    bounds: { readonly maxAssociations: number; readonly maxContexts: number },
    ageBudgetMs = 100,
  ): void {
    client = new MasqueClient({
      crypto: cheapCryptography(1),
      ageBudgetMs,
      queueBytes: 131_072,
      idleTimeoutMs: 60_000,
      activeIdleTimeoutMs: 300_000,
      ...bounds,
    });
    association = client.openAssociation(now, undefined, false);
  }

  beforeEach(() => {
    now = 1_000;
    open({ maxAssociations: 8, maxContexts: 8 });
  });

  function send(to: AddressBytes, text: string, from = association): void {
    const data = asciiBytes(text);
    client.handleDatagram(now, from, data, 0, data.length, to, 0, to.length);
  }

  function outputs(): ClientOutput[] {
    const all: ClientOutput[] = [];
    for (let output = client.pollOutput(); output !== undefined; output = client.pollOutput())
      all.push(output);
    return all;
  }

  const lanesOf = (kind: "connect" | "disconnect") =>
    outputs().flatMap((output) => (output.kind === kind ? [output.lane] : []));

  /** The bytes that are written on a lane. */
  function written(lane: number): string {
    const parts: Uint8Array[] = [];
    for (
      let bytes = client.pollTransmit(now, lane);
      bytes !== undefined;
      bytes = client.pollTransmit(now, lane)
    ) {
      parts.push(bytes.slice());
      client.handleTransmitted(lane);
    }
    return hex(...parts);
  }

  /** The sources of datagrams that arrive on a lane. */
  function received(lane: number, ...parts: readonly Uint8Array[]): (AddressBytes | undefined)[] {
    const chunk = Buffer.concat(parts);
    const from: (AddressBytes | undefined)[] = [];
    for (let at = 0; at < chunk.length; ) {
      at = client.handleStream(now, lane, chunk, at, chunk.length);
      for (let i = 0; i < client.received.count; i++)
        from.push(client.contexts.address[client.received.context[i]]);
    }
    return from;
  }

  it("sends a request for the first datagram, which waits for the answer", () => {
    expect(outputs()).toEqual([]);
    send(one, "a");
    expect(lanesOf("connect")).toEqual([0]);
    expect(client.targetOf(0)).toEqual({ target: one, bind: true });
    send(one, "b");
    now += 900;
    client.handleTimeout(now);
    client.handleConnected(now, 0, false);
    expect(written(0)).toBe(hex(datagram(0, "a"), datagram(0, "b")));
    expect(received(0, datagram(0, "answer"))).toEqual([one]);
  });

  it("if the proxy binds, further targets are contexts of one request, and names have their own", () => {
    for (const target of [one, two, name]) send(target, "x");
    expect(lanesOf("connect")).toEqual([0, 1]);
    expect(client.targetOf(1)).toEqual({ target: name, bind: false });
    client.handleConnected(now, 0, true);
    expect(written(0)).toBe(hex(encodeCompressionAssign(2, two), datagram(0, "x"), datagram(2, "x")));
    send(three, "y");
    expect(written(0)).toBe(hex(encodeCompressionAssign(4, three), datagram(4, "y")));
    expect(
      received(0, encodeCompressionAck(2), datagram(2, "b"), datagram(0, "a"), datagram(4, "c")),
    ).toEqual([two, one, three]);
    expect(client.lanesUp).toBe(1);
  });

  it("if it does not bind, waiting targets get requests of their own", () => {
    for (const target of [one, two, three]) send(target, "x");
    expect(lanesOf("connect")).toEqual([0]);
    client.handleConnected(now, 0, false);
    expect(lanesOf("connect")).toEqual([1, 2]);
    expect([0, 1, 2].map((lane) => client.targetOf(lane)?.target)).toEqual([one, two, three]);
    expect(client.targetOf(1)!.bind).toBe(false);
    for (const lane of [1, 2]) client.handleConnected(now, lane, false);
    expect([0, 1, 2].map(written)).toEqual([0, 1, 2].map(() => hex(datagram(0, "x"))));
    // The proxy is not asked again whether it binds.
    send(one, "x", client.openAssociation(now, undefined, false));
    expect(lanesOf("connect")).toEqual([3]);
    expect(client.targetOf(3)!.bind).toBe(false);
  });

  it("a context that the proxy closes is refused for a while, and one that it had accepted is registered again", () => {
    for (const target of [one, two]) send(target, "x");
    client.handleConnected(now, 0, true);
    written(0);
    outputs();
    received(0, encodeCompressionClose(2));
    expect(outputs()).toMatchObject([{ kind: "unreachable", remote: two, reason: "prohibited" }]);
    send(two, "y");
    expect(client.counters.drops.refused_target).toBe(1);
    now += 31_000;
    send(two, "z");
    expect(written(0)).toBe(hex(encodeCompressionAssign(4, two), datagram(4, "z")));
    received(0, encodeCompressionAck(4), encodeCompressionClose(4));
    send(two, "z");
    expect(written(0)).toBe(hex(encodeCompressionAssign(6, two), datagram(6, "z")));
  });

  it("declines contexts of the proxy, because it receives only from targets that it has sent to", () => {
    send(one, "x");
    client.handleConnected(now, 0, true);
    written(0);
    received(0, encodeCompressionAssign(3, two));
    expect(written(0)).toBe(hex(encodeCompressionClose(3)));
  });

  it("after a loss, the next datagram sends a new request with all contexts, and old ones are dropped and counted", () => {
    for (const target of [one, two]) send(target, "x");
    client.handleConnected(now, 0, true);
    written(0);
    outputs();
    client.handleDisconnected(now, 0, new Error("lost"));
    expect(outputs()).toEqual([]);
    send(two, "old");
    expect(lanesOf("connect")).toEqual([0]);
    now += 1_500;
    send(two, "new");
    client.handleConnected(now, 0, true);
    expect(written(0)).toBe(hex(encodeCompressionAssign(2, two), datagram(2, "new")));
    expect(client.counters.drops.age).toBe(1);
  });

  it("connects again after 100 ms, 200 ms and so on, at most every 5 s, as long as something waits", () => {
    send(one, "x");
    const times: number[] = [];
    while (times.length < 8) {
      for (const output of outputs()) {
        if (output.kind !== "connect") continue;
        times.push(now);
        client.handleDisconnected(now, output.lane, new Error("refused"));
      }
      send(one, "x");
      now = Math.min(client.nextTimeout(), now + 500);
      client.handleTimeout(now);
    }
    expect(times.slice(1).map((time, i) => time - times[i])).toEqual([
      100, 200, 400, 800, 1_600, 3_200, 5_000,
    ]);
  });

  it("reports a failure once until a request is answered", () => {
    send(one, "x");
    const kinds = () => outputs().map(({ kind }) => kind);
    client.handleDisconnected(now, 0, new Error("refused"));
    expect(kinds()).toEqual(["connect", "session-down"]);
    now = client.nextTimeout();
    client.handleTimeout(now);
    client.handleDisconnected(now, 0, new Error("refused"));
    now = client.nextTimeout();
    client.handleTimeout(now);
    client.handleConnected(now, 0, true);
    expect(kinds()).toEqual(["connect", "connect", "session-up"]);
  });

  it.each([
    [403, "prohibited", 30_000],
    [502, "host", 1_000],
  ])("a target refused with %i is %s for %i ms", (status, reason, forMs) => {
    send(one, "x");
    outputs();
    client.handleDisconnected(now, 0, new MasqueRefusal(status, "no"));
    expect(outputs()).toMatchObject([{ kind: "unreachable", remote: one, reason }]);
    now += forMs - 1;
    send(one, "y");
    expect(outputs()).toEqual([]);
    expect(client.counters.drops.refused_target).toBe(2);
    now += 1;
    send(one, "z");
    expect(lanesOf("connect")).toEqual([0]);
  });

  it("a refused target is not reported to an association that reuses the slot of its sender", () => {
    send(one, "x");
    outputs();
    client.handleDisconnected(now, 0, new MasqueRefusal(502, "no"));
    // The host does not know of it yet.
    client.closeAssociation(now, association);
    expect(client.openAssociation(now, undefined, false)).toBe(association);
    expect(outputs()).toEqual([]);
  });

  it("the end of an association ends its requests, and frees their lanes", () => {
    for (const target of [one, name]) send(target, "x");
    client.handleConnected(now, 0, true);
    outputs();
    client.closeAssociation(now, association);
    expect(lanesOf("disconnect").sort()).toEqual([0, 1]);
    expect([client.lanesUp, client.contexts.size, client.associationCount]).toEqual([0, 0, 0]);
    send(one, "x", client.openAssociation(now, undefined, true));
    expect(lanesOf("connect")[0]).toBeLessThan(2);
  });

  it("idle associations expire, and targets of lasting ones", () => {
    const expiring = client.openAssociation(now, undefined, true);
    send(one, "x", expiring);
    send(two, "x");
    for (const lane of lanesOf("connect")) client.handleConnected(now, lane, true);
    outputs();
    while (client.nextTimeout() < now + 62_000) client.handleTimeout(client.nextTimeout());
    expect(
      outputs()
        .map(({ kind }) => kind)
        .sort(),
    ).toEqual(["association-closed", "disconnect"]);
    now += 302_000;
    client.handleTimeout(now);
    expect(lanesOf("disconnect")).toHaveLength(1);
    expect(client.contexts.size).toBe(0);
  });

  it("drops and counts datagrams to new targets above its bounds until a target is idle", () => {
    const targets = Array.from({ length: 10 }, (_, i) => makeAddress(`192.0.2.${i + 1}`, 53)!);
    for (const target of targets) send(target, "x");
    expect(client.counters.drops.context_limit).toBe(2);
    now += 12_000;
    client.handleTimeout(now);
    send(targets[9], "x");
    expect(client.counters.drops.context_limit).toBe(2);
    expect(client.contexts.size).toBe(8);
  });

  it("at most 64 requests wait for an answer at a time", () => {
    open({ maxAssociations: 200, maxContexts: 200 });
    for (let i = 0; i < 100; i++) send(one, "x", client.openAssociation(now, undefined, false));
    const asked = lanesOf("connect");
    expect(asked).toHaveLength(64);
    client.handleConnected(now, asked[0], true);
    expect(lanesOf("connect")).toHaveLength(1);
  });

  describe("drops, with a tap", () => {
    let seen: [reason: string | undefined, remote: AddressBytes | undefined][];

    function observe(): void {
      seen = [];
      client.counters.tap = {
        record: (isIn, reason, _association, _local, remote) => {
          if (!isIn) seen.push([reason, remote]);
        },
      };
    }

    beforeEach(observe);

    it("counts and shows datagrams whose context is evicted while its request connects", () => {
      open({ maxAssociations: 8, maxContexts: 2 }, 60_000);
      observe();
      for (const target of [one, two]) send(target, "x");
      now += 11_000;
      send(two, "y");
      send(three, "z");
      expect(seen).toEqual([["context_limit", one]]);
      client.handleConnected(now, 0, true);
      expect(written(0)).toBe(
        hex(
          encodeCompressionAssign(2, two),
          encodeCompressionAssign(4, three),
          datagram(2, "x"),
          datagram(2, "y"),
          datagram(4, "z"),
        ),
      );
      expect(client.counters.drops).toMatchObject({ context_limit: 1, unknown_context: 0 });
    });

    it("counts a refused target apart from those that had joined its request", () => {
      for (const target of [one, two, three]) send(target, "x");
      client.handleDisconnected(now, 0, new MasqueRefusal(403, "no"));
      expect(seen).toEqual([
        ["refused_target", one],
        ["unknown_context", two],
        ["unknown_context", three],
      ]);
      expect(client.counters.drops).toMatchObject({ refused_target: 1, unknown_context: 2 });
    });

    it("counts what waits on an open request for a context that the proxy closes", () => {
      send(one, "a");
      client.handleConnected(now, 0, true);
      client.pollTransmit(now, 0);
      seen = [];
      for (const target of [two, one]) send(target, "b");
      received(0, encodeCompressionClose(2));
      expect(seen).toEqual([["refused_target", two]]);
      client.handleTransmitted(0);
      expect(written(0)).toBe(hex(encodeCompressionAssign(2, two), datagram(0, "b")));
    });

    it("shows the remote address of every datagram that waits when its association ends", () => {
      for (const target of [one, two, name]) send(target, "x");
      client.closeAssociation(now, association);
      expect(new Set(seen)).toEqual(
        new Set([
          ["unknown_context", one],
          ["unknown_context", two],
          ["unknown_context", name],
        ]),
      );
    });
  });

  it("survives random and mutated streams from 200 proxies without an exception or a leak, and accounts for every datagram", () => {
    const random = seededRandom(12);
    const valid = [
      datagram(0, "a"),
      datagram(2, "b"),
      encodeCompressionAck(2),
      encodeCompressionClose(2),
      encodeCompressionClose(4),
      encodeCompressionAssign(3, two),
      encodeCompressionAssign(2, two),
    ];
    let delivered = 0;
    for (let proxy = 0; proxy < 200; proxy++) {
      open({ maxAssociations: 8, maxContexts: 3 }, proxy % 3 === 0 ? 60_000 : 100);
      const connecting = new Set<number>();
      let counted = 0;
      client.counters.tap = {
        record: (isIn, _reason, _association, _local, remote) => {
          if (!isIn && remote !== undefined) counted++;
        },
      };
      for (let i = 0; i < 1_000; i++) {
        now += random() % 16 === 0 ? 31_000 : 1;
        send([one, two, three, name][random() % 4], "x");
        for (const output of outputs()) {
          if (output.kind === "connect") connecting.add(output.lane);
          else if (output.kind === "disconnect") connecting.delete(output.lane);
        }
        for (const lane of connecting) {
          if (random() % 4 !== 0) break;
          connecting.delete(lane);
          if (random() % 8 === 0) client.handleDisconnected(now, lane, new MasqueRefusal(403, "no"));
          else client.handleConnected(now, lane, proxy % 2 === 0);
        }
        for (let lane = client.pollReady(); lane >= 0; lane = client.pollReady()) {
          written(lane);
          const good = valid[random() % valid.length];
          delivered += received(lane, random() % 8 === 0 ? mutate(random, good) : good).length;
          if (random() % 16 === 0) delivered += received(lane, randomBytes(random, random() % 64)).length;
          if (random() % 32 === 0) client.handleDisconnected(now, lane, undefined);
        }
        if (client.nextTimeout() <= now) client.handleTimeout(now);
      }
      client.closeAssociation(now, association);
      expect([client.lanesUp, client.contexts.size, client.associationCount]).toEqual([0, 0, 0]);
      expect(counted).toBe(1_000);
    }
    expect(delivered).toBeGreaterThan(5_000);
  });
});

describe("closing a client of standard MASQUE", () => {
  it.each([
    ["for its turn to connect", []],
    ["for the answer to a request", ["connect"]],
    ["in a request that is open", ["connect", "open"]],
  ])("counts the datagrams that wait %s, and leaves no deadline", (_, steps) => {
    const client = new MasqueClient({
      crypto: cheapCryptography(1),
      ageBudgetMs: 100,
      queueBytes: 131_072,
      idleTimeoutMs: 60_000,
      activeIdleTimeoutMs: 300_000,
      maxAssociations: 8,
      maxContexts: 8,
    });
    const association = client.openAssociation(0, undefined, false);
    const send = () => client.handleDatagram(0, association, asciiBytes("x"), 0, 1, one, 0, one.length);
    send();
    // The failed attempt makes the next one wait.
    if (steps.length === 0) client.handleDisconnected(0, 0, new Error("refused"));
    if (steps.includes("open")) {
      client.handleConnected(0, 0, false);
      client.pollTransmit(0, 0);
      // While the batch is being written, datagrams wait in the queue.
      send();
    }
    client.close();
    expect(client.counters.drops.no_lane).toBe(1);
    expect(client.nextTimeout()).toBe(Number.POSITIVE_INFINITY);
  });
});

describe("the request over HTTP/1.1", () => {
  const request = {
    authority: "proxy.example:4443",
    path: "/udp/192.0.2.1/53/",
    bind: true,
    fields: [["Authorization", "Basic eA=="]],
  } as const;
  const text = (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1");
  const answer = (lines: string) => asciiBytes(lines.replaceAll("\n", "\r\n"));

  it("is an upgrade with the requested fields", () => {
    expect(text(new ConnectUdpUpgrade(request).start())).toBe(
      "GET /udp/192.0.2.1/53/ HTTP/1.1\r\nHost: proxy.example:4443\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n" +
        "Capsule-Protocol: ?1\r\nConnect-UDP-Bind: ?1\r\nAuthorization: Basic eA==\r\n\r\n",
    );
  });

  it("succeeds with a 101 after interim responses; later bytes belong to the tunnel", () => {
    const upgrade = new ConnectUdpUpgrade(request);
    const bytes = answer(
      "HTTP/1.1 103 Early Hints\n\nHTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: connect-udp\nConnect-UDP-Bind: ?1\n\nabc",
    );
    expect(upgrade.handleStream(bytes.subarray(0, 60))).toBe("need");
    expect(upgrade.handleStream(bytes.subarray(60))).toEqual({
      kind: "connected",
      surplus: asciiBytes("abc"),
    });
    expect(upgrade.isBound).toBe(true);
  });

  it.each([
    [
      "HTTP/1.1 403 Forbidden\nProxy-Status: h2o; error=destination_ip_prohibited\n\n",
      /refused the request: status 403, Proxy-Status: h2o; error=destination_ip_prohibited$/,
    ],
    [
      "HTTP/1.1 407 No\nProxy-Authenticate: Basic realm=a\n\n",
      /status 407, the proxy wants credentials \(Basic\): use #header=Proxy-Authorization/,
    ],
    ["HTTP/1.1 200 OK\n\n", /status 200$/],
    [
      "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: websocket\n\n",
      /its 101 is not for connect-udp$/,
    ],
    ["SSH-2.0-OpenSSH\n\n", /is this a MASQUE proxy/],
  ])("%s fails with the reason", (lines, message) => {
    const result = new ConnectUdpUpgrade(request).handleStream(answer(lines));
    expect(result).toMatchObject({ kind: "failed", error: { message: expect.stringMatching(message) } });
  });
});
