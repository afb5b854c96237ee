import type { InFolder } from "../addresses/endpoint.ts";
import { isHostAndPort } from "../addresses/endpoint.ts";
import type { Hop } from "./hop.ts";
import { parseHop, rebaseHop } from "./hop.ts";

/** A way in one text: hops separated by blanks, nearest first, and then, for lanes, the server. */
export interface WayText {
  readonly via: readonly string[];
  /** `HOST:PORT`; undefined if the text ends with a hop. */
  readonly server: string | undefined;
}

/** Splits a way; its parts are not checked. */
export function splitWay(text: string): WayText {
  const parts = text.split(/\s+/).filter((part) => part !== "");
  const last = parts.at(-1);
  const isServer = last !== undefined && !/^(?:[a-z][a-z0-9+.-]*:\/\/|unix:)/i.test(last);
  return isServer ? { via: parts.slice(0, -1), server: last } : { via: parts, server: undefined };
}

/** @returns the hops, or the problem with them, without their text */
export function parseHops(texts: readonly string[]): readonly Hop[] | string {
  try {
    return texts.map(parseHop);
  } catch (error) {
    // An error of parseEndpoint has no cause.
    return ((error as Error).cause as string | undefined) ?? "expected unix:/path";
  }
}

/** @returns the problem with a way for lanes, without its text */
export function findWayProblem(text: string): string | undefined {
  const { via, server } = splitWay(text);
  if (via.length === 0 && server === undefined) return "expected hops, a server, or both";
  const hops = parseHops(via);
  if (typeof hops === "string") return hops;
  return server === undefined || isHostAndPort(server) ? undefined : "expected HOST:PORT behind the last hop";
}

/** @returns the problem with two or more hops for TCP, without their text */
export function findTcpWayProblem(text: string): string | undefined {
  const { via, server } = splitWay(text);
  if (server !== undefined) return "expected only hops";
  const hops = parseHops(via);
  if (typeof hops === "string") return hops;
  const isProxy = ["socks5", "ss"].includes(hops.at(-1)!.kind);
  return isProxy ? undefined : "expected socks5:// or ss:// as the last hop";
}

/** Rewrites the paths of sockets and files in a way. */
export function rebaseWay(text: string, inFolder: InFolder): string {
  const { via, server } = splitWay(text);
  return [...via.map((hop) => rebaseHop(hop, inFolder)), ...(server === undefined ? [] : [server])].join(" ");
}
