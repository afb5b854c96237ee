import type { Socket } from "node:net";
import type { ByteStream } from "../../host/stream/byte-stream.ts";
import type { WebServer, WebServerOptions } from "../../host/stream/web-server.ts";
import { releaseSocket } from "../byte-stream-duplex.ts";
import { MasqueHttp2Server } from "../masque/http2-server.ts";
import { WebSocketByteStream } from "./byte-stream-web-socket.ts";
import { StrangerServer } from "./stranger-server.ts";
import type { AcceptWebSocket } from "./web-socket-acceptor.ts";
import { loadWebSocketAcceptor } from "./web-socket-acceptor.ts";

/** The web server of Node's and npm's libraries. */
export class NodeWebServer implements WebServer {
  readonly #options: WebServerOptions;
  readonly #accept: AcceptWebSocket | undefined;
  readonly #strangers: StrangerServer | undefined;
  #http2: MasqueHttp2Server | undefined;

  private constructor(
    options: WebServerOptions,
    accept: AcceptWebSocket | undefined,
    strangers: StrangerServer | undefined,
  ) {
    this.#options = options;
    this.#accept = accept;
    this.#strangers = strangers;
  }

  static async open(options: WebServerOptions): Promise<NodeWebServer> {
    const { acceptsWebSockets, decoy, maxHalfOpen } = options;
    const accept = acceptsWebSockets ? await loadWebSocketAcceptor() : undefined;
    const strangers = decoy === undefined ? undefined : await StrangerServer.open(decoy, maxHalfOpen);
    return new NodeWebServer(options, accept, strangers);
  }

  acceptWebSocket(stream: ByteStream, key: string, surplus: Uint8Array): ByteStream | undefined {
    const socket = take(stream);
    const web = socket && this.#accept!(socket, key, surplus);
    return web && new WebSocketByteStream(web);
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

/** @returns undefined when it is closed */
function take(stream: ByteStream): Socket | undefined {
  const socket = releaseSocket(stream);
  if (socket === undefined) stream.destroy();
  return socket;
}
