import { describe, expect, it } from "vitest";
import { parseRule, ROUTE_DIRECT, ROUTE_SOCKS, ROUTE_TUNNEL } from "../../../src/core/tun2socks/rules.ts";
import { formatAddress } from "../../../src/wire/socket-address.ts";
import {
  echoPacket,
  inspect,
  ip,
  ipPacket,
  partialSum,
  tcpPacket,
  udpMessage,
  udpPacket,
} from "../../unit/packet-oracle.ts";
import { randomBytes, seededRandom } from "../../unit/random.ts";
import type { Written } from "./device.ts";
import { address, Device, LISTENER_PORT, OWN, PEER, VIRTIO_BYTES } from "./device.ts";

const SYN = 2;
const ACK = 16;
const FIN = 1;
const RST = 4;
const PSH = 8;

const HELLO = Buffer.from("hello");
/** An application and a target, in both families. */
const FAMILIES = [
  { family: 4, app: "10.0.0.9", target: "192.0.2.7", other: "198.51.100.3" },
  { family: 6, app: "fd00::9", target: "2001:db8::7", other: "2001:db8:1::3" },
] as const;
const at = (host: string, port: number) => (host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`);

/** The data of all fragments, reassembled as the receiver's kernel does. */
function join(written: readonly Written[]): Buffer {
  const pieces = written.toSorted((a, b) => a.fragment!.offset - b.fragment!.offset);
  let expected = 0;
  for (const [i, { fragment, message }] of pieces.entries()) {
    if (fragment?.offset !== expected || fragment.more !== i < pieces.length - 1) throw new Error("a gap");
    if (fragment.id !== pieces[0].fragment!.id) throw new Error("identification");
    expected += message.length;
  }
  return Buffer.concat(pieces.map(({ message }) => message));
}

describe.each(FAMILIES)("UDP over IPv$family", ({ family, app, target, other }) => {
  it("opens one association for a source with any number of targets, and another for its next port", () => {
    const device = new Device();
    device.send(
      udpPacket(app, 5000, target, 53, HELLO),
      udpPacket(app, 5000, other, 99, Buffer.alloc(0)),
      udpPacket(app, 5001, target, 53, HELLO),
      udpPacket(app, 5000, target, 53, HELLO),
    );
    expect(device.opened()).toEqual([
      `0 ${at(app, 5000)} ${ROUTE_TUNNEL}`,
      `1 ${at(app, 5001)} ${ROUTE_TUNNEL}`,
    ]);
    expect(
      device.sent.map(({ association, remote, payload }) => `${association} ${remote} ${payload}`),
    ).toEqual([
      `0 ${at(target, 53)} hello`,
      `0 ${at(other, 99)} `,
      `1 ${at(target, 53)} hello`,
      `0 ${at(target, 53)} hello`,
    ]);
    expect(device.written).toEqual([]);
  });

  it.each([false, true])("keeps the source of a reply, even one never sent to (virtio: %s)", (virtio) => {
    const device = new Device({ virtio });
    device.send(udpPacket(app, 5000, target, 53, HELLO));
    for (const remote of [target, other]) {
      const [packet] = device.reply(0, at(remote, 53), Buffer.from("odd answer"));
      expect(packet).toMatchObject({
        source: remote,
        sourcePort: 53,
        destination: app,
        destinationPort: 5000,
      });
      expect(String(packet.payload)).toBe("odd answer");
      expect(packet.virtio[0]).toBe(virtio ? 1 : undefined);
    }
    expect(device.core.counters).toMatchObject({
      datagramsIn: 1,
      datagramsOut: 2,
      bytesOut: 20,
      packetsOut: 2,
    });
  });

  it.each([
    [1_500, 9_000],
    [1_280, 65_507],
    [65_535, 65_507],
  ])("carries datagrams above an MTU of %i both ways in fragments: %i bytes", (mtu, size) => {
    const device = new Device({ mtu });
    const sender = new Device({ mtu: 1_280 });
    const payload = Buffer.from(randomBytes(seededRandom(6), size));
    // The test fragments for the other machine and delivers the last fragment first.
    sender.send(udpPacket(target, 53, app, 5000, HELLO));
    const fragments = sender.reply(0, at(app, 5000), payload);
    expect(fragments.length).toBeGreaterThan(size / 1_280);
    device.send(...fragments.map(({ raw }) => raw).reverse());
    expect(device.sent).toHaveLength(1);
    expect(device.sent[0].remote).toBe(at(target, 53));
    expect(device.sent[0].payload.equals(payload)).toBe(true);

    const back = device.reply(0, at(target, 53), payload);
    for (const { raw } of back) expect(raw.length).toBeLessThanOrEqual(mtu);
    if (back.length === 1) expect(back[0].payload.equals(payload)).toBe(true);
    else {
      const message = join(back);
      const whole = inspect(ipPacket({ source: target, destination: app, protocol: 17 }, message));
      expect(whole).toMatchObject({ sourcePort: 53, destinationPort: 5000 });
      expect(whole.payload.equals(payload)).toBe(true);
    }
    expect(back.length === 1).toBe(mtu === 65_535 && family === 4);
  });

  it("reads the DSCP of every packet without its ECN", () => {
    const device = new Device();
    device.send(...[0xb9, 3, 0xff].map((tos) => udpPacket(app, 5000, target, 53, HELLO, { tos })));
    expect([...device.core.datagrams.dscp.subarray(0, 3)]).toEqual([46, 0, 63]);
  });

  it("drops and counts wrong checksums and lengths", () => {
    const device = new Device();
    const good = udpPacket(app, 5000, target, 53, HELLO);
    const headerBytes = good.length - 8 - HELLO.length;
    const changed = (offset: number, value: number) => {
      const packet = Buffer.from(good);
      packet[headerBytes + offset] = value;
      return packet;
    };
    const noChecksum = changed(6, 0);
    noChecksum[headerBytes + 7] = 0;
    device.send(changed(9, 0), changed(5, 7), changed(4, 1), changed(5, 14), changed(3, 0), noChecksum);
    expect(device.core.counters.drops).toMatchObject({
      malformed: 4,
      bad_checksum: family === 4 ? 1 : 2,
    });
    expect(device.sent).toHaveLength(family === 4 ? 1 : 0);
  });

  it("ends an association after 60 s, after 300 s if it had two answers, and when the host closes it", () => {
    const device = new Device();
    for (const port of [1, 2, 3]) device.send(udpPacket(app, port, target, 53, HELLO));
    for (let i = 0; i < 2; i++) device.reply(1, at(target, 53), HELLO);
    device.reply(0, at(target, 53), HELLO);
    device.core.closeAssociation(2);
    expect(device.core.associationCount).toBe(2);
    device.advance(59_000);
    expect(device.core.associationCount).toBe(2);
    device.advance(3_000);
    device.advance(237_000);
    expect(device.core.associationCount).toBe(1);
    device.advance(3_000);
    expect(device.events.filter(({ kind }) => kind === "association-closed")).toEqual([
      { kind: "association-closed", association: 0, reason: "idle" },
      { kind: "association-closed", association: 1, reason: "idle" },
    ]);
    expect(device.core.nextTimeout()).toBe(Number.POSITIVE_INFINITY);
    expect(device.reply(1, at(target, 53), HELLO)).toEqual([]);
    expect(device.core.counters.drops.association_closed).toBe(1);
  });

  it("reports port unreachable, host unreachable and too big with a quote that the sender's kernel can match", () => {
    const device = new Device();
    device.send(udpPacket(app, 5000, target, 53, HELLO));
    const kinds = [
      ["port", target, family === 4 ? [3, 3, 0] : [1, 4, 0]],
      ["host", target, family === 4 ? [3, 1, 0] : [1, 3, 0]],
      ["prohibited", target, family === 4 ? [3, 13, 0] : [1, 1, 0]],
      ["too-big", PEER[family], family === 4 ? [3, 4, 1400] : [2, 0, 1400]],
    ] as const;
    for (const [kind, source, expected] of kinds) {
      device.core.handleUnreachable(device.now, 0, address(at(target, 53)), kind, 1400);
      const [packet] = device.drain();
      expect(packet).toMatchObject({ source, destination: app, protocol: family === 4 ? 1 : 58 });
      expect([packet.message[0], packet.message[1], packet.message.readUInt32BE(4)]).toEqual(expected);
      expect(inspect(packet.message.subarray(8))).toMatchObject({
        source: app,
        sourcePort: 5000,
        destination: target,
        destinationPort: 53,
        protocol: 17,
      });
    }
  });

  it.each([
    [0, family === 4 ? 68 : 1280],
    [1279, family === 4 ? 1279 : 1280],
    [0x1_0000, 65_535],
  ])("reports an MTU of %d as %d, within the bounds of a link and of the field", (mtu, wanted) => {
    const device = new Device();
    device.send(udpPacket(app, 5000, target, 53, HELLO));
    device.core.handleUnreachable(device.now, 0, address(at(target, 53)), "too-big", mtu);
    expect(device.drain()[0].message.readUInt32BE(4)).toBe(wanted);
  });

  it("answers port unreachable when a rule rejects, the route is down, or the target is the peer address", () => {
    const rules = ["udp *:443 reject", "udp *:99 drop", "udp *:7 direct"].map(parseRule);
    const device = new Device({ rules });
    const quic = udpPacket(app, 5000, target, 443, randomBytes(seededRandom(7), 1_200));
    const [refusal] = device.send(quic);
    expect(refusal).toMatchObject({ source: target, destination: app });
    expect([...refusal.message.subarray(0, 2)]).toEqual(family === 4 ? [3, 3] : [1, 4]);
    const quote = refusal.message.subarray(8);
    expect(quote.equals(quic.subarray(0, quote.length))).toBe(true);
    expect(refusal.raw.length).toBe(family === 4 ? 576 : 1_280);
    expect(device.send(udpPacket(app, 5000, target, 99, HELLO))).toEqual([]);
    device.core.setRouteUp(ROUTE_DIRECT, false);
    expect(device.send(udpPacket(app, 5000, target, 7, HELLO))).toHaveLength(1);
    expect(device.send(udpPacket(app, 5000, PEER[family], 53, HELLO))).toHaveLength(1);
    expect(device.sent).toEqual([]);
    device.core.setRouteUp(ROUTE_DIRECT, true);
    expect(device.send(udpPacket(app, 5000, target, 7, HELLO))).toEqual([]);
    device.send(udpPacket(app, 5000, target, 8, HELLO));
    expect(device.opened()).toEqual([
      `0 ${at(app, 5000)} ${ROUTE_DIRECT}`,
      `1 ${at(app, 5000)} ${ROUTE_TUNNEL}`,
    ]);
    expect(device.core.counters.drops).toMatchObject({
      rule_reject: 1,
      rule_drop: 1,
      route_down: 1,
      unroutable: 1,
    });
  });

  it("keeps associations within their bound, and does not evict an answered one for a storm of 100,000 ports", () => {
    const device = new Device({ limits: { maxAssociations: 1_000, evictionsPerSecond: 100_000 } });
    device.send(udpPacket(app, 40_000, other, 53, HELLO));
    const hosts = family === 4 ? ["10.9.0.1", "10.9.0.2"] : ["fd00:9::1", "fd00:9::2"];
    let made = 0;
    while (made < 100_000) {
      const storm = Array.from({ length: 500 }, () => {
        made++;
        return udpPacket(hosts[made & 1], 1 + (made >> 1), target, 53, HELLO);
      });
      device.send(...storm);
      for (let i = 0; i < 2; i++) device.reply(0, at(other, 53), HELLO);
      expect(device.core.associationCount).toBeLessThanOrEqual(1_000);
    }
    device.sent.length = 0;
    device.send(udpPacket(app, 40_000, other, 53, HELLO));
    expect(device.sent.map(({ association }) => association)).toEqual([0]);
    expect(device.written.at(-1)).toMatchObject({ destination: app, destinationPort: 40_000 });
    expect(device.core.counters.associationsEvicted).toBe(99_001);
    const slots = device.events.flatMap((event) =>
      event.kind === "association-open" ? event.association : [],
    );
    expect(slots.reduce((highest, slot) => Math.max(highest, slot), 0)).toBeLessThan(2_048);
  });

  it("drops new sources after 100 evictions in a second, which bounds the cost of a storm to the tunnel", () => {
    const device = new Device({ limits: { maxAssociations: 50, evictionsPerSecond: 100 } });
    const storm = (firstPort: number) => {
      device.sent.length = 0;
      const ports = Array.from({ length: 1_000 }, (_, i) => firstPort + i);
      device.send(...ports.map((port) => udpPacket(app, port, target, 53, HELLO)));
      return device.sent.length;
    };
    expect(storm(1_000)).toBe(150);
    expect(device.core.counters.drops.association_limit).toBe(850);
    device.sent.length = 0;
    device.send(udpPacket(app, 1_149, target, 53, HELLO));
    expect(device.sent).toHaveLength(1);
    device.now += 500;
    expect(storm(10_000)).toBe(50);
    expect(device.core.counters).toMatchObject({ associationsEvicted: 150 });
  });

  it("joins consecutive replies into one USO packet, in which only the last datagram may be shorter", () => {
    const device = new Device({ virtio: true, uso: true });
    device.send(udpPacket(app, 5000, target, 53, HELLO), udpPacket(app, 5001, target, 53, HELLO));
    const bytes = Buffer.from(randomBytes(seededRandom(12), 100_000));
    const reply = (association: number, remote: string, length: number) =>
      device.core.handleDatagram(device.now, association, address(at(remote, 53)), bytes, length, length);
    const lengths = (packets: readonly Written[]) => packets.map(({ payload }) => payload.length);

    for (const length of [1_000, 1_000, 1_000, 400, 400, 1_000]) reply(0, target, length);
    reply(0, other, 1_000);
    reply(1, other, 1_000);
    reply(1, other, 0);
    reply(1, other, 2_000);
    reply(1, other, 10);
    const joined = device.drain();
    const fragmented = joined.filter(({ fragment }) => fragment !== undefined);
    expect(fragmented).toHaveLength(2);
    expect(lengths(joined.filter(({ fragment }) => fragment === undefined))).toEqual([
      3_400, 400, 1_000, 1_000, 1_000, 0, 10,
    ]);
    const header = family === 4 ? 20 : 40;
    expect(joined[0].virtio.equals(virtioHeader(1, 5, header + 8, 1_000, header, 6))).toBe(true);
    const piece = bytes.subarray(1_000, 2_000);
    expect(joined[0].payload.equals(Buffer.concat([piece, piece, piece, bytes.subarray(400, 800)]))).toBe(
      true,
    );
    expect(joined[1].virtio[1]).toBe(0);

    for (let i = 0; i < 200; i++) reply(0, target, 1_200);
    const many = lengths(device.drain());
    expect(many.reduce((sum, length) => sum + length)).toBe(240_000);
    expect(many[0]).toBe(54 * 1_200);
    for (let i = 0; i < 130; i++) reply(0, target, 1);
    expect(lengths(device.drain())).toEqual([64, 64, 2]);
    // Core accepts its own packets.
    const back = new Device({ virtio: true });
    back.sendRaw(Buffer.concat([joined[0].virtio, joined[0].raw]));
    expect(back.sent.map(({ payload }) => payload.length)).toEqual([1_000, 1_000, 1_000, 400]);
  });

  it("splits a USO packet into its datagrams, and completes only the checksums that it needs", () => {
    const device = new Device({ virtio: true });
    const payload = Buffer.from(randomBytes(seededRandom(8), 2_900));
    const packet = udpPacket(app, 5000, target, 443, payload);
    const transport = packet.length - 8 - payload.length;
    // The kernel leaves the pseudo header's sum in the field.
    packet.writeUInt16BE(0xbeef, transport + 6);
    const header = virtioHeader(1, 5, transport + 8, 1_200, transport, 6);
    device.sendRaw(Buffer.concat([header, packet]));
    expect(device.sent.map((datagram) => datagram.payload.length)).toEqual([1_200, 1_200, 500]);
    expect(Buffer.concat(device.sent.map((datagram) => datagram.payload)).equals(payload)).toBe(true);
    expect(new Set(device.sent.map(({ remote }) => remote))).toEqual(new Set([at(target, 443)]));
    // Without the flag the checksum must be right; no kernel sends more than 128 segments.
    device.sendRaw(Buffer.concat([Buffer.alloc(VIRTIO_BYTES), packet]));
    device.sendRaw(Buffer.concat([virtioHeader(1, 5, transport + 8, 20, transport, 6), packet]));
    expect(device.core.counters.drops).toMatchObject({ bad_checksum: 1, malformed: 1 });
    expect(device.sent).toHaveLength(3);
  });
});

function virtioHeader(
  flags: number,
  gsoType: number,
  headerLength: number,
  gsoSize: number,
  start: number,
  offset: number,
) {
  const header = Buffer.alloc(VIRTIO_BYTES);
  header[0] = flags;
  header[1] = gsoType;
  for (const [i, value] of [headerLength, gsoSize, start, offset].entries())
    header.writeUInt16LE(value, 2 + i * 2);
  return header;
}

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

describe.each(FAMILIES)("ICMP over IPv$family", ({ family, app, target }) => {
  const icmp = family === 4 ? 1 : 58;

  it.each([
    ["a target", target],
    ["the peer", PEER[family]],
    ["the device itself", OWN[family]],
  ])("answers an echo request to %s with its bytes", (_name, destination) => {
    for (const virtio of [false, true]) {
      const device = new Device({ virtio });
      const request = echoPacket(app, destination, HELLO);
      const [reply] = device.send(request);
      expect(reply).toMatchObject({ source: destination, destination: app, protocol: icmp, ttl: 64 });
      expect(reply.message[0]).toBe(family === 4 ? 0 : 129);
      expect(reply.message.subarray(4)).toEqual(inspect(request).message.subarray(4));
      expect(device.send(reply.raw)).toEqual([]);
    }
  });

  it("answers an echo request of 3,000 bytes, fragmented both ways", () => {
    const device = new Device();
    const payload = Buffer.from(randomBytes(seededRandom(9), 3_000));
    const { message } = inspect(echoPacket(app, target, payload));
    const offsets = [0, 1_400, 2_800];
    const fragments = offsets.map((offset, i) => {
      const data = message.subarray(offset, offsets[i + 1]);
      const isLast = i === offsets.length - 1;
      if (family === 4) {
        const flags = (offset / 8) | (isLast ? 0 : 0x2000);
        return ipPacket({ source: app, destination: target, protocol: 1, flags }, data);
      }
      const header = Buffer.from([58, 0, 0, 0, 0, 0, 0, 9]);
      header.writeUInt16BE(offset | (isLast ? 0 : 1), 2);
      return ipPacket({ source: app, destination: target, protocol: 44 }, Buffer.concat([header, data]));
    });
    const reply = join(device.send(...fragments));
    expect(reply[0]).toBe(family === 4 ? 0 : 129);
    expect(reply.subarray(8).equals(payload)).toBe(true);
    inspect(ipPacket({ source: target, destination: app, protocol: icmp }, reply));
  });

  it("answers a hop limit of 1 with time exceeded from the peer address, which gives traceroute its first hop", () => {
    const device = new Device();
    const packets = [
      udpPacket(app, 5000, target, 33_434, HELLO, { ttl: 1 }),
      tcpPacket(
        {
          source: app,
          sourcePort: 1,
          destination: target,
          destinationPort: 80,
          sequence: 1,
          acknowledgment: 0,
          flags: SYN,
        },
        { ttl: 1 },
      ),
      echoPacket(app, target, HELLO, { ttl: 1 }),
    ];
    for (const packet of packets) {
      const [answer] = device.send(packet);
      expect(answer).toMatchObject({ source: PEER[family], destination: app, protocol: icmp });
      expect([...answer.message.subarray(0, 2)]).toEqual([family === 4 ? 11 : 3, 0]);
      expect(answer.message.subarray(8).equals(packet)).toBe(true);
      // Errors get no answer, whatever their hop limit.
      const error = Buffer.from(answer.raw);
      expect(device.send(error)).toEqual([]);
    }
    expect(device.sent).toEqual([]);
    expect(device.send(echoPacket(app, target, HELLO, { ttl: 2 }))).toMatchObject([{ source: target }]);
  });

  it("answers no error, reply or redirect with an error, even with an expired hop limit", () => {
    const device = new Device();
    const types = family === 4 ? [3, 4, 5, 11, 12] : [1, 2, 3, 4, 137];
    for (const type of types) {
      for (const ttl of [1, 64]) {
        const message = Buffer.from([type, 0, 0, 0, 0, 0, 0, 0]);
        expect(
          device.send(ipPacket({ source: app, destination: target, protocol: icmp, ttl }, message)),
        ).toEqual([]);
      }
    }
    expect(device.core.counters.icmpErrors).toBe(0);
  });

  it("reports other protocols as unreachable", () => {
    const device = new Device();
    const packet = ipPacket({ source: app, destination: target, protocol: 132 }, Buffer.alloc(20));
    const [answer] = device.send(packet);
    expect(answer).toMatchObject({ source: target, destination: app, protocol: icmp });
    expect([...answer.message.subarray(0, 8)].filter((_, i) => i !== 2 && i !== 3)).toEqual(
      family === 4 ? [3, 2, 0, 0, 0, 0] : [4, 1, 0, 0, 0, 6],
    );
    expect(answer.message.subarray(8).equals(packet)).toBe(true);
  });

  it("sends 1,000 errors a second and no more", () => {
    const device = new Device({ rules: [parseRule("udp * reject")], limits: { icmpErrorsPerSecond: 1_000 } });
    for (let i = 0; i < 10; i++) {
      device.send(...Array.from({ length: 500 }, () => udpPacket(app, 5000, target, 443, HELLO)));
    }
    expect(device.written).toHaveLength(1_000);
    device.now += 500;
    device.send(...Array.from({ length: 600 }, () => udpPacket(app, 5000, target, 443, HELLO)));
    expect(device.core.counters).toMatchObject({ icmpErrors: 1_500, icmpErrorsLimited: 4_100 });
  });

  it("silently drops packets that would loop, and multicast, loopback and unspecified addresses", () => {
    const device = new Device();
    const from = (source: string, destination: string) => udpPacket(source, 5000, destination, 53, HELLO);
    const syn = (source: string, destination: string) =>
      tcpPacket({
        source,
        sourcePort: 5000,
        destination,
        destinationPort: LISTENER_PORT,
        sequence: 1,
        acknowledgment: 0,
        flags: SYN,
      });
    const [multicast, loopback, nowhere] =
      family === 4 ? ["224.0.0.251", "127.0.0.1", "0.0.0.0"] : ["ff02::fb", "::1", "::"];
    device.send(from(PEER[family], target), syn(PEER[family], OWN[family]), syn(PEER[family], target));
    device.send(from(app, OWN[family]), syn(app, OWN[family]));
    device.send(from(app, multicast), from(multicast, target), echoPacket(app, multicast, HELLO));
    device.send(from(loopback, target), from(app, loopback), from(nowhere, target), from(app, nowhere));
    expect(device.written).toEqual([]);
    expect(device.sent).toEqual([]);
    expect(device.core.counters.drops).toMatchObject({
      own_source: 3,
      own_destination: 2,
      multicast: 2,
      martian: 5,
    });
  });
});

describe("Tun2Socks", () => {
  it("serves UDP in a family without a device address", () => {
    const device = new Device({ ipv4: undefined, ipv6: undefined });
    for (const { app, target } of FAMILIES) {
      device.send(udpPacket(app, 5000, target, 53, HELLO));
      expect(device.sent.at(-1)!.remote).toBe(at(target, 53));
      expect(device.reply(device.sent.at(-1)!.association, at(target, 53), HELLO)).toHaveLength(1);
    }
  });

  it("drops a reply of the other family, and one above 65,507 bytes", () => {
    const device = new Device();
    device.send(udpPacket("10.0.0.9", 5000, "192.0.2.7", 53, HELLO));
    expect(device.reply(0, "[2001:db8::7]:53", HELLO)).toEqual([]);
    expect(device.reply(0, "192.0.2.7:53", Buffer.alloc(65_508))).toEqual([]);
    expect(device.core.counters.drops).toMatchObject({ family: 1, too_long: 1 });
  });

  it("accepts as many packets as the batches hold and the rest after a drain", () => {
    const device = new Device();
    device.send(
      ...Array.from({ length: 5_000 }, (_, i) => udpPacket("10.0.0.9", 1 + i, "192.0.2.7", 53, HELLO)),
    );
    expect(device.sent).toHaveLength(5_000);
    expect(new Set(device.sent.map(({ association }) => association)).size).toBe(5_000);
  });

  it("refuses a reply without room, and packets in another buffer before the earlier ones are written", () => {
    const device = new Device();
    device.send(udpPacket("10.0.0.9", 5000, "192.0.2.7", 53, HELLO));
    const remote = address("192.0.2.7:53");
    const payload = new Uint8Array(65_507);
    let taken = 0;
    while (device.core.handleDatagram(device.now, 0, remote, payload, 0, payload.length)) taken++;
    expect(taken).toBeGreaterThan(5);
    const { count } = device.core.toDevice;
    expect(device.drain()).toHaveLength(count);
    expect(device.core.handleDatagram(device.now, 0, remote, payload, 0, payload.length)).toBe(true);
    device.drain();
    const echo = echoPacket("10.0.0.9", "192.0.2.7", HELLO);
    const take = (data: Uint8Array) =>
      device.core.handlePackets(0, data, Int32Array.of(0), Int32Array.of(data.length), 0, 1);
    take(Buffer.from(echo));
    expect(() => take(Buffer.from(echo))).toThrow(expect.objectContaining({ code: "ERR_STATE" }));
  });

  it.each([
    ["an MTU below 1280", { mtu: 1_279 }],
    ["an MTU above 65,535", { mtu: 65_536 }],
    [
      "one address for own and peer",
      { ipv4: { own: ip("10.0.0.1"), peer: ip("10.0.0.1"), listenerPort: 1 } },
    ],
    [
      "addresses of the other family",
      { ipv6: { own: ip("10.0.0.1"), peer: ip("10.0.0.2"), listenerPort: 1 } },
    ],
    ["more flows than there are ports", { limits: { maxFlows: 60_001 } }],
  ])("refuses %s with ERR_OPTION", (_name, options) => {
    expect(() => new Device(options)).toThrow(expect.objectContaining({ code: "ERR_OPTION" }));
  });
});

it("takes the DSCP of reassembled packets from their first fragment", () => {
  const device = new Device();
  const [{ app, target }] = FAMILIES;
  const message = udpMessage(app, 5000, target, 53, Buffer.alloc(2_000));
  const fields = { source: app, destination: target, protocol: 17 };
  device.send(
    ipPacket({ ...fields, tos: 0, flags: 1_480 / 8 }, message.subarray(1_480)),
    ipPacket({ ...fields, tos: 0xb8, flags: 0x2000 }, message.subarray(0, 1_480)),
  );
  expect(device.sent.map(({ payload }) => payload.length)).toEqual([2_000]);
  expect(device.core.datagrams.dscp[0]).toBe(46);
});
