import { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import type { ConnectionOptions } from "node:tls";
import type { Cancellation } from "../../host/cancellation.ts";
import type { TlsOptions } from "../../host/carriers/tls-options.ts";
import type { NativeModule } from "../../host/io/native-module.ts";
import type { ByteStream } from "../../host/stream/byte-stream.ts";
import { opensslReason } from "../../host/system-error.ts";
import { toDuplex } from "../io/byte-stream-duplex.ts";
import { PlainStream } from "../io/byte-stream-plain.ts";
import { readTextFile } from "../text-file.ts";

const CLOSED = "closed during the handshake";

/**
 * Wraps a stream in TLS.
 *
 * @param host    name of the peer, unless the options have one
 * @param native  sets socket options that node:net cannot set
 * @returns `protocol` is the one that ALPN selected
 */
export async function wrapInTls(
  stream: ByteStream,
  options: TlsOptions,
  host: string,
  cancellation: Cancellation,
  native: NativeModule | undefined,
): Promise<{ readonly stream: ByteStream; readonly protocol: string | undefined }> {
  const { connect } = process.getBuiltinModule("node:tls");
  const socket = toDuplex(stream);
  const name = options.serverName ?? host;
  const tlsOptions: ConnectionOptions = {
    socket,
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
      leave();
      wrapped.off("error", finish);
      wrapped.off("close", handleClose);
      if (error === undefined) {
        wrapped.setNoDelay(true);
        done({ stream: new PlainStream(wrapped, native), protocol: wrapped.alpnProtocol || undefined });
        return;
      }
      wrapped.on("error", () => {});
      wrapped.destroy();
      socket.destroy();
      failed(new Error(reasonOf(error), { cause: error }));
    };
    const leave = cancellation.onCancel(() => finish(new Error("the attempt was cancelled")));
    const handleClose = () => finish(new Error(CLOSED));
    wrapped.once("error", finish);
    wrapped.once("close", handleClose);
    wrapped.once("secureConnect", () => finish());
  });
}

/** Why a handshake failed, without the numbers, names of files and line breaks of OpenSSL. */
function reasonOf({ message }: Error): string {
  if (message.startsWith("Client network socket disconnected")) return CLOSED;
  const reason = opensslReason(message);
  return reason === "wrong version number" ? `no TLS comes from there: ${reason}` : reason;
}

/** @throws Error that names a file that is missing, is not PEM, or does not match the other */
export function checkTlsFiles(options: TlsOptions): void {
  const { createSecureContext } = process.getBuiltinModule("node:tls");
  const { ca, cert, key } = readFiles(options);
  // createSecureContext() accepts anything for `ca`.
  if (ca !== undefined) explain(options.caFile!, () => new X509Certificate(ca));
  explain(`${options.certFile} and ${options.keyFile}`, () => createSecureContext({ cert, key }));
}

function explain(files: string, act: () => unknown): void {
  try {
    act();
  } catch (cause) {
    // OpenSSL's messages have the form error:NUMBER:LIBRARY::REASON.
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
