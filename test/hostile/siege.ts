import type { RefusalReason } from "../../src/core/counters.ts";
import { REFUSAL_REASONS } from "../../src/core/counters.ts";
import { isDomain } from "../../src/wire/capsule.ts";
import { asciiBytes, decodeHead, findHeadEnd } from "../../src/wire/http/http-head.ts";
import { decodeUpgradeResponse } from "../../src/wire/http/upgrade.ts";
import { cheapCryptography } from "../fuzz/cheap-cryptography.ts";
import { check } from "../fuzz/failure.ts";
import { Network } from "../sim/network.ts";
import { seededRandom } from "../unit/random.ts";
import { Dice, drawCapsule } from "./capsules.ts";
import type { Foe } from "./foe.ts";
import { Knowledge } from "./foe.ts";

const KEY = asciiBytes("sixteen byte key");
const HANDSHAKE_MS = 5_000;
const HEARTBEAT_MS = 5_000;
/** An end that has heard nothing for so long closes. */
const SILENCE_MS = 3 * HEARTBEAT_MS;
const MAX_FOES = 24;
const QUEUE_BYTES = 65_536;
const LIMITS = {
  maxHalfOpen: 12,
  maxTunnels: 20,
  maxSessions: 12,
  maxLingering: 4,
  maxAssociations: 160,
  maxAssociationsPerSession: 20,
  maxContextsPerSession: 60,
  lingerMs: 10_000,
  idleTimeoutMs: 30_000,
  queueBytes: QUEUE_BYTES,
};
/** Most bytes that wait for a client that does not read: control capsules, a batch, and the queue. */
const MOST_UNREAD = 1_048_576 + 262_144 + 2 * QUEUE_BYTES;
/** The same before it has proved anything but a recording. */
const MOST_UNREAD_OF_HEADS = 65_536;
/** Steps between two datagrams of the honest client. */
const HONEST_STEPS = 16;
/** Reasons for which a connection is closed, each counted once. */
const CLOSING: readonly RefusalReason[] = REFUSAL_REASONS.filter((reason) =>
  [
    ...["bad_credentials", "replay", "nonce_limit", "not_upgrade", "handshake_timeout"],
    ...["half_open_limit", "tunnel_limit", "session_limit", "protocol_error", "draining"],
  ].includes(reason),
);

/** Hostile clients against a server, beside an honest client. Everything follows from the seed. */
export class Siege {
  /** How often something happened that the siege is there for. */
  readonly seen = { resumed: 0, refused: 0, failed: 0, challenged: 0, served: 0, floods: 0 };
  readonly #dice: Dice;
  readonly #network: Network;
  readonly #association: number;
  readonly #knowledge: Knowledge;
  readonly #foes: Foe[] = [];
  /** The honest client's connections, which are the first. */
  readonly #honest: ReadonlySet<number>;
  readonly #ended = new Set<string>();
  readonly #closings = new Map<RefusalReason, number>();
  #steps = 0;

