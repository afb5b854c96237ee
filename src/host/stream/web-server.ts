import type { RefusalReason } from "../../core/counters.ts";
import type { ByteStream } from "./byte-stream.ts";

/** Takes over the connections that core leaves to a web server. */
export interface WebServer {
  /** Serves a connection that begins HTTP/2. @param read  bytes that were read from it */
  serveHttp2(stream: ByteStream, ...read: readonly Uint8Array[]): void;
  /** Answers a stranger's request. @param read  bytes that were read from the connection */
  answerStranger(stream: ByteStream, ...read: readonly Uint8Array[]): void;
  /** Closes the connections of strangers. */
  closeStrangers(): void;
  /** Ends the HTTP/2 connections. */
  close(): void;
}

export interface WebServerOptions {
  /** What strangers see; undefined if the web server does not answer strangers. */
  readonly decoy: string | undefined;
  /** Limit of strangers, and of HTTP/2 connections without requests. */
  readonly maxHalfOpen: number;
  /** Time limit for the first HTTP/2 request. */
  readonly handshakeTimeoutMs: number;
  /** An HTTP/2 request, to be started at once. */
  readonly onRequest: (stream: ByteStream) => void;
  readonly onRefused: (reason: RefusalReason) => void;
}

export type OpenWebServer = (options: WebServerOptions) => Promise<WebServer>;
