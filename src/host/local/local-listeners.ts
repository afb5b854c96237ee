import { HostError, UsageError } from "../../core/errors.ts";
import { randomSeed } from "../../core/handshakes/credentials.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { formatAddress, makeAddress } from "../../wire/socket-address.ts";
import { formatEndpoint, ipFamily, parseEndpoint } from "../addresses/endpoint.ts";
import { listenHosts, openOnEach } from "../addresses/listen-hosts.ts";
import { outgoingOf } from "../addresses/outgoing.ts";
import type { TcpWay } from "../carriers/carrier-chain.ts";
import { tcpWays } from "../carriers/tcp-ways.ts";
import type { DialectHost } from "../dialects/dialect-host.ts";
import { openLocalDialects } from "../dialects/local-dialects.ts";
import { UDP_BUFFER_BYTES } from "../io/udp-io.ts";
import type { Logger } from "../log.ts";
import { nextTurn } from "../loop.ts";
import type { ForwardOptions, ResolvedUdpLocalOptions } from "../options/udp-local.ts";
import type { Socks5Listener } from "../socks5/listener.ts";
import { makeSocks5Listener, makeSocks5Udp } from "../socks5/make-socks5.ts";
import type { Socks5Udp } from "../socks5/udp.ts";
import type { TransferPacing } from "../stream/transfer-pacer.ts";
import type { System } from "../system.ts";
import type { RelayHost } from "../udp/fixed-forward.ts";
import { FixedForward } from "../udp/fixed-forward.ts";
import type { WorkerPlace } from "../workers.ts";

/** What the listeners of a client get from its host. */
export interface LocalListenersHost extends RelayHost {
  /** For TCP that is relayed beside the session. */
  readonly pacing: TransferPacing;
  /** SOCKS5 accepts nothing more on one of its addresses. */
  handleListenerFailed(error: Error): void;
}

