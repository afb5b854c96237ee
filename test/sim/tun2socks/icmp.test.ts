import { describe, expect, it } from "vitest";
import { parseRule } from "../../../src/core/tun2socks/rules.ts";
import { echoPacket, inspect, ipPacket, tcpPacket, udpPacket } from "../../unit/packet-oracle.ts";
import { randomBytes, seededRandom } from "../../unit/random.ts";
import { Device, LISTENER_PORT, OWN, PEER } from "./device.ts";
import { FAMILIES, HELLO, join, SYN } from "./packets.ts";

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
