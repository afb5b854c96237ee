import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import type { Duplex } from "node:stream";
import type { ConnectionOptions, TLSSocket } from "node:tls";
import { connect, createSecureContext } from "node:tls";
import type { TlsOptions } from "../../host/carriers/tls-options.ts";
import { readTextFile } from "../text-file.ts";

/** Wraps a stream in TLS. @param host  name of the peer, unless the options have one */
export function wrapInTls(
  stream: Duplex,
  options: TlsOptions,
  host: string,
  signal: AbortSignal,
): Promise<TLSSocket> {
  const name = options.serverName ?? host;
  const tlsOptions: ConnectionOptions = {
    socket: stream,
    // An IP is checked against the certificate, but never sent as a name (RFC 6066 §3).
    ...(isIP(name) === 0 ? { servername: name } : { host: name, servername: "" }),
    rejectUnauthorized: !options.isInsecure,
    ...readFiles(options),
    minVersion: "TLSv1.2",
    ...(options.protocols === undefined ? {} : { ALPNProtocols: options.protocols }),
  };
  return new Promise((done, failed) => {
    const wrapped = connect(tlsOptions);
    const finish = (error?: Error) => {
      signal.removeEventListener("abort", handleAbort);
      wrapped.off("error", finish);
      wrapped.off("close", handleClose);
      if (error === undefined) {
        wrapped.setNoDelay(true);
        done(wrapped);
        return;
      }
      wrapped.on("error", () => {});
      wrapped.destroy();
      stream.destroy();
      failed(error);
    };
    const handleAbort = () => finish(new Error("given up"));
    const handleClose = () => finish(new Error("closed during the handshake"));
    signal.addEventListener("abort", handleAbort);
    wrapped.once("error", finish);
    wrapped.once("close", handleClose);
    wrapped.once("secureConnect", () => finish());
  });
}

/** @throws Error that names a file that is missing, is not PEM or does not match the other */
export function checkTlsFiles(options: TlsOptions): void {
  const { ca, cert, key } = readFiles(options);
  // createSecureContext() accepts anything for `ca`.
  if (ca !== undefined) explain(options.caFile!, () => new X509Certificate(ca));
  explain(`${options.certFile} and ${options.keyFile}`, () => createSecureContext({ cert, key }));
}

function explain(files: string, act: () => unknown): void {
  try {
    act();
  } catch (cause) {
    // OpenSSL's texts: error:NUMBER:LIBRARY::REASON.
    throw new Error(`${files}: ${(cause as Error).message.replace(/^error:.*:/, "")}`, { cause });
  }
}

function readFiles({
  caFile,
  certFile,
  keyFile,
}: TlsOptions): Record<"ca" | "cert" | "key", Buffer | undefined> {
  const read = (file: string | undefined) => (file === undefined ? undefined : readTextFile(file));
  return { ca: read(caFile), cert: read(certFile), key: read(keyFile) };
}
