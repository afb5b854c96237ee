import type { TlsOptions } from "../../host/carriers/tls-options.ts";
import type { FileHost } from "../c-host.ts";
import { readFile } from "./read-file.ts";

interface TlsFiles {
  readonly ca: Uint8Array | undefined;
  readonly cert: Uint8Array | undefined;
  readonly key: Uint8Array | undefined;
}

/** @throws HostError ERR_FILE that names the file */
export function readTlsFiles(host: FileHost, { caFile, certFile, keyFile }: TlsOptions): TlsFiles {
  const read = (path: string | undefined) => (path === undefined ? undefined : readFile(host, path));
  return { ca: read(caFile), cert: read(certFile), key: read(keyFile) };
}

/** @returns the problem with a client's files; undefined if there is none */
export function findTlsFilesProblem(host: FileHost, options: TlsOptions): string | undefined {
  try {
    const { ca, cert, key } = readTlsFiles(host, options);
    host.tlsCheck(ca, cert, key);
    return undefined;
  } catch (error) {
    const { message } = error as Error;
    // C names the wrong file by its option.
    const [, which] = /^(ca|cert|key): /.exec(message) ?? [];
    const file = { ca: options.caFile, cert: options.certFile, key: options.keyFile }[which ?? ""];
    return file === undefined ? message : file + message.slice(which.length);
  }
}
