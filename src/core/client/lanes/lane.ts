import { MAX_CONTROL_CAPSULE_BYTES } from "../../../wire/capsule.ts";
import type { HttpHead } from "../../../wire/http/http-head.ts";
import { decodeHead, isInterim } from "../../../wire/http/http-head.ts";
import type {
  ExtensionChallenge,
  ExtensionResponse,
  KeyRefusalCause,
  UpgradeResponse,
} from "../../../wire/http/upgrade.ts";
import { BIND_PATH, decodeUpgradeResponse, encodeUpgradeRequest } from "../../../wire/http/upgrade.ts";
import type { Counters } from "../../counters.ts";
import { ProtocolError } from "../../errors.ts";
import type { Cryptography, Transcript } from "../../handshakes/credentials.ts";
import {
  challengeMac,
  constantTimeEqual,
  deriveSessionKey,
  keyEpoch,
  keyId,
  keyRefusalMac,
  NONCE_BYTES,
  requestMac,
  responseMac,
  resumeMac,
} from "../../handshakes/credentials.ts";
import { HeadBuffer } from "../../handshakes/head-buffer.ts";
import { explainRefusal } from "../../handshakes/refusal-hint.ts";
import type { LanePort } from "../../lanes/lane-port.ts";
import type { SendQueue } from "../../session/queue/send-queue.ts";
import { LANE, LANE_HELD, LANE_UP } from "../../session/session-model.ts";
import { Tunnel } from "../../session/tunnel.ts";
import type { ClientClock } from "../client-clock.ts";
import type { Way } from "../ways/way-race.ts";
import { backoff } from "../ways/way-race.ts";
import type { LaneCount } from "./lane-count.ts";

/** Bytes of control capsules that may wait for a server that does not read, in addition to those that register everything. */
const CONTROL_BYTES = 1_048_576;
/** First byte of a TLS alert (RFC 8446 §5.1), with which a server that expects TLS answers anything else. */
const TLS_ALERT = 0x15;
const NEVER = Number.POSITIVE_INFINITY;

/** All durations in milliseconds. */
export interface LaneOptions {
  /** Ways to the server, at least one, in order of preference. {@link WayRace} chooses between several. */
  readonly ways: readonly Way[];
  /** Prefix that a reverse proxy requires in the path, such as `/tunnel`. Default: none. */
  readonly pathPrefix?: string | undefined;
  /** Pre-shared key, or undefined for none. */
  readonly psk: Uint8Array | undefined;
  /** Name of the key at the server, if that has several. Default: none, so the server has to try all. */
  readonly keyName?: string | undefined;
  readonly crypto: Cryptography;
  readonly heartbeatMs: number;
  readonly handshakeTimeoutMs: number;
  readonly maxAssociations: number;
  readonly maxContexts: number;
}

/** A session that a lane joins. */
export interface SessionCredentials {
  readonly id: Uint8Array;
  readonly key: Uint8Array;
  readonly receipts: boolean;
}

/** The last ticket from each server ({@link Way}), which all lanes use. */
export type Tickets = Map<number, { readonly bytes: Uint8Array; readonly receivedAt: number }>;

/** The result of the server's answer. */
export type Answer =
  | { readonly kind: "accepted"; readonly extension: ExtensionResponse }
  /** The server asks for a request on another connection, for which {@link Lane.handleLost} connects at once. */
  | { readonly kind: "reconnect" }
  | { readonly kind: "failed"; readonly error: ProtocolError };

/** One lane of a client's session: a series of connections, each from the wait before it to its end. */
export class Lane {
  /** The host's number for it. */
  readonly index: number;
  /** Its number within its session. */
  readonly number: number;
  /** A state of {@link LANE}. */
  state = LANE_HELD;
  readonly queue: SendQueue;
  tunnel: Tunnel | undefined;
  /** Time of the next connect, or the deadline of the current attempt. */
  deadline = NEVER;
  /** Whether it has stayed up for the time of a heartbeat. */
  isProven = false;
  /** Number of associations pinned to this lane. */
  load = 0;
  /** The way of its last attempt. */
  way = 0;

