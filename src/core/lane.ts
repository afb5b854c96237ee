import { MAX_CONTROL_CAPSULE_BYTES } from "../wire/capsule.ts";
import { decodeHead } from "../wire/http-head.ts";
import type { ExtensionChallenge, ExtensionResponse, UpgradeResponse } from "../wire/upgrade.ts";
import { BIND_PATH, decodeUpgradeResponse, encodeUpgradeRequest } from "../wire/upgrade.ts";
import type { Counters } from "./counters.ts";
import type { Cryptography, Transcript } from "./credentials.ts";
import {
  challengeMac,
  constantTimeEqual,
  deriveSessionKey,
  NONCE_BYTES,
  requestMac,
  responseMac,
  resumeMac,
} from "./credentials.ts";
import { ProtocolError } from "./errors.ts";
import { HeadBuffer } from "./head-buffer.ts";
import type { SendQueue } from "./send-queue.ts";
import { LANE, LANE_HELD, LANE_UP } from "./session-model.ts";
import { Tunnel } from "./tunnel.ts";

const FIRST_BACKOFF_MS = 200;
const MAX_BACKOFF_MS = 5_000;
/** Bytes of control capsules that may wait for a server that does not read, besides those that register all there is. */
const CONTROL_BYTES = 1_048_576;
const NEVER = Number.POSITIVE_INFINITY;

/** All durations in milliseconds. */
export interface LaneOptions {
  /** Value of the Host field. */
  readonly authority: string;
  /** Pre-shared key, or undefined for none. */
  readonly psk: Uint8Array | undefined;
  readonly crypto: Cryptography;
  /** Unix time less the clock that is handed in as `now`. */
  readonly unixOffsetMs: number;
  readonly heartbeatMs: number;
  readonly handshakeTimeoutMs: number;
  readonly maxAssociations: number;
  readonly maxContexts: number;
}

/** A session that a lane joins. */
export interface SessionCredentials {
  readonly id: Uint8Array;
  readonly key: Uint8Array;
}

/** What bytes of the server's answer came to: undefined while more are needed. */
export type Answer =
  | { readonly kind: "accepted"; readonly extension: ExtensionResponse }
  | { readonly kind: "failed"; readonly error: ProtocolError };

/** One connection of a client's session, from the wait before it to its end, again and again. */
export class Lane {
  readonly index: number;
  /** A state of {@link LANE}. */
  state = LANE_HELD;
  readonly queue: SendQueue;
  tunnel: Tunnel | undefined;
  /** Next connect, or the end of patience with the one under way. */
  deadline = NEVER;
  /** Associations pinned here. */
  load = 0;

  readonly #options: LaneOptions;
  readonly #counters: Counters;
  readonly #head = new HeadBuffer();
  #transcript: Transcript | undefined;
  #requestMac: Uint8Array | undefined;
  #challenged = false;
  #attempts = 0;
  /** Where {@link handleHead} stopped. */
  #answer: Answer | undefined;

  constructor(index: number, queue: SendQueue, counters: Counters, options: LaneOptions) {
    this.index = index;
    this.queue = queue;
    this.#counters = counters;
    this.#options = options;
  }

  get isUp(): boolean {
    return this.state === LANE_UP;
  }

  /** When the client wants to look after this lane; Infinity for never. */
  nextTimeout(): number {
    return this.isUp ? this.tunnel!.nextTimeout() : this.deadline;
  }

