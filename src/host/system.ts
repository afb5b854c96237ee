import type { Cryptography } from "../core/credentials.ts";
import type { ShadowsocksCryptography } from "../core/shadowsocks/cryptography.ts";
import type { Io } from "./io/io.ts";

/** A call that is due at some time. */
export interface Timer {
  /** Does nothing once it was called back. */
  cancel(): void;
}

/** The loop that everything of one host runs on, and its clock. */
export interface Loop {
  /** Time that never goes back, in milliseconds with fractions. */
  now(): number;
  /**
   * Calls back once, at least `delayMs` later.
   *
   * @param isOptional  true if the program may end before; default false
   */
  after(delayMs: number, callback: () => void, isOptional?: boolean): Timer;
  /** Calls back in the next turn of the loop, in the order of the calls. */
  nextTurn(callback: () => void): void;
}

/** An address of a network interface. */
export interface InterfaceIp {
  readonly ip: string;
  /** It is of loopback. */
  readonly isInternal: boolean;
}

/**
 * What a host gets from the program around it: Node, or the C library. What one of them lacks is undefined, and whoever needs it
 * reports that with an error.
 */
export interface System extends Loop {
  /** Milliseconds since 1970, UTC. */
  unixMs(): number;
  readonly cryptography: Cryptography;
  readonly shadowsocks: ShadowsocksCryptography | undefined;
  readonly io: Io;
  /**
   * The system's resolver.
   *
   * @returns IP texts in its order
   * @throws Error when the name cannot be resolved
   */
  lookUp(name: string): Promise<readonly string[]>;
  /** IP texts of the system's resolvers, in its order. */
  nameservers(): readonly string[];
  /** The addresses of each network interface. */
  interfaces(): readonly (readonly InterfaceIp[])[];
  /** How many descriptors the process may have open; Infinity if unknown. */
  descriptorLimit(): number;
  /** @throws HostError ERR_FILE that names the file */
  readFile(path: string): Uint8Array;
}

/** Resolves in the next turn of the loop. */
export function nextTurn(loop: Loop): Promise<void> {
  return new Promise((done) => loop.nextTurn(done));
}

/** Seconds since 1970, for formats that have them. */
export function unixSeconds(system: System): number {
  return Math.floor(system.unixMs() / 1000);
}