  readonly #options: LaneOptions;
  readonly #counters: Counters;
  readonly #tickets: Tickets;
  readonly #clock: ClientClock;
  readonly #count: LaneCount;
  readonly #head = new HeadBuffer();
  #transcript: Transcript | undefined;
  #requestMac: Uint8Array | undefined;
  /** Whether the last request asked for receipts, when it was sent, and how long its answer took, in milliseconds. */
  #offersReceipts = false;
  #requestedAt = 0;
  #exchangeMs = 0;
  #attempts = 0;
  /** Challenges since the last wait, and whether a connection was made to answer one. */
  #challenges = 0;
  #hasReconnected = false;
  /** Offset where {@link handleHead} stopped. */
  #answer: Answer | undefined;

  /** @param tickets  shared by all lanes of the client, as are `clock` and `count` */
  constructor(
    index: number,
    number: number,
    queue: SendQueue,
    counters: Counters,
    tickets: Tickets,
    clock: ClientClock,
    count: LaneCount,
    options: LaneOptions,
  ) {
    this.index = index;
    this.number = number;
    this.queue = queue;
    this.#counters = counters;
    this.#tickets = tickets;
    this.#clock = clock;
    this.#count = count;
    this.#options = options;
  }

  get isUp(): boolean {
    return this.state === LANE_UP;
  }

  /** When the client next has to handle this lane; Infinity for never. */
  nextTimeout(): number {
    return this.isUp ? this.tunnel!.nextTimeout() : this.deadline;
  }

