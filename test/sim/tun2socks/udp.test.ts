import { describe, expect, it } from "vitest";
import { parseRule, ROUTE_DIRECT, ROUTE_TUNNEL } from "../../../src/core/tun2socks/rules.ts";
import { inspect, ipPacket, udpMessage, udpPacket } from "../../unit/packet-oracle.ts";
import { randomBytes, seededRandom } from "../../unit/random.ts";
import type { Written } from "./device.ts";
import { address, Device, PEER, VIRTIO_BYTES } from "./device.ts";
import { at, FAMILIES, HELLO, join, virtioHeader } from "./packets.ts";

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

describe("datagrams over IPv6 that IPv4 could not carry", () => {
  const { app, target } = FAMILIES[1];

  /** A datagram of `size` bytes in two fragments. */
  function fragments(size: number, identification: number): Buffer[] {
    const message = udpMessage(app, 5000, target, 53, Buffer.alloc(size));
    const cut = 32_768;
    return [0, cut].map((from) => {
      const header = Buffer.of(17, 0, 0, 0, 0, 0, 0, identification);
      header.writeUInt16BE(from === 0 ? 1 : from, 2);
      const data = message.subarray(from, from === 0 ? cut : message.length);
      return ipPacket({ source: app, destination: target, protocol: 44 }, Buffer.concat([header, data]));
    });
  }

  it("are dropped and counted, in fragments or not", () => {
    const device = new Device();
    device.send(
      udpPacket(app, 5000, target, 53, Buffer.alloc(65_508)),
      udpPacket(app, 5000, target, 53, Buffer.alloc(65_507)),
      ...fragments(65_508, 1),
      ...fragments(65_507, 2),
    );
    expect(device.sent.map(({ payload }) => payload.length)).toEqual([65_507, 65_507]);
    expect(device.core.counters.drops.too_long).toBe(2);
  });

  it("do no harm when others of the same batch have left room for one that IPv4 can carry, and no more", () => {
    const device = new Device();
    const sizes = [49_155, 49_155, 49_155, 49_155, 65_527];
    device.send(...sizes.flatMap((size, i) => fragments(size, i)));
    expect(device.sent.map(({ payload }) => payload.length)).toEqual(sizes.slice(0, 4));
    expect(device.core.counters.drops.too_long).toBe(1);
  });
});
