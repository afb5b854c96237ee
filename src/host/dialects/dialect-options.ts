import type { Dialect } from "../../wire/dialects/dialect.ts";
import { DIALECTS, dialectByName } from "../../wire/dialects/dialects.ts";

const NAMES = DIALECTS.map(({ name }) => name);
const TOLD = DIALECTS.filter(({ opening }) => opening.kind !== "listener").map(({ name }) => name);

/** For messages and help. */
export const DIALECT_NAMES = NAMES.join(", ");
export const TOLD_DIALECT_NAMES = TOLD.join(", ");

/** Reads names separated by commas. @returns undefined if one is unknown */
export function parseDialects(text: string): readonly Dialect[] | undefined {
  const found = text.split(",").map((name) => dialectByName(name.trim()));
  return found.includes(undefined) ? undefined : (found as Dialect[]);
}

/** @returns the problem with names of `--dialects` */
export function findDialectsProblem(text: string): string | undefined {
  const dialects = parseDialects(text);
  if (dialects === undefined) return `expected names from ${TOLD_DIALECT_NAMES}, with commas between them`;
  const own = dialects.find(({ opening }) => opening.kind === "listener");
  return (
    own && `no first bytes tell ${own.name}: give it a listener of its own, --listen ${own.name}://IP:PORT`
  );
}
