import { isHttp2Preface } from "../../../wire/http/extended-connect.ts";
import type { HttpHead } from "../../../wire/http/http-head.ts";
import { decodeHead } from "../../../wire/http/http-head.ts";
import type {
  ExtensionChallenge,
  ExtensionRequest,
  KeyRefusalCause,
  RefusalStatus,
  ShownTicket,
  UpgradeRequest,
} from "../../../wire/http/upgrade.ts";
import {
  decodeUnderpassField,
  decodeUpgradeRequest,
  encodeKeyRefusal,
  encodeRefusal,
} from "../../../wire/http/upgrade.ts";
import { webSocketKey } from "../../../wire/http/websocket-upgrade.ts";
import type { RefusalReason } from "../../counters.ts";
import type { Cryptography } from "../../handshakes/credentials.ts";
import {
  challengeMac,
  constantTimeEqual,
  keyRefusalMac,
  requestMac,
  SESSION_ID_BYTES,
} from "../../handshakes/credentials.ts";
import type { HeadBuffer } from "../../handshakes/head-buffer.ts";
import type { KeyTable } from "../../keys/key-table.ts";
import type { NamedKey } from "../../keys/named-key.ts";
import { workerOfKey } from "./key-worker.ts";
import { ReplayGuard } from "./replay-guard.ts";
import { serverIdBytes, Tickets } from "./tickets.ts";

/** Milliseconds by which the age of a ticket at its client may differ from its age here. */
const AGE_WINDOW_MS = 30_000;
/** Most nonces in one generation of {@link ReplayGuard}. */
const NONCE_CAPACITY = 65_536;
/** Offset of the server's number in a session id. In base64 it is characters 5 to 8, where a load balancer's pattern finds it. */
const SERVER_ID_OFFSET = 3;
/** Most characters of a stranger's request that the detail of a refusal shows. */
const MAX_DETAIL = 200;

/** Place of a thread among those of a server, from 0. */
export interface ServerPlace {
  readonly index: number;
  readonly count: number;
  /** Its sessions have higher numbers in their names than this one, which sessions of other threads may have from before. Default 0. */
  readonly numbersUsed?: number;
}

export interface HandshakeOptions {
  /** The pre-shared key of all clients; undefined for none. */
  readonly psk: Uint8Array | undefined;
  readonly crypto: Cryptography;
  /** Number of this server among several behind one address, 0 to 2^24 - 1. Its session ids contain it. Default: none. */
  readonly serverId?: number | undefined;
  /** Place of this thread among the server's threads; undefined if it is the only one. */
  readonly worker: ServerPlace | undefined;
  /** Path whose WebSockets carry tunnels. Default: none. */
  readonly webSocketPath?: string | undefined;
  /** Whether the host serves HTTP/2 and passes its requests in as nested connections. Only for servers without a key. Default false. */
  readonly offersHttp2?: boolean;
}

/** The key that a client has proved. */
export interface ProvenKey {
  readonly key: Uint8Array;
  /** The client that has the key; undefined for the shared key. */
  readonly holder: NamedKey | undefined;
}

/** The verdict on a request. */
export type Verdict =
  /** Count `reason`, send `response`, and close. `detail` is for this server's log. */
  | {
      readonly kind: "refuse";
      readonly reason: RefusalReason;
      readonly detail: string;
      readonly response: Uint8Array;
      /** Whether a client with the key sent the request, which is then not for a decoy. */
      readonly isProven?: boolean;
    }
  /** Send `challenge` in a 401 and read one more request. */
  | { readonly kind: "challenge"; readonly challenge: ExtensionChallenge }
  /** The connection becomes a WebSocket, which carries a nested connection. `key` is the request's. */
  | { readonly kind: "web-socket"; readonly key: string }
  /** The connection is HTTP/2. Each of its requests is judged by itself. */
  | { readonly kind: "http2" }
  /** A client with valid credentials requests a lane of a session that another worker has. */
  | { readonly kind: "hand-over"; readonly worker: number; readonly holder: NamedKey | undefined }
  /** A client with valid credentials requests a lane. `proven` is undefined if the server has no key. */
  | {
      readonly kind: "lane";
      readonly extension: ExtensionRequest;
      readonly proven: ProvenKey | undefined;
    }
  /** A request of RFC 9298 without our extension. */
  | { readonly kind: "plain"; readonly request: UpgradeRequest };

