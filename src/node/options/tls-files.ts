import type { Hop } from "../../host/carriers/hop.ts";
import { parseHop } from "../../host/carriers/hop.ts";
import type { TlsOptions } from "../../host/carriers/tls-options.ts";
import { checkTlsFiles } from "../carriers/tls.ts";

function tlsOf(hop: Hop): TlsOptions | undefined {
  if (hop.kind === "tls") return hop.options;
  return hop.kind === "ws" ? hop.request.tls : undefined;
}

/** Checks the files of a `--via`, which are read again for each connection. @returns what is wrong with them */
export function findTlsProblem(text: string): string | undefined {
  const hop = parseHop(text, 0);
  try {
    const tls = tlsOf(hop);
    if (tls !== undefined) checkTlsFiles(tls);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
