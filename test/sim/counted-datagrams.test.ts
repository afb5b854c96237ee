import { expect, it } from "vitest";
import { CAPSULE_DATAGRAM } from "../../src/wire/capsule.ts";
import { BIND_PATH, encodeUpgradeRequest } from "../../src/wire/http/upgrade.ts";
import { Dice, drawCapsule } from "../hostile/capsules.ts";
import { randomBytes, seededRandom } from "../unit/random.ts";
import { Network } from "./network.ts";

const CAPSULES = 20_000;
const SUM = (counts: Readonly<Record<string, number>>) => Object.values(counts).reduce((a, b) => a + b, 0);

it.each([
  [1, false],
  [2, false],
  [3, true],
  [4, true],
])(
  "each of a client's datagrams is sent on, dropped for a reason, or a copy, whatever order its capsules have (seed %i, receipts %s)",
  (seed, hasReceipts) => {
    const dice = new Dice(seededRandom(seed));
    const network = new Network({
      server: { maxAssociationsPerSession: 12, maxContextsPerSession: 20, idleTimeoutMs: 5_000 },
    });
    const { server } = network;
    network.names.set("example.test", "192.0.2.77");
    let connection = -1;
    let datagrams = 0;
    const settle = () => {
      while (connection >= 0 && server.pollTransmit(network.now, connection) !== undefined) {
        server.handleTransmitted(connection);
      }
      network.settle();
      for (const event of network.serverEvents.splice(0)) {
        if (event.kind === "close" && event.connection === connection) connection = -1;
      }
    };
    const write = (bytes: Uint8Array) => {
      for (let at = 0; at < bytes.length; ) {
        at = server.handleStream(network.now, connection, bytes, at, bytes.length);
      }
      settle();
    };
    for (let i = 0; i < CAPSULES; i++) {
      // Half of the time, names are not resolved.
      network.answersNames = i % 4_000 < 2_000;
      if (i % 200 === 0 && connection >= 0) {
        // With receipts, an id that was closed is not used again in its session.
        server.handleDisconnected(network.now, connection);
        connection = -1;
        settle();
      }
      if (connection < 0) {
        connection = server.handleAccept(network.now);
        const extension = {
          ...{ nonce: randomBytes(dice.random, 16), lane: 0, ticket: undefined, session: undefined },
          ...{ receipts: hasReceipts, mac: undefined, resumeMac: undefined },
        };
        write(encodeUpgradeRequest("a", BIND_PATH, true, extension));
      }
      const capsule = drawCapsule(dice, hasReceipts, true);
      if (capsule[0] === CAPSULE_DATAGRAM) datagrams++;
      write(capsule);
      if (dice.isOneIn(20)) {
        network.advance(dice.pick([1, 50, 1_000]));
        settle();
      }
    }
    network.advance(60_000);
    const { datagramsIn, drops, spread } = server.counters;
    expect(datagramsIn + SUM(drops) + spread.duplicates).toBe(datagrams);
    for (const count of [datagramsIn, drops.unknown_context, drops.unresolved]) {
      expect(count).toBeGreaterThan(10);
    }
  },
);
