import type { ClientHttp2Session, ClientHttp2Stream, IncomingHttpHeaders, Settings } from "node:http2";
import { performance } from "node:perf_hooks";
import type { Duplex } from "node:stream";
import { HostError } from "../../core/errors.ts";
import type { ConnectUdpRequest } from "../../core/masque/connect-udp-upgrade.ts";
import { masqueRefusal } from "../../core/masque/connect-udp-upgrade.ts";
import type { Cancellation } from "../../host/cancellation.ts";
import type { MasqueSession } from "../../host/masque/masque-session.ts";
import type { ByteStream } from "../../host/stream/byte-stream.ts";
import type { Http2Fields } from "../../wire/http/extended-connect.ts";
import { extendedConnectFields, headOfHttp2 } from "../../wire/http/extended-connect.ts";
import { hasBind } from "../../wire/http/upgrade.ts";
import { toDuplex } from "../io/byte-stream-duplex.ts";
import { PlainStream } from "../io/byte-stream-plain.ts";
import {
  COMMON_SETTINGS,
  CONNECTION_WINDOW_BYTES,
  NGHTTP2_CANCEL,
  SESSION_LIMITS,
} from "./http2-settings.ts";

const MISSED_PINGS = 3;

/** A connection to a MASQUE proxy over HTTP/2, with many requests. */
export class Http2ProxySession implements MasqueSession {
  readonly #session: ClientHttp2Session;
  readonly #scheme: "http" | "https";
  readonly #timer: NodeJS.Timeout;
  #requests = 0;
  #isDraining = false;
  #heardAt = performance.now();

  /**
   * @param stream       which the session owns
   * @param heartbeatMs  time between PINGs; the session is dead after three without an answer
   */
  private constructor(stream: Duplex, scheme: "http" | "https", authority: string, heartbeatMs: number) {
    this.#scheme = scheme;
    this.#session = process.getBuiltinModule("node:http2").connect(`${scheme}://${authority}`, {
      ...SESSION_LIMITS,
      createConnection: () => stream,
      settings: COMMON_SETTINGS,
    });
    // Lets the session take the bytes that were read; it does not start reading by itself.
    stream.resume();
    // A connection that the proxy has ended carries nothing more.
    stream.allowHalfOpen = false;
    const session = this.#session;
    session.on("error", () => {});
    session.on("goaway", () => {
      this.#isDraining = true;
    });
    session.once("connect", () => session.setLocalWindowSize(CONNECTION_WINDOW_BYTES));
    session.once("close", () => clearInterval(this.#timer));
    this.#timer = setInterval(() => this.#ping(heartbeatMs), heartbeatMs).unref();
  }

  /**
   * Begins HTTP/2 on a stream.
   *
   * @returns undefined if the other end does not have extended CONNECT (RFC 8441 §3)
   */
  static async open(
    stream: ByteStream,
    scheme: "http" | "https",
    authority: string,
    heartbeatMs: number,
    cancellation: Cancellation,
  ): Promise<Http2ProxySession | undefined> {
    const opened = new Http2ProxySession(toDuplex(stream), scheme, authority, heartbeatMs);
    try {
      if ((await settingsOf(opened.#session, cancellation)).enableConnectProtocol === true) return opened;
    } catch (error) {
      opened.destroy();
      throw error;
    }
    opened.destroy();
    return undefined;
  }

  /** True if it can take another request. */
  get hasRoom(): boolean {
    return !this.isClosed && this.#requests < (this.#session.remoteSettings.maxConcurrentStreams ?? 100);
  }

  get isClosed(): boolean {
    return this.#isDraining || this.#session.closed || this.#session.destroyed;
  }

  /** @throws MasqueRefusal, HostError ERR_CONNECTION_LOST */
  async request(
    request: ConnectUdpRequest,
    cancellation: Cancellation,
  ): Promise<{ readonly stream: ByteStream; readonly isBound: boolean }> {
    const { authority, path, bind, fields } = request;
    const stream = this.#session.request(
      {
        ...extendedConnectFields(this.#scheme, authority, path, bind),
        ...Object.fromEntries(fields.map(([name, value]) => [name.toLowerCase(), value])),
      } as Record<string, string>,
      { endStream: false },
    );
    this.#requests++;
    stream.once("close", () => {
      this.#requests--;
      // Nothing else ends a connection that the proxy wants to close.
      if (this.#isDraining && this.#requests === 0) this.#session.close();
    });
    const answer = (await answerOf(stream, cancellation)) as Http2Fields;
    const status = Number(answer[":status"]);
    const head = headOfHttp2(answer);
    if (status >= 200 && status < 300)
      return { stream: new PlainStream(stream), isBound: bind && hasBind(head) };
    stream.on("error", () => {});
    stream.close(NGHTTP2_CANCEL);
    throw masqueRefusal(status, head);
  }

  destroy(): void {
    this.#session.destroy();
  }

  #ping(heartbeatMs: number): void {
    const session = this.#session;
    if (performance.now() - this.#heardAt > MISSED_PINGS * heartbeatMs + heartbeatMs) {
      session.destroy(new HostError("ERR_CONNECTION_LOST", "the proxy did not answer a PING"));
      return;
    }
    if (session.destroyed || session.connecting) return;
    session.ping((error) => {
      if (error === null) this.#heardAt = performance.now();
    });
  }
}

/** The other end's settings, which it sends first. */
function settingsOf(session: ClientHttp2Session, cancellation: Cancellation): Promise<Settings> {
  return new Promise((done, failed) => {
    const leave = cancellation.onCancel(() =>
      failed(new HostError("ERR_CONNECT", "the attempt was cancelled")),
    );
    session.once("remoteSettings", (settings) => {
      leave();
      done(settings);
    });
    session.once("error", failed);
    session.once("close", () => {
      leave();
      failed(new HostError("ERR_CONNECTION_LOST", "the proxy closed it before its SETTINGS"));
    });
  });
}

function answerOf(stream: ClientHttp2Stream, cancellation: Cancellation): Promise<IncomingHttpHeaders> {
  return new Promise((done, failed) => {
    const finish = (error: Error | undefined, headers?: IncomingHttpHeaders) => {
      stream.off("response", handleResponse);
      stream.off("error", finish);
      stream.off("close", handleClose);
      leave();
      if (error === undefined) {
        done(headers!);
        return;
      }
      stream.on("error", () => {});
      stream.close(NGHTTP2_CANCEL);
      failed(error);
    };
    const handleResponse = (headers: IncomingHttpHeaders) => finish(undefined, headers);
    const handleClose = () =>
      finish(new HostError("ERR_CONNECTION_LOST", `the proxy closed it (code ${stream.rstCode})`));
    const leave = cancellation.onCancel(() =>
      finish(new HostError("ERR_CONNECT", "no answer to the request in time")),
    );
    stream.on("response", handleResponse);
    stream.on("error", finish);
    stream.on("close", handleClose);
  });
}
