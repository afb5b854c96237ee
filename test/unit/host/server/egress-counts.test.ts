import { describe, expect, it } from "vitest";
import type { OnPackets } from "../../../../src/core/tun2socks/packet-stream-reader.ts";
import { silentLogger, UdpLocalHost, UdpServerHost } from "../../../../src/host/index.ts";
import { sumStats } from "../../../../src/host/stats/tunnel-stats.ts";
import type { OpenPacketEgress } from "../../../../src/host/udp-paths/egress.ts";
import { openInner } from "../../../../src/host/udp-paths/inner.ts";
import { PacketPath } from "../../../../src/host/udp-paths/packets.ts";
import { Exposition } from "../../../../src/node/admin/exposition.ts";
import { makeAddress } from "../../../../src/wire/socket-address.ts";
import { LOCAL, SERVER } from "../../memory/memory-exchange.ts";
import { MemoryNet } from "../../memory/memory-net.ts";
import { udpPacket } from "../../packet-oracle.ts";

const FORWARD = makeAddress("127.0.0.1", 5000)!;
const INFO = { program: "udp-server", version: "1", startedAt: 0 };

/** A server whose datagrams leave as packets, and its client with one application. */
async function worldWith(egress: string, openPacketEgress: OpenPacketEgress) {
  const net = new MemoryNet(1, false);
  const [server, local] = [net.process("198.51.100.1"), net.process("127.0.0.1")];
  const options = { ...SERVER, egress };
  const host = new UdpServerHost(options, silentLogger, server.system, { openPacketEgress });
  const client = new UdpLocalHost(LOCAL, silentLogger, local.system);
  const got: string[] = [];
  const send = net.open("127.0.0.1", 6000, (bytes) => got.push(String.fromCharCode(...bytes)));
  const listening = host.listen().then(() => client.listen());
  await net.settle();
  await listening;
  await net.settle();
  return { net, host, got, send: () => send(Uint8Array.of(0x61), FORWARD) };
}

function hand(onPackets: OnPackets, packet: Uint8Array): void {
  onPackets(packet, Int32Array.of(0), Int32Array.of(packet.length), 1);
}

describe("a server whose egress leads to a tun2socks", () => {
  it("has the packets in its statistics, those of each direction and what it drops by reason", async () => {
    let deliver!: OnPackets;
    const written: Uint8Array[] = [];
    const { net, host, got, send } = await worldWith(
      "unix:/run/t2s",
      async (_egress, _idle, pathHost, system) => {
        return new PacketPath(pathHost, system, 1, (onPackets) => {
          deliver = onPackets;
          return {
            write: (batch) => {
              const at = batch.offset[0];
              written.push(batch.buffer(0).slice(at, at + batch.length[0]));
              return 0;
            },
            close: async () => {},
          };
        });
      },
    );
    expect(host.stats()).toMatchObject({ packetsIn: 0, packetsOut: 0, fragmentsIn: 0, reassembled: 0 });
    send();
    await net.settle();
    expect(written).toHaveLength(1);
    const source = [...written[0].subarray(12, 16)].join(".");
    const port = (written[0][20] << 8) | written[0][21];
    const answer = udpPacket("192.0.2.1", 53, source, port, Uint8Array.of(0x62));
    hand(deliver, answer);
    await net.settle();
    expect(got).toEqual(["b"]);
    const broken = answer.slice();
    broken[10] ^= 1;
    hand(deliver, broken);
    hand(deliver, udpPacket("192.0.2.1", 53, "203.0.113.5", 9, Uint8Array.of(0x62)));
    hand(deliver, Uint8Array.of(0x45, 0));
    const stats = host.stats();
    expect(stats).toMatchObject({ packetsIn: 4, packetsOut: 1, fragmentsIn: 0, reassembled: 0 });
    expect(stats.drops).toMatchObject({ bad_checksum: 1, association_closed: 1, malformed: 1 });
    const { body } = await new Exposition(() => stats, INFO).scrape(false);
    expect(body).toContain("underpass_device_received_packets_total 4\n");
    expect(body).toContain('underpass_dropped_datagrams_total{reason="bad_checksum"} 1\n');
    // Another worker has not counted any.
    expect(sumStats([sumStats([]), stats]).packetsIn).toBe(4);
  });

  it("has what the tun2socks in the same process drops", async () => {
    const { host } = await worldWith("tun2socks:", (_egress, _idle, pathHost, system) =>
      openInner(pathHost, system, 1, async () => ({
        close: async () => {},
        stats: () => ({ drops: { rule_reject: 2, malformed: 1 } }),
      })),
    );
    expect(host.stats().drops).toMatchObject({ rule_reject: 2, malformed: 1 });
  });
});
