import type { Cryptography } from "../../src/core/handshakes/credentials.ts";
import { deriveSessionKey, requestMac, resumeMac } from "../../src/core/handshakes/credentials.ts";
import { decodeHead, findHeadEnd } from "../../src/wire/http/http-head.ts";
import type { ExtensionRequest, ShownTicket } from "../../src/wire/http/upgrade.ts";
import { BIND_PATH, decodeUpgradeResponse, encodeUpgradeRequest } from "../../src/wire/http/upgrade.ts";
import { mutate, randomBytes } from "../unit/random.ts";
import type { Dice } from "./capsules.ts";

/** Lane numbers at and beyond the limits of sessions with and without receipts. */
const LANES = [0, 0, 0, 1, 2, 3, 31, 32, 255];

/** A session that a hostile client has or had. */
export interface OwnSession {
  readonly id: Uint8Array;
  readonly key: Uint8Array;
  readonly hasReceipts: boolean;
}

/** A connection of a hostile client. */
export interface Foe {
  readonly connection: number;
  readonly acceptedAt: number;
  /** When it last sent anything. */
  sentAt: number;
  /** Whether it takes what the server writes. */
  readonly reads: boolean;
  /** Bytes that it has still to send, one or a few at a time. */
  rest: Uint8Array;
  /** Its last request, until the server has answered. */
  asked: ExtensionRequest | undefined;
  /** Set once the server has accepted it. */
  session: OwnSession | undefined;
  hasClosed: boolean;
}

/** What hostile clients share: the key, unless they are strangers, and all they have learned. */
export class Knowledge {
  readonly sessions: OwnSession[] = [];
  /** Requests as they were sent, by these clients and by the honest one. */
  readonly recordings: Uint8Array[] = [];
  readonly #crypto: Cryptography;
  readonly #key: Uint8Array | undefined;
  /** Id of the honest client's session, which is on the wire. */
  readonly #victim: Uint8Array;
  readonly #tickets: { readonly bytes: Uint8Array; readonly at: number }[] = [];

  constructor(crypto: Cryptography, key: Uint8Array | undefined, victim: Uint8Array) {
    this.#crypto = crypto;
    this.#key = key;
    this.#victim = victim;
  }

  /** Draws what a foe sends first. @returns the bytes, and the request if it was not altered */
  drawRequest(dice: Dice, now: number): { readonly bytes: Uint8Array; readonly asked?: ExtensionRequest } {
    switch (dice.below(16)) {
      case 0:
        return { bytes: randomBytes(dice.random, 1 + dice.below(200)) };
      case 1:
        if (this.recordings.length > 0) return { bytes: dice.pick(this.recordings) };
        break;
      case 2:
        if (this.recordings.length > 0) return { bytes: mutate(dice.random, dice.pick(this.recordings)) };
    }
    const asked = this.#drawHello(dice, now);
    const bytes = encodeUpgradeRequest("server.test:3456", BIND_PATH, true, asked);
    if (this.recordings.length < 64) this.recordings.push(bytes);
    else this.recordings[dice.below(64)] = bytes;
    return { bytes, asked };
  }

  #drawHello(dice: Dice, now: number): ExtensionRequest {
    const nonce = this.#crypto.random(16);
    const resumed = dice.isOneIn(2) ? this.#drawSession(dice) : undefined;
    const ticket = this.#drawTicket(dice, now);
    const transcript = { nonce, lane: dice.pick(LANES), ticket, session: resumed?.id };
    const key = dice.isOneIn(12) ? randomBytes(dice.random, 16) : this.#key;
    return {
      ...transcript,
      receipts: dice.isOneIn(6) ? dice.isOneIn(2) : (resumed?.hasReceipts ?? dice.isOneIn(2)),
      mac: key && requestMac(this.#crypto, key, transcript),
      resumeMac: resumed && resumeMac(this.#crypto, resumed.key, transcript),
    };
  }

  /** A session to resume: its own, one that may have ended, another's, one that never was. */
  #drawSession(dice: Dice): OwnSession {
    const key = dice.isOneIn(2) ? new Uint8Array(0) : randomBytes(dice.random, 32);
    const made = { id: randomBytes(dice.random, 16), key, hasReceipts: dice.isOneIn(2) };
    if (this.sessions.length === 0 || dice.isOneIn(8)) return made;
    const own = dice.isOneIn(2) ? this.sessions[this.sessions.length - 1] : dice.pick(this.sessions);
    if (dice.isOneIn(4)) return { ...own, id: this.#victim };
    return dice.isOneIn(8) ? { ...own, key } : own;
  }

  /** A ticket: usually a current one; an old, altered or made-up one; or none. */
  #drawTicket(dice: Dice, now: number): ShownTicket | undefined {
    if (this.#key === undefined || this.#tickets.length === 0 || dice.isOneIn(12)) return undefined;
    const last = this.#tickets[this.#tickets.length - 1];
    const { bytes, at } = dice.isOneIn(4) ? dice.pick(this.#tickets) : last;
    const age = Math.floor(now - at) + (dice.isOneIn(12) ? dice.below(100_000) : 0);
    if (dice.isOneIn(12)) return { bytes: randomBytes(dice.random, 16 + dice.below(49)), age };
    return { bytes, age };
  }

  /**
   * Learns from what the server wrote to a foe that has asked.
   *
   * @returns true if its request was accepted as a lane of the session that it asked for
   */
  learn(foe: Foe, written: Uint8Array, now: number): boolean {
    const { asked } = foe;
    const end = findHeadEnd(written, 0, written.length);
    if (asked === undefined || end < 0) return false;
    const head = decodeHead(written, end);
    const answer = head && decodeUpgradeResponse(head);
    foe.asked = undefined;
    if (answer?.challenge !== undefined) {
      this.#tickets.push({ bytes: answer.challenge.ticket, at: now });
      if (this.#tickets.length > 64) this.#tickets.shift();
    }
    const extension = answer?.extension;
    if (answer?.status !== 101 || extension === undefined) return false;
    const { session, nonce, receipts, resumed } = extension;
    const known = this.sessions.find(({ id }) => id.every((byte, i) => byte === session[i]));
    if (resumed) {
      foe.session = known;
      return true;
    }
    const key = deriveSessionKey(this.#crypto, this.#key ?? new Uint8Array(0), asked.nonce, nonce, session);
    foe.session = { id: session, key, hasReceipts: receipts };
    this.sessions.push(foe.session);
    if (this.sessions.length > 64) this.sessions.shift();
    return false;
  }
}
