import type { Http2Server, ServerHttp2Session, ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import { performance } from "node:perf_hooks";
import type { RefusalReason } from "../../core/counters.ts";
import { TokenBucket } from "../../core/token-bucket.ts";
import type { ByteStream } from "../../host/stream/byte-stream.ts";
import type { Http2Fields } from "../../wire/http/extended-connect.ts";
import { encodeRequestOfHttp2 } from "../../wire/http/extended-connect.ts";
import { Http2RequestStream } from "./http2-request-stream.ts";
import {
  COMMON_SETTINGS,
  CONNECTION_WINDOW_BYTES,
  NGHTTP2_ENHANCE_YOUR_CALM,
  NGHTTP2_NO_ERROR,
  SESSION_LIMITS,
} from "./http2-settings.ts";

/** Concurrent requests of a connection. */
export const MAX_STREAMS = 1_024;
/** Requests of a connection that may begin per second, including those that are reset at once (CVE-2023-44487). */
const REQUESTS_PER_SECOND = 1_024;
/** How long a connection without requests lasts, after its first one. */
const IDLE_MS = 60_000;

export interface Http2ServerOptions {
  /** Time limit for a connection's first request. */
  readonly handshakeTimeoutMs: number;
  /** Limit of connections without requests; beyond it, the one that has been idle longest is closed. */
  readonly maxIdle: number;
  /** A request, to be started at once; see {@link Http2RequestStream}. */
  readonly onRequest: (stream: ByteStream) => void;
  readonly onRefused: (reason: RefusalReason) => void;
}

/** The state of a connection. */
interface Session {
  readonly session: ServerHttp2Session;
  readonly bucket: TokenBucket;
  streams: number;
  timer: NodeJS.Timeout;
}

/** Serves connections that begin HTTP/2. It does not listen. */
export class MasqueHttp2Server {
  readonly #options: Http2ServerOptions;
  readonly #server: Http2Server;
  readonly #sessions = new Map<ServerHttp2Session, Session>();
  /** Connections without requests, the one that has been idle longest first. */
  readonly #idle = new Set<Session>();

  constructor(options: Http2ServerOptions) {
    this.#options = options;
    this.#server = process.getBuiltinModule("node:http2").createServer({
      ...SESSION_LIMITS,
      settings: { ...COMMON_SETTINGS, enableConnectProtocol: true, maxConcurrentStreams: MAX_STREAMS },
    });
    this.#server.on("session", (session) => this.#handleSession(session));
    this.#server.on("stream", (stream, headers) => this.#handleRequest(stream, headers as Http2Fields));
    // An error of a connection ends that connection, and needs no further action.
    this.#server.on("sessionError", () => {});
  }

  /** The current number of connections. */
  get count(): number {
    return this.#sessions.size;
  }

  /** Takes over a connection. @param read  bytes that were read from it, beginning with the preface */
  take(socket: Socket, ...read: readonly Uint8Array[]): void {
    socket.on("error", () => {});
    // A connection that the client has ended carries nothing more.
    socket.allowHalfOpen = false;
    socket.unshift(Buffer.concat(read));
    this.#server.emit("connection", socket);
  }

  /** Ends all connections at once. */
  close(): void {
    for (const { session } of this.#sessions.values()) session.destroy();
  }

  #handleSession(session: ServerHttp2Session): void {
    if (this.#idle.size >= this.#options.maxIdle) {
      const [oldest] = this.#idle;
      this.#options.onRefused("half_open_limit");
      this.#idle.delete(oldest);
      oldest.session.destroy();
    }
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
    const entry: Session = {
      session,
      bucket: new TokenBucket(REQUESTS_PER_SECOND),
      streams: 0,
      timer: setTimeout(() => {
        this.#options.onRefused("handshake_timeout");
        session.destroy();
      }, this.#options.handshakeTimeoutMs).unref(),
    };
    this.#sessions.set(session, entry);
    this.#idle.add(entry);
    session.once("close", () => {
      clearTimeout(entry.timer);
      this.#idle.delete(entry);
      this.#sessions.delete(session);
    });
  }

  #handleRequest(stream: ServerHttp2Stream, fields: Http2Fields): void {
    const entry = stream.session && this.#sessions.get(stream.session as ServerHttp2Session);
    stream.on("error", () => {});
    if (entry === undefined) {
      stream.destroy();
      return;
    }
    if (!entry.bucket.take(performance.now())) {
      this.#options.onRefused("http2_flood");
      entry.session.destroy(undefined, NGHTTP2_ENHANCE_YOUR_CALM);
      return;
    }
    // The client has reset it before this event. It cannot be answered, and ends by itself.
    if (stream.closed) return;
    this.#use(entry, stream);
    const request = encodeRequestOfHttp2(fields);
    if (request === undefined) {
      this.#options.onRefused("not_upgrade");
      stream.respond({ ":status": 400 }, { endStream: true });
      stream.close(NGHTTP2_NO_ERROR);
      return;
    }
    this.#options.onRequest(new Http2RequestStream(stream, request, fields[":method"] === "HEAD"));
  }

  #use(entry: Session, stream: ServerHttp2Stream): void {
    entry.streams++;
    this.#idle.delete(entry);
    clearTimeout(entry.timer);
    stream.once("close", () => {
      if (--entry.streams > 0 || entry.session.destroyed) return;
      this.#idle.add(entry);
      entry.timer = setTimeout(() => entry.session.close(), IDLE_MS).unref();
    });
  }
}
