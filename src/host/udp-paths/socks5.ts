import type { ReceivedDatagrams } from "../../core/session/received-datagrams.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { ATYP_DOMAIN, ATYP_IPV6, copyAddress, sameBytes } from "../../wire/socket-address.ts";
import { UdpHeader } from "../../wire/socks5.ts";
import { parseUrlEndpoint } from "../addresses/endpoint.ts";
import type { Outgoing } from "../addresses/outgoing.ts";
import { isLoopback } from "../addresses/outgoing.ts";
import { Cancellation } from "../cancellation.ts";
import { openUdpAssociate } from "../carriers/carrier-chain.ts";
import type { UdpSocket } from "../io/udp-io.ts";
import { Remote } from "../io/udp-io.ts";
import type { Logger } from "../log.ts";
import { nextTurn } from "../loop.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import type { System } from "../system.ts";
import type { RelayAddress } from "./relay-address.ts";
import { configuredRelay, relayAddress } from "./relay-address.ts";
import { RemoteCache } from "./remote-cache.ts";
import type { UdpPath, UdpPathHost } from "./udp-path.ts";
import { OutgoingDatagram } from "./udp-path.ts";

/** Datagrams that wait for the server's answer; further ones are dropped, and applications repeat them. */
const MAX_WAITING = 16;
/** How many of an association's latest targets are reported as unreachable when its relay is gone. */
const MAX_LAST_TARGETS = 4;
/** Time after a refusal in which datagrams are refused without another request. */
const RETRY_MS = 1_000;

interface Waiting {
  readonly data: Uint8Array;
  readonly address: AddressBytes;
}

/** One UDP ASSOCIATE. */
interface Association {
  readonly cancellation: Cancellation;
  readonly waiting: Waiting[];
  /** Its latest targets, newest first. */
  readonly lastTargets: Remote[];
  state: "asking" | "open" | "refused";
  stream: ByteStream | undefined;
  socket: UdpSocket | undefined;
  relay: Remote | undefined;
}

const BARE_SCHEME = "socks5-udp://";

/** True for `socks5-udp://HOST:PORT`: a relay that accepts SOCKS5 datagrams without UDP ASSOCIATE, like `ss-local -U`. */
export function isBareRelay(url: string): boolean {
  if (!url.startsWith(BARE_SCHEME)) return false;
  try {
    const { path, ...endpoint } = parseUrlEndpoint(url.slice(BARE_SCHEME.length));
    return path === undefined && (endpoint as { port: number }).port > 0;
  } catch {
    return false;
  }
}

/** Sends through a SOCKS5 server, with a UDP ASSOCIATE (RFC 1928 §7) for each association, unless it is a bare relay. */
export class Socks5Path implements UdpPath {
  readonly #url: string;
  readonly #system: System;
  readonly #host: UdpPathHost;
  readonly #outgoing: Outgoing | undefined;
  readonly #log: Logger;
  readonly #remotes: RemoteCache;
  readonly #associations: (Association | undefined)[] = [];
  readonly #header = new UdpHeader();
  #isRefused = false;

  /** @param url  `socks5://[user:password@]host:port` or `socks5-udp://host:port`. @param seed  a random 32-bit number */
  constructor(
    url: string,
    system: System,
    host: UdpPathHost,
    log: Logger,
    seed: number,
    outgoing?: Outgoing,
  ) {
    this.#outgoing = outgoing;
    this.#url = url;
    this.#system = system;
    this.#host = host;
    this.#log = log;
    this.#remotes = new RemoteCache(seed);
  }

  open(): void {}

  send(datagram: OutgoingDatagram): void {
    const { association: number, data, offset, length, addresses, addressOffset, addressLength } = datagram;
    const association = this.#associations[number] ?? this.#ask(number);
    const { state, socket, relay, waiting } = association;
    if (state === "open") {
      const target = this.#remotes.get(addresses, addressOffset, addressLength);
      if (association.lastTargets[0] !== target) remember(association.lastTargets, target);
      if (!socket!.send(target.header, data, offset, length, relay!)) this.#host.drop("send_error", 1);
      return;
    }
    const address = copyAddress(addresses, addressOffset, addressLength);
    if (state === "refused") this.#refuseDatagram(number, address);
    else if (waiting.length < MAX_WAITING) {
      waiting.push({ data: data.slice(offset, offset + length), address });
    } else this.#host.drop("send_error", 1);
  }

  flush(): void {
    this.#host.drop("send_error", this.#system.io.udp.flush());
  }

  close(number: number): void {
    const association = this.#associations[number];
    if (association === undefined) return;
    this.#associations[number] = undefined;
    this.#host.drop("send_error", association.waiting.length);
    association.cancellation.cancel();
    association.stream?.destroy();
    association.socket?.close();
  }

  async end(): Promise<void> {
    for (const number of this.#associations.keys()) this.close(number);
  }

  #ask(number: number): Association {
    const association: Association = {
      cancellation: new Cancellation(),
      waiting: [],
      lastTargets: [],
      state: "asking",
      stream: undefined,
      socket: undefined,
      relay: undefined,
    };
    this.#associations[number] = association;
    void this.#connect(number, association);
    return association;
  }

