import { randomSeed } from "../../core/handshakes/credentials.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { ATYP_IPV6, makeAddress } from "../../wire/socket-address.ts";
import { ipFamily, splitZone } from "../addresses/endpoint.ts";
import { openOnEach } from "../addresses/listen-hosts.ts";
import { isLoopback } from "../addresses/outgoing.ts";
import type { Logger } from "../log.ts";
import { nextTurn } from "../loop.ts";
import type { System } from "../system.ts";
import { systemErrorCode } from "../system-error.ts";
import type { RelayHost } from "../udp/fixed-forward.ts";
import { Socks5Relay } from "./relay.ts";
import type { UdpPortsOption } from "./udp-ports.ts";
import { PortRange } from "./udp-ports.ts";

export interface Socks5UdpOptions {
  /** IP texts, at most one per family, for BND.ADDR instead of the local address of the client's connection. */
  readonly advertise: readonly string[];
  /** undefined if the system chooses. */
  readonly ports: UdpPortsOption | undefined;
  /** See {@link Socks5Relay}. */
  readonly isStrict: boolean;
  /** The place of this thread among several on the same ports. */
  readonly place: { readonly index: number; readonly count: number } | undefined;
}

/** One UDP ASSOCIATE. */
export interface Socks5Association {
  /** BND.ADDR and BND.PORT, where the client sends its datagrams. */
  readonly bound: AddressBytes;
  end(): void;
}

/** The UDP part of the SOCKS5 server: a relay for each association, or a shared one. */
export class Socks5Udp {
  readonly #host: RelayHost;
  readonly #system: System;
  readonly #options: Socks5UdpOptions;
  readonly #log: Logger;
  readonly #range: PortRange | undefined;
  /** One per family. */
  #shared: readonly Socks5Relay[] = [];
  #isExhausted = false;

  constructor(host: RelayHost, system: System, options: Socks5UdpOptions, log: Logger) {
    this.#host = host;
    this.#system = system;
    this.#options = options;
    this.#log = log;
    const { ports, place } = options;
    if (ports === undefined || ports.isShared) return;
    const { first, last } = ports;
    // Threads start at different ports, so they rarely try a port that another has taken.
    const start = place === undefined ? 0 : Math.floor(((last - first + 1) * place.index) / place.count);
    this.#range = new PortRange(first, last, start);
  }

  /** Opens the shared port, if the option asks for one. @param hosts  those that the server listens on */
  async open(hosts: readonly string[]): Promise<void> {
    const { ports } = this.#options;
    if (ports?.isShared)
      this.#shared = await openOnEach(hosts, ports.first, (host, port) => this.#bind(host, port));
  }

  close(): void {
    for (const relay of this.#shared) relay.close();
  }

  /**
   * Opens an association.
   *
   * @param client   its IP, and the port that it will send from, or 0
   * @param localIp  IP text of the local address of its connection, with its zone
   * @returns undefined if there are too many associations, or no port of the range is free
   * @throws Error if a socket cannot be opened
   */
  async associate(client: AddressBytes, localIp: string): Promise<Socks5Association | undefined> {
    const isIpv6 = client[0] === ATYP_IPV6;
    const shared = this.#shared.find(({ family }) => family === (isIpv6 ? 6 : 4));
    const relay = shared ?? (await this.#bindOwn(localIp));
    const leave = relay?.admit(client);
    if (relay === undefined || leave === undefined) {
      if (shared === undefined) this.#release(relay);
      return undefined;
    }
    const end = () => {
      leave();
      if (shared === undefined) this.#release(relay);
    };
    return { bound: this.#boundAddress(isIpv6, localIp, relay.port), end };
  }

  /** Clients on this machine do not need the advertised address. */
  #boundAddress(isIpv6: boolean, localIp: string, port: number): AddressBytes {
    const own = makeAddress(splitZone(localIp).ip, port)!;
    const advertised = this.#options.advertise.find((ip) => (ipFamily(ip) === 6) === isIpv6);
    return advertised === undefined || isLoopback(own) ? own : makeAddress(advertised, port)!;
  }

  async #bindOwn(localIp: string): Promise<Socks5Relay | undefined> {
    const range = this.#range;
    if (range === undefined) return this.#bind(localIp, 0);
    for (let tries = 0; tries < range.size; tries++) {
      const port = range.take();
      if (port === undefined) break;
      try {
        return await this.#bind(localIp, port);
      } catch (error) {
        range.release(port);
        if (systemErrorCode(error) !== "EADDRINUSE") throw error;
      }
    }
    const { first, last } = this.#options.ports!;
    const level = this.#isExhausted ? "debug" : "warn";
    this.#isExhausted = true;
    this.#log[level]({ first, last }, "refused a SOCKS5 client: no port of socks-udp-ports is free");
    return undefined;
  }

  async #bind(host: string, port: number): Promise<Socks5Relay> {
    let bindError: Error | undefined;
    const listen = { family: ipFamily(host)!, host, port } as const;
    const { isStrict } = this.#options;
    const seed = randomSeed(this.#system.cryptography);
    const relay = new Socks5Relay(this.#host, this.#system.io.udp, listen, isStrict, seed, (error) => {
      bindError = error;
    });
    // A socket is bound or has failed by the next turn of the loop.
    if (relay.port === 0) await nextTurn(this.#system);
    if (bindError === undefined && relay.port !== 0) return relay;
    relay.close();
    throw bindError ?? new Error("not bound");
  }

  #release(relay: Socks5Relay | undefined): void {
    if (relay === undefined) return;
    const { port } = relay;
    relay.close();
    this.#range?.release(port);
  }
}
