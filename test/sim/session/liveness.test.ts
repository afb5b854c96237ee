import { describe, expect, it } from "vitest";
import { encodeHeartbeat, encodeHeartbeatEcho } from "../../../src/wire/capsule.ts";
import { open, started } from "./started.ts";

describe("heartbeats", () => {
  it("keep an idle session up for an hour and measure the round trip", () => {
    const network = started({ latencyMs: 20 });
    network.advance(3_600_000);
    expect(network.client.isUp).toBe(true);
    expect(network.clientEvents.filter(({ kind }) => kind === "connect")).toHaveLength(1);
    expect(network.client.rttMs).toBeGreaterThanOrEqual(40);
    expect(network.client.rttMs).toBeLessThan(42);
    expect(network.server.rttMs).toBeGreaterThanOrEqual(40);
  });

  it("from a peer that reads late are all echoed in order while at most 1 MiB is queued", () => {
    const { client, now } = started();
    const count = 80_000;
    const asked = Buffer.concat(Array.from({ length: count }, (_, i) => encodeHeartbeat(i, 1)));
    for (let at = 0; at < asked.length; ) at = client.handleStream(now, 0, asked, at, asked.length);
    const batches: Uint8Array[] = [];
    for (let batch = client.pollTransmit(now, 0); batch !== undefined; batch = client.pollTransmit(now, 0)) {
      batches.push(batch.slice());
      client.handleTransmitted(0);
    }
    const echoes = Buffer.concat(Array.from({ length: count }, (_, i) => encodeHeartbeatEcho(i, 1)));
    expect(Buffer.concat(batches).equals(echoes)).toBe(true);
    expect(client.isUp).toBe(true);
  });

  it("from a server that does not read are echoed until 1 MiB is queued beside all registrations; then its lane ends", () => {
    const { client, now } = started({ client: { maxAssociations: 16, maxContexts: 16 } });
    const asked = Buffer.concat(Array.from({ length: 10_000 }, () => encodeHeartbeat(1, 1)));
    let sent = 0;
    while (client.isUp && sent < 100_000_000) {
      client.handleStream(now, 0, asked, 0, asked.length);
      sent += asked.length;
    }
    expect(sent).toBeGreaterThan(1_048_576);
    expect(sent).toBeLessThan(1_600_000);
    expect(client.pollOutput()).toMatchObject({
      kind: "disconnect",
      error: { code: "ERR_CONTROL_OVERFLOW" },
    });
  });

  it.each([
    ["a heartbeat with a byte left over", [0x00, 3, 1, 1, 0]],
    ["an echo with a byte left over", [0x01, 3, 1, 1, 0]],
    ["a heartbeat that is cut short", [0x00, 1, 1]],
  ])("%s ends the lane", (_, [type, ...rest]) => {
    const { client, now } = started();
    const capsule = Uint8Array.of(0x80, 0x55, 0x50, type, ...rest);
    client.handleStream(now, 0, capsule, 0, capsule.length);
    expect(client.pollOutput()).toMatchObject({
      kind: "disconnect",
      error: { code: "ERR_CAPSULE_MALFORMED" },
    });
  });

  it("end a half-open connection at both ends within 20 s", () => {
    const network = started();
    network.send(open(network), "192.0.2.1:53", "x");
    network.advance(10);
    network.isStalled = true;
    network.advance(20_500);
    expect(network.server.tunnelCount).toBe(0);
    const failure = network.clientEvents.find(({ kind }) => kind === "disconnect");
    expect(failure).toMatchObject({ error: { code: "ERR_HEARTBEAT_LOST" } });
    network.isStalled = false;
    network.advance(6_000);
    expect(network.client.isUp).toBe(true);
  });
});

describe("deadlines", () => {
  it("both ends notice a silent peer 15 s after its last bytes", () => {
    for (const latencyMs of [0, 40]) {
      const network = started({ latencyMs, client: { lanes: 1 } });
      network.advance(7_300);
      network.send(open(network), "192.0.2.1:53", "x");
      network.advance(2 * latencyMs);
      network.isStalled = true;
      network.advance(14_900);
      expect(network.clientEvents.at(-1)?.kind).toBe("session-up");
      network.advance(200);
      expect(network.clientEvents.map(({ kind }) => kind)).toContain("session-down");
      expect(network.server.tunnelCount).toBe(0);
    }
  });

  it("the server wakes once per heartbeat for any number of idle associations", () => {
    const network = started();
    for (let i = 0; i < 1_000; i++) network.send(open(network, false), "192.0.2.1:53", "x");
    network.settle();
    let wakes = 0;
    const { handleTimeout } = network.server;
    network.server.handleTimeout = (now) => {
      wakes++;
      handleTimeout.call(network.server, now);
    };
    network.advance(100_000);
    expect(wakes).toBeLessThan(25);
  });
});
