import type { LookupAddress } from "node:dns";
import { lookup } from "node:dns/promises";
import type { Logger } from "../host/log.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import { makeAddress } from "../wire/socket-address.ts";

const DEADLINE_MS = 5_000;
/** Most lookups at once; the system continues those that have passed their deadline. */
const MAX_LOOKUPS = 1_024;

/** Resolves the names of targets by the system's resolver, so many at once and no more. */
export class NameLookups {
  readonly #log: Logger;
  #count = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** @throws Error when the name cannot be resolved, or there are too many lookups at once */
  async lookUp(name: string): Promise<LookupAddress[]> {
    if (this.#count >= MAX_LOOKUPS) throw new Error("too many at once");
    this.#count++;
    try {
      return await lookup(name, { all: true, verbatim: true });
    } finally {
      this.#count--;
    }
  }

  /** @returns the addresses of `name`, with `port`; none when they are not known within 5 s */
  async resolve(name: string, port: number): Promise<AddressBytes[]> {
    let timer: NodeJS.Timeout | undefined;
    const deadline = new Promise<never>((_, failed) => {
      timer = setTimeout(() => failed(new Error("deadline")), DEADLINE_MS).unref();
    });
    try {
      const found = await Promise.race([this.lookUp(name), deadline]);
      return found.flatMap(({ address }) => makeAddress(address, port) ?? []);
    } catch (error) {
      this.#log.debug({ error: (error as Error).message }, "cannot resolve a name");
      return [];
    } finally {
      clearTimeout(timer);
    }
  }
}
