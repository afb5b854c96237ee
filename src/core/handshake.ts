import { decodeHead } from "../wire/http-head.ts";
import type { ExtensionRequest, UpgradeRequest } from "../wire/upgrade.ts";
import { decodeUpgradeRequest, encodeChallengeResponse, encodeRefusal } from "../wire/upgrade.ts";
import type { RefusalReason } from "./counters.ts";
import type { Cryptography, Transcript } from "./credentials.ts";
import { challengeMac, constantTimeEqual, NONCE_BYTES, requestMac, SESSION_ID_BYTES } from "./credentials.ts";
import type { HeadBuffer } from "./head-buffer.ts";
import { ReplayGuard } from "./replay-guard.ts";

const NONCE_CAPACITY = 65_536;

export interface HandshakeOptions {
  /** Pre-shared key, or undefined for none. */
  readonly psk: Uint8Array | undefined;
  readonly crypto: Cryptography;
  /** Unix time less the clock that is handed in as `now`. */
  readonly unixOffsetMs: number;
  /** `now` at the start. */
  readonly startedAt: number;
  /** Which of several servers behind one address this is; undefined for the only one. */
  readonly worker: { readonly index: number; readonly count: number } | undefined;
}

/** What is to be done about a request. */
export type Verdict =
  /** Count `reason`, send `response`, and close. */
  | { readonly kind: "refuse"; readonly reason: RefusalReason; readonly response: Uint8Array }
  /** Send `response` and read one more request, to be judged with `challenge`. */
  | { readonly kind: "challenge"; readonly challenge: Uint8Array; readonly response: Uint8Array }
  /** The request is another worker's. */
  | { readonly kind: "hand-over"; readonly worker: number }
  /** A client with valid credentials asks for a lane. */
  | { readonly kind: "lane"; readonly extension: ExtensionRequest; readonly transcript: Transcript }
  /** RFC 9298 without our extension. */
  | { readonly kind: "plain"; readonly request: UpgradeRequest };

/** The server's side of the handshake: judges a request by its head, and changes nothing but its own memory of nonces. */
export class Handshake {
  readonly #options: HandshakeOptions;
  readonly #guard: ReplayGuard;

  constructor(options: HandshakeOptions) {
    this.#options = options;
    this.#guard = new ReplayGuard(Math.floor(options.startedAt + options.unixOffsetMs), NONCE_CAPACITY);
  }

  /**
   * @param buffer     a whole head
   * @param challenge  the one that was sent on this connection, if any
   */
  judge(now: number, buffer: HeadBuffer, challenge: Uint8Array | undefined): Verdict {
    const head = decodeHead(buffer.bytes, buffer.length);
    if (head === undefined) return refusal("not_upgrade", 400);
    const request = decodeUpgradeRequest(head);
    if (request === undefined) return refusal("not_upgrade", 404);
    const { extension } = request;
    if (extension === undefined) {
      if (this.#options.psk === undefined) return { kind: "plain", request };
      return refusal("bad_credentials", 404);
    }
    const owner = this.#ownerOf(extension, challenge);
    if (owner !== this.#options.worker?.index) return { kind: "hand-over", worker: owner! };
    return this.#judgeCredentials(now, request, extension, challenge);
  }

  /** Unguessable but for its first byte, which names the worker. */
  newSessionId(): Uint8Array {
    const { crypto, worker } = this.#options;
    const id = crypto.random(SESSION_ID_BYTES);
    if (worker !== undefined) id[0] = worker.index;
    return id;
  }

  /**
   * Which worker a request is for: the one that has its session; of a new session, one that its nonce chooses, so that
   * a replay comes to the worker that has seen the nonce.
   */
  #ownerOf({ session, nonce }: ExtensionRequest, challenge: Uint8Array | undefined): number | undefined {
    const { worker } = this.#options;
    if (worker === undefined || challenge !== undefined) return worker?.index;
    return (session === undefined ? nonce[0] : session[0]) % worker.count;
  }

  #judgeCredentials(
    now: number,
    request: UpgradeRequest,
    extension: ExtensionRequest,
    challenge: Uint8Array | undefined,
  ): Verdict {
    const { psk, crypto, unixOffsetMs } = this.#options;
    const transcript: Transcript = { path: request.path, ...extension };
    const isBound = request.bind && request.target === undefined;
    if (
      !isBound ||
      (psk !== undefined && !constantTimeEqual(extension.mac, requestMac(crypto, psk, transcript)))
    ) {
      return refusal("bad_credentials", 404);
    }
    if (challenge !== undefined) {
      if (!constantTimeEqual(extension.challenge, challenge)) return refusal("bad_credentials", 404);
    } else {
      const freshness = this.#guard.check(Math.floor(now + unixOffsetMs), extension.time, extension.nonce);
      if (freshness === "replayed") return refusal("replay", 404);
      if (freshness === "unsure") return this.#challenge(extension.nonce);
    }
    return { kind: "lane", extension, transcript };
  }

  #challenge(clientNonce: Uint8Array): Verdict {
    const { psk, crypto } = this.#options;
    const challenge = crypto.random(NONCE_BYTES);
    const mac = psk === undefined ? undefined : challengeMac(crypto, psk, clientNonce, challenge);
    return { kind: "challenge", challenge, response: encodeChallengeResponse({ challenge, mac }) };
  }
}

function refusal(reason: RefusalReason, status: 400 | 404): Verdict {
  return { kind: "refuse", reason, response: encodeRefusal(status, undefined) };
}
