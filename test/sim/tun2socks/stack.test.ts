import { describe, expect, it } from "vitest";
import { SEGMENT_ROW_INTS } from "../../../src/core/tun2socks/tcp/segment-batch.ts";
import type { Tun2Socks } from "../../../src/core/tun2socks/tun2socks.ts";
import { formatAddress } from "../../../src/wire/socket-address.ts";
import { tcpPacket } from "../../unit/packet-oracle.ts";
import { Device, PEER } from "./device.ts";

const SYN = 2;
const ACK = 16;
const RST = 4;

const FAMILIES = [
  { family: 4, app: "10.0.0.9", target: "192.0.2.7" },
  { family: 6, app: "fd00::9", target: "2001:db8::7" },
] as const;

function segment(
  source: string,
  sourcePort: number,
  destination: string,
  flags: number,
  payload?: Buffer,
): Buffer {
  const numbers = { sequence: 1, acknowledgment: 1 };
  return tcpPacket({ source, sourcePort, destination, destinationPort: 443, flags, payload, ...numbers });
}

/** Flow and length of each segment that core passes to the stack. */
function takeSegments({ segments }: Tun2Socks): { flow: number; segment: number }[] {
  const rows = Array.from({ length: segments.count }, (_, i) => {
    const [flow, , transport, end] = segments.rows.subarray(i * SEGMENT_ROW_INTS);
    return { flow, segment: end - transport };
  });
  segments.clear();
  return rows;
}

function make(limits: { maxFlows?: number; maxHalfOpen?: number } = {}): Device {
  return new Device({ hasTcpStack: true, limits });
}

describe.each(FAMILIES)("TCP for the host's stack over IPv$family", ({ family, app, target }) => {
  it("passes on each segment with the number of its flow, and writes nothing itself", () => {
    const device = make();
    device.send(segment(app, 5000, target, SYN));
    expect(takeSegments(device.core)).toEqual([{ flow: 0, segment: 20 }]);
    device.send(segment(app, 5001, target, SYN), segment(app, 5000, target, ACK, Buffer.alloc(7)));
    expect(takeSegments(device.core)).toEqual([
      { flow: 1, segment: 20 },
      { flow: 0, segment: 27 },
    ]);
    expect(device.written).toEqual([]);
    expect(device.core.counters.packetsOut).toBe(0);
    expect(device.core.halfOpenCount).toBe(2);
  });

  it("accepts a flow once, after the stack has completed its handshake", () => {
    const device = make();
    device.send(segment(app, 5000, target, SYN));
    takeSegments(device.core);
    const accepted = device.core.acceptStackFlow(device.now, 0);
    expect(accepted && [formatAddress(accepted.source), formatAddress(accepted.target)]).toEqual(
      [
        [app, 5000],
        [target, 443],
      ].map(([host, port]) => (family === 6 ? `[${host}]:${port}` : `${host}:${port}`)),
    );
    expect(device.core.acceptStackFlow(device.now, 0)).toBeUndefined();
    expect(device.core.halfOpenCount).toBe(0);
    expect(device.core.flowCount).toBe(1);
  });

  it("answers segments without a flow, or to the device's peer, with a RST", () => {
    const device = make();
    const written = device.send(segment(app, 5000, target, ACK), segment(app, 5000, PEER[family], SYN));
    expect(written.map(({ message }) => message[13] & RST)).toEqual([RST, RST]);
    expect(device.core.segments.count).toBe(0);
  });

  it("reports to the stack each half-open flow that is evicted at the limit", () => {
    const device = make({ maxHalfOpen: 2 });
    for (let port = 1; port <= 4; port++) {
      device.send(segment(app, port, target, SYN));
      takeSegments(device.core);
    }
    expect(device.events).toEqual([
      { kind: "flow-closed", flow: 0, reason: "evicted" },
      { kind: "flow-closed", flow: 1, reason: "evicted" },
    ]);
    expect(device.core.halfOpenCount).toBe(2);
  });

  it("keeps a flow that the host has closed until the stack releases it, unless its port is used again", () => {
    const device = make();
    device.send(segment(app, 5000, target, SYN));
    takeSegments(device.core);
    device.core.acceptStackFlow(device.now, 0);
    device.core.endFlow(device.now, 0);
    device.advance(600_000);
    device.send(segment(app, 5000, target, ACK));
    expect(takeSegments(device.core)).toEqual([{ flow: 0, segment: 20 }]);
    device.send(segment(app, 5000, target, SYN));
    expect(takeSegments(device.core)).toEqual([{ flow: 1, segment: 20 }]);
    expect(device.events).toEqual([{ kind: "flow-closed", flow: 0, reason: "finished" }]);
    device.core.forgetFlow(1);
    expect(device.core.flowCount).toBe(0);
  });

  it("refuses connections beyond the limit of flows with a RST", () => {
    const device = make({ maxFlows: 1, maxHalfOpen: 1 });
    device.send(segment(app, 1, target, SYN));
    takeSegments(device.core);
    device.core.acceptStackFlow(device.now, 0);
    const written = device.send(segment(app, 2, target, SYN));
    expect(written.map(({ message }) => message[13] & RST)).toEqual([RST]);
    expect(device.core.counters.drops.flow_limit).toBe(1);
  });
});
