import { isHttp2Preface } from "../wire/extended-connect.ts";
import type { HttpHead } from "../wire/http-head.ts";
import { decodeHead } from "../wire/http-head.ts";
import type { ExtensionRequest, RefusalStatus, ShownTicket, UpgradeRequest } from "../wire/upgrade.ts";
import {
  decodeUnderpassField,
  decodeUpgradeRequest,
  encodeChallengeResponse,
  encodeRefusal,
} from "../wire/upgrade.ts";
import { webSocketKey } from "../wire/websocket-upgrade.ts";
import type { RefusalReason } from "./counters.ts";
import type { Cryptography } from "./credentials.ts";
import { challengeMac, constantTimeEqual, requestMac, SESSION_ID_BYTES } from "./credentials.ts";
import type { HeadBuffer } from "./head-buffer.ts";
import { ReplayGuard } from "./replay-guard.ts";
import { Tickets } from "./tickets.ts";

/** How far the age of a ticket, as measured by its client, may differ from its age here. */
const AGE_WINDOW_MS = 30_000;
/** How long a request stays within {@link AGE_WINDOW_MS}, from the earliest to the latest. */
const NONCE_CAPACITY = 65_536;
/** How much of a stranger's request the detail of a refusal shows, in characters. */
const MAX_DETAIL = 200;

export interface HandshakeOptions {
  /** Pre-shared key, or undefined for none. */
  readonly psk: Uint8Array | undefined;
  readonly crypto: Cryptography;
  /** Which of several servers behind one address this is; undefined if it is the only one. */
  readonly worker: { readonly index: number; readonly count: number } | undefined;
  /** Path whose WebSockets carry tunnels. Default: none. */
  readonly webSocketPath?: string | undefined;
  /** Whether the host serves HTTP/2, whose requests come back as nested connections. Only for servers without a key. Default false. */
  readonly offersHttp2?: boolean;
}

/** The verdict on a request. */
export type Verdict =
  /** Count `reason`, send `response`, and close. `detail` is for the server's own log. */
  | {
      readonly kind: "refuse";
      readonly reason: RefusalReason;
      readonly detail: string;
      readonly response: Uint8Array;
      /** A client with the key has sent it: it is not for a decoy. */
      readonly isProven?: boolean;
    }
  /** Send `response` and read one more request. */
  | { readonly kind: "challenge"; readonly response: Uint8Array }
  /** The connection becomes a WebSocket, which carries another one; `key` is the request's. */
  | { readonly kind: "web-socket"; readonly key: string }
  /** The connection begins HTTP/2, whose requests are judged one by one. */
  | { readonly kind: "http2" }
  /** A client with valid credentials requests a lane of a session of another worker. */
  | { readonly kind: "hand-over"; readonly worker: number }
  /** A client with valid credentials requests a lane. */
  | { readonly kind: "lane"; readonly extension: ExtensionRequest }
  /** RFC 9298 without our extension. */
  | { readonly kind: "plain"; readonly request: UpgradeRequest };

/** The server's side of the handshake: judges a request by its head, and changes only its own memory of nonces. */
export class Handshake {
  readonly #options: HandshakeOptions;
  readonly #tickets: Tickets;
  readonly #guard = new ReplayGuard(2 * AGE_WINDOW_MS, NONCE_CAPACITY);
  /** Worker of the next new session. */
  #nextWorker = 0;

  constructor(options: HandshakeOptions) {
    this.#options = options;
    this.#tickets = new Tickets(options.crypto);
  }

