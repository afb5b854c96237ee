import { describe, expect, it } from "vitest";
import { encodeShutdown } from "../../src/wire/capsule.ts";
import { Network } from "./network.ts";

const PSK = new TextEncoder().encode("sixteen byte key");

describe("a drained server", () => {
  it.each([1, 3])("keeps its %i lanes, accepts no new ones, and makes its clients leave", (lanes) => {
    const net = new Network({ client: { psk: PSK, lanes }, server: { psk: PSK } });
    net.start();
    const association = net.client.openAssociation(net.now, undefined, true);
    net.send(association, "192.0.2.1:53", "a");
    net.advance(1_000);
    net.server.drain();
    net.advance(3_000);
    net.send(association, "192.0.2.1:53", "b");
    net.settle();
    expect(net.arrived.map(({ payload }) => payload)).toEqual(["a", "b"]);
    expect(net.client.isUp).toBe(true);
    expect(net.server.counters.refused.draining).toBeGreaterThan(0);
    expect(net.sessionEvents).toEqual(["session-up"]);
    // The server ends before another has accepted the client.
    net.killServer();
    net.startServer();
    net.advance(2_000);
    net.send(association, "192.0.2.1:53", "c");
    net.settle();
    expect(net.arrived).toHaveLength(3);
    expect(net.clientEvents.filter(({ kind }) => kind === "session-up").at(-1)).toMatchObject({
      isAnother: true,
    });
  });

  describe("whose client knows others", () => {
    /** A client in a session with server 1. @returns the ways that it tries from now on */
    function inSession(): { net: Network; tried: () => number[] } {
      const ways = [0, 1, 1, 2].map((server) => ({ authority: `server${server}.test:1`, server }));
      const net = new Network({ client: { psk: PSK, ways }, server: { psk: PSK } });
      net.ways.set(0, "refuse");
      net.start();
      net.ways.clear();
      const since = net.attempts.length;
      return { net, tried: () => net.attempts.slice(since).map((attempt) => Number(attempt.split(" ")[1])) };
    }

    /** Bytes that arrive as `change` returns them; from the first on, new connections to server 1 fail. */
    function failing(net: Network, fault: "refuse" | "drop", change = (text: string) => text): void {
      net.tamper = (bytes, isFromServer) => {
        net.ways.set(1, fault);
        return isFromServer ? Buffer.from(change(Buffer.from(bytes).toString("latin1")), "latin1") : bytes;
      };
    }

    it("refuses it, after which it tries each of the others and then this one again", () => {
      const { net, tried } = inSession();
      net.server.drain();
      net.advance(10_000);
      expect(tried().slice(0, 6)).toEqual([1, 3, 0, 1, 3, 0]);
      expect(net.client.isUp).toBe(true);
    });

    it.each(["refuse", "drop"] as const)(
      "and to which new connections fail (%s) loses it to the next within 2.5 s",
      (fault) => {
        const { net, tried } = inSession();
        failing(net, fault);
        net.server.drain();
        net.advance(2_500);
        expect(tried().slice(0, 2)).toEqual([1, 3]);
      },
    );

    it("and to which new connections get no answer holds up each round of attempts for 2 s", () => {
      const { net, tried } = inSession();
      failing(net, "drop");
      for (const way of [0, 3]) net.ways.set(way, "refuse");
      net.server.drain();
      net.advance(10_000);
      expect(tried().slice(0, 5)).toEqual([1, 3, 0, 1, 3]);
    });

    it("loses it to the next, even if that answers the first connection with a challenge and closes it", () => {
      const { net, tried } = inSession();
      failing(net, "refuse", (text) =>
        text.startsWith("HTTP/1.1 401") ? text.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n") : text,
      );
      net.carryToClient(encodeShutdown("moving"));
      net.advance(1_000);
      expect(tried()).toEqual([1, 3, 3]);
      expect(net.clientEvents).toContainEqual({ kind: "session-renewed", reason: "moved" });
    });
  });

  it("puts its name into session ids and tickets, where a pattern can find it", () => {
    const net = new Network({ client: { psk: PSK }, server: { psk: PSK, serverId: 1 } });
    net.start();
    const texts = net.records.flatMap(({ fromClient, fromServer }) =>
      [...fromServer, ...fromClient].map((sent) => new TextDecoder("latin1").decode(sent)),
    );
    expect(texts.filter((text) => / c=:AAAB/.test(text))).toHaveLength(2);
    expect(texts.filter((text) => / s=:....AAAB/.test(text))).toHaveLength(1);
  });
});