  #handle(event: Parameters<typeof LANE.after>[1]): void {
    this.state = LANE.after(this.state, event);
  }

  /** Gives up the current connection or attempt, without another one: the lane is then held. */
  close(): void {
    this.#handle("close");
    this.deadline = NEVER;
    this.tunnel?.endShortcuts();
    this.tunnel = undefined;
  }

  /** Whether the next connection, or the current one, is only to answer a challenge of the server on {@link way}. */
  get answersChallenge(): boolean {
    return this.#hasReconnected;
  }

  /** The host has been asked to connect. */
  connect(now: number, way: number): void {
    this.#handle("connect");
    this.way = way;
    // The carrier has its own deadline; this one is for a host that never answers.
    this.deadline = now + 4 * this.#options.handshakeTimeoutMs;
  }

  /** Makes the next attempt due at once, regardless of earlier failures. Only while the lane waits. */
  retry(now: number): void {
    this.#attempts = 0;
    this.deadline = now;
  }

  /** Waits for another lane. */
  hold(): void {
    this.#handle("hold");
    this.deadline = NEVER;
  }

  /** Whether the session that the server began with this lane was asked to have receipts. */
  get offeredReceipts(): boolean {
    return this.#offersReceipts;
  }

  /** Time from the last request to its answer, in milliseconds. */
  get exchangeMs(): number {
    return this.#exchangeMs;
  }

  /** Sends a request. @param session  the session to join or resume; undefined for a new one */
  handleConnected(now: number, session: SessionCredentials | undefined): void {
    const { heartbeatMs, handshakeTimeoutMs, maxAssociations, maxContexts } = this.#options;
    this.#handle("connected");
    this.deadline = now + handshakeTimeoutMs;
    const registrations = (maxAssociations + maxContexts) * MAX_CONTROL_CAPSULE_BYTES;
    this.tunnel = new Tunnel(this.queue, this.#counters, {
      heartbeatMs,
      controlBytes: CONTROL_BYTES + registrations,
    });
    this.#head.clear();
    this.#answer = undefined;
    this.#sendRequest(now, session);
  }

  /**
   * Handles bytes of the server's answer to the request.
   *
   * @returns the end offset of the head, or of the bytes; {@link answer} is set once the head is complete
   */
  handleHead(
    now: number,
    session: SessionCredentials | undefined,
    chunk: Uint8Array,
    offset: number,
    end: number,
  ): number {
    let at = offset;
    while (this.#answer === undefined && at < end) {
      at = this.#head.take(chunk, at, end);
      if (this.#head.bytes[0] === TLS_ALERT) {
        this.#answer = failed(new ProtocolError("ERR_HEAD_MALFORMED", "the server expects TLS (tls://)"));
        return end;
      }
      if (at === -1) return end;
      this.#answer =
        at === -2
          ? failed(new ProtocolError("ERR_HEAD_TOO_LARGE", "the server sent it"))
          : this.#judge(now, session);
    }
    return this.#answer?.kind === "accepted" ? at : end;
  }

  /** The server's answer; undefined before it arrives. */
  get answer(): Answer | undefined {
    return this.#answer;
  }

  /** Derives the key of the session that the server began with this lane. */
  deriveSessionKey({ nonce, session }: ExtensionResponse): Uint8Array {
    const { crypto, psk } = this.#options;
    return deriveSessionKey(crypto, psk ?? new Uint8Array(0), this.#transcript!.nonce, nonce, session);
  }

  /** First value of both ends' frame counts on this connection: the first two bytes of the request's nonce. */
  get firstCount(): number {
    const [high, low] = this.#transcript!.nonce;
    return (high << 8) | low;
  }

  /** Switches to capsules. @param port  set in a session with receipts */
  open(now: number, port: LanePort | undefined): void {
    this.#handle("accepted");
    this.#attempts = 0;
    this.#challenges = 0;
    this.#hasReconnected = false;
    this.isProven = false;
    this.deadline = NEVER;
    port?.scheduler.laneUp(now, port.number, this.firstCount);
    this.tunnel!.open(now, port === undefined ? "extension" : "receipts", port);
  }

  /**
   * The connection, or the attempt to make it, has ended. The lane waits before the next one, longer each time. If the server has sent a
   * ticket and the connection ended before the lane could answer, it connects again at once, but only one time.
   *
   * @param isOver  whether the session is over or was replaced, so that the lane is held instead
   */
  handleLost(now: number, isOver: boolean): void {
    const { crypto } = this.#options;
    const isUnanswered = this.#answer === undefined || this.#answer.kind === "reconnect";
    this.#handle("lost");
    this.tunnel?.endShortcuts();
    this.tunnel = undefined;
    if (isOver) this.hold();
    else if (this.#challenges === 1 && isUnanswered && !this.#hasReconnected) {
      this.#hasReconnected = true;
      this.deadline = now;
    } else {
      this.deadline = now + backoff(this.#attempts++, crypto.random(1)[0]);
      this.#challenges = 0;
      this.#hasReconnected = false;
    }
  }

  #sendRequest(now: number, session: SessionCredentials | undefined): void {
    const { crypto, psk, keyName, ways, pathPrefix = "" } = this.#options;
    this.#offersReceipts = session?.receipts ?? this.#count.offersReceipts;
    this.#requestedAt = now;
    const { authority, server } = ways[this.way];
    const epoch = keyEpoch(this.#clock.unixMs(now, server));
    const ticket = this.#tickets.get(server);
    const transcript: Transcript = {
      nonce: crypto.random(NONCE_BYTES),
      lane: this.number,
      ticket: ticket && { bytes: ticket.bytes, age: Math.floor(now - ticket.receivedAt) },
      session: session?.id,
    };
    this.#transcript = transcript;
    this.#requestMac = psk === undefined ? undefined : requestMac(crypto, psk, transcript);
    this.tunnel!.writeControl(
      encodeUpgradeRequest(authority, pathPrefix + BIND_PATH, true, {
        ...transcript,
        keyId: psk === undefined || keyName === undefined ? undefined : keyId(crypto, psk, keyName, epoch),
        receipts: this.#offersReceipts,
        mac: this.#requestMac,
        resumeMac: session === undefined ? undefined : resumeMac(crypto, session.key, transcript),
      }),
    );
  }

  /** Evaluates a complete head. @returns undefined if another response follows: after an interim one, or to a new request */
  #judge(now: number, session: SessionCredentials | undefined): Answer | undefined {
    this.#exchangeMs = now - this.#requestedAt;
    const head = decodeHead(this.#head.bytes, this.#head.length);
    const response = head === undefined ? undefined : decodeUpgradeResponse(head);
    if (response === undefined) {
      return failed(new ProtocolError("ERR_HEAD_MALFORMED", "is this the address of a udp-server?"));
    }
    if (isInterim(response.status)) {
      if (this.#head.clearInterim()) return undefined;
      return failed(new ProtocolError("ERR_HEAD_TOO_LARGE", "too many interim responses"));
    }
    if (response.challenge !== undefined && this.#options.psk !== undefined) {
      return this.#answerChallenge(now, session, response.challenge, response.keepsConnection);
    }
    return this.#judgeResponse(head!, response);
  }

  #answerChallenge(
    now: number,
    session: SessionCredentials | undefined,
    { ticket, unixS, mac }: ExtensionChallenge,
    keepsConnection: boolean,
  ): Answer | undefined {
    const { crypto, psk, ways } = this.#options;
    if (!constantTimeEqual(mac, challengeMac(crypto, psk!, this.#transcript!.nonce, ticket, unixS))) {
      return failed(new ProtocolError("ERR_SERVER_PROOF", "in its challenge"));
    }
    const { server } = ways[this.way];
    this.#tickets.set(server, { bytes: ticket, receivedAt: now });
    if (unixS !== undefined) this.#clock.handleServerTime(now, server, unixS * 1000);
    this.#challenges++;
    if (session === undefined) this.#count.handleChallenge(this.#exchangeMs);
    if (this.#challenges > 1) {
      const detail = "it challenges each request again: are there several servers behind one address?";
      return failed(new ProtocolError("ERR_UPGRADE_REFUSED", detail));
    }
    if (!keepsConnection) return { kind: "reconnect" };
    this.#head.clear();
    this.#sendRequest(now, session);
    return undefined;
  }

  #handleKeyRefused(cause: KeyRefusalCause): Answer {
    const { server } = this.#options.ways[this.way];
    // Without a ticket, the next attempt gets the server's time, in case one of the clocks has been changed.
    this.#tickets.delete(server);
    this.#clock.forgetServerTime(server);
    return failed(
      new ProtocolError("ERR_KEY_REFUSED", KEY_REFUSALS[cause], { answer: { status: 403, kind: cause } }),
    );
  }

  #judgeResponse(head: HttpHead, response: UpgradeResponse): Answer {
    const { crypto, psk } = this.#options;
    const { refusal } = response;
    if (refusal !== undefined && psk !== undefined) {
      const { cause } = refusal;
      if (constantTimeEqual(refusal.mac, keyRefusalMac(crypto, psk, this.#requestMac!, cause))) {
        return this.#handleKeyRefused(cause);
      }
    }
    if (response.status !== 101) {
      const { status } = response;
      const { text, answer } = explainRefusal(head, status, psk !== undefined, this.#challenges > 0);
      return failed(new ProtocolError("ERR_UPGRADE_REFUSED", `status ${status}: ${text}`, { answer }));
    }
    const { extension } = response;
    if (extension === undefined || !response.bind) {
      return failed(
        new ProtocolError("ERR_UPGRADE_REFUSED", "the server does not support the Underpass extension"),
      );
    }
    if (extension.receipts && !this.#offersReceipts) {
      return failed(
        new ProtocolError("ERR_UPGRADE_REFUSED", "the server agreed to receipts that were not requested"),
      );
    }
    if (psk === undefined) return { kind: "accepted", extension };
    const { mac } = extension;
    if (constantTimeEqual(mac, responseMac(crypto, psk, this.#requestMac!, extension))) {
      return { kind: "accepted", extension };
    }
    const detail =
      mac === undefined ? "it has no key, or something on the path removed its proof" : "in its 101";
    return failed(new ProtocolError("ERR_SERVER_PROOF", detail));
  }
}

const KEY_REFUSALS: Readonly<Record<KeyRefusalCause, string>> = {
  expired: "it has expired there",
  name: "it knows this key by another name",
};

function failed(error: ProtocolError): Answer {
  return { kind: "failed", error };
}
