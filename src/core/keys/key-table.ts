import type { ExtensionRequest } from "../../wire/http/upgrade.ts";
import type { Cryptography } from "../handshakes/credentials.ts";
import { constantTimeEqual, hexKey, keyEpoch, keyId, requestMac } from "../handshakes/credentials.ts";
import { TokenBucket } from "../token-bucket.ts";
import type { KeyEntry } from "./named-key.ts";
import { NamedKey } from "./named-key.ts";

/** Most MACs per second to find the keys of requests without a known id: a few per cent of a processor. */
const TRIALS_PER_SECOND = 10_000;
/** Hours by which a client's clock may be wrong. */
const EPOCH_TOLERANCE = 1;

/** How a request's key was found: `id`, by the id that the client sent; `trial`, because it sent none, or one for another name or hour. */
export interface FoundKey {
  readonly key: NamedKey;
  readonly by: "id" | "trial";
}

/** The keys of a server, by name and by their ids in this hour, the previous one and the next one. */
export class KeyTable {
  readonly #crypto: Cryptography;
  #byName = new Map<string, NamedKey>();
  /** Keys by epoch and id. */
  readonly #byId = new Map<number, Map<string, NamedKey>>();
  readonly #trials = new TokenBucket(TRIALS_PER_SECOND);
  /** Milliseconds since 1970 at the time 0 of this machine's clock. */
  #unixOffset = 0;

  constructor(crypto: Cryptography, entries: readonly KeyEntry[]) {
    this.#crypto = crypto;
    this.replace(entries);
  }

  get keys(): Iterable<NamedKey> {
    return this.#byName.values();
  }

  byName(name: string): NamedKey | undefined {
    return this.#byName.get(name);
  }

  /** Sets the system's time at `now` to `unixMs`, in milliseconds since 1970. */
  handleWallClock(now: number, unixMs: number): void {
    this.#unixOffset = unixMs - now;
  }

  /** Milliseconds since 1970. */
  unixMs(now: number): number {
    return now + this.#unixOffset;
  }

  isExpired(now: number, key: NamedKey): boolean {
    return key.isExpired(this.unixMs(now));
  }

  /** When the next key expires, on the clock of `now`; Infinity for never. */
  nextExpiry(now: number): number {
    let next = Number.POSITIVE_INFINITY;
    for (const key of this.#byName.values()) {
      const { expiresAt } = key.limits;
      if (expiresAt !== undefined && !this.isExpired(now, key)) {
        next = Math.min(next, expiresAt - this.#unixOffset);
      }
    }
    return next;
  }

  /**
   * Replaces the keys. An entry with the same name and key as before keeps its state, with the new limits.
   *
   * @returns the keys that were removed
   */
  replace(entries: readonly KeyEntry[]): NamedKey[] {
    const before = this.#byName;
    this.#byName = new Map();
    for (const entry of entries) {
      const known = before.get(entry.name);
      const isSame = known !== undefined && constantTimeEqual(known.key, entry.key);
      if (isSame) {
        const { name: _name, key: _key, ...limits } = entry;
        known.limits = limits;
      }
      this.#byName.set(entry.name, isSame ? known : new NamedKey(entry));
    }
    this.#byId.clear();
    return [...before.values()].filter((key) => this.#byName.get(key.name) !== key);
  }

  /** The key with which a request was made; undefined if there is none; "busy" if finding out costs too much now. */
  find(now: number, request: ExtensionRequest): FoundKey | "busy" | undefined {
    const { keyId: id, mac } = request;
    if (mac === undefined) return undefined;
    const named = id === undefined ? undefined : this.#idsOf(now, id);
    if (named !== undefined) return this.#proves(named, request) ? { key: named, by: "id" } : undefined;
    // The client does not send ids, its clock is wrong, or its key has another name here.
    for (const key of this.#byName.values()) {
      if (!this.#trials.take(now)) return "busy";
      if (this.#proves(key, request)) return { key, by: "trial" };
    }
    return undefined;
  }

  #proves({ key }: NamedKey, request: ExtensionRequest): boolean {
    return constantTimeEqual(request.mac, requestMac(this.#crypto, key, request));
  }

  #idsOf(now: number, id: Uint8Array): NamedKey | undefined {
    const current = keyEpoch(this.unixMs(now));
    const text = hexKey(id);
    for (const epoch of this.#byId.keys()) {
      if (Math.abs(epoch - current) > EPOCH_TOLERANCE) this.#byId.delete(epoch);
    }
    for (let epoch = current - EPOCH_TOLERANCE; epoch <= current + EPOCH_TOLERANCE; epoch++) {
      const found = this.#idsIn(epoch).get(text);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  #idsIn(epoch: number): Map<string, NamedKey> {
    let ids = this.#byId.get(epoch);
    if (ids === undefined) {
      ids = new Map();
      for (const key of this.#byName.values()) {
        ids.set(hexKey(keyId(this.#crypto, key.key, key.name, epoch)), key);
      }
      this.#byId.set(epoch, ids);
    }
    return ids;
  }
}
