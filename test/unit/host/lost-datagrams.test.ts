import { describe, expect, it } from "vitest";
import { Counters } from "../../../src/core/counters.ts";
import { DatagramBatch } from "../../../src/core/session/datagram-batch.ts";
import { ROUTE_DIRECT, ROUTE_REJECT } from "../../../src/core/tun2socks/rules.ts";
import type { DeviceEvents, ResolvedTun2SocksOptions } from "../../../src/host/index.ts";
import { silentLogger, Tun2SocksHost } from "../../../src/host/index.ts";
import { AssociationSockets } from "../../../src/host/server/association-sockets.ts";
import { PathEgress } from "../../../src/host/server/path-egress.ts";
import type { EgressHost } from "../../../src/host/server/server-egress.ts";
import { SocketEgress } from "../../../src/host/server/socket-egress.ts";
import { BatchRecords } from "../../../src/host/tap/batch-records.ts";
import { DnsOverTcpPath } from "../../../src/host/udp-paths/dns-over-tcp.ts";
import { Socks5Path } from "../../../src/host/udp-paths/socks5.ts";
import type { UdpPath, UdpPathHost } from "../../../src/host/udp-paths/udp-path.ts";
import { OutgoingDatagram } from "../../../src/host/udp-paths/udp-path.ts";
import type { AddressBytes } from "../../../src/wire/socket-address.ts";
import { makeAddress } from "../../../src/wire/socket-address.ts";
import { LOCAL } from "../memory/memory-exchange.ts";
import { MemoryNet } from "../memory/memory-net.ts";
import { MemoryWorld } from "../memory/memory-system.ts";
import { udpPacket } from "../packet-oracle.ts";

const TARGET = makeAddress("192.0.2.1", 53)!;

class Host implements UdpPathHost {
  readonly drops: Record<string, number> = {};
  refused = 0;

  deliver(): void {}

  refuse(): void {
    this.refused++;
  }

  drop(reason: string, count: number): void {
    if (count > 0) this.drops[reason] = (this.drops[reason] ?? 0) + count;
  }
}

function send(path: UdpPath, association: number, bytes: number): void {
  const datagram = new OutgoingDatagram();
  datagram.setPayload(association, new Uint8Array(bytes), 0, bytes, 0);
  datagram.setTarget(TARGET, 0, TARGET.length);
  path.send(datagram);
  path.flush();
}

/** A server with datagrams of two associations in one batch, each of which has one context. Sockets are closed as they are evicted. */
function serverWith(sockets: AssociationSockets, system: MemoryWorld["system"]) {
  const outgoing = new DatagramBatch(8);
  const target: (AddressBytes | undefined)[] = [TARGET, TARGET];
  const generation = [0, 0];
  const counters = new Counters();
  const records: string[] = [];
  counters.tap = { record: (_isIn, reason) => records.push(reason ?? "sent") };
  const core = {
    dropReasonOf: (association: number) =>
      target[association] === undefined ? "association_limit" : "send_error",
    ...{ outgoing, counters, contexts: { target, address: target, generation } },
    forbidsFragments: () => false,
    latencyOf: () => undefined,
    dscpOf: () => 0,
    source: () => undefined,
    handleSocketOpened: () => {},
    makeRoomForSocket: () => {
      target[0] = undefined;
      generation[0]++;
      sockets.release(0);
      return true;
    },
  };
  outgoing.data = new Uint8Array(40);
  const host = {
    ...{ core, system, log: silentLogger, handleOutputs: () => {} },
    driver: { now: () => system.now(), schedule: () => {}, drain: () => {} },
    records: BatchRecords.ofServer(core as never),
  } as unknown as EgressHost;
  return { core, host, records };
}

