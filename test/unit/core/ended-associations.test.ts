import { describe, expect, it } from "vitest";
import type { AssociationClient } from "../../../src/core/client/association-client.ts";
import { TunnelClient } from "../../../src/core/client/client.ts";
import type { ClientOutput } from "../../../src/core/client/client-parts.ts";
import { DialectClient } from "../../../src/core/dialects/dialect-client.ts";
import { MasqueClient } from "../../../src/core/masque/masque-client.ts";
import { parseLatencyRule } from "../../../src/core/session/latency-rules.ts";
import { ReceivedDatagrams } from "../../../src/core/session/received-datagrams.ts";
import { dialectByName } from "../../../src/wire/dialects/dialects.ts";
import { makeAddress } from "../../../src/wire/socket-address.ts";
import { cheapCryptography } from "../../fuzz/cheap-cryptography.ts";

const NOW = 1_000;
const TARGET = makeAddress("192.0.2.1", 53)!;
const EXPEDITED = 46;
const LIMITS = {
  ...{ ageBudgetMs: 100, queueBytes: 131_072, handshakeTimeoutMs: 5_000, heartbeatMs: 5_000 },
  ...{ idleTimeoutMs: 60_000, activeIdleTimeoutMs: 300_000, maxAssociations: 1, maxContexts: 8 },
};

function dialectClient(name: string): AssociationClient {
  const dialect = dialectByName(name)!;
  return new DialectClient({
    ...LIMITS,
    dialect,
    ways: 1,
    latency: "balanced",
    seed: 1,
    unixSeconds: () => 0,
  });
}

const CLIENTS: readonly (readonly [string, () => AssociationClient])[] = [
  [
    "the tunnel",
    () =>
      new TunnelClient({
        ...{ ...LIMITS, lanes: 1, psk: undefined, crypto: cheapCryptography(1) },
        ways: [{ authority: "server.test:3456", server: 0 }],
        latencyRules: [parseLatencyRule(`interactive:dscp=${EXPEDITED}`)!],
      }),
  ],
  ["standard MASQUE", () => new MasqueClient({ ...LIMITS, crypto: cheapCryptography(1) })],
  ["a dialect with a connection for each association", () => dialectClient("hev")],
  ["a dialect with one connection", () => dialectClient("udpgw")],
];

/** Sends three datagrams, with both verbs. */
function send(client: AssociationClient, association: number): void {
  const data = Uint8Array.of(1, 2, 3, 4);
  client.handleMoved?.(association);
  client.handleDscp(NOW, association, EXPEDITED);
  client.handleDatagram(NOW, association, data, 0, 4, TARGET, 0, TARGET.length);
  const row = [0, 0, 4, 0, TARGET.length, 0];
  const rows = new ReceivedDatagrams(data, TARGET, Int32Array.of(...row, ...row));
  client.handleDatagrams(NOW, association, rows, 0, 2, TARGET);
}

function outputs(client: AssociationClient): ClientOutput[] {
  const all: ClientOutput[] = [];
  for (let output = client.pollOutput(); output !== undefined; output = client.pollOutput()) all.push(output);
  return all;
}

describe.each(CLIENTS)("a client of %s", (_, make) => {
  it("drops the datagrams of an association that it could not open", () => {
    const client = make();
    const only = client.openAssociation(NOW, undefined, false);
    const none = client.openAssociation(NOW, undefined, true);
    expect([client.isLive(only), none, client.isLive(none)]).toEqual([true, -1, false]);
    send(client, none);
    expect(client.counters.drops.association_limit).toBe(3);
    expect(client.contexts.size).toBe(0);
    client.closeAssociation(NOW, none);
    expect(client.associationCount).toBe(1);
    expect(outputs(client)).toEqual([]);
  });

  it("drops the datagrams of an association that was evicted, before the host learns of it", () => {
    const client = make();
    const first = client.openAssociation(NOW, undefined, true);
    send(client, first);
    outputs(client);
    const second = client.openAssociation(NOW, undefined, true);
    expect([client.isLive(first), client.isLive(second)]).toEqual([false, true]);
    // Those that waited for a connection.
    expect(client.counters.drops.association_limit).toBe(3);
    send(client, first);
    expect(client.counters.drops.association_limit).toBe(6);
    expect(client.contexts.size).toBe(0);
    const kinds = ["association-closed", "connect", "latency"];
    const known = outputs(client).filter(({ kind }) => kinds.includes(kind));
    expect(known).toMatchObject([{ kind: "association-closed", association: first }]);
  });

  it("counts the datagrams that wait in an association when its application closes it, and shows them to a tap", () => {
    const client = make();
    const reasons: unknown[] = [];
    client.counters.tap = { record: (_, reason) => void reasons.push(reason) };
    const association = client.openAssociation(NOW, undefined, true);
    send(client, association);
    expect(reasons).toEqual([]);
    client.closeAssociation(NOW, association);
    expect(reasons).toEqual(Array(3).fill("unknown_context"));
    expect(client.counters.drops.unknown_context).toBe(3);
  });

  it("keeps the slot of an evicted association that is closed, until the host learns that it was evicted", () => {
    const client = make();
    const first = client.openAssociation(NOW, undefined, true);
    const second = client.openAssociation(NOW, undefined, true);
    for (let i = 0; i < 2; i++) client.closeAssociation(NOW, first);
    expect(client.associationCount).toBe(1);
    const third = client.openAssociation(NOW, undefined, true);
    expect(outputs(client)).toMatchObject([first, second].map((association) => ({ association })));
    expect(client.isLive(third)).toBe(true);
    expect([first, second]).not.toContain(third);
    client.closeAssociation(NOW, third);
    client.closeAssociation(NOW, third);
    expect(client.associationCount).toBe(0);
    const slots = [1, 2, 3].map(() => client.openAssociation(NOW, undefined, true));
    expect(slots.toSorted()).toEqual([first, second, third].toSorted());
  });
});
