import { HostError } from "../../core/errors.ts";
import type { ConnectUdpRequest } from "../../core/masque/connect-udp-upgrade.ts";
import { ConnectUdpUpgrade } from "../../core/masque/connect-udp-upgrade.ts";
import type { MasqueTarget } from "../../core/masque/masque-client.ts";
import { splitZone } from "../../host/addresses/endpoint.ts";
import { Cancellation } from "../../host/cancellation.ts";
import type { Carrier, Connection } from "../../host/carriers/carrier.ts";
import { shakeHands } from "../../host/carriers/proxy.ts";
import type { Logger } from "../../host/log.ts";
import type { ByteStream } from "../../host/stream/byte-stream.ts";
import type { System } from "../../host/system.ts";
import { addressPort, formatHost } from "../../wire/socket-address.ts";
import { toDuplex } from "../byte-stream-duplex.ts";
import { PlainStream } from "../byte-stream-plain.ts";
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
  readonly system: System;
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
  #spare: ByteStream | undefined;
  readonly #end = new Cancellation();

  constructor(options: MasqueCarrierOptions) {
    this.#options = options;
    const { proxy, chain } = options;
    const { version, template, authority } = proxy;
    this.authority = authority;
    const via = /(?: via .*)?$/s.exec(chain.description)![0];
    this.description = `MASQUE proxy ${template.scheme}://${authority}${via}`;
    this.#version = version === "negotiated" ? undefined : version;
  }

  async connect(cancellation: Cancellation, lane?: number): Promise<Connection> {
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
    const deadline = this.#end.within(this.#options.system, REQUEST_MS);
    const leave = cancellation.onCancel(() => deadline.cancel());
    try {
      for (;;) {
        if (deadline.isCancelled) throw new HostError("ERR_CONNECT", `${authority}: no answer in time`);
        if (this.#version === "1.1") return await this.#upgrade(request, deadline);
        const session = this.#usableSession();
        if (session !== undefined) {
          const { stream, isBound } = await session.request(request, deadline);
          return { stream: new PlainStream(stream), isBound };
        }
        await this.#openShared();
      }
    } finally {
      leave();
      deadline.release();
    }
  }

  async close(): Promise<void> {
    this.#end.cancel();
    this.#spare?.destroy();
    for (const session of this.#sessions) session.destroy();
    await this.#options.chain.close();
  }

  async #upgrade(request: ConnectUdpRequest, cancellation: Cancellation): Promise<Connection> {
    const spare = this.#spare;
    this.#spare = undefined;
    const stream =
      spare?.isClosed === false ? spare : (await this.#connectProxy([HTTP1], cancellation)).stream;
    const handshake = new ConnectUdpUpgrade(request);
    await shakeHands(stream, handshake, cancellation);
    return { stream, isBound: handshake.isBound };
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
    const deadline = this.#end.within(this.#options.system, REQUEST_MS);
    let session: Http2ProxySession | undefined;
    try {
      const { stream, protocol } = await this.#connectProxy(
        isNegotiated ? [HTTP2, HTTP1] : [HTTP2],
        deadline,
      );
      if (isNegotiated && protocol !== HTTP2) {
        this.#version = "1.1";
        this.#spare = stream;
        return;
      }
      const { scheme } = proxy.template;
      const duplex = toDuplex(stream);
      session = await Http2ProxySession.open(duplex, scheme, proxy.authority, heartbeatMs, deadline);
    } finally {
      deadline.release();
    }
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

  async #connectProxy(
    protocols: string[],
    cancellation: Cancellation,
  ): Promise<{ readonly stream: ByteStream; readonly protocol: string | undefined }> {
    const { proxy, chain, system, heartbeatMs } = this.#options;
    const { stream } = await chain.connect(cancellation);
    stream.tune(heartbeatMs);
    if (proxy.tls === undefined) return { stream, protocol: undefined };
    const { host } = proxy.endpoint;
    try {
      return await wrapInTls(
        stream,
        { ...proxy.tls, protocols },
        splitZone(host).ip,
        cancellation,
        system.io.native,
      );
    } catch (cause) {
      throw new HostError("ERR_CONNECT", `${this.authority}: ${(cause as Error).message}`, { cause });
    }
  }
}
