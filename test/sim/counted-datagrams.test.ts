import { expect, it } from "vitest";
import { CAPSULE_DATAGRAM } from "../../src/wire/capsule.ts";
import { BIND_PATH, encodeUpgradeRequest } from "../../src/wire/http/upgrade.ts";
import { Dice, drawCapsule } from "../hostile/capsules.ts";
import { randomBytes, seededRandom } from "../unit/random.ts";
import { Network } from "./network.ts";

const CAPSULES = 20_000;
const SUM = (counts: Readonly<Record<string, number>>) => Object.values(counts).reduce((a, b) => a + b, 0);

it.each([
  [1, false, false],
  [2, false, true],
  [3, true, false],
  [4, true, true],
])(
  "each of a client's datagrams and of its targets' answers is sent on, dropped for a reason, or a copy, whatever order its capsules have (seed %i, receipts %s, tap %s)",
  (seed, hasReceipts, hasTap) => {
    const dice = new Dice(seededRandom(seed));
    const network = new Network({
      server: { maxAssociationsPerSession: 12, maxContextsPerSession: 20, idleTimeoutMs: 5_000 },
    });
    const { server } = network;
    network.echoes = false;
    network.names.set("example.test", "192.0.2.77");
    const recorded: Record<string, number> = {};
    if (hasTap) {
      server.counters.tap = {
        record: (_, reason) => {
          const name = reason ?? "sent";
          recorded[name] = (recorded[name] ?? 0) + 1;
        },
      };
    }
    let connection = -1;
    let isLent = false;
    let datagrams = 0;
    let answers = 0;
    const disconnect = () => {
      connection = -1;
      isLent = false;
    };
    const settle = () => {
      // Sometimes the connection is slow, and answers wait.
      if (isLent && dice.isOneIn(8)) {
        server.handleTransmitted(connection);
        isLent = false;
      }
      while (connection >= 0 && !isLent && server.pollTransmit(network.now, connection) !== undefined) {
        isLent = dice.isOneIn(8);
        if (!isLent) server.handleTransmitted(connection);
      }
      network.settle();
      for (const event of network.serverEvents.splice(0)) {
        if (event.kind === "close" && event.connection === connection) disconnect();
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
        disconnect();
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
      const association = dice.below(14);
      if (dice.isOneIn(2) && server.hasAssociation(association)) {
        answers++;
        server.handleDatagram(network.now, association, new Uint8Array(40), 0, 40, dice.ip());
      }
      if (dice.isOneIn(20)) {
        network.advance(dice.pick([1, 50, 1_000]));
        settle();
      }
    }
    if (connection >= 0) server.handleDisconnected(network.now, connection);
    disconnect();
    network.advance(60_000);
    const { datagramsIn, datagramsOut, drops, spread } = server.counters;
    expect(datagramsIn + datagramsOut + SUM(drops) + spread.duplicates).toBe(datagrams + answers);
    for (const count of [datagramsIn, datagramsOut, drops.unknown_context, drops.unresolved, drops.no_lane]) {
      expect(count).toBeGreaterThan(5);
    }
    if (hasTap) {
      const { sent, ...reasons } = recorded;
      // The host shows it those that the server passes on.
      expect(sent).toBe(datagramsOut);
      expect(reasons).toEqual(Object.fromEntries(Object.entries(drops).filter(([, count]) => count > 0)));
    }
  },
);
