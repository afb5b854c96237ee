import type { Socket } from "node:net";
import type { ByteStream } from "../../host/stream/byte-stream.ts";
import type { WebServer, WebServerOptions } from "../../host/stream/web-server.ts";
import { releaseSocket } from "../io/byte-stream-duplex.ts";
import { MasqueHttp2Server } from "../masque/http2-server.ts";
import type { StrangerServer } from "./stranger-server.ts";

/** The web server, from the libraries of Node and npm. */
export class NodeWebServer implements WebServer {
  readonly #options: WebServerOptions;
  readonly #strangers: StrangerServer | undefined;
  #http2: MasqueHttp2Server | undefined;

  private constructor(options: WebServerOptions, strangers: StrangerServer | undefined) {
    this.#options = options;
    this.#strangers = strangers;
  }

  static async open(options: WebServerOptions): Promise<NodeWebServer> {
    const { decoy, maxHalfOpen } = options;
    if (decoy === undefined) return new NodeWebServer(options, undefined);
    // Loaded only if it is used.
    const { StrangerServer } = await import("./stranger-server.ts");
    return new NodeWebServer(options, await StrangerServer.open(decoy, maxHalfOpen));
  }

  serveHttp2(stream: ByteStream, ...read: readonly Uint8Array[]): void {
    const { handshakeTimeoutMs, maxHalfOpen, onRequest, onRefused } = this.#options;
    this.#http2 ??= new MasqueHttp2Server({ handshakeTimeoutMs, maxIdle: maxHalfOpen, onRequest, onRefused });
    const socket = take(stream);
    if (socket !== undefined) this.#http2.take(socket, ...read);
  }

  answerStranger(stream: ByteStream, ...read: readonly Uint8Array[]): void {
    const socket = take(stream);
    if (socket !== undefined) this.#strangers!.take(socket, ...read);
  }

  closeStrangers(): void {
    this.#strangers?.close();
  }

  close(): void {
    this.#http2?.close();
  }
}

/** @returns undefined if it is closed */
function take(stream: ByteStream): Socket | undefined {
  const socket = releaseSocket(stream);
  if (socket === undefined) stream.destroy();
  return socket;
}
