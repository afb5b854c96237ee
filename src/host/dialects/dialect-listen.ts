import type { Dialect } from "../../wire/dialects/dialect.ts";
import { dialectByName } from "../../wire/dialects/dialects.ts";
import { formatEndpoint, ipFamily, parseUrlEndpoint } from "../addresses/endpoint.ts";

/** A listener for a single dialect. */
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
