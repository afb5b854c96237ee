import { HostError, ProtocolError } from "../core/errors.ts";
import type { Deliver, StreamCoding } from "../core/stream-coding.ts";
import { ipFamily, splitZone } from "../host/addresses/endpoint.ts";
import type { Cancellation } from "../host/cancellation.ts";
import type { TlsOptions } from "../host/carriers/tls-options.ts";
import type { Loop } from "../host/loop.ts";
import type { ByteStream } from "../host/stream/byte-stream.ts";
import { CodedByteStream } from "../host/stream/byte-stream-coded.ts";
import type { SecureStream } from "../host/system.ts";
import type { CHost, Tls } from "./c-host.ts";
import { readTlsFiles } from "./options/tls-files.ts";

const READ_BYTES = 65_536;
/** Where systems keep their trusted certificates. */
const SYSTEM_STORES = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/** The bytes of a connection inside TLS, after its handshake. */
class TlsCoding implements StreamCoding {
  readonly hasStarted = true;
  /** As on Node: the protocols inside TLS detect missing bytes themselves. */
  readonly mayEnd = true;
  readonly #host: CHost;
  readonly #tls: Tls;
  readonly #buffer = new Uint8Array(READ_BYTES);
  #error: ProtocolError | undefined;

  constructor(host: CHost, tls: Tls) {
    this.#host = host;
    this.#tls = tls;
  }

  encode(bytes: Uint8Array): Uint8Array {
    this.#host.tlsWrite(this.#tls, bytes);
    return this.#host.tlsOutput(this.#tls);
  }

  decode(bytes: Uint8Array, offset: number, end: number, deliver: Deliver): ProtocolError | undefined {
    if (this.#error !== undefined) return this.#error;
    this.#host.tlsReceive(this.#tls, bytes, offset, end);
    try {
      for (;;) {
        const count = this.#host.tlsRead(this.#tls, this.#buffer);
        if (count <= 0) return undefined;
        // The receiver may keep the bytes.
        deliver(this.#buffer.slice(0, count), 0, count);
      }
    } catch (cause) {
      this.#error = new ProtocolError("ERR_TLS", (cause as Error).message, { cause });
      return this.#error;
    }
  }
}

/** @see System.wrapTls */
export async function wrapInTls(
  host: CHost,
  loop: Loop,
  stream: ByteStream,
  options: TlsOptions,
  peer: string,
  cancellation: Cancellation,
): Promise<SecureStream> {
  const name = splitZone(options.serverName ?? peer).ip;
  let tls: Tls;
  try {
    const { ca, cert, key } = readTlsFiles(host, options);
    tls = host.tlsOpen(
      name,
      ipFamily(name) !== undefined,
      options.isInsecure ? undefined : (ca ?? systemStore(host)),
      cert,
      key,
      options.isInsecure,
      options.protocols,
    );
    await shakeHands(host, tls, stream, cancellation);
  } catch (error) {
    stream.destroy();
    throw error;
  }
  stream.unread(host.tlsSurplus(tls));
  return {
    stream: new CodedByteStream(loop, stream, new TlsCoding(host, tls)),
    protocol: host.tlsProtocol(tls),
  };
}

function shakeHands(host: CHost, tls: Tls, stream: ByteStream, cancellation: Cancellation): Promise<void> {
  return new Promise((done, failed) => {
    let isWriting = false;
    let isComplete = false;
    const forget = cancellation.onCancel(() => finish(new Error("the attempt was cancelled")));
    const finish = (error?: Error) => {
      forget();
      if (error === undefined) done();
      else failed(error);
    };
    const send = () => {
      const bytes = host.tlsOutput(tls);
      if (bytes.length > 0 && !stream.write(bytes)) isWriting = true;
    };
    const step = () => {
      try {
        isComplete = host.tlsHandshake(tls);
      } catch (error) {
        // Sends the alert that explains the failure.
        if (!isWriting) send();
        finish(error as Error);
        return;
      }
      if (!isWriting) send();
      if (!isComplete) return;
      stream.pause();
      if (!isWriting) finish();
    };
    stream.start({
      onBytes: (chunk, length) => {
        host.tlsReceive(tls, chunk, 0, length);
        step();
      },
      onEnd: () => finish(new Error("closed during the handshake")),
      onWritten: () => {
        isWriting = false;
        send();
        if (isComplete && !isWriting) finish();
      },
      onClose: (error) => finish(error ?? new Error("closed during the handshake")),
    });
    step();
  });
}

function systemStore(host: CHost): Uint8Array {
  for (const path of SYSTEM_STORES) {
    try {
      return host.readFile(path);
    } catch {
      // Try the next one.
    }
  }
  throw new HostError(
    "ERR_FILE",
    `none of ${SYSTEM_STORES.join(", ")} exists: specify the certificates to trust`,
  );
}
