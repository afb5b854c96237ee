import { describe, expect, it } from "vitest";
import { echoPacket, ip, udpPacket } from "../../unit/packet-oracle.ts";
import { address, Device } from "./device.ts";
import { at, FAMILIES, HELLO } from "./packets.ts";

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
