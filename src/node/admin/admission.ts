import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { ipFamily } from "../../host/addresses/endpoint.ts";

/** Why a request is refused: the status of the answer, and a line for its sender. */
export interface Refusal {
  readonly status: 401 | 403 | 405;
  readonly reason: string;
}

/** Decides which requests an admin server answers. */
export class Admission {
  readonly #tokenHash: Buffer | undefined;

  /** @param token  that clients must send; undefined for none */
  constructor(token: Uint8Array | undefined) {
    this.#tokenHash = token && hash(token);
  }

  /**
   * @param isOpen  whether the path needs no token
   * @returns undefined for a request to answer
   */
  refusalOf({ method, headers, socket }: IncomingMessage, isOpen: boolean): Refusal | undefined {
    if (method !== "GET" && method !== "HEAD") return { status: 405, reason: "only GET and HEAD" };
    // A page of another site whose name resolves to this host (DNS rebinding) sends that name. It cannot reach a Unix socket.
    const isReachable = socket.remoteAddress !== undefined;
    if (this.#tokenHash === undefined) {
      if (isReachable && !isOwnName(headers.host))
        return { status: 403, reason: "Host is not an IP address or localhost" };
      return undefined;
    }
    if (isOpen || this.#isToken(headers.authorization)) return undefined;
    return { status: 401, reason: "Authorization: Bearer with the admin token is required" };
  }

  #isToken(authorization: string | undefined): boolean {
    const given = /^Bearer +(\S+) *$/i.exec(authorization ?? "")?.[1];
    return given !== undefined && timingSafeEqual(hash(Buffer.from(given)), this.#tokenHash!);
  }
}

function isOwnName(host: string | undefined): boolean {
  const match = /^(?:\[([^\]]+)\]|([^:]+))(?::\d{1,5})?$/.exec(host ?? "");
  if (match === null) return false;
  const name = (match[1] ?? match[2]).toLowerCase();
  return name === "localhost" || ipFamily(name) !== undefined;
}

function hash(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}
