import type { RefusalReason } from "../../core/counters.ts";
import type { ByteStream } from "./byte-stream.ts";

/** What is done with connections that core leaves to a web server. Each belongs to it from then on. */
export interface WebServer {
  /** Serves a connection that begins HTTP/2. @param read  what was read from it */
  serveHttp2(stream: ByteStream, ...read: readonly Uint8Array[]): void;
  /** Answers a stranger's request. @param read  what was read from the connection */
  answerStranger(stream: ByteStream, ...read: readonly Uint8Array[]): void;
  /** Closes the connections of strangers. */
  closeStrangers(): void;
  /** Ends the connections of HTTP/2. */
  close(): void;
}

export interface WebServerOptions {
  /** What strangers see; undefined where none are left to it. */
  readonly decoy: string | undefined;
  /** Bound of strangers, and of connections of HTTP/2 without requests. */
  readonly maxHalfOpen: number;
  /** For the first request of HTTP/2. */
  readonly handshakeTimeoutMs: number;
  /** A request of HTTP/2, to be started at once. */
  readonly onRequest: (stream: ByteStream) => void;
  readonly onRefused: (reason: RefusalReason) => void;
}

export type OpenWebServer = (options: WebServerOptions) => Promise<WebServer>;
