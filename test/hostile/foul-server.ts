import { TunnelClient } from "../../src/core/client/client.ts";
import type { Cryptography } from "../../src/core/handshakes/credentials.ts";
import { challengeMac, responseMac } from "../../src/core/handshakes/credentials.ts";
import { HeadBuffer } from "../../src/core/handshakes/head-buffer.ts";
import { TunnelServer } from "../../src/core/server/server.ts";
import { encodeContextAssign, encodeShutdown, encodeUnreachable } from "../../src/wire/capsule.ts";
import { asciiBytes, decodeHead } from "../../src/wire/http/http-head.ts";
import type { ExtensionRequest } from "../../src/wire/http/upgrade.ts";
import {
  decodeUpgradeRequest,
  encodeChallengeResponse,
  encodeRefusal,
  encodeUpgradeResponse,
} from "../../src/wire/http/upgrade.ts";
import { makeAddress } from "../../src/wire/socket-address.ts";
import { cheapCryptography } from "../fuzz/cheap-cryptography.ts";
import { check } from "../fuzz/failure.ts";
import { SERVER_DEFAULTS } from "../sim/server-defaults.ts";
import { mutate, randomBytes, seededRandom } from "../unit/random.ts";
import { Dice, drawCapsule } from "./capsules.ts";

const KEY = asciiBytes("sixteen byte key");
const LANES = 3;
const LIMITS = { maxAssociations: 16, maxContexts: 50, queueBytes: 65_536 };
/** Most connections that a client begins within a second, after which it has to wait longer. */
const MOST_A_SECOND = 60;
const TARGETS = Array.from({ length: 8 }, (_, i) => makeAddress(`192.0.2.${i + 1}`, 53)!);

/** A client's connection, at the other end of which is the foul server. */
interface Link {
  readonly lane: number;
  readonly head: HeadBuffer;
  /** Set once the client's request was accepted: whether the session has receipts. */
  hasReceipts: boolean | undefined;
  /** In the end: its number at a good server. */
  good: number | undefined;
}

/** A server that knows the key, and answers as it likes, against a client. Everything follows from the seed. */
export class FoulServer {
  readonly seen = { accepted: 0, resumed: 0, refused: 0, capsules: 0 };
  #now = 1_000;
  readonly #dice: Dice;
  readonly #crypto: Cryptography;
  readonly #key: Uint8Array | undefined;
  readonly #client: TunnelClient;
  readonly #links = new Map<number, Link>();
  readonly #connectedAt: number[] = [];
  readonly #associations: number[] = [];
  #good: TunnelServer | undefined;
  #arrived = 0;

  constructor(seed: number) {
    this.#dice = new Dice(seededRandom(seed));
    this.#crypto = cheapCryptography(seed);
    this.#key = this.#dice.isOneIn(2) ? KEY : undefined;
    this.#client = new TunnelClient({
      ...{ lanes: this.#dice.pick<number | "auto">([1, 2, LANES, "auto"]), psk: this.#key },
      ways: [{ authority: "server.test:3456", server: 0 }],
      crypto: cheapCryptography(seed + 1_000_000),
      ...{ heartbeatMs: 5_000, handshakeTimeoutMs: 5_000, ageBudgetMs: 100 },
      ...{ idleTimeoutMs: 60_000, activeIdleTimeoutMs: 300_000, maxId: this.#dice.pick([400, 2 ** 30 - 1]) },
      ...LIMITS,
    });
    this.#client.start(this.#now);
    this.#settle();
  }

  step(): void {
    const dice = this.#dice;
    const link = this.#links.size === 0 ? undefined : dice.pick([...this.#links.values()]);
    const number = dice.below(100);
    if (number < 55) {
      if (link?.hasReceipts !== undefined) this.#sendCapsules(link, link.hasReceipts);
    } else if (number < 60) {
      if (link !== undefined) this.#disconnect(link);
    } else if (number < 75) this.#use();
    else if (number < 95) this.#pass(dice.pick([0, 1, 10, 100]));
    else this.#pass(dice.below(8_000));
    this.#check();
  }

