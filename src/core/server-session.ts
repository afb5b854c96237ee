import type { UpgradeRequest } from "../wire/upgrade.ts";
import type { HeadBuffer } from "./head-buffer.ts";
import { LookupTurns } from "./name-lookups.ts";
import { BoundIds } from "./plain-tunnels.ts";
import { SESSION } from "./session-model.ts";
import { TokenBucket } from "./token-bucket.ts";
import type { Tunnel } from "./tunnel.ts";
import { UnknownContexts } from "./unknown-contexts.ts";

/** UNREACHABLE capsules that a client gets per second. */
const UNREACHABLE_PER_SECOND = 100;

/** A TCP connection at the server. */
export interface Connection {
  readonly index: number;
  state: "head" | "resolving" | "binding" | "open" | "closing";
  readonly tunnel: Tunnel;
  readonly head: HeadBuffer;
  lane: number;
  session: Session | undefined;
  request: UpgradeRequest | undefined;
  isDirty: boolean;
  /** The client sends no more. */
  hasEnded: boolean;
}

/** A session at the server: what outlives its connections. */
export class Session {
  /** A reusable number, for tables. */
  readonly index: number;
  /** Short name for logs; not a secret. */
  readonly name: string;
  readonly id: Uint8Array;
  readonly key: Uint8Array;
  /** native: ours, resumable. bound, fixed: RFC 9298 without our extension, one association, ends with its tunnel. */
  readonly kind: "native" | "bound" | "fixed";
  /** A state of {@link SESSION}. */
  state = SESSION.after(SESSION.number("none"), "create");
  readonly connections = new Set<Connection>();
  readonly associationById = new Map<number, number>();
  readonly contextById = new Map<number, number>();
  nextContextId = 1;
  /** Of a bound one. */
  readonly bound: BoundIds | undefined;
  readonly unknown = new UnknownContexts();
  readonly unreachable = new TokenBucket(UNREACHABLE_PER_SECOND);
  readonly lookups = new LookupTurns();

  constructor(index: number, name: string, kind: Session["kind"], id: Uint8Array, key: Uint8Array) {
    this.index = index;
    this.name = name;
    this.kind = kind;
    this.bound = kind === "bound" ? new BoundIds() : undefined;
    this.id = id;
    this.key = key;
  }

  /** False once it has ended. */
  get isLive(): boolean {
    return this.state !== SESSION.number("none");
  }
}
