import type { TlsOptions } from "../../host/carriers/tls-options.ts";
import { checkTlsFiles } from "../carriers/tls.ts";

/** Checks a client's files, which are read again for each connection. @returns the problem with them */
export function findTlsProblem(options: TlsOptions): string | undefined {
  try {
    checkTlsFiles(options);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
