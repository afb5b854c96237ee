import type { AddressBytes } from "../../wire/socket-address.ts";
import { makeAddress } from "../../wire/socket-address.ts";
import type { Logger } from "../log.ts";
import type { Timer } from "../loop.ts";
import type { System } from "../system.ts";

/** Deadline of looking up a name, in milliseconds. */
export const LOOKUP_MS = 5_000;
/** Limit of unfinished look-ups, and that of one client. */
const MAX_LOOKUPS = 1_024;
const MAX_PER_CLIENT = 256;
/** How many look-ups the system carries out at a time, if it does not say. */
const DEFAULT_CONCURRENCY = 8;
/** How long a client counts as one that shares the system's resolver, after it has asked for a name. Milliseconds. */
const RECENT_MS = 60_000;

interface Waiting {
  readonly name: string;
  readonly timer: Timer;
  readonly done: (ips: readonly string[]) => void;
  readonly failed: (error: Error) => void;
}

interface Client {
  /** Look-ups that the system carries out, including those that have passed their deadline, because it cannot cancel them. */
  running: number;
  readonly waiting: Set<Waiting>;
  askedAt: number;
}

/**
 * Resolves the names of targets with the system's resolver, which carries out a few look-ups at a time. Each of the clients that have
 * asked for names recently gets an equal share of those, at least one. Names that are slow to resolve therefore delay other names of the
 * same client, but not those of others, as long as there are fewer such clients than places.
 */
export class NameLookups {
  readonly #system: System;
  readonly #log: Logger;
  readonly #concurrency: number;
  /** In order of turns. */
  readonly #clients = new Map<string, Client>();
  #running = 0;
  #waiting = 0;

  /** @param workers  how many threads share the system's resolver */
  constructor(system: System, log: Logger, workers = 1) {
    this.#system = system;
    this.#log = log;
    this.#concurrency = Math.max(1, Math.floor((system.lookUpConcurrency ?? DEFAULT_CONCURRENCY) / workers));
  }

  /** Clients that are known because they have asked recently. Apart from as many as there are places, all have unfinished look-ups. */
  get clientCount(): number {
    return this.#clients.size;
  }

  /**
   * @param client  who asks: the same text for all look-ups that share a turn
   * @returns IP texts
   * @throws Error when the name is not resolved within 5 s, or there are too many look-ups
   */
  lookUp(client: string, name: string): Promise<readonly string[]> {
    const asking = this.#clientOf(client);
    const unfinished = this.#running + this.#waiting;
    if (unfinished >= MAX_LOOKUPS || asking.running + asking.waiting.size >= MAX_PER_CLIENT) {
      return Promise.reject(new Error("too many names are being looked up"));
    }
    return new Promise((done, failed) => {
      const expire = () => {
        if (asking.waiting.delete(lookup)) this.#waiting--;
        failed(new Error("the name was not resolved"));
      };
      const lookup = { name, done, failed, timer: this.#system.after(LOOKUP_MS, expire, true) };
      asking.waiting.add(lookup);
      this.#waiting++;
      this.#startNext();
    });
  }

  /** @returns the addresses of `name`, with `port`; none if they are not known within 5 s */
  async resolve(client: string, name: string, port: number): Promise<AddressBytes[]> {
    try {
      return (await this.lookUp(client, name)).flatMap((ip) => makeAddress(ip, port) ?? []);
    } catch (error) {
      this.#log.debug({ error: (error as Error).message }, "cannot resolve a name");
      return [];
    }
  }

  #clientOf(key: string): Client {
    const now = this.#system.now();
    for (const [other, { running, waiting, askedAt }] of this.#clients) {
      if (running > 0 || waiting.size > 0 || other === key) continue;
      // More clients than places do not change the share, so those that ask for nothing now need not be known.
      const isSpare = this.#clients.size > this.#concurrency;
      if (isSpare || now - askedAt >= RECENT_MS) this.#clients.delete(other);
    }
    let client = this.#clients.get(key);
    if (client === undefined) {
      client = { running: 0, waiting: new Set(), askedAt: now };
      this.#clients.set(key, client);
    }
    client.askedAt = now;
    return client;
  }

  #startNext(): void {
    while (this.#running < this.#concurrency) {
      const next = this.#nextClient();
      if (next === undefined) return;
      const [lookup] = next.waiting;
      next.waiting.delete(lookup);
      this.#waiting--;
      this.#start(next, lookup);
    }
  }

  /** The client whose turn it is; it then becomes the last. */
  #nextClient(): Client | undefined {
    const share = Math.max(1, Math.floor(this.#concurrency / this.#clients.size));
    for (const [key, client] of this.#clients) {
      if (client.waiting.size === 0 || client.running >= share) continue;
      this.#clients.delete(key);
      this.#clients.set(key, client);
      return client;
    }
    return undefined;
  }

  #start(client: Client, { name, timer, done, failed }: Waiting): void {
    client.running++;
    this.#running++;
    const ended = this.#system.lookUp(name).finally(() => {
      client.running--;
      this.#running--;
      timer.cancel();
    });
    ended.then(done, failed).finally(() => this.#startNext());
  }
}
