import { expect, it } from "vitest";
import { Counters } from "../../../src/core/counters.ts";
import { NameLookups } from "../../../src/host/addresses/name-lookups.ts";
import { DialectHost } from "../../../src/host/dialects/dialect-host.ts";
import { silentLogger } from "../../../src/host/index.ts";
import { mullvad } from "../../../src/wire/dialects/mullvad.ts";
import { makeAddress } from "../../../src/wire/socket-address.ts";
import { MemoryWorld } from "../memory/memory-system.ts";

it("counts datagrams of a flow that ends while they are sent on, and passes them to a tap", async () => {
  const world = new MemoryWorld();
  const { system, tcp } = world;
  const counters = new Counters();
  const records: string[] = [];
  counters.tap = {
    record: (isIn, reason, _association, _local, _remote, data, offset, length) => {
      const text = String.fromCharCode(...data.subarray(offset, offset + length));
      records.push(`${isIn ? "in" : "out"} ${reason ?? "counted"} ${text}`);
    },
  };
  const options = {
    ...{ target: makeAddress("192.0.2.1", 53), nameserver: undefined, permits: () => true },
    ...{ resolvesNames: true, filtering: "endpoint-independent" as const, maxConnections: 4, maxHalfOpen: 4 },
    ...{ maxFlows: 4, maxFlowsPerConnection: 4, maxRemotes: 4, queueBytes: 65_536, ageBudgetMs: 100 },
    ...{ handshakeTimeoutMs: 1_000, idleTimeoutMs: 1_000, seed: 1, unixSeconds: () => 0 },
  };
  const host = new DialectHost(
    options,
    new NameLookups(system, silentLogger),
    counters,
    system,
    silentLogger,
  );
  const sent: string[] = [];
  host.use({
    // As if the server was closed at this moment.
    open: () => void host.close(),
    send: () => sent.push("sent"),
    ...{ flush: () => {}, close: () => {}, end: async () => {} },
  });
  const accept = (stream: Parameters<DialectHost["accept"]>[0]) => host.accept(stream, mullvad);
  await tcp.listen({ host: "127.0.0.1", port: 1 }, { onStream: accept } as never);
  tcp.connect({ host: "127.0.0.1", port: 1 }, undefined as never, (stream) => {
    if (typeof stream !== "string") stream.write(Uint8Array.of(0, 1, 0x61, 0, 2, 0x62, 0x63), false);
  });
  for (let i = 0; i < 10; i++) world.step();
  expect(sent).toEqual([]);
  expect(counters.datagramsIn).toBe(2);
  expect(counters.drops.unknown_context).toBe(2);
  expect(records).toEqual(["in counted a", "in counted bc", "in unknown_context a", "in unknown_context bc"]);
});
