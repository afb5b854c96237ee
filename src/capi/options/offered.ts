import type { NameField } from "../../host/options/fields/fields.ts";
import { wrong } from "../../host/options/fields/fields.ts";

const NO_TAP = "the C library does not write captures";

/** Options that the C library lacks, by flag. docs/embed/c-library.md has the same list. */
export const MISSING_OF_LOCAL: ReadonlyMap<string, string> = new Map([["tap", NO_TAP]]);

export const MISSING_OF_TUN2SOCKS = MISSING_OF_LOCAL;

export const MISSING_OF_SERVER: ReadonlyMap<string, string> = new Map([
  ["tap", NO_TAP],
  ["keep-sessions", "the C library hands no sockets on"],
  ["decoy", "the C library has no web server"],
]);

/** @throws UsageError ERR_OPTION for a value that only another host has */
export function checkOffered(
  options: { readonly io: string | undefined; readonly workers: number },
  nameField: NameField,
): void {
  if (options.io === "plain") throw wrong(nameField(["io"]), "the C library has only native I/O");
  if (options.workers > 1) {
    throw wrong(nameField(["workers"]), "an instance of the C library has one thread: start more instances");
  }
}
