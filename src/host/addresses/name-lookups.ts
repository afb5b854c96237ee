import type { AddressBytes } from "../../wire/socket-address.ts";
import { makeAddress } from "../../wire/socket-address.ts";
import type { Logger } from "../log.ts";
import type { Timer } from "../loop.ts";
import type { System } from "../system.ts";

/** Deadline of looking up a name, in milliseconds. */
export const LOOKUP_MS = 5_000;
/** Limit of concurrent look-ups; the system continues those that have passed their deadline. */
const MAX_LOOKUPS = 1_024;

/** Resolves the names of targets with the system's resolver, within a limit of concurrent look-ups. */
export class NameLookups {
  readonly #system: System;
  readonly #log: Logger;
  #count = 0;

  constructor(system: System, log: Logger) {
    this.#system = system;
    this.#log = log;
  }

  /** @returns IP texts. @throws Error when the name is not resolved within 5 s, or there are too many concurrent look-ups */
  async lookUp(name: string): Promise<readonly string[]> {
    if (this.#count >= MAX_LOOKUPS) throw new Error("too many at once");
    this.#count++;
    let timer: Timer | undefined;
    const deadline = new Promise<never>((_, failed) => {
      timer = this.#system.after(LOOKUP_MS, () => failed(new Error("the name was not resolved")), true);
    });
    try {
      const found = this.#system.lookUp(name).finally(() => this.#count--);
      return await Promise.race([found, deadline]);
    } finally {
      timer?.cancel();
    }
  }

  /** @returns the addresses of `name`, with `port`; none if they are not known within 5 s */
  async resolve(name: string, port: number): Promise<AddressBytes[]> {
    try {
      return (await this.lookUp(name)).flatMap((ip) => makeAddress(ip, port) ?? []);
    } catch (error) {
      this.#log.debug({ error: (error as Error).message }, "cannot resolve a name");
      return [];
    }
  }
}
