import { describe, expect, it } from "vitest";
import { parseRule, ROUTE_SOCKS } from "../../../src/core/tun2socks/rules.ts";
import { formatAddress } from "../../../src/wire/socket-address.ts";
import { ipPacket, partialSum, tcpPacket } from "../../unit/packet-oracle.ts";
import type { Written } from "./device.ts";
import { Device, LISTENER_PORT, OWN, PEER } from "./device.ts";
import { ACK, at, FAMILIES, FIN, HELLO, PSH, RST, SYN, virtioHeader } from "./packets.ts";

/** The packets of a kernel whose listener on the device's own address echoes data. */
class Kernel {
  readonly accepted: { readonly port: number; readonly family: 4 | 6 }[] = [];
  readonly #sequence = 7_000_000;
  readonly #device: Device;

  constructor(device: Device) {
    this.#device = device;
  }

  /** Handles packets written to the device and sends its answers into it. @returns the packets for applications */
  handle(packets: readonly Written[]): Written[] {
    return packets.flatMap((packet) => {
      const family = packet.version as 4 | 6;
      if (packet.destination !== OWN[family] || packet.destinationPort !== LISTENER_PORT) return [packet];
      expect(packet.source).toBe(PEER[family]);
      return this.handle(this.#device.send(...this.#answers(packet, family)));
    });
  }

  #answers(packet: Written, family: 4 | 6): Buffer[] {
    const answer = (flags: number, sequence: number, acknowledgment: number, payload = Buffer.alloc(0)) =>
      tcpPacket({
        source: OWN[family],
        sourcePort: LISTENER_PORT,
        destination: PEER[family],
        destinationPort: packet.sourcePort,
        sequence,
        acknowledgment,
        flags,
        payload,
      });
    const { flags, sequence, acknowledgment, payload, sourcePort } = packet;
    if ((flags & RST) !== 0) return [];
    if ((flags & SYN) !== 0) return [answer(SYN | ACK, this.#sequence, sequence + 1)];
    if ((flags & FIN) !== 0) return [answer(FIN | ACK, acknowledgment, sequence + payload.length + 1)];
    if (payload.length > 0)
      return [answer(PSH | ACK, acknowledgment, sequence + payload.length, Buffer.from(payload))];
    if (acknowledgment === this.#sequence + 1) this.accepted.push({ port: sourcePort, family });
    return [];
  }
}

describe.each(FAMILIES)("TCP over IPv$family", ({ family, app, target }) => {
  const segment = (flags: number, sequence: number, acknowledgment: number, payload?: Buffer, port = 5000) =>
    tcpPacket({
      source: app,
      sourcePort: port,
      destination: target,
      destinationPort: 443,
      sequence,
      acknowledgment,
      flags,
      ...(payload === undefined ? {} : { payload }),
    });

  function connected(options = {}) {
    const device = new Device(options);
    const kernel = new Kernel(device);
    const send = (...packets: Buffer[]) => kernel.handle(device.send(...packets));
    const [synAck] = send(segment(SYN, 100, 0));
    expect(synAck).toMatchObject({
      source: target,
      sourcePort: 443,
      destination: app,
      destinationPort: 5000,
    });
    expect(synAck.flags).toBe(SYN | ACK);
    send(segment(ACK, 101, synAck.sequence + 1));
    const flow = device.core.acceptFlow(device.now, family, kernel.accepted[0].port)!;
    return { device, kernel, send, flow, sequence: synAck.sequence + 1 };
  }

  it("a handshake, data and both FINs pass through the kernel's listener and back, with the addresses that each end expects", () => {
    const { device, send, flow, sequence, kernel } = connected();
    expect([formatAddress(flow.source), formatAddress(flow.target)]).toEqual([
      at(app, 5000),
      at(target, 443),
    ]);
    expect(flow.route).toBe(ROUTE_SOCKS);
    const [echo] = send(segment(PSH | ACK, 101, sequence, HELLO));
    expect(echo).toMatchObject({
      source: target,
      sourcePort: 443,
      destinationPort: 5000,
      acknowledgment: 106,
    });
    expect(echo.payload).toEqual(HELLO);
    // A flow keeps one port throughout.
    const ports = device.written.filter(({ destination }) => destination === OWN[family]);
    expect(new Set(ports.map(({ sourcePort }) => sourcePort))).toEqual(new Set([kernel.accepted[0].port]));
    const [fin] = send(segment(FIN | ACK, 106, sequence + 5));
    expect(fin.flags).toBe(FIN | ACK);
    expect(device.core.flowCount).toBe(1);
    device.advance(59_000);
    expect(device.core.flowCount).toBe(1);
    device.advance(3_000);
    expect(device.core.flowCount).toBe(0);
    expect(device.events).toEqual([{ kind: "flow-closed", flow: flow.flow, reason: "finished" }]);
    expect(device.core.counters.resets).toBe(0);
  });

  it("an open flow survives a minute less than two hours of silence, a SYN alone 30 s", () => {
    const { device, send, flow, sequence } = connected();
    send(segment(SYN, 100, 0, undefined, 6000));
    expect(device.core.halfOpenCount).toBe(1);
    device.advance(32_000);
    expect([device.core.halfOpenCount, device.core.flowCount]).toEqual([0, 1]);
    device.advance(7_200_000 - 60_000);
    expect(send(segment(PSH | ACK, 101, sequence, HELLO))).toHaveLength(1);
    device.advance(7_200_000 + 300_000);
    expect(device.core.flowCount).toBe(0);
    expect(device.events.at(-1)).toEqual({ kind: "flow-closed", flow: flow.flow, reason: "idle" });
    expect(device.core.nextTimeout()).toBe(Number.POSITIVE_INFINITY);
  });

  it("a flow that the host refuses sends a RST that the application must accept, and resets later segments of the listener", () => {
    const { device, flow, sequence, kernel } = connected();
    expect(device.core.refuseFlow(flow.flow)).toBe(true);
    const [reset] = device.drain();
    expect(reset).toMatchObject({ source: target, sourcePort: 443, destination: app, flags: RST, sequence });
    expect(device.core.flowCount).toBe(0);
    const fin = tcpPacket({
      source: OWN[family],
      sourcePort: LISTENER_PORT,
      destination: PEER[family],
      destinationPort: kernel.accepted[0].port,
      sequence,
      acknowledgment: 101,
      flags: FIN | ACK,
    });
    expect(device.send(fin)).toMatchObject([
      {
        source: PEER[family],
        destination: OWN[family],
        destinationPort: LISTENER_PORT,
        flags: RST,
        sequence: 101,
      },
    ]);
    expect(device.core.acceptFlow(device.now, family, kernel.accepted[0].port)).toBeUndefined();
  });

  it("a new SYN from the port of a reset flow starts a new flow with its own port", () => {
    const { device, send, kernel, flow } = connected();
    send(segment(RST, 101, 0));
    const [synAck] = send(segment(SYN, 9_000, 0));
    expect(synAck.acknowledgment).toBe(9_001);
    send(segment(ACK, 9_001, synAck.sequence + 1));
    expect(kernel.accepted).toHaveLength(2);
    expect(kernel.accepted[1].port).not.toBe(kernel.accepted[0].port);
    expect(device.events).toEqual([{ kind: "flow-closed", flow: flow.flow, reason: "finished" }]);
    expect(device.core.acceptFlow(device.now, family, kernel.accepted[1].port)).toBeDefined();
  });

  it("a connection of the listener is accepted once, and only from the port of a flow", () => {
    const { device, kernel } = connected();
    expect(device.core.acceptFlow(device.now, family, kernel.accepted[0].port)).toBeUndefined();
    for (const port of [0, 1, 65_535, 65_536, -1]) {
      expect(device.core.acceptFlow(device.now, family, port)).toBeUndefined();
    }
  });

  it("segments without a flow get the RST of RFC 9293 §3.10.7.1, and a RST gets none", () => {
    const device = new Device();
    expect(device.send(segment(ACK, 5, 77))).toMatchObject([
      { source: target, destination: app, sourcePort: 443, destinationPort: 5000, flags: RST, sequence: 77 },
    ]);
    expect(device.send(segment(FIN, 0xffff_ffff, 0, HELLO))).toMatchObject([
      { flags: RST | ACK, sequence: 0, acknowledgment: 5 },
    ]);
    expect(device.send(segment(RST, 5, 0), segment(RST | ACK, 5, 6))).toEqual([]);
    expect(device.core.counters.drops.unknown_flow).toBe(4);
    expect(device.core.flowCount).toBe(0);
  });

  it("SYNs for a rejected target, a route that is down, the peer address, or without a listener get a RST at once", () => {
    const rules = ["tcp *:443 socks:1", "tcp *:25 reject", "tcp *:26 drop"].map(parseRule);
    const device = new Device({ rules });
    const syn = (destination: string, destinationPort: number) =>
      tcpPacket({
        source: app,
        sourcePort: 1,
        destination,
        destinationPort,
        sequence: 9,
        acknowledgment: 0,
        flags: SYN,
      });
    const refusal = [{ flags: RST | ACK, sequence: 0, acknowledgment: 10 }];
    expect(device.send(syn(target, 25))).toMatchObject(refusal);
    expect(device.send(syn(target, 26))).toEqual([]);
    expect(device.send(syn(PEER[family], 443))).toMatchObject(refusal);
    device.core.setRouteUp(ROUTE_SOCKS + 1, false);
    expect(device.send(syn(target, 443))).toMatchObject(refusal);
    expect(new Device({ ipv4: undefined, ipv6: undefined }).send(syn(target, 443))).toMatchObject(refusal);
    expect(device.core.flowCount).toBe(0);
    device.core.setRouteUp(ROUTE_SOCKS + 1, true);
    const [rewritten] = device.send(syn(target, 443));
    expect(device.core.acceptFlow(device.now, family, rewritten.sourcePort)?.route).toBe(ROUTE_SOCKS + 1);
  });

  it("a flood of 100,000 SYNs stays within its bound while an open flow continues", () => {
    const { device, send, sequence } = connected({ limits: { maxHalfOpen: 200, maxFlows: 500 } });
    let made = 0;
    while (made < 100_000) {
      const flood = Array.from({ length: 500 }, () =>
        segment(SYN, made++, 0, undefined, 1 + (made % 60_000)),
      );
      device.send(...flood.filter((packet) => packet.readUInt16BE(packet.length - 20) !== 5000));
      expect(device.core.halfOpenCount).toBeLessThanOrEqual(200);
      expect(device.core.flowCount).toBeLessThanOrEqual(500);
      device.written.length = 0;
    }
    expect(send(segment(PSH | ACK, 101, sequence, HELLO))).toMatchObject([{ payload: HELLO }]);
    expect(device.core.counters.halfOpenEvicted).toBeGreaterThan(99_000);
  });

  it("a flood of forged ACKs cannot evict a flow whose handshake is complete", () => {
    const device = new Device({ limits: { maxHalfOpen: 10 } });
    const kernel = new Kernel(device);
    const [synAck] = kernel.handle(device.send(segment(SYN, 100, 0)));
    kernel.handle(device.send(segment(ACK, 101, synAck.sequence + 1)));
    for (let port = 6_000; port < 6_100; port++) {
      device.send(segment(SYN, 1, 0, undefined, port), segment(ACK, 2, 12_345, undefined, port));
    }
    expect(device.core.halfOpenCount).toBe(10);
    expect(device.core.acceptFlow(device.now, family, kernel.accepted[0].port)).toBeDefined();
  });

  it("a SYN above the bound of flows is refused, unless a flow has been idle for ten minutes", () => {
    const device = new Device({ limits: { maxFlows: 3 } });
    const kernel = new Kernel(device);
    for (const port of [1, 2, 3]) {
      const [synAck] = kernel.handle(device.send(segment(SYN, 100, 0, undefined, port)));
      kernel.handle(device.send(segment(ACK, 101, synAck.sequence + 1, undefined, port)));
      device.core.acceptFlow(device.now, family, kernel.accepted.at(-1)!.port);
    }
    expect(device.send(segment(SYN, 1, 0, undefined, 4))).toMatchObject([{ flags: RST | ACK }]);
    expect(device.core.counters.drops.flow_limit).toBe(1);
    device.advance(600_000);
    expect(device.send(segment(SYN, 1, 0, undefined, 4))).toMatchObject([
      { flags: SYN, destination: OWN[family] },
    ]);
    expect(device.events).toEqual([{ kind: "flow-closed", flow: 0, reason: "evicted" }]);
  });

  it("a TSO packet of 30,000 bytes is rewritten whole: its header stays, its partial checksum follows the addresses", () => {
    const device = new Device({ virtio: true });
    device.send(segment(SYN, 100, 0));
    const packet = segment(PSH | ACK, 101, 1, Buffer.alloc(30_000, 7));
    const transport = packet.length - 30_020;
    const pseudo = partialSum(packet);
    packet.writeUInt16BE(pseudo, transport + 16);
    const header = virtioHeader(1, family === 4 ? 1 : 4, transport + 20, 1_440, transport, 16);
    const [rewritten] = device.sendRaw(Buffer.concat([header, packet]));
    expect(rewritten).toMatchObject({
      source: PEER[family],
      destination: OWN[family],
      destinationPort: LISTENER_PORT,
    });
    expect(rewritten.virtio.equals(header)).toBe(true);
    expect(rewritten.payload.equals(Buffer.alloc(30_000, 7))).toBe(true);
    // The device refuses a write whose offload header does not match its packet.
    for (const wrong of [
      virtioHeader(1, family === 4 ? 4 : 1, transport + 20, 1_440, transport, 16),
      virtioHeader(1, family === 4 ? 1 : 4, transport + 20, 0, transport, 16),
      virtioHeader(1, 0, 0, 0, transport + 2, 16),
      virtioHeader(0, family === 4 ? 1 : 4, transport + 20, 1_440, transport, 16),
      virtioHeader(1, family === 4 ? 1 : 4, 60_000, 1_440, transport, 16),
    ]) {
      expect(device.sendRaw(Buffer.concat([wrong, packet]))).toEqual([]);
    }
    expect(device.core.counters.drops.malformed).toBe(5);
  });

  it("fragments of a segment are reassembled and rewritten", () => {
    const device = new Device();
    device.send(segment(SYN, 100, 0));
    const message = segment(PSH | ACK, 101, 1, Buffer.alloc(1_000, 3)).subarray(family === 4 ? 20 : 40);
    const fragments = [0, 504].map((offset) => {
      const data = message.subarray(offset, offset === 0 ? 504 : undefined);
      if (family === 4) {
        const flags = (offset / 8) | (offset === 0 ? 0x2000 : 0);
        return ipPacket({ source: app, destination: target, protocol: 6, flags }, data);
      }
      const header = Buffer.from([6, 0, 0, offset === 0 ? 1 : 0, 0, 0, 0, 9]);
      if (offset > 0) header.writeUInt16BE(offset, 2);
      return ipPacket({ source: app, destination: target, protocol: 44 }, Buffer.concat([header, data]));
    });
    expect(device.send(...fragments)).toMatchObject([
      { destination: OWN[family], payload: Buffer.alloc(1_000, 3) },
    ]);
  });
});
