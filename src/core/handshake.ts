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
  /** A client with valid credentials asks for a lane of a session that is another worker's. */
  | { readonly kind: "hand-over"; readonly worker: number }
  /** A client with valid credentials asks for a lane. */
  | LaneVerdict
  /** RFC 9298 without our extension. */
  | { readonly kind: "plain"; readonly request: UpgradeRequest };

interface LaneVerdict {
  readonly kind: "lane";
  readonly extension: ExtensionRequest;
  readonly transcript: Transcript;
}

/** The server's side of the handshake: judges a request by its head, and changes nothing but its own memory of nonces. */
export class Handshake {
  readonly #options: HandshakeOptions;
  readonly #guard: ReplayGuard;
  /** Worker of the next new session. */
  #nextWorker = 0;

  constructor(options: HandshakeOptions) {
    this.#options = options;
    this.#guard = new ReplayGuard(Math.floor(options.startedAt + options.unixOffsetMs), NONCE_CAPACITY);
  }

  /**
   * @param buffer     a whole head
   * @param challenge  the one that was sent on this connection, if any
   */
  judge(now: number, buffer: HeadBuffer, challenge: Uint8Array | undefined): Verdict {
    const { psk } = this.#options;
    const head = decodeHead(buffer.bytes, buffer.length);
    if (head === undefined) return refusal("not_upgrade", 400);
    const request = decodeUpgradeRequest(head);
    if (request === undefined) return refusal("not_upgrade", 404);
    // A server with a key answers strangers like any web server, which knows nothing of such requests.
    if (request === "malformed") return refusal("not_upgrade", psk === undefined ? 400 : 404);
    if (request.extension === undefined) {
      return psk === undefined ? { kind: "plain", request } : refusal("bad_credentials", 404);
    }
    const lane = laneOf(request, request.extension);
    const unproven = this.#judgeCredentials(now, request, lane, challenge);
    if (unproven !== undefined) return unproven;
    // Only now: nothing that a stranger sends may occupy another worker, or start one.
    const worker = this.#ownerOf(request.extension);
    return worker === this.#options.worker?.index ? lane : { kind: "hand-over", worker: worker! };
  }

  /** The request of a connection that another worker has handed over, and has judged. @param head  whole */
  judgeHandedOver(head: Uint8Array): Verdict {
    const decoded = decodeHead(head, head.length);
    const request = decoded === undefined ? undefined : decodeUpgradeRequest(decoded);
    if (request === undefined || request === "malformed" || request.extension === undefined) {
      return refusal("not_upgrade", 404);
    }
    return laneOf(request, request.extension);
  }

  /** Unguessable but for its first byte, which names the worker. */
  newSessionId(): Uint8Array {
    const { crypto, worker } = this.#options;
    const id = crypto.random(SESSION_ID_BYTES);
    if (worker !== undefined) id[0] = worker.index;
    return id;
  }

  /** Which worker a request is for: the one that has its session, or for a new session each in turn. */
  #ownerOf({ session }: ExtensionRequest): number | undefined {
    const { worker } = this.#options;
    if (worker === undefined) return undefined;
    if (session !== undefined) return session[0] % worker.count;
    const owner = this.#nextWorker;
    this.#nextWorker = (owner + 1) % worker.count;
    return owner;
  }

  /** @returns undefined when they are good */
  #judgeCredentials(
    now: number,
    request: UpgradeRequest,
    { extension, transcript }: LaneVerdict,
    challenge: Uint8Array | undefined,
  ): Verdict | undefined {
    const { psk, crypto, unixOffsetMs } = this.#options;
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
    return undefined;
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

function laneOf({ path }: UpgradeRequest, extension: ExtensionRequest): LaneVerdict {
  return { kind: "lane", extension, transcript: { path, ...extension } };
}
