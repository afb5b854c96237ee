import type { Duplex } from "node:stream";
import { HostError } from "../../core/errors.ts";
import type { ConnectUdpRequest } from "../../core/masque/connect-udp-upgrade.ts";
import { ConnectUdpUpgrade } from "../../core/masque/connect-udp-upgrade.ts";
import type { MasqueTarget } from "../../core/masque/masque-client.ts";
import { splitZone } from "../../host/addresses/endpoint.ts";
import type { Logger } from "../../host/log.ts";
import { addressPort, formatHost } from "../../wire/socket-address.ts";
import type { Carrier, Connection, OnRead } from "../carrier.ts";
import { shakeHands } from "../carriers/proxy.ts";
import { wrapInTls } from "../carriers/tls.ts";
import { Http2ProxySession } from "./http2-proxy-session.ts";
import type { MasqueProxyOption } from "./masque-option.ts";

/** For a request, with the connection if it needs one. */
const REQUEST_MS = 10_000;
/** Connections of HTTP/2, each with as many requests as the proxy permits. */
const MAX_SESSIONS = 16;
const HTTP2 = "h2";
const HTTP1 = "http/1.1";

export interface MasqueCarrierOptions {
  readonly proxy: MasqueProxyOption;
  /** Leads to the proxy's address. */
  readonly chain: Carrier;
  /** What the request of a lane is for. */
  readonly targetOf: (lane: number) => MasqueTarget | undefined;
  readonly heartbeatMs: number;
  /** Sets the options of a connection's descriptor. */
  readonly tune: (stream: Duplex) => void;
  readonly log: Logger;
}

/** Makes the requests of a MASQUE client: each on a connection of its own over HTTP/1.1, many on one over HTTP/2. */
export class MasqueCarrier implements Carrier {
  readonly description: string;
  readonly authority: string;
  readonly isLocal = false;
  readonly #options: MasqueCarrierOptions;
  /** Undefined until TLS has agreed on one. */
  #version: "1.1" | "2" | undefined;
  readonly #sessions = new Set<Http2ProxySession>();
  /** The connection that is being made for requests over HTTP/2, or for the first one. */
  #opening: Promise<void> | undefined;
  /** A connection on which HTTP/1.1 was agreed, and that no request has yet. */
  #spare: Duplex | undefined;
  readonly #end = new AbortController();

  constructor(options: MasqueCarrierOptions) {
    this.#options = options;
    const { proxy, chain } = options;
    const { version, template, authority } = proxy;
    this.authority = authority;
    const via = /(?: via .*)?$/s.exec(chain.description)![0];
    this.description = `MASQUE proxy ${template.scheme}://${authority}${via}`;
    this.#version = version === "negotiated" ? undefined : version;
  }

  async connect(signal: AbortSignal, _onread?: OnRead, lane?: number): Promise<Connection> {
    const wanted = this.#options.targetOf(lane!);
    if (wanted === undefined) throw new HostError("ERR_CONNECT", "given up");
    const { template, authority, fields } = this.#options.proxy;
    const { target, bind } = wanted;
    const request: ConnectUdpRequest = {
      authority,
      path: template.expand(formatHost(target), addressPort(target)),
      bind,
      fields,
    };
    const both = AbortSignal.any([signal, this.#end.signal, AbortSignal.timeout(REQUEST_MS)]);
    for (;;) {
      if (both.aborted) throw new HostError("ERR_CONNECT", `${authority}: no answer in time`);
      if (this.#version === "1.1") return this.#upgrade(request, both);
      const session = this.#usableSession();
      if (session !== undefined) {
        const { stream, isBound } = await session.request(request, both);
        return { stream, isBound, onread: false, isOurs: true };
      }
      await this.#openShared();
    }
  }

  async close(): Promise<void> {
    this.#end.abort();
    this.#spare?.destroy();
    for (const session of this.#sessions) session.destroy();
    await this.#options.chain.close();
  }

  async #upgrade(request: ConnectUdpRequest, signal: AbortSignal): Promise<Connection> {
    const spare = this.#spare;
    this.#spare = undefined;
    const stream = spare?.destroyed === false ? spare : await this.#connectProxy([HTTP1], signal);
    const handshake = new ConnectUdpUpgrade(request);
    await shakeHands(stream, handshake, signal);
    return { stream, isBound: handshake.isBound, onread: false, isOurs: true };
  }

  /** A session with room for a request; one that is closed is forgotten. */
  #usableSession(): Http2ProxySession | undefined {
    for (const session of this.#sessions) {
      if (session.hasRoom) return session;
      if (session.isClosed) this.#sessions.delete(session);
    }
    return undefined;
  }

  /** Makes a connection for all requests that wait for one. */
  async #openShared(): Promise<void> {
    if (this.#opening === undefined) {
      if (this.#sessions.size >= MAX_SESSIONS) {
        throw new HostError("ERR_CONNECT", `${this.authority}: its ${MAX_SESSIONS} connections have no room`);
      }
      this.#opening = this.#open().finally(() => {
        this.#opening = undefined;
      });
    }
    await this.#opening;
  }

  async #open(): Promise<void> {
    const { proxy, heartbeatMs, log } = this.#options;
    const isNegotiated = proxy.version === "negotiated";
    const signal = AbortSignal.any([this.#end.signal, AbortSignal.timeout(REQUEST_MS)]);
    const stream = await this.#connectProxy(isNegotiated ? [HTTP2, HTTP1] : [HTTP2], signal);
    if (isNegotiated && (stream as { alpnProtocol?: string | false }).alpnProtocol !== HTTP2) {
      this.#version = "1.1";
      this.#spare = stream;
      return;
    }
    const { scheme } = proxy.template;
    const session = await Http2ProxySession.open(stream, scheme, proxy.authority, heartbeatMs, signal);
    if (session !== undefined) {
      this.#version = "2";
      this.#sessions.add(session);
      return;
    }
    if (!isNegotiated) {
      throw new HostError("ERR_CONNECT", `${this.authority}: HTTP/2 without extended CONNECT (RFC 8441)`);
    }
    log.info({ proxy: this.authority }, "HTTP/2 without extended CONNECT: using HTTP/1.1");
    this.#version = "1.1";
  }

  async #connectProxy(protocols: string[], signal: AbortSignal): Promise<Duplex> {
    const { proxy, chain, tune } = this.#options;
    const { stream } = await chain.connect(signal);
    tune(stream);
    if (proxy.tls === undefined) return stream;
    const { host } = proxy.endpoint;
    try {
      return await wrapInTls(stream, { ...proxy.tls, protocols }, splitZone(host).ip, signal);
    } catch (cause) {
      throw new HostError("ERR_CONNECT", `${this.authority}: ${(cause as Error).message}`, { cause });
    }
  }
}
