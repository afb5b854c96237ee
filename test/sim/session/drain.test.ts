import { describe, expect, it } from "vitest";
import { Network } from "../network.ts";

const PSK = new TextEncoder().encode("sixteen byte key");
const kinds = (net: Network) =>
  net.clientEvents.map(({ kind }) => kind).filter((kind) => kind.startsWith("session"));

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
    expect(kinds(net)).toEqual(["session-up"]);
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

  it("moves its clients to another known server without a gap", () => {
    const ways = [0, 1].map((server) => ({ authority: `server${server}.test:1`, server }));
    const net = new Network({ client: { psk: PSK, ways }, server: { psk: PSK } });
    net.start();
    const association = net.client.openAssociation(net.now, undefined, true);
    net.send(association, "192.0.2.1:53", "a");
    net.settle();
    const first = net.server;
    first.drain();
    net.settle();
    expect(net.attempts.at(-1)).toMatch(/ 1$/);
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