  /**
   * @param buffer    a whole head
   * @param isNested  true within another protocol: it becomes no WebSocket, and stays with this worker
   */
  judge(now: number, buffer: HeadBuffer, isNested = false): Verdict {
    const { psk, worker, webSocketPath, offersHttp2 } = this.#options;
    const head = decodeHead(buffer.bytes, buffer.length);
    if (head === undefined) return refusal("not_upgrade", "not HTTP/1.1", 400);
    if (offersHttp2 === true && !isNested && isHttp2Preface(head)) return { kind: "http2" };
    const request = decodeUpgradeRequest(head);
    if (request === undefined) {
      const key = webSocketPath === undefined || isNested ? undefined : webSocketKey(head, webSocketPath);
      if (key !== undefined) return { kind: "web-socket", key };
      return this.#isOwnRequest(head) ? changed(head) : refusal("not_upgrade", describe(head), 404);
    }
    // A server with a key answers strangers like any web server, which does not know such requests.
    if (request === "malformed") {
      if (this.#isOwnRequest(head)) return changed(head);
      return refusal("not_upgrade", describe(head), psk === undefined ? 400 : 404);
    }
    const { extension } = request;
    if (extension === undefined) {
      return psk === undefined
        ? { kind: "plain", request }
        : refusal(
            "bad_credentials",
            "RFC 9298 without Underpass, which a server with a key does not serve",
            404,
          );
    }
    if (!request.bind || request.target !== undefined) {
      return refusal("bad_credentials", "Underpass in a request for one target", 404);
    }
    const unproven = psk === undefined ? undefined : this.#judgeCredentials(now, psk, extension);
    if (unproven !== undefined) return unproven;
    // Only now, as a stranger must not be able to occupy or start another worker.
    const owner = isNested ? worker?.index : this.#ownerOf(extension);
    return owner === worker?.index ? { kind: "lane", extension } : { kind: "hand-over", worker: owner! };
  }

  /** The request of a connection that another worker has judged and handed over. @param bytes  its whole head */
  judgeHandedOver(bytes: Uint8Array): Verdict {
    const head = decodeHead(bytes, bytes.length);
    const request = head === undefined ? undefined : decodeUpgradeRequest(head);
    if (request === undefined || request === "malformed" || request.extension === undefined) {
      return refusal("not_upgrade", "handed over", 404);
    }
    return { kind: "lane", extension: request.extension };
  }

  /** Unpredictable except for its first byte, which names the worker. */
  newSessionId(): Uint8Array {
    const { crypto, worker } = this.#options;
    const id = crypto.random(SESSION_ID_BYTES);
    if (worker !== undefined) id[0] = worker.index;
    return id;
  }

  /** The worker for a request: the one that has its session, or, for a new session, each in turn. */
  #ownerOf({ session }: ExtensionRequest): number | undefined {
    const { worker } = this.#options;
    if (worker === undefined) return undefined;
    if (session !== undefined) return session[0] % worker.count;
    const owner = this.#nextWorker;
    this.#nextWorker = (owner + 1) % worker.count;
    return owner;
  }

  /** Whether a client with the key has sent it, and something on the way has changed its path or its fields. */
  #isOwnRequest(head: HttpHead): boolean {
    const { psk, crypto } = this.#options;
    const extension = psk === undefined ? undefined : decodeUnderpassField(head);
    if (extension?.mac === undefined) return false;
    return constantTimeEqual(extension.mac, requestMac(crypto, psk!, extension));
  }

  /** @returns undefined when they are valid */
  #judgeCredentials(now: number, psk: Uint8Array, extension: ExtensionRequest): Verdict | undefined {
    const { crypto } = this.#options;
    if (extension.mac === undefined) return refusal("bad_credentials", "no MAC: the client has no key", 404);
    if (!constantTimeEqual(extension.mac, requestMac(crypto, psk, extension))) {
      return refusal("bad_credentials", "wrong MAC: the client has another key", 404);
    }
    if (!this.#isCurrent(now, extension.ticket)) {
      const ticket = this.#tickets.issue(now);
      const mac = challengeMac(crypto, psk, extension.nonce, ticket);
      return { kind: "challenge", response: encodeChallengeResponse({ ticket, mac }) };
    }
    const novelty = this.#guard.admit(now, extension.nonce);
    if (novelty === "replayed") return refusal("replay", "the same request as before", 404);
    return novelty === "full" ? refusal("nonce_limit", "too many requests in a minute", 503) : undefined;
  }

  /** RFC 8446 §8.3: true if this process issued the ticket, and its age is what the client says. */
  #isCurrent(now: number, ticket: ShownTicket | undefined): boolean {
    const issuedAt = ticket === undefined ? undefined : this.#tickets.issuedAt(ticket.bytes);
    return issuedAt !== undefined && Math.abs(issuedAt + ticket!.age - now) <= AGE_WINDOW_MS;
  }
}

function refusal(reason: RefusalReason, detail: string, status: RefusalStatus): Verdict {
  return { kind: "refuse", reason, detail, response: encodeRefusal(status, undefined) };
}

/** The client has the key, so it may know that something on the way has changed its request. */
function changed(head: HttpHead): Verdict {
  const detail = `changed on the way: ${describe(head)}`;
  return {
    kind: "refuse",
    reason: "not_upgrade",
    detail,
    response: encodeRefusal(400, undefined),
    isProven: true,
  };
}

/** Describes what arrived instead of an upgrade to connect-udp. */
function describe({ startLine, fields }: HttpHead): string {
  const upgrade = fields.get("upgrade")?.join(", ");
  return `${startLine}; ${upgrade === undefined ? "no Upgrade" : `Upgrade: ${upgrade}`}`.slice(0, MAX_DETAIL);
}