  constructor(seed: number) {
    const dice = new Dice(seededRandom(seed));
    this.#dice = dice;
    const crypto = cheapCryptography(seed);
    const psk = dice.isOneIn(4) ? undefined : KEY;
    const lanes = dice.isOneIn(2) ? 1 : 2;
    this.#network = new Network({
      client: { psk, lanes, crypto: cheapCryptography(seed + 1_000_000), queueBytes: QUEUE_BYTES },
      server: {
        ...LIMITS,
        ...{ psk, crypto, heartbeatMs: HEARTBEAT_MS, handshakeTimeoutMs: HANDSHAKE_MS },
        filtering: dice.pick(["endpoint-independent", "address-dependent"]),
        ageBudgetMs: 10_000,
      },
    });
    this.#network.names.set("example.test", "192.0.2.77");
    this.#network.start();
    this.#network.advance(100);
    const { client, server, records } = this.#network;
    this.#association = client.openAssociation(this.#network.now, undefined, false);
    const connections = server.sessionReports(1)[0].lanes.map(({ connection }) => connection!);
    check(connections.length === lanes, "the honest client is not up");
    this.#honest = new Set(connections);
    const answer = records
      .flatMap(({ fromServer }) => fromServer)
      .map(sessionIn)
      .find(Boolean);
    this.#knowledge = new Knowledge(cheapCryptography(seed + 2_000_000), psk, answer!);
    // Without a key, whoever sees a handshake can compute the key of its session anyway (PROTOCOL.md §7).
    if (psk !== undefined) {
      for (const { fromClient } of records) this.#knowledge.recordings.push(fromClient[0]);
    }
    this.#network.serverEvents.length = 0;
  }

  /** One event, after which everything has to hold. */
  step(): void {
    const dice = this.#dice;
    const number = dice.below(100);
    if (number < 12) this.#connect();
    else if (number < 70) this.#attack();
    else if (number < 76) this.#leave();
    else if (number < 96) this.#pass(dice.pick([0, 1, 5, 20, 50]));
    else if (number < 99) this.#pass(dice.below(2_000));
    else this.#pass(dice.below(20_000));
    if (++this.#steps % HONEST_STEPS === 0) this.#useHonestly();
    this.#checkAll();
  }

  /** Ends the siege: what foes did not read is bounded, and nothing of them stays. */
  end(): void {
    for (const foe of this.#foes) if (!foe.hasClosed) this.#checkUnread(foe);
    for (const foe of [...this.#foes]) this.#disconnect(foe);
    this.#pass(LIMITS.lingerMs + LIMITS.idleTimeoutMs + HANDSHAKE_MS);
    this.#useHonestly();
    const { server } = this.#network;
    check(server.sessionCount === 1, "sessions stay", () => `${server.sessionCount}`);
    check(server.associationCount === 1, "associations stay", () => `${server.associationCount}`);
    check(server.halfOpenCount === 0, "half-open connections stay", () => `${server.halfOpenCount}`);
    check(server.tunnelCount === this.#honest.size, "tunnels stay", () => `${server.tunnelCount}`);
  }

  #connect(): void {
    const { now, server } = this.#network;
    if (this.#foes.length >= MAX_FOES) this.#disconnect(this.#dice.pick(this.#foes));
    this.#foes.push({
      connection: server.handleAccept(now),
      acceptedAt: now,
      sentAt: now,
      reads: !this.#dice.isOneIn(4),
      rest: new Uint8Array(0),
      asked: undefined,
      session: undefined,
      hasClosed: false,
    });
    this.#settle();
  }

  #attack(): void {
    const dice = this.#dice;
    if (this.#foes.length === 0) return;
    const foe = dice.pick(this.#foes);
    if (foe.hasClosed) return;
    if (foe.rest.length > 0) this.#trickle(foe);
    else if (foe.session === undefined) this.#ask(foe);
    else this.#sendCapsules(foe, foe.session.hasReceipts);
  }

  #ask(foe: Foe): void {
    const dice = this.#dice;
    const { bytes, asked } = this.#knowledge.drawRequest(dice, this.#network.now);
    foe.asked = asked;
    if (dice.isOneIn(4)) {
      foe.rest = bytes;
      this.#trickle(foe);
    } else if (dice.isOneIn(40)) {
      // The same request over and over, without waiting for an answer.
      this.seen.floods++;
      this.#send(foe, repeated(bytes, 2_000));
    } else if (dice.isOneIn(8)) {
      // More than the request, before the answer.
      this.#send(foe, Uint8Array.of(...bytes, ...drawCapsule(dice, asked?.receipts ?? false, true)));
    } else this.#send(foe, bytes);
    if (this.#foes.length === 0) return;
    // The same request on a second connection at the same time.
    const twin = dice.pick(this.#foes);
    if (twin !== foe && twin.session === undefined && !twin.hasClosed && dice.isOneIn(8)) {
      twin.asked = asked;
      twin.rest = new Uint8Array(0);
      this.#send(twin, bytes);
    }
  }

  #trickle(foe: Foe): void {
    const count = this.#dice.isOneIn(2) ? 1 : 1 + this.#dice.below(60);
    const bytes = foe.rest.slice(0, count);
    foe.rest = foe.rest.slice(count);
    this.#send(foe, bytes);
  }

  #sendCapsules(foe: Foe, hasReceipts: boolean): void {
    const dice = this.#dice;
    if (dice.isOneIn(60)) {
      this.seen.floods++;
      this.#send(foe, repeated(drawCapsule(dice, hasReceipts, true), 1 + dice.below(8_000)));
      return;
    }
    const parts = Array.from({ length: 1 + dice.below(8) }, () =>
      drawCapsule(dice, hasReceipts, !dice.isOneIn(200)),
    );
    const bytes = Uint8Array.from(parts.flatMap((part) => [...part]));
    if (!dice.isOneIn(16)) {
      this.#send(foe, bytes);
      return;
    }
    foe.rest = bytes;
    this.#trickle(foe);
  }

  #send(foe: Foe, bytes: Uint8Array): void {
    const { now, server } = this.#network;
    foe.sentAt = now;
    for (let at = 0; at < bytes.length; ) {
      const next = server.handleStream(now, foe.connection, bytes, at, bytes.length);
      check(next <= bytes.length, "read past the end");
      check(next > at || server.outgoing.count > 0, "no progress");
      at = next;
      this.#echo();
    }
    this.#settle();
  }

  /** Targets answer at once. */
  #echo(): void {
    const { now, server } = this.#network;
    const { outgoing, contexts } = server;
    const answers = Array.from({ length: outgoing.count }, (_, row) => {
      const context = outgoing.context[row];
      const target = contexts.target[context];
      check(target !== undefined && !isDomain(target), "a datagram has no target");
      check(contexts.association[context] === outgoing.association[row], "a datagram of another association");
      const payload = outgoing.data.slice(outgoing.offset[row], outgoing.offset[row] + outgoing.length[row]);
      return { association: outgoing.association[row], target, payload };
    });
    for (const { association, target, payload } of answers) {
      server.handleDatagram(now, association, payload, 0, payload.length, target);
    }
  }

  /** Lets foes read, and handles what the server said. */
  #settle(): void {
    const network = this.#network;
    const { now, server } = network;
    for (let round = 0; round < 100; round++) {
      let hasRead = false;
      for (const foe of this.#foes) if (!foe.hasClosed && foe.reads) hasRead = this.#read(foe) || hasRead;
      network.settle();
      this.#handleEvents();
      if (!hasRead && server.pollDirty(now) < 0) return;
    }
  }

  /** @returns whether there was anything to read */
  #read(foe: Foe): boolean {
    const { now, server } = this.#network;
    let hasRead = false;
    for (let turn = 0; turn < 20; turn++) {
      const written = server.pollTransmit(now, foe.connection);
      if (written === undefined) break;
      hasRead = true;
      if (foe.asked !== undefined) this.#hear(foe, written.slice());
      server.handleTransmitted(foe.connection);
    }
    return hasRead;
  }

  #hear(foe: Foe, written: Uint8Array): void {
    const { now, server } = this.#network;
    const { asked } = foe;
    const isResumed = this.#knowledge.learn(foe, written, now);
    if (!isResumed) return;
    this.seen.resumed++;
    const session = server
      .sessionReports(LIMITS.maxSessions)
      .find(({ lanes }) => lanes.some(({ connection }) => connection === foe.connection));
    // It may have ended again, by bytes after the request.
    check(session === undefined || !this.#ended.has(session.session), "an ended session is resumed");
    check(foe.session !== undefined, "a foe resumes a session that was never its own");
    check(foe.session.hasReceipts === asked!.receipts, "a session changes its mind about receipts");
  }

  #handleEvents(): void {
    const events = this.#network.serverEvents.splice(0);
    for (const event of events) {
      if (event.kind === "session-ended") this.#ended.add(event.session);
      if (event.kind !== "close") continue;
      check(!this.#honest.has(event.connection), "the honest client's connection is closed");
      const foe = this.#foes.find(
        ({ connection, hasClosed }) => connection === event.connection && !hasClosed,
      );
      check(foe !== undefined, "a connection that is not there is closed");
      foe.hasClosed = true;
      this.#foes.splice(this.#foes.indexOf(foe), 1);
      const reason = event.error === undefined ? event.refusal?.reason : "protocol_error";
      if (reason === undefined) continue;
      if (event.error === undefined) this.seen.refused++;
      else this.seen.failed++;
      this.#closings.set(reason, (this.#closings.get(reason) ?? 0) + 1);
    }
  }

  #leave(): void {
    if (this.#foes.length === 0) return;
    const foe = this.#dice.pick(this.#foes);
    if (!this.#dice.isOneIn(3)) {
      this.#disconnect(foe);
      return;
    }
    this.#network.server.handleEnded(this.#network.now, foe.connection);
    this.#settle();
  }

  #disconnect(foe: Foe): void {
    const at = this.#foes.indexOf(foe);
    if (at < 0) return;
    this.#foes.splice(at, 1);
    foe.hasClosed = true;
    this.#network.server.handleDisconnected(this.#network.now, foe.connection);
    this.#settle();
  }

  #pass(ms: number): void {
    this.#network.advance(ms);
    this.#settle();
  }

  #useHonestly(): void {
    const network = this.#network;
    const text = `honest ${this.#steps}`;
    network.send(this.#association, "192.0.2.9:53", text);
    network.settle();
    this.#pass(100);
    const last = network.arrived.at(-1);
    check(last?.payload === text, "the honest client is not served", () => `${last?.payload}`);
    check(last.association === this.#association && last.remote === "192.0.2.9:53", "mistaken for another's");
    network.arrived.length = 0;
    network.atTargets.length = 0;
    network.clientEvents.length = 0;
    this.seen.served++;
  }

  /** Bytes that wait for a foe that does not read. */
  #checkUnread(foe: Foe): void {
    const { now, server } = this.#network;
    const isHalfOpen = !this.#lanes().has(foe.connection);
    let bytes = 0;
    for (;;) {
      const written = server.pollTransmit(now, foe.connection);
      if (written === undefined) break;
      bytes += written.length;
      server.handleTransmitted(foe.connection);
    }
    const most = isHalfOpen ? MOST_UNREAD_OF_HEADS : MOST_UNREAD;
    check(bytes <= most, "too much waits for a client that does not read", () => `${bytes} bytes`);
  }

  /** Connections that are lanes, with their sessions. */
  #lanes(): ReadonlyMap<number, string> {
    const reports = this.#network.server.sessionReports(LIMITS.maxSessions);
    return new Map(
      reports.flatMap(({ session, lanes }) => lanes.map(({ connection }) => [connection!, session])),
    );
  }

  #checkAll(): void {
    const { server, client, now } = this.#network;
    const counts = [
      [server.halfOpenCount, LIMITS.maxHalfOpen, "half-open connections"],
      [server.tunnelCount, LIMITS.maxTunnels, "tunnels"],
      [server.sessionCount, LIMITS.maxSessions, "sessions"],
      [server.lingeringCount, LIMITS.maxLingering, "lingering sessions"],
      [server.associationCount, LIMITS.maxAssociations, "associations"],
      [server.contexts.size, LIMITS.maxSessions * LIMITS.maxContextsPerSession, "contexts"],
      [server.storedBytes, 5 * LIMITS.maxSessions * QUEUE_BYTES + 262_144, "stored bytes"],
    ] as const;
    for (const [count, limit, what] of counts) {
      check(count <= limit, `too many ${what}`, () => `${count}, not ${limit}`);
    }
    check(client.isUp, "the honest client has lost its session");
    check(!Number.isNaN(server.nextTimeout()), "no time");
    const lanes = this.#lanes();
    const sessions = new Set([...this.#honest].map((connection) => lanes.get(connection)));
    check(sessions.size === 1 && !sessions.has(undefined), "the honest client has lost a lane");
    for (const foe of this.#foes) {
      const session = lanes.get(foe.connection);
      check(session === undefined || !sessions.has(session), "a foe is in the honest client's session");
      if (session === undefined) check(now - foe.acceptedAt <= HANDSHAKE_MS, "a handshake lasts too long");
      else check(now - foe.sentAt <= SILENCE_MS, "a silent lane stays", () => `${now - foe.sentAt} ms`);
    }
    const { refused } = server.counters;
    this.seen.challenged = refused.challenged;
    for (const reason of CLOSING) {
      const closed = this.#closings.get(reason) ?? 0;
      check(closed === refused[reason], "closed without being counted", () => `${reason} ${closed}`);
    }
  }
}

/** Id of the session in a 101; undefined in anything else. */
function sessionIn(bytes: Uint8Array): Uint8Array | undefined {
  const end = findHeadEnd(bytes, 0, bytes.length);
  const head = end < 0 ? undefined : decodeHead(bytes, end);
  return head && decodeUpgradeResponse(head)?.extension?.session;
}

function repeated(bytes: Uint8Array, count: number): Uint8Array {
  const all = new Uint8Array(bytes.length * count);
  for (let i = 0; i < count; i++) all.set(bytes, i * bytes.length);
  return all;
}