/** Judges requests by their heads (PROTOCOL.md §2). It changes nothing but its own memory of nonces. */
export class Handshake {
  readonly #options: HandshakeOptions;
  /** Keys of single clients; undefined if the server has none. */
  readonly #keys: KeyTable | undefined;
  readonly #tickets: Tickets;
  readonly #guard = new ReplayGuard(2 * AGE_WINDOW_MS, NONCE_CAPACITY);
  /** The worker that gets the next new session. */
  #nextWorker = 0;

  constructor(options: HandshakeOptions, keys?: KeyTable) {
    this.#options = options;
    this.#keys = keys;
    this.#tickets = new Tickets(options.crypto, options.serverId);
  }

  /**
   * Judges a request.
   *
   * @param buffer    a complete head
   * @param isNested  whether another protocol carries it. It then becomes no WebSocket and stays with this worker
   */
  judge(now: number, buffer: HeadBuffer, isNested = false): Verdict {
    const { worker, webSocketPath, offersHttp2 } = this.#options;
    const hasKey = this.#hasKey;
    const head = decodeHead(buffer.bytes, buffer.length);
    if (head === undefined) return refusal("not_upgrade", "not HTTP/1.1", 400);
    if (offersHttp2 === true && !isNested && isHttp2Preface(head)) return { kind: "http2" };
    const request = decodeUpgradeRequest(head);
    if (request === undefined) {
      const key = webSocketPath === undefined || isNested ? undefined : webSocketKey(head, webSocketPath);
      if (key !== undefined) return { kind: "web-socket", key };
      return this.#isOwnRequest(now, head) ? changed(head) : refusal("not_upgrade", describe(head), 404);
    }
    // A server with a key answers strangers as a web server without this protocol would.
    if (request === "malformed") {
      if (this.#isOwnRequest(now, head)) return changed(head);
      return refusal("not_upgrade", describe(head), hasKey ? 404 : 400);
    }
    const { extension } = request;
    if (extension === undefined) {
      return hasKey
        ? refusal(
            "bad_credentials",
            "RFC 9298 without Underpass, which a server with a key does not serve",
            404,
          )
        : { kind: "plain", request };
    }
    if (!request.bind || request.target !== undefined) {
      return refusal("bad_credentials", "Underpass in a request for one target", 404);
    }
    const proven = hasKey ? this.#judgeCredentials(now, extension) : undefined;
    if (proven !== undefined && "kind" in proven) return proven;
    // After the credentials, because a stranger must not start or occupy another worker.
    const owner = isNested ? worker?.index : this.#ownerOf(extension, proven?.holder);
    return owner === worker?.index
      ? { kind: "lane", extension, proven }
      : { kind: "hand-over", worker: owner!, holder: proven?.holder };
  }

  /**
   * Judges a request that another worker has judged and handed over.
   *
   * @param bytes       its complete head
   * @param holderName  name of the key that the client has proved; undefined for the shared key, or none
   */
  judgeHandedOver(bytes: Uint8Array, holderName?: string): Verdict {
    const { psk } = this.#options;
    const head = decodeHead(bytes, bytes.length);
    const request = head === undefined ? undefined : decodeUpgradeRequest(head);
    if (request === undefined || request === "malformed" || request.extension === undefined) {
      return refusal("not_upgrade", "handed over", 404);
    }
    const { extension } = request;
    if (holderName === undefined) {
      return { kind: "lane", extension, proven: psk && { key: psk, holder: undefined } };
    }
    const holder = this.#keys?.byName(holderName);
    if (holder === undefined) return refusal("bad_credentials", "its key is gone", 404);
    return { kind: "lane", extension, proven: { key: holder.key, holder } };
  }

  get #hasKey(): boolean {
    return this.#options.psk !== undefined || this.#keys !== undefined;
  }

  /** Makes a session id. It is random, except for its first byte (the worker) and its fourth to sixth (the server's number). */
  newSessionId(): Uint8Array {
    const { crypto, worker, serverId } = this.#options;
    const id = crypto.random(SESSION_ID_BYTES);
    if (worker !== undefined) id[0] = worker.index;
    if (serverId !== undefined) id.set(serverIdBytes(serverId), SERVER_ID_OFFSET);
    return id;
  }

  /** The worker for a request: the one that has its session. New sessions go to each worker in turn. */
  #ownerOf({ session }: ExtensionRequest, holder: NamedKey | undefined): number | undefined {
    const { worker } = this.#options;
    if (worker === undefined) return undefined;
    if (session !== undefined) return session[0] % worker.count;
    const own = workerOfKey(this.#options, holder);
    if (own !== undefined) return own;
    const owner = this.#nextWorker;
    this.#nextWorker = (owner + 1) % worker.count;
    return owner;
  }

