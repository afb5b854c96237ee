import type { InFolder } from "../addresses/endpoint.ts";
import { rebaseEndpoint } from "../addresses/endpoint.ts";

/** How datagrams leave udp-server: the checked option. */
export type Egress =
  | { readonly kind: "sockets" }
  | { readonly kind: "socks5"; readonly url: string }
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "exec"; readonly argv: readonly string[] }
  /** Within the process; `udpVia` is the option of tun2socks of that name. */
  | { readonly kind: "tun2socks"; readonly udpVia: string };

/** MTU of the device between udp-server and a tun2socks in its process; no packet is too large for memory. */
export const INNER_MTU = 65_535;

/**
 * Reads `sockets`, `socks5://[user:password@]host:port`, `socks5-udp://host:port`, `unix:/path`,
 * `exec:PROGRAM ARGUMENT...` (split at blanks, or a JSON array of strings) or `tun2socks:WAY` (by default `direct`).
 *
 * @returns undefined when the text is invalid
 */
export function parseEgress(text: string): Egress | undefined {
  if (text === "sockets") return { kind: "sockets" };
  if (/^socks5(h|-udp)?:\/\//.test(text)) return { kind: "socks5", url: text };
  if (text.startsWith("unix:") && text.length > 5) return { kind: "unix", path: text.slice(5) };
  if (text.startsWith("tun2socks:")) {
    const way = text.slice("tun2socks:".length);
    return { kind: "tun2socks", udpVia: way === "" ? "direct" : way };
  }
  const argv = text.startsWith("exec:") ? parseArgv(text.slice(5)) : undefined;
  return argv === undefined ? undefined : { kind: "exec", argv };
}

/** The same egress, with the paths of its socket and its program rewritten; arguments are unchanged. */
export function rebaseEgress(text: string, inFolder: InFolder, makeAbsolute: InFolder): string {
  const egress = parseEgress(text);
  if (egress?.kind !== "exec") return rebaseEndpoint(text, inFolder);
  const [program, ...rest] = egress.argv;
  // A name without a slash is looked up in PATH.
  return program.includes("/") ? `exec:${JSON.stringify([makeAbsolute(inFolder(program)), ...rest])}` : text;
}

/** True if only one thread can use it, because a stream of packets has only one other end. */
export function isExclusive({ kind }: Egress): boolean {
  return kind === "unix" || kind === "exec";
}

function parseArgv(text: string): readonly string[] | undefined {
  let argv: unknown = text.split(/\s+/).filter((part) => part !== "");
  if (text.trimStart().startsWith("[")) {
    try {
      argv = JSON.parse(text);
    } catch {
      return undefined;
    }
  }
  const isArgv = Array.isArray(argv) && argv.length > 0 && argv.every((part) => typeof part === "string");
  return isArgv ? (argv as string[]) : undefined;
}
