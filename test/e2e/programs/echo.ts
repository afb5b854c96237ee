import { fileURLToPath } from "node:url";
import type { Host } from "../network/two-hosts.ts";

/** The last one is the longest UDP payload over IPv4; through a device, the last two arrive in fragments. */
export const SIZES = [0, 1, 1200, 1472, 9000, 65_507];

const ECHO_CHECK = fileURLToPath(new URL("../peers/echo-check.mjs", import.meta.url));

export interface EchoReport {
  /** The result for each size: "same", or what was wrong. */
  readonly sizes: Readonly<Record<string, string>>;
  readonly answered: number;
  /** All sources that targets saw. */
  readonly sources: readonly string[];
}

/**
 * Has echo-check.mjs exchange datagrams with a UDP echo from `host`.
 *
 * @param path  `{forward}` or `{socks5, targets}`. @param repeat  how often each target is asked for the source
 */
export async function checkEcho(
  host: Host,
  path: object,
  repeat: number,
  sizes: readonly number[] = SIZES,
): Promise<EchoReport> {
  const argument = JSON.stringify({ ...path, sizes, repeat });
  const lines = await host.run([process.execPath, ECHO_CHECK, argument], { timeoutMs: 40_000 });
  return JSON.parse(lines.at(-1)!) as EchoReport;
}

/** The value of {@link EchoReport.sizes} without errors. */
export function allSame(sizes: readonly number[]): Record<string, string> {
  return Object.fromEntries(sizes.map((size) => [size, "same"]));
}

/** Queries an IPv4 address until there is an answer, because the session may not be up for the first datagram. */
export async function waitForEcho(host: Host, address: string, port: number): Promise<void> {
  const ask = `until printf whoami | socat -t 0.2 - UDP4:${address}:${port} | grep -q .; do :; done`;
  await host.run(["sh", "-c", ask], { timeoutMs: 10_000 });
}
