import type { ReceivedDatagrams } from "../core/received-datagrams.ts";
import type { UnreachableKind } from "../wire/capsule.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import { addressPort, formatHost } from "../wire/socket-address.ts";
import type { Outgoing } from "./outgoing.ts";

/** A remote IPv4 or IPv6 endpoint, in the forms that implementations of {@link UdpIo} want it. */
export class Remote {
  readonly address: AddressBytes;
  readonly host: string;
  readonly port: number;
  /** Which address of this machine to send from, as the socket numbered it; 0 for the one that routing chooses. */
  readonly local: number;
  /** Where the address stands in the batch that is being gathered, and which batch that is. */
  batchOffset = 0;
  batch = 0;

  constructor(address: AddressBytes, local = 0) {
    this.address = address;
    this.local = local;
    this.host = formatHost(address);
    this.port = addressPort(address);
  }
}

/** Rows `first` to before `end` came to one socket. Borrowed until the call returns. */
export type OnDatagrams = (received: ReceivedDatagrams, first: number, end: number) => void;

/**
 * A datagram to `remote` did not get through, as an ICMP error or the system itself says.
 *
 * @param mtu  for too-big: the largest IP packet that would, 0 where that is not known; at most 65,535
 */
export type OnUnreachable = (remote: AddressBytes, kind: UnreachableKind, mtu: number) => void;

export interface UdpSocketOptions {
  readonly family: 4 | 6;
  /** IP to bind, undefined for any. */
  readonly host: string | undefined;
  /** 0 for one that the system chooses. */
  readonly port: number;
  /** Whether other sockets, of other threads, may be bound to the same port. */
  readonly reusePort: boolean;
  /** By what datagrams leave; native I/O only. Default: as the system has it. */
  readonly outgoing?: Outgoing | undefined;
  /**
   * Whether rows tell which of this machine's addresses they came to, where the socket is bound to any; native I/O only,
   * not on Windows. Default: no.
   */
  readonly tellsLocal?: boolean | undefined;
  readonly onDatagrams: OnDatagrams;
  /** Native I/O on Linux only: of a socket that is not connected, node:dgram and other systems tell nothing. */
  readonly onUnreachable?: OnUnreachable;
  /** Errors of single datagrams do not end a socket; a failure to bind does, and is told here once, later. */
  readonly onBindError: (error: Error) => void;
}

export interface UdpSocket {
  /** Port it is bound to; 0 while it is not. */
  readonly port: number;
  /** What the system granted for datagrams that wait to be read, in its own count; undefined when it was not asked. */
  readonly receiveBufferBytes?: number;
  /** Datagrams that the system did not take at once and that refer to the caller's memory. */
  readonly hasPending: boolean;
  /**
   * Sends `header` (when given) and the payload as one datagram, at the latest with {@link UdpIo.flush}. The memory is
   * borrowed until then, and after that until {@link hasPending} is false.
   *
   * @returns false when the datagram was dropped, as too many wait
   */
  send(
    header: Uint8Array | undefined,
    data: Uint8Array,
    offset: number,
    length: number,
    remote: Remote,
  ): boolean;
  close(): void;
}

/** Asked of the system for each socket, each way. */
export const UDP_BUFFER_BYTES = 4_194_304;

/** An implementation of UDP. */
export interface UdpIo {
  readonly kind: "native" | "plain";
  /** @returns a socket that is bound, being bound, or has failed and said so */
  open(options: UdpSocketOptions): UdpSocket;
  /** Sends what the sockets were given. @returns how many of these datagrams were dropped */
  flush(): number;
  /** Calls back once all that this turn of the loop brings is in. */
  afterTurn(callback: () => void): void;
}
