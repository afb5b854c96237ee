import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import type { Duplex } from "node:stream";
import type { ConnectionOptions } from "node:tls";
import { connect } from "node:tls";

/** Files in PEM. */
export interface TlsOptions {
  /** Name that the certificate must be for, and that is sent (SNI); the next address' host when undefined. */
  readonly serverName: string | undefined;
  /** Certificates to trust instead of the system's. */
  readonly caFile: string | undefined;
  /** The client's own certificate and its key. */
  readonly certFile: string | undefined;
  readonly keyFile: string | undefined;
  /** Takes any certificate. */
  readonly isInsecure: boolean;
}

/** Wraps a stream in TLS. @param host  what the peer is called when the options name nobody */
export function wrapInTls(
  stream: Duplex,
  options: TlsOptions,
  host: string,
  signal: AbortSignal,
): Promise<Duplex> {
  const name = options.serverName ?? host;
  const tlsOptions: ConnectionOptions = {
    socket: stream,
    // An IP is checked against the certificate, but never sent as a name (RFC 6066 §3).
    ...(isIP(name) === 0 ? { servername: name } : { host: name, servername: "" }),
    rejectUnauthorized: !options.isInsecure,
    ca: readOptional(options.caFile),
    cert: readOptional(options.certFile),
    key: readOptional(options.keyFile),
    minVersion: "TLSv1.2",
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

function readOptional(file: string | undefined): Buffer | undefined {
  return file === undefined ? undefined : readFileSync(file);
}