  /** Ends the siege: another server takes over, and the client works as if nothing had happened. */
  end(): void {
    this.#good = new TunnelServer({
      ...SERVER_DEFAULTS,
      ...{ psk: this.#key, crypto: cheapCryptography(7), filtering: "endpoint-independent" },
    });
    for (const link of [...this.#links.values()]) this.#disconnect(link);
    this.#pass(60_000);
    check(this.#client.isUp, "the client does not come back");
    const before = this.#arrived;
    for (const association of this.#associations.splice(0)) {
      this.#client.closeAssociation(this.#now, association);
    }
    const association = this.#client.openAssociation(this.#now, undefined, false);
    check(association >= 0, "the client has no room for an association");
    this.#send(association);
    this.#pass(1_000);
    check(this.#arrived > before, "the client does not work any more");
  }

  /** An application opens, uses and ends associations. */
  #use(): void {
    const dice = this.#dice;
    const all = this.#associations;
    if (all.length === 0 || dice.isOneIn(8)) {
      const association = this.#client.openAssociation(this.#now, undefined, dice.isOneIn(2));
      if (association >= 0) all.push(association);
    } else if (dice.isOneIn(10)) {
      const [association] = all.splice(dice.below(all.length), 1);
      this.#client.closeAssociation(this.#now, association);
    } else this.#send(dice.pick(all));
    this.#settle();
  }

  #send(association: number): void {
    const to = this.#dice.pick(TARGETS);
    this.#client.handleDatagram(this.#now, association, new Uint8Array(20), 0, 20, to, 0, to.length);
    this.#settle();
  }

  #pass(ms: number): void {
    const end = this.#now + ms;
    this.#settle();
    for (;;) {
      const next = Math.min(
        this.#client.nextTimeout(),
        this.#good?.nextTimeout() ?? Number.POSITIVE_INFINITY,
      );
      if (next > end) break;
      this.#now = Math.max(this.#now, next);
      if (this.#client.nextTimeout() <= this.#now) {
        this.#client.handleTimeout(this.#now);
        check(this.#client.nextTimeout() > this.#now, "the client wants to be woken without end");
      }
      this.#good?.handleTimeout(this.#now);
      this.#settle();
    }
    this.#now = end;
  }

  #settle(): void {
    for (let round = 0; round < 1_000; round++) if (!this.#settleOnce()) return;
    check(false, "the client does not come to rest");
  }

  #settleOnce(): boolean {
    const client = this.#client;
    let hasMoved = false;
    for (let output = client.pollOutput(); output !== undefined; output = client.pollOutput()) {
      hasMoved = true;
      if (output.kind === "connect") this.#connect(output.lane);
      else if (output.kind === "disconnect") this.#forget(output.lane);
      else if (output.kind === "association-closed") {
        const at = this.#associations.indexOf(output.association);
        if (at >= 0) this.#associations.splice(at, 1);
      }
    }
    while (client.takeReleased(this.#now)) hasMoved = true;
    for (const link of [...this.#links.values()]) {
      const bytes = client.pollTransmit(this.#now, link.lane);
      if (bytes === undefined) continue;
      const copy = bytes.slice();
      client.handleTransmitted(link.lane);
      this.#hear(link, copy);
      hasMoved = true;
    }
    while (client.pollReady(this.#now) >= 0);
    return this.#settleGood() || hasMoved;
  }

  #connect(lane: number): void {
    check(!this.#links.has(lane), "a lane connects twice");
    this.#connectedAt.push(this.#now);
    if (this.#good === undefined && this.#dice.isOneIn(6)) {
      this.#client.handleDisconnected(this.#now, lane, new Error("refused"));
      return;
    }
    const good = this.#good?.handleAccept(this.#now);
    this.#links.set(lane, { lane, head: new HeadBuffer(), hasReceipts: undefined, good });
    this.#client.handleConnected(this.#now, lane);
  }

  #forget(lane: number): void {
    const link = this.#links.get(lane);
    this.#links.delete(lane);
    if (link?.good !== undefined) this.#good!.handleDisconnected(this.#now, link.good);
  }

  #disconnect(link: Link): void {
    this.#forget(link.lane);
    this.#client.handleDisconnected(this.#now, link.lane, new Error("lost"));
    this.#settle();
  }

  /** The client has written. */
  #hear(link: Link, bytes: Uint8Array): void {
    if (link.good !== undefined) {
      this.#toGood(link.good, bytes);
      return;
    }
    if (link.hasReceipts !== undefined) return;
    const end = link.head.take(bytes, 0, bytes.length);
    if (end < 0) return;
    const head = decodeHead(link.head.bytes, link.head.length);
    const request = head && decodeUpgradeRequest(head);
    check(typeof request === "object" && request.extension !== undefined, "not a request");
    link.head.clear();
    this.#answer(link, request.extension);
  }

  #answer(link: Link, request: ExtensionRequest): void {
    const dice = this.#dice;
    switch (dice.below(12)) {
      case 0:
        return;
      case 1:
        this.#write(link, encodeRefusal(dice.pick([400, 403, 404, 503]), undefined));
        break;
      case 2:
        this.#write(link, randomBytes(dice.random, 1 + dice.below(10_000)));
        break;
      case 3:
        this.#write(link, asciiBytes("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(dice.below(40))));
        break;
      case 4: {
        const ticket = this.#crypto.random(24);
        const mac = this.#key && challengeMac(this.#crypto, this.#key, request.nonce, ticket);
        this.#write(link, encodeChallengeResponse({ ticket, mac }, dice.isOneIn(2)));
        return;
      }
      default:
        this.#accept(link, request);
        return;
    }
    this.seen.refused++;
  }

  /** Accepts a request, in a session that may be another one than that which was asked for. */
  #accept(link: Link, request: ExtensionRequest): void {
    const dice = this.#dice;
    const isRight = !dice.isOneIn(4);
    const resumed = isRight ? request.session !== undefined : dice.isOneIn(2);
    const session = isRight && request.session !== undefined ? request.session : this.#crypto.random(16);
    const receipts = isRight ? request.receipts : dice.isOneIn(2);
    const answer = { nonce: this.#crypto.random(16), session, resumed, receipts };
    const mac = this.#key && responseMac(this.#crypto, this.#key, request.mac!, answer);
    const bytes = encodeUpgradeResponse(true, [], { ...answer, mac });
    link.hasReceipts = receipts;
    this.#write(link, dice.isOneIn(16) ? mutate(dice.random, bytes) : bytes);
    this.seen.accepted++;
    if (resumed) this.seen.resumed++;
  }

  #sendCapsules(link: Link, hasReceipts: boolean): void {
    const dice = this.#dice;
    const parts = Array.from({ length: 1 + dice.below(6) }, () => {
      switch (dice.below(24)) {
        case 0:
          return encodeShutdown(dice.pick(["moving", "moving", "done", "key"]));
        case 1:
          return encodeContextAssign(1 + 2 * dice.below(40), dice.id(), dice.target());
        case 2:
          return encodeUnreachable(dice.id(), dice.pick(["port", "too-big"]), 1_280);
        default:
          return drawCapsule(dice, hasReceipts, !dice.isOneIn(200));
      }
    });
    this.seen.capsules += parts.length;
    this.#write(link, Uint8Array.from(parts.flatMap((part) => [...part])));
  }

  #write(link: Link, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length && this.#links.get(link.lane) === link; ) {
      const next = this.#client.handleStream(this.#now, link.lane, bytes, at, bytes.length);
      const { received, contexts } = this.#client;
      check(next <= bytes.length && (next > at || received.count > 0), "no progress");
      at = next;
      for (let row = 0; row < received.count; row++) {
        check(contexts.address[received.context[row]] !== undefined, "a datagram has no source");
      }
      if (link.good !== undefined) this.#arrived += received.count;
    }
  }

  // The good server

  #toGood(connection: number, bytes: Uint8Array): void {
    const good = this.#good!;
    for (let at = 0; at < bytes.length; ) {
      at = good.handleStream(this.#now, connection, bytes, at, bytes.length);
      const { outgoing, contexts } = good;
      const rows = Array.from({ length: outgoing.count }, (_, row) => ({
        association: outgoing.association[row],
        target: contexts.target[outgoing.context[row]]!,
      }));
      for (const { association, target } of rows) {
        good.handleDatagram(this.#now, association, new Uint8Array(20), 0, 20, target);
      }
    }
  }

  #settleGood(): boolean {
    const good = this.#good;
    if (good === undefined) return false;
    let hasMoved = false;
    for (let output = good.pollOutput(); output !== undefined; output = good.pollOutput()) {
      if (output.kind === "close") good.handleDisconnected(this.#now, output.connection);
    }
    while (good.pollDirty(this.#now) >= 0);
    for (const link of [...this.#links.values()]) {
      if (link.good === undefined) continue;
      const bytes = good.pollTransmit(this.#now, link.good);
      if (bytes === undefined) continue;
      const copy = bytes.slice();
      good.handleTransmitted(link.good);
      this.#write(link, copy);
      hasMoved = true;
    }
    return hasMoved;
  }

  #check(): void {
    const client = this.#client;
    check(client.contexts.size <= LIMITS.maxContexts, "too many contexts", () => `${client.contexts.size}`);
    check(client.associationCount <= LIMITS.maxAssociations, "too many associations");
    check(!Number.isNaN(client.nextTimeout()), "no time");
    const at = this.#connectedAt;
    while (at.length > 0 && at[0] < this.#now - 1_000) at.shift();
    check(
      at.length <= MOST_A_SECOND,
      "the client connects without end",
      () => `${at.length} times in a second`,
    );
  }
}
