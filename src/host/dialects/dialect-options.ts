import type { Dialect } from "../../wire/dialects/dialect.ts";
import { DIALECTS, dialectByName } from "../../wire/dialects/dialects.ts";
import { formatEndpoint, ipFamily, parseUrlEndpoint } from "../addresses/endpoint.ts";

const NAMES = DIALECTS.map(({ name }) => name);
const TOLD = DIALECTS.filter(({ opening }) => opening.kind !== "listener").map(({ name }) => name);

/** For messages and help. */
export const DIALECT_NAMES = NAMES.join(", ");
export const TOLD_DIALECT_NAMES = TOLD.join(", ");

/** Reads names separated by commas. @returns undefined when there is another one */
export function parseDialects(text: string): readonly Dialect[] | undefined {
  const found = text.split(",").map((name) => dialectByName(name.trim()));
  return found.includes(undefined) ? undefined : (found as Dialect[]);
}

/** @returns what is wrong with names of `--dialects` */
export function findDialectsProblem(text: string): string | undefined {
  const dialects = parseDialects(text);
  if (dialects === undefined) return `expected names from ${TOLD_DIALECT_NAMES}, with commas between them`;
  const own = dialects.find(({ opening }) => opening.kind === "listener");
  return (
    own && `no first bytes tell ${own.name}: give it a listener of its own, --listen ${own.name}://IP:PORT`
  );
}

/** A listener for one dialect alone. */
export interface DialectListen {
  readonly dialect: Dialect;
  /** `IP:PORT` to listen on. */
  readonly listen: string;
}

/** Reads `DIALECT://IP:PORT`. @returns undefined for anything else */
export function parseDialectListen(text: string): DialectListen | undefined {
  const [, name, rest] = /^([a-z0-9]+):\/\/(.*)$/.exec(text) ?? [];
  const dialect = name === undefined ? undefined : dialectByName(name);
  if (dialect === undefined) return undefined;
  try {
    const endpoint = parseUrlEndpoint(rest);
    if (endpoint.path !== undefined || ipFamily(endpoint.host) === undefined) return undefined;
    return { dialect, listen: formatEndpoint(endpoint.host, endpoint.port) };
  } catch {
    return undefined;
  }
}