describe("A datagram is counted that is lost because", () => {
  it("its association was evicted for one behind it in the same batch of packets", async () => {
    const world = new MemoryWorld();
    const got: string[] = [];
    world.udp.open({
      ...{ family: 4, host: "192.0.2.1", port: 53, reusePort: false, onBindError: () => {} },
      onDatagrams: (received, row) => got.push(String.fromCharCode(received.data[received.offset(row)])),
    });
    const options: ResolvedTun2SocksOptions = {
      ...{ device: "fd:9", mtu: 1_280, addresses: [], routes: [], offload: "off", familyHeader: false },
      ...{ socks: [], tcpRoute: ROUTE_REJECT, otherTcpWays: [], udpRoute: ROUTE_DIRECT, rules: [] },
      ...{
        dnsRoute: undefined,
        maxFlows: 8,
        tcpStack: undefined,
        tcpMemoryBytes: 1 << 20,
        usesTunnel: false,
      },
      tunnel: { ...LOCAL, forwards: [], maxAssociations: 1 },
    };
    let device!: DeviceEvents;
    const host = new Tun2SocksHost(options, silentLogger, world.system, {
      openDevice: async (_options, _io, events) => {
        device = events;
        return {
          ...{ description: "memory", virtio: false, uso: false, hasKernel: false, write: () => 0 },
          close: async () => {},
        };
      },
    });
    await host.open();
    const packets = ["a", "b", "c"].map((text, app) =>
      udpPacket("10.0.0.9", 5_000 + app, "192.0.2.1", 53, Buffer.from(text)),
    );
    const data = Buffer.concat(packets);
    const lengths = Int32Array.from(packets, ({ length }) => length);
    const offsets = Int32Array.from(packets, (_, i) => i * lengths[0]);
    device.onPackets(data, offsets, lengths, packets.length);
    for (let i = 0; i < 10; i++) world.step();
    expect(got).toEqual(["c"]);
    const { drops, refused, datagramsOut } = host.stats();
    expect(refused.associationsEvicted).toBe(2);
    expect(datagramsOut).toBe(3);
    expect(Object.entries(drops).filter(([, count]) => count > 0)).toEqual([["association_limit", 2]]);
    await host.close();
  });

  it("its association ended before the SOCKS5 server had answered", async () => {
    const world = new MemoryWorld();
    const host = new Host();
    const path = new Socks5Path("socks5://127.0.0.1:1080", world.system, host, silentLogger, 1);
    await world.tcp.listen({ host: "127.0.0.1", port: 1080 }, { onStream: () => {} } as never);
    for (let i = 0; i < 3; i++) send(path, 7, 10);
    for (let i = 0; i < 20; i++) {
      world.step();
      await null;
    }
    path.close(7);
    expect(host).toMatchObject({ drops: { send_error: 3 }, refused: 0 });
    await path.end();
    expect(host.drops).toEqual({ send_error: 3 });
  });

  it("its association ended before the name server had answered over TCP", async () => {
    const { system } = new MemoryWorld();
    const host = new Host();
    const path = new DnsOverTcpPath(
      system,
      host,
      (_, cancellation) =>
        new Promise((_done, failed) => cancellation.onCancel(() => failed(new Error("given up")))),
    );
    path.open(7);
    send(path, 7, 40);
    path.close(7);
    for (let i = 0; i < 10; i++) await null;
    expect(host).toMatchObject({ drops: { send_error: 1 }, refused: 0 });
  });

  it("its association was evicted for the socket of one before it in the same batch", () => {
    const { system } = new MemoryWorld();
    const sockets = new AssociationSockets(1);
    const { core, host, records } = serverWith(sockets, system);
    const egress = new SocketEgress(host, sockets, []);
    core.outgoing.add(0, 0, 0, 10);
    egress.send(core.outgoing.data);
    core.outgoing.count = 0;
    for (const slot of [1, 0, 0]) core.outgoing.add(slot, slot, 0, 10);
    egress.send(core.outgoing.data);
    expect(core.counters.drops.association_limit).toBe(2);
    expect(records).toEqual(["association_limit", "association_limit"]);
  });

  it("its context ended before it left by a way for UDP", async () => {
    const { system } = new MemoryWorld();
    const { core, host, records } = serverWith(new AssociationSockets(1), system);
    let sent = 0;
    const path = { open: () => {}, send: () => void sent++, flush: () => {}, close: () => {} };
    const egress = new PathEgress(host, async () => path as unknown as UdpPath);
    await egress.ready;
    for (const slot of [0, 1, 0]) core.outgoing.add(slot, slot, 0, 10);
    core.contexts.target[0] = undefined;
    egress.send(core.outgoing.data);
    expect(sent).toBe(1);
    expect(core.counters.drops.association_limit).toBe(2);
    expect(records).toEqual(["association_limit", "association_limit"]);
  });
});

it("A datagram is sent although its association is evicted for the socket of one behind it in the same batch", async () => {
  const net = new MemoryNet(1, false);
  const got: number[] = [];
  net.open("192.0.2.1", 53, (bytes) => got.push(bytes[0]));
  const sockets = new AssociationSockets(1);
  const { core, host } = serverWith(sockets, net.process("198.51.100.1").system);
  core.counters.tap = undefined;
  core.outgoing.data.set([7, 8]);
  for (const slot of [0, 1]) core.outgoing.add(slot, slot, slot, 1);
  new SocketEgress(host, sockets, []).send(core.outgoing.data);
  await net.settle();
  expect(got).toEqual([7, 8]);
  expect(core.counters.drops.send_error).toBe(0);
});
