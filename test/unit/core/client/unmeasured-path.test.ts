import { describe, expect, it } from "vitest";
import { LaneCount } from "../../../../src/core/client/lanes/lane-count.ts";
import { UnmeasuredPath } from "../../../../src/core/client/lanes/unmeasured-path.ts";
import { Counters } from "../../../../src/core/counters.ts";
import { SendPool } from "../../../../src/core/session/queue/send-pool.ts";
import { SendQueue } from "../../../../src/core/session/queue/send-queue.ts";
import { Tunnel } from "../../../../src/core/session/tunnel.ts";

const DATAGRAM = new Uint8Array(1_000);

/** A tunnel with 400 datagrams of 1,000 bytes in its queue. */
function filled(): Tunnel {
  const counters = new Counters();
  const queue = new SendQueue(new SendPool(), counters, 1_000_000, 100);
  const tunnel = new Tunnel(queue, counters, { heartbeatMs: 5_000, controlBytes: 1_000_000 });
  tunnel.open(0, "extension");
  for (let i = 0; i < 400; i++) queue.push(0, 0, 2, DATAGRAM, 0, DATAGRAM.length);
  return tunnel;
}

/** Length of what the tunnel sends now. */
function transmit(tunnel: Tunnel): number {
  let bytes = 0;
  for (;;) {
    const batch = tunnel.pollTransmit(0);
    if (batch === undefined) return bytes;
    bytes += batch.length;
    tunnel.handleTransmitted();
  }
}

describe("the allowance of a tunnel", () => {
  it.each([0, 1_000, 100_000, 131_000, 140_000, 200_000, 262_000, 600_000])(
    "holds however many bytes of control are sent before: %d",
    (control) => {
      const tunnel = filled();
      tunnel.allowance = 30_000;
      for (let left = control; left > 0; left -= 1_000) tunnel.writeControl(new Uint8Array(1_000));
      const datagrams = transmit(tunnel) - control;
      expect(datagrams).toBeGreaterThan(28_000);
      expect(datagrams).toBeLessThanOrEqual(30_000);
      expect(tunnel.isDrained).toBe(false);
      tunnel.allowance = Number.POSITIVE_INFINITY;
      expect(transmit(tunnel)).toBeGreaterThan(370_000);
    },
  );
});

describe("the path of a session without receipts", () => {
  it("does not limit a client that asks for receipts at a server that has none, even on another way", () => {
    const count = new LaneCount("auto", false);
    const path = new UnmeasuredPath(count);
    const tunnel = filled();
    count.begin(0, count.offersReceipts, false);
    count.handleOtherWay();
    path.begin(0, tunnel);
    expect(tunnel.isMetered).toBe(false);
  });

  it("is short enough when a round trip has taken less than ten milliseconds", () => {
    const path = new UnmeasuredPath(new LaneCount("auto", true));
    const tunnel = filled();
    path.begin(0, tunnel);
    path.handleRoundTrip(100, tunnel, 10);
    expect(tunnel.allowance).toBe(60_000);
    path.handleRoundTrip(200, tunnel, 9.9);
    expect(tunnel.isMetered).toBe(false);
  });
});