  async #connect(number: number, association: Association): Promise<void> {
    const isCurrent = () => this.#associations[number] === association;
    try {
      const relay = this.#url.startsWith(BARE_SCHEME)
        ? await bareRelay(this.#system, this.#url, association.cancellation)
        : await this.#associate(number, association);
      if (!isCurrent()) return;
      association.relay = new Remote(relay.address);
      association.socket = this.#openSocket(number, association, relay);
      await nextTurn(this.#system);
      if (!isCurrent()) return;
      association.state = "open";
      this.#isRefused = false;
      const datagram = new OutgoingDatagram();
      for (const { data, address } of association.waiting.splice(0)) {
        datagram.setPayload(number, data, 0, data.length, 0);
        datagram.setTarget(address, 0, address.length);
        this.send(datagram);
        // Each datagram has its own memory, which is borrowed only until the flush.
        this.flush();
      }
    } catch (error) {
      if (!isCurrent()) return;
      this.#refuse(number, association, error as Error);
    }
  }

  async #associate(number: number, association: Association): Promise<RelayAddress> {
    const isCurrent = () => this.#associations[number] === association;
    const { stream, bound, peer } = await openUdpAssociate(
      this.#url,
      this.#system,
      association.cancellation,
      this.#outgoing,
    );
    if (!isCurrent()) {
      stream.destroy();
      throw new Error("the association has ended");
    }
    association.stream = stream;
    let isOpen = false;
    stream.start({
      onBytes: () => {},
      onEnd: () => stream.destroy(),
      onWritten: () => {},
      onClose: () => {
        // The next datagram asks again.
        if (isCurrent() && isOpen) this.close(number);
      },
    });
    const relay = await relayAddress(this.#system, bound, peer, association.cancellation);
    if (stream.isClosed) throw new Error("the server ended the association");
    isOpen = true;
    return relay;
  }

  #refuse(number: number, association: Association, error: Error): void {
    const fields = { error: error.message };
    if (this.#isRefused) this.#log.debug(fields, "no UDP through the SOCKS5 server");
    else this.#log.warn(fields, "no UDP through the SOCKS5 server");
    this.#isRefused = true;
    association.state = "refused";
    for (const { address } of association.waiting.splice(0)) this.#refuseDatagram(number, address);
    this.#system.after(
      RETRY_MS,
      () => {
        if (this.#associations[number] === association) this.close(number);
      },
      true,
    );
  }

  #refuseDatagram(number: number, address: AddressBytes): void {
    this.#host.drop("send_error", 1);
    this.#host.refuse(number, address, "port", 0);
  }

  #openSocket(number: number, association: Association, { address, zone }: RelayAddress): UdpSocket {
    return this.#system.io.udp.open({
      family: address[0] === ATYP_IPV6 ? 6 : 4,
      host: zone === undefined ? undefined : `::%${zone}`,
      port: 0,
      reusePort: false,
      outgoing: isLoopback(address) ? undefined : this.#outgoing,
      onDatagrams: (received, first, end) => {
        if (this.#associations[number] === association) this.#deliver(number, address, received, first, end);
      },
      onUnreachable: (_, kind) => {
        if (this.#associations[number] !== association) return;
        // An MTU on the path to the relay says nothing about the path to a target.
        if (kind === "too-big") return;
        for (const target of association.lastTargets) this.#host.refuse(number, target.address, kind, 0);
      },
      onBindError: () => association.stream?.destroy(),
    });
  }

  #deliver(
    number: number,
    from: AddressBytes,
    received: ReceivedDatagrams,
    first: number,
    end: number,
  ): void {
    const { data, addresses } = received;
    const header = this.#header;
    for (let row = first; row < end; row++) {
      const source = received.addressOffset(row);
      if (
        received.addressLength(row) !== from.length ||
        !sameBytes(addresses, source, from, 0, from.length)
      ) {
        this.#host.drop("wrong_source", 1);
        continue;
      }
      const offset = received.offset(row);
      const length = received.length(row);
      const headerLength = header.read(data, offset, offset + length);
      if (headerLength < 0 || header.addresses[header.addressOffset] === ATYP_DOMAIN) {
        this.#host.drop("malformed", 1);
        continue;
      }
      const { address } = this.#remotes.get(header.addresses, header.addressOffset, header.addressLength);
      this.#host.deliver(number, address, data, offset + headerLength, length - headerLength);
    }
  }
}

function remember(lastTargets: Remote[], target: Remote): void {
  const known = lastTargets.indexOf(target);
  lastTargets.splice(known < 0 ? MAX_LAST_TARGETS - 1 : known, 1);
  lastTargets.unshift(target);
}

function bareRelay(system: System, url: string, cancellation: Cancellation): Promise<RelayAddress> {
  const { host, port } = parseUrlEndpoint(url.slice(BARE_SCHEME.length)) as { host: string; port: number };
  return configuredRelay(system, host, port, cancellation);
}