  #handle(event: Parameters<typeof LANE.after>[1]): void {
    this.state = LANE.after(this.state, event);
  }

  /** The attempt under way is given up for good. */
  close(): void {
    this.#handle("close");
    this.deadline = NEVER;
    this.tunnel = undefined;
  }

  /** The host is asked to connect. */
  connect(now: number): void {
    this.#handle("connect");
    // The carrier has a deadline of its own; this one catches a host that never answers.
    this.deadline = now + 4 * this.#options.handshakeTimeoutMs;
  }

  /** Waits for another lane. */
  hold(): void {
    this.#handle("hold");
    this.deadline = NEVER;
  }

  /** Sends a request. @param session  the one to join or resume */
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
    this.#challenged = false;
    this.#answer = undefined;
    this.#sendRequest(now, session, undefined);
  }

  /**
   * Bytes of the server's answer to the request.
   *
   * @returns the offset behind its head; look at {@link answer} then
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
      if (at === -1) return end;
      this.#answer =
        at === -2
          ? failed(new ProtocolError("ERR_HEAD_TOO_LARGE", "from the server"))
          : this.#judge(now, session);
    }
    return this.#answer?.kind === "failed" ? end : at;
  }

  /** What the server answered; undefined before that. */
  get answer(): Answer | undefined {
    return this.#answer;
  }

  /** Key of the session that the server began with this lane. */
  deriveSessionKey({ nonce, session }: ExtensionResponse): Uint8Array {
    const { crypto, psk } = this.#options;
    return deriveSessionKey(crypto, psk ?? new Uint8Array(0), this.#transcript!.nonce, nonce, session);
  }

  /** Capsules from now on. */
  open(now: number): void {
    this.#handle("accepted");
    this.#attempts = 0;
    this.deadline = NEVER;
    this.tunnel!.open(now, true);
  }

  /** The connection, or the attempt to make it, has ended: waits, longer each time. */
  handleLost(now: number, isClosed: boolean): void {
    const delay = Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** Math.min(this.#attempts, 10));
    const jitter = this.#options.crypto.random(1)[0] / 255;
    this.#attempts++;
    this.#handle("lost");
    this.deadline = isClosed ? NEVER : now + delay * (0.5 + jitter / 2);
    this.tunnel = undefined;
  }

  #sendRequest(
    now: number,
    session: SessionCredentials | undefined,
    challenge: Uint8Array | undefined,
  ): void {
    const { crypto, psk, authority, unixOffsetMs } = this.#options;
    const transcript: Transcript = {
      path: BIND_PATH,
      nonce: crypto.random(NONCE_BYTES),
      time: Math.max(0, Math.floor(now + unixOffsetMs)),
      lane: this.index,
      challenge,
      session: session?.id,
    };
    this.#transcript = transcript;
    this.#requestMac = psk === undefined ? undefined : requestMac(crypto, psk, transcript);
    this.tunnel!.writeControl(
      encodeUpgradeRequest(authority, BIND_PATH, true, {
        nonce: transcript.nonce,
        time: transcript.time,
        lane: transcript.lane,
        challenge,
        session: transcript.session,
        mac: this.#requestMac,
        resumeMac: session === undefined ? undefined : resumeMac(crypto, session.key, transcript),
      }),
    );
  }

  /** Judges a whole head. @returns undefined when it asked for another request, which is sent */
  #judge(now: number, session: SessionCredentials | undefined): Answer | undefined {
    const head = decodeHead(this.#head.bytes, this.#head.length);
    const response = head === undefined ? undefined : decodeUpgradeResponse(head);
    if (response === undefined) {
      return failed(new ProtocolError("ERR_HEAD_MALFORMED", "is this an udp-server?"));
    }
    if (response.challenge !== undefined && !this.#challenged) {
      return this.#answerChallenge(now, session, response.challenge);
    }
    return this.#judgeResponse(response);
  }

  #answerChallenge(
    now: number,
    session: SessionCredentials | undefined,
    { challenge, mac }: ExtensionChallenge,
  ): Answer | undefined {
    const { crypto, psk } = this.#options;
    if (
      psk !== undefined &&
      !constantTimeEqual(mac, challengeMac(crypto, psk, this.#transcript!.nonce, challenge))
    ) {
      return failed(new ProtocolError("ERR_SERVER_PROOF", "in its challenge"));
    }
    this.#challenged = true;
    this.#head.clear();
    this.#sendRequest(now, session, challenge);
    return undefined;
  }

  #judgeResponse(response: UpgradeResponse): Answer {
    const { crypto, psk } = this.#options;
    if (response.status !== 101) {
      const hint = psk === undefined ? "does it want a key?" : "is the key the same on both ends?";
      return failed(new ProtocolError("ERR_UPGRADE_REFUSED", `status ${response.status}; ${hint}`));
    }
    const { extension } = response;
    if (extension === undefined || !response.bind) {
      return failed(
        new ProtocolError("ERR_UPGRADE_REFUSED", "the server does not speak the Underpass extension"),
      );
    }
    if (psk === undefined) return { kind: "accepted", extension };
    const { nonce, session, resumed, mac } = extension;
    const expected = responseMac(crypto, psk, this.#requestMac!, nonce, session, resumed);
    if (constantTimeEqual(mac, expected)) return { kind: "accepted", extension };
    return failed(new ProtocolError("ERR_SERVER_PROOF", "in its 101"));
  }
}

function failed(error: ProtocolError): Answer {
  return { kind: "failed", error };
}
