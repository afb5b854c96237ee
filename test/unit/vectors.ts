import { readFileSync } from "node:fs";
import { resolve } from "node:path";

export interface Vector {
  readonly name: string;
  readonly hex: string;
  readonly [field: string]: unknown;
}

/** The vectors of a file in test/vectors. */
export function vectors(file: string): Vector[] {
  return JSON.parse(readFileSync(resolve(import.meta.dirname, "../vectors", file), "utf8"));
}

export const bytesOf = (hex: unknown) => Uint8Array.from(Buffer.from(String(hex), "hex"));
