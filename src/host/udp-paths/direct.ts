import type { ReceivedDatagrams } from "../../core/session/received-datagrams.ts";
import { ATYP_IPV6 } from "../../wire/socket-address.ts";
import type { Outgoing } from "../addresses/outgoing.ts";
import type { UdpIo, UdpSocket } from "../io/udp-io.ts";
import type { Logger } from "../log.ts";
import type { System } from "../system.ts";
import { hasNoMoreSockets } from "../system-error.ts";
import { RemoteCache } from "./remote-cache.ts";
import type { OutgoingDatagram, UdpPath, UdpPathHost } from "./udp-path.ts";

/** For how long a family opens no further socket after one has failed. */
const RETRY_MS = 1_000;

/** The last failure of a family's sockets. */
interface Failure {
  readonly socket: UdpSocket;
  readonly at: number;
}

/** Sends from sockets of this machine, one for each association and family. */
export class DirectPath implements UdpPath {
  readonly #io: UdpIo;
  readonly #system: System;
  readonly #host: UdpPathHost;
  readonly #log: Logger;
  readonly #outgoing: Outgoing | undefined;
  readonly #remotes: RemoteCache;
  /** By {@link placeOf}. */
  readonly #sockets: (UdpSocket | undefined)[] = [];
  readonly #dscps: number[] = [];
  /** Why sockets of a family cannot be used, until one can. */
  readonly #failures: Record<4 | 6, Failure | undefined> = { 4: undefined, 6: undefined };

  /** @param seed  a random 32-bit number */
  constructor(system: System, host: UdpPathHost, log: Logger, seed: number, outgoing?: Outgoing) {
    this.#outgoing = outgoing;
    this.#io = system.io.udp;
    this.#system = system;
    this.#host = host;
    this.#log = log;
    this.#remotes = new RemoteCache(seed);
  }

  open(): void {}

  send(datagram: OutgoingDatagram): void {
    const { association, data, offset, length, dscp, addresses, addressOffset, addressLength } = datagram;
    const family = addresses[addressOffset] === ATYP_IPV6 ? 6 : 4;
    const place = placeOf(association, family);
    const socket = this.#sockets[place] ?? this.#openSocket(association, family);
    if (this.#dscps[place] !== dscp) {
      // Waiting datagrams were sent with the class before.
      this.flush();
      socket.setDscp(dscp);
      this.#dscps[place] = dscp;
    }
    const remote = this.#remotes.get(addresses, addressOffset, addressLength);
    if (socket.send(undefined, data, offset, length, remote)) return;
    this.#host.drop(hasNoMoreSockets(socket.error) ? "association_limit" : "send_error", 1);
  }

  flush(): void {
    this.#host.drop("send_error", this.#io.flush());
  }

  close(association: number): void {
    for (const family of FAMILIES) {
      const place = placeOf(association, family);
      this.#sockets[place]?.close();
      this.#sockets[place] = undefined;
    }
  }

  async end(): Promise<void> {
    for (const socket of this.#sockets) socket?.close();
  }

  #openSocket(association: number, family: 4 | 6): UdpSocket {
    // Sockets of a family differ only in their ports: what ails one, such as a missing interface, ails all.
    const failure = this.#failures[family];
    if (failure !== undefined && this.#system.now() - failure.at < RETRY_MS) return failure.socket;
    const place = placeOf(association, family);
    const socket: UdpSocket = this.#io.open({
      family,
      host: undefined,
      port: 0,
      reusePort: false,
      outgoing: this.#outgoing,
      onDatagrams: (received, first, end) => {
        if (this.#sockets[place] === socket) this.#deliver(association, received, first, end);
      },
      onUnreachable: (remote, kind, mtu) => {
        if (this.#sockets[place] === socket) this.#host.refuse(association, remote, kind, mtu);
      },
      onBindError: (error) => {
        this.#handleFailed(family, socket, error);
        if (this.#sockets[place] !== socket) return;
        // The next datagram opens another one.
        socket.close();
        this.#sockets[place] = undefined;
      },
    });
    this.#sockets[place] = socket;
    this.#dscps[place] = 0;
    if (socket.error !== undefined) this.#handleFailed(family, socket, socket.error);
    else if (socket.port > 0) this.#failures[family] = undefined;
    return socket;
  }

  /** Notes an error that will last. When the system has no more sockets, there may be one for the next datagram. */
  #handleFailed(family: 4 | 6, socket: UdpSocket, error: Error): void {
    const before = this.#failures[family];
    if (before?.socket === socket || hasNoMoreSockets(error)) return;
    this.#failures[family] = { socket, at: this.#system.now() };
    const level = before === undefined ? "warn" : "debug";
    this.#log[level]({ error: error.message }, "cannot open a UDP socket");
  }

  #deliver(association: number, received: ReceivedDatagrams, first: number, end: number): void {
    for (let row = first; row < end; row++) {
      const { address } = this.#remotes.get(
        received.addresses,
        received.addressOffset(row),
        received.addressLength(row),
      );
      this.#host.deliver(association, address, received.data, received.offset(row), received.length(row));
    }
  }
}

const FAMILIES = [4, 6] as const;

function placeOf(association: number, family: 4 | 6): number {
  return 2 * association + (family === 6 ? 1 : 0);
}
