import { HostError } from "../../core/errors.ts";
import type { ConnectUdpRequest } from "../../core/masque/connect-udp-upgrade.ts";
import { ConnectUdpUpgrade } from "../../core/masque/connect-udp-upgrade.ts";
import type { MasqueTarget } from "../../core/masque/masque-client.ts";
import { addressPort, formatHost } from "../../wire/socket-address.ts";
import { splitZone } from "../addresses/endpoint.ts";
import { Cancellation } from "../cancellation.ts";
import type { Carrier, Connection } from "../carriers/carrier.ts";
import { shakeHands } from "../carriers/proxy.ts";
import type { Logger } from "../log.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import type { System } from "../system.ts";
import { required } from "../system.ts";
import type { MasqueProxyOption } from "./masque-option.ts";
import type { MasqueSession } from "./masque-session.ts";

/** Time limit for a request, including the connection if it needs one. */
const REQUEST_MS = 10_000;
/** Limit of HTTP/2 connections, each with as many requests as the proxy permits. */
const MAX_SESSIONS = 16;
const HTTP2 = "h2";
const HTTP1 = "http/1.1";

export interface MasqueCarrierOptions {
  readonly proxy: MasqueProxyOption;
  /** Leads to the proxy's address. */
  readonly chain: Carrier;
  /** The target of a lane's request. */
  readonly targetOf: (lane: number) => MasqueTarget | undefined;
  readonly heartbeatMs: number;
  readonly system: System;
  readonly log: Logger;
}

/** Makes the requests of a MASQUE client: over HTTP/1.1 each on a connection of its own, over HTTP/2 many on one connection. */
export class MasqueCarrier implements Carrier {
  readonly description: string;
  readonly authority: string;
  readonly isLocal = false;
  readonly #options: MasqueCarrierOptions;
  /** Undefined until TLS has agreed on one. */
  #version: "1.1" | "2" | undefined;
  readonly #sessions = new Set<MasqueSession>();
  /** The connection being made for requests over HTTP/2, or for the first request. */
  #opening: Promise<void> | undefined;
  /** A connection that negotiated HTTP/1.1 and has no request yet. */
  #spare: ByteStream | undefined;
  readonly #end = new Cancellation();

  /** @throws HostError ERR_UNSUPPORTED */
  constructor(options: MasqueCarrierOptions) {
    this.#options = options;
    const { proxy, chain, system } = options;
    const { version, template, authority } = proxy;
    this.authority = authority;
    const via = /(?: via .*)?$/s.exec(chain.description)![0];
    this.description = `MASQUE proxy ${template.scheme}://${authority}${via}`;
    if (proxy.tls !== undefined) required(system.wrapTls, "TLS");
    if (version === "2") required(system.openHttp2, "HTTP/2");
    // Offers only a version that it can speak.
    const isOpen = version === "negotiated" && system.openHttp2 !== undefined;
    this.#version = isOpen ? undefined : version === "2" ? "2" : "1.1";
  }

  async connect(cancellation: Cancellation, lane?: number): Promise<Connection> {
    const wanted = this.#options.targetOf(lane!);
    if (wanted === undefined) throw new HostError("ERR_CONNECT", "the attempt was cancelled");
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
          return await session.request(request, deadline);
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

  /** A session with room for a request; closed sessions are forgotten. */
  #usableSession(): MasqueSession | undefined {
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
        throw new HostError("ERR_CONNECT", `${this.authority}: all ${MAX_SESSIONS} connections are full`);
      }
      this.#opening = this.#open().finally(() => {
        this.#opening = undefined;
      });
    }
    await this.#opening;
  }

  async #open(): Promise<void> {
    const { proxy, heartbeatMs, system, log } = this.#options;
    const isNegotiated = proxy.version === "negotiated";
    const deadline = this.#end.within(system, REQUEST_MS);
    let session: MasqueSession | undefined;
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
      session = await system.openHttp2!(stream, scheme, proxy.authority, heartbeatMs, deadline);
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
      return await system.wrapTls!(stream, { ...proxy.tls, protocols }, splitZone(host).ip, cancellation);
    } catch (cause) {
      throw new HostError("ERR_CONNECT", `${this.authority}: ${(cause as Error).message}`, { cause });
    }
  }
}
