import type { Counters } from "../../core/counters.ts";
import { listenHosts } from "../addresses/listen-hosts.ts";
import type { NameLookups } from "../addresses/name-lookups.ts";
import type { TargetPolicy } from "../addresses/target-policy.ts";
import type { DialectHost } from "../dialects/dialect-host.ts";
import { hasDialects } from "../dialects/dialect-limits.ts";
import { parseDialectListen } from "../dialects/dialect-listen.ts";
import type { DialectProtocol } from "../dialects/server-dialects.ts";
import { dialectOfConnect, dialectProtocols, openServerDialects } from "../dialects/server-dialects.ts";
import type { Logger } from "../log.ts";
import type { ShadowsocksListen } from "../options/shadowsocks-listen.ts";
import { isTunnelTarget, parseShadowsocksListen } from "../options/shadowsocks-listen.ts";
import type { ResolvedUdpServerOptions } from "../options/udp-server.ts";
import { openShadowsocksListener } from "../shadowsocks/shadowsocks-listener.ts";
import type { PathCounts } from "../stats/path-counts.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import { FirstBytes } from "../stream/first-bytes.ts";
import type { StreamListener } from "../stream/tcp.ts";
import { acceptErrors } from "../stream/tcp.ts";
import type { TunnelListenerOptions } from "../stream/tunnel-listener.ts";
import { openTunnelListener } from "../stream/tunnel-listener.ts";
import type { System } from "../system.ts";
import type { OpenPacketEgress } from "../udp-paths/egress.ts";

/** What the listeners of a server get from its host. */
export interface ListenersHost {
  readonly options: ResolvedUdpServerOptions;
  readonly counters: Counters;
  readonly policy: TargetPolicy;
  readonly names: NameLookups;
  readonly system: System;
  readonly log: Logger;
  readonly openPacketEgress: OpenPacketEgress | undefined;
  /** A connection that may carry a tunnel was accepted. */
  accept(stream: ByteStream, acceptedAt: number): void;
  /** Nothing more is accepted on one of its addresses. */
  readonly onListenerFailed: (error: Error) => void;
}

/** The listeners of a server, for tunnels, shadowsocks and dialects, which also decide what each connection is. */
export class ServerListeners {
  readonly #host: ListenersHost;
  readonly #listeners: StreamListener[] = [];
  /** `HOST:PORT` on which tunnels are accepted without shadowsocks. */
  readonly #tunnelAddresses: string[] = [];
  readonly #firstBytes: FirstBytes<DialectProtocol>;
  #dialects: DialectHost | undefined;

  constructor(host: ListenersHost) {
    const { options, counters, system } = host;
    this.#host = host;
    this.#firstBytes = new FirstBytes({
      loop: system,
      protocols: options.dialects.length === 0 ? [] : dialectProtocols(options.dialects),
      timeoutMs: options.handshakeTimeoutMs,
      maxWaiting: options.maxHalfOpen,
      onTold: (stream, acceptedAt, protocol) => {
        if (protocol === undefined) host.accept(stream, acceptedAt);
        else this.#dialects!.accept(stream, protocol.how);
      },
      onRefused: (reason) => counters.refused[reason]++,
    });
  }

  get addresses(): string[] {
    return this.#listeners.map(({ address }) => address);
  }

  /** See `UdpPath.counts`, of the path that dialects use. */
  pathCounts(): PathCounts | undefined {
    return this.#dialects?.pathCounts();
  }

  /** Opens one listener after another, as the options name them. @throws HostError ERR_LISTEN */
  async open(): Promise<void> {
    const { options, counters, policy, names, system, log, openPacketEgress } = this.#host;
    const { listen, ipv6Only } = options;
    if (hasDialects(options)) {
      this.#dialects = await openServerDialects(
        options,
        policy,
        names,
        counters,
        system,
        log,
        openPacketEgress,
      );
    }
    const values = listen.map((text) => {
      const dialect = parseDialectListen(text);
      const shadowsocks = parseShadowsocksListen(text);
      return { text: (dialect ?? shadowsocks)?.listen ?? text, dialect, shadowsocks };
    });
    const texts = values.map(({ text }) => text);
    for (const { text, dialect, shadowsocks } of values) {
      const hosts = listenHosts(text, texts, ipv6Only);
      if (dialect !== undefined) {
        const how = dialect.dialect;
        const accept = (stream: ByteStream) => this.#dialects!.accept(stream, how);
        const listener = await openTunnelListener(text, hosts, this.#optionsOf(accept));
        this.#listeners.push({ ...listener, address: `${how.name}://${listener.address}` });
      } else if (shadowsocks !== undefined) {
        this.#listeners.push(await this.#openShadowsocks(shadowsocks, hosts));
      } else {
        const listener = await openTunnelListener(text, hosts, this.#tunnelOptions);
        this.#listeners.push(listener);
        if (listener.port > 0) this.#tunnelAddresses.push(listener.address);
      }
    }
  }

  get #tunnelOptions(): TunnelListenerOptions {
    return this.#optionsOf((stream) => this.#firstBytes.accept(stream));
  }

  #optionsOf(onConnection: (stream: ByteStream) => void): TunnelListenerOptions {
    const { options, system, log, onListenerFailed } = this.#host;
    return {
      system,
      heartbeatMs: options.heartbeatMs,
      onConnection,
      onError: acceptErrors(log, onListenerFailed),
    };
  }

  #openShadowsocks(server: ShadowsocksListen, hosts: readonly string[]): Promise<StreamListener> {
    const { options, counters, policy, names, system, log } = this.#host;
    const { maxHalfOpen, maxTunnels, ssRelay, dialects } = options;
    const { refused } = counters;
    return openShadowsocksListener(server, hosts, {
      ...this.#tunnelOptions,
      maxHalfOpen,
      isTunnel: (target) => isTunnelTarget(target, this.#tunnelAddresses),
      dialectServer: (target) => {
        const dialect = dialectOfConnect(dialects, target);
        return dialect && ((stream) => this.#dialects!.accept(stream, dialect, target));
      },
      relaysBy: ssRelay,
      relay: {
        loop: system,
        maxRelays: maxTunnels,
        permits: (target) => policy.permits(target),
        lookUp: (name) => names.lookUp("shadowsocks", name),
        log,
        onRefused: (reason) => refused[reason]++,
      },
      log,
      onRefused: (reason) => refused[reason]++,
    });
  }

  /** Stops accepting, and closes connections whose protocol is unknown. */
  async close(): Promise<void> {
    const listeners = this.#listeners.map((listener) => listener.close());
    this.#firstBytes.close();
    await Promise.all(listeners);
  }

  /** Closes the connections in dialects. */
  async closeDialects(): Promise<void> {
    await this.#dialects?.close();
  }
}