/** Where udp-local listens: the ports of its forwards, and SOCKS5 with UDP, CONNECT and dialects. */
export class LocalListeners {
  readonly #host: LocalListenersHost;
  readonly #options: ResolvedUdpLocalOptions;
  readonly #system: System;
  readonly #log: Logger;
  /** Which of several threads on the same ports this is. */
  readonly #place: WorkerPlace | undefined;
  readonly #forwards: {
    readonly listen: string;
    readonly target: string;
    readonly relays: readonly FixedForward[];
  }[] = [];
  #socks5: Socks5Listener | undefined;
  #socks5Udp: Socks5Udp | undefined;
  #dialects: DialectHost | undefined;
  /** For the CONNECT requests. */
  #tcp: TcpWay | undefined;

  constructor(
    host: LocalListenersHost,
    options: ResolvedUdpLocalOptions,
    system: System,
    log: Logger,
    place: WorkerPlace | undefined,
  ) {
    this.#host = host;
    this.#options = options;
    this.#system = system;
    this.#log = log;
    this.#place = place;
  }

  /** Undefined when SOCKS5 is off. */
  get socks5Address(): string | undefined {
    return this.#socks5?.address;
  }

  get forwardAddresses(): { readonly listen: string; readonly target: string }[] {
    return this.#forwards.map(({ listen, target, relays }) => {
      const { host } = parseEndpoint(listen) as { host: string };
      return { listen: formatEndpoint(host, relays[0].port), target };
    });
  }

  /** @throws HostError ERR_LISTEN, UsageError ERR_OPTION */
  async open(): Promise<void> {
    const { forwards, listen } = this.#options;
    for (const forward of forwards) await this.#openForward(forward);
    if (listen !== false) await this.#openSocks5(listen);
  }

  /** Ends SOCKS5, and its connections. */
  async closeSocks5(): Promise<void> {
    await this.#socks5?.close();
    this.#socks5Udp?.close();
    await this.#dialects?.close();
  }

  closeForwards(): void {
    for (const { relays } of this.#forwards) for (const relay of relays) relay.close();
  }

  /** Closes what CONNECT requests were carried by. */
  async closeTcp(): Promise<void> {
    await this.#tcp?.close();
  }

  async #openForward({ listen, target: targetText, anyPort }: ForwardOptions): Promise<void> {
    const target = parseEndpoint(targetText) as { host: string; port: number };
    const address = makeAddress(target.host, target.port);
    if (address === undefined) throw new UsageError("ERR_OPTION", `forward: "${targetText}" is not a target`);
    const { forwards, ipv6Only } = this.#options;
    const values = forwards.map((forward) => forward.listen);
    const { port } = parseEndpoint(listen) as { port: number };
    const hosts = listenHosts(listen, values, ipv6Only);
    const relays = await openOnEach(hosts, port, (host, boundPort) =>
      this.#bindForward(host, boundPort, address, anyPort === true),
    ).catch((cause: Error) => {
      throw new HostError("ERR_LISTEN", `udp ${listen}: ${cause.message}`, { cause });
    });
    const { receiveBufferBytes } = relays[0].socket;
    if (receiveBufferBytes !== undefined && receiveBufferBytes < UDP_BUFFER_BYTES) {
      this.#log.debug(
        { listen, receiveBufferBytes, asked: UDP_BUFFER_BYTES },
        "the receive buffer is small, and bursts may be lost: raise net.core.rmem_max",
      );
    }
    this.#forwards.push({ listen, target: formatAddress(address), relays });
  }

  async #bindForward(
    host: string,
    port: number,
    target: AddressBytes,
    anyPort: boolean,
  ): Promise<FixedForward> {
    let bindError: Error | undefined;
    const relay = new FixedForward(
      this.#host,
      this.#system.io.udp,
      { family: ipFamily(host)!, host, port, reusePort: this.#place !== undefined },
      target,
      anyPort,
      randomSeed(this.#system.cryptography),
      (error) => {
        bindError = error;
      },
    );
    // A socket is bound or has failed by the next turn of the loop.
    await nextTurn(this.#system);
    if (bindError !== undefined) throw bindError;
    if (relay.port === 0) throw new Error("not bound");
    return relay;
  }

  async #openSocks5(listen: string): Promise<void> {
    const { socksAuth, maxAssociations, socksAdvertise, socksUdpStrict } = this.#options;
    const { socksUdpPorts, ipv6Only } = this.#options;
    const host = this.#host;
    const hosts = listenHosts(listen, [listen], ipv6Only);
    const udpOptions = { advertise: socksAdvertise, isStrict: socksUdpStrict, place: this.#place };
    const udp = makeSocks5Udp(host, this.#system, udpOptions, socksUdpPorts, this.#log);
    this.#socks5Udp = udp;
    await udp.open(hosts).catch((cause: Error) => {
      throw new HostError("ERR_LISTEN", `udp port ${socksUdpPorts} of ${listen}: ${cause.message}`, {
        cause,
      });
    });
    const tcp = tcpWays(this.#options.tcpVia, this.#system, outgoingOf(this.#options), this.#log);
    this.#tcp = tcp;
    this.#socks5 = makeSocks5Listener({
      loop: this.#system,
      credentials: socksAuth,
      tcp: this.#system.io.tcp,
      sharesPort: this.#place !== undefined,
      maxConnections: 2 * maxAssociations,
      log: this.#log,
      associate: (client, localIp) => udp.associate(client, localIp),
      connect: (target, cancellation) => tcp.connect(target, cancellation),
      pacing: host.pacing,
      serveDialect: (stream, dialect, request) => {
        this.#dialects ??= openLocalDialects(this.#options, host, this.#system, this.#log);
        stream.tune(this.#options.heartbeatMs);
        this.#dialects.accept(stream, dialect, request);
      },
      onRefused: () => {
        host.core.counters.refused.socks_refused++;
      },
      onListenerFailed: (error) => host.handleListenerFailed(error),
    });
    await this.#socks5.listen(listen, hosts);
  }
}