  /** Whether a client with a key sent a request whose path or fields something on the way has changed. */
  #isOwnRequest(now: number, head: HttpHead): boolean {
    const extension = this.#hasKey ? decodeUnderpassField(head) : undefined;
    return extension !== undefined && typeof this.#identify(now, extension) === "object";
  }

  /** Finds the key that made a request's MAC. @returns undefined if there is none; "busy" if the search would cost too much now */
  #identify(
    now: number,
    extension: ExtensionRequest,
  ): (ProvenKey & { readonly isMisnamed: boolean }) | "busy" | undefined {
    const { crypto, psk } = this.#options;
    const { mac, keyId } = extension;
    if (mac === undefined) return undefined;
    if (psk !== undefined && constantTimeEqual(mac, requestMac(crypto, psk, extension))) {
      return { key: psk, holder: undefined, isMisnamed: false };
    }
    const found = this.#keys?.find(now, extension);
    if (found === undefined || found === "busy") return found;
    // The client has a wrong name or a wrong clock. A challenge can correct the clock.
    const isMisnamed = keyId !== undefined && found.by === "trial";
    return { key: found.key.key, holder: found.key, isMisnamed };
  }

  /** @returns the key that the client has proved, or the verdict if it gets no lane yet */
  #judgeCredentials(now: number, extension: ExtensionRequest): ProvenKey | Verdict {
    const { crypto } = this.#options;
    const keys = this.#keys;
    const { mac, nonce, ticket: shown } = extension;
    if (mac === undefined) return refusal("bad_credentials", "no MAC: the client has no key", 404);
    const identified = this.#identify(now, extension);
    if (identified === "busy") {
      return refusal("key_search_limit", "too many requests without a known key", 404);
    }
    if (identified === undefined) {
      return refusal("bad_credentials", "wrong MAC: the client has another key", 404);
    }
    const { key, holder, isMisnamed } = identified;
    if (!this.#isCurrent(now, shown)) {
      const ticket = this.#tickets.issue(now);
      const unixS = isMisnamed ? Math.floor(keys!.unixMs(now) / 1000) : undefined;
      const proof = challengeMac(crypto, key, nonce, ticket, unixS);
      return { kind: "challenge", challenge: { ticket, unixS, mac: proof } };
    }
    const novelty = this.#guard.admit(now, nonce);
    if (novelty === "replayed") return refusal("replay", "the same request as before", 404);
    if (novelty === "full") return refusal("nonce_limit", "too many requests in a minute", 503);
    if (holder !== undefined && keys!.isExpired(now, holder)) {
      return this.#refuseKey("key_expired", "expired", holder, mac);
    }
    return isMisnamed ? this.#refuseKey("key_name", "name", holder!, mac) : { key, holder };
  }

  #refuseKey(
    reason: RefusalReason,
    cause: KeyRefusalCause,
    { name, key }: NamedKey,
    clientMac: Uint8Array,
  ): Verdict {
    const mac = keyRefusalMac(this.#options.crypto, key, clientMac, cause);
    const detail = cause === "expired" ? `the key of ${name}` : `the client has the key of ${name}`;
    return { kind: "refuse", reason, detail, response: encodeKeyRefusal({ cause, mac }), isProven: true };
  }

  /** Whether this process issued the ticket and its age agrees with the client's (RFC 8446 §8.3). */
  #isCurrent(now: number, ticket: ShownTicket | undefined): boolean {
    const issuedAt = ticket === undefined ? undefined : this.#tickets.issuedAt(ticket.bytes);
    return issuedAt !== undefined && Math.abs(issuedAt + ticket!.age - now) <= AGE_WINDOW_MS;
  }
}

function refusal(reason: RefusalReason, detail: string, status: RefusalStatus): Verdict {
  return { kind: "refuse", reason, detail, response: encodeRefusal(status, undefined) };
}

/** Refuses a changed request. The client has the key, so the answer may reveal that this is a server of this protocol. */
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

/** Describes a request that is no upgrade to connect-udp. */
function describe({ startLine, fields }: HttpHead): string {
  const upgrade = fields.get("upgrade")?.join(", ");
  return `${startLine}; ${upgrade === undefined ? "no Upgrade" : `Upgrade: ${upgrade}`}`.slice(0, MAX_DETAIL);
}
