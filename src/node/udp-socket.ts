import type { AddressBytes } from "../wire/socket-address.ts";
import { addressPort, formatHost } from "../wire/socket-address.ts";

/** A remote IPv4 or IPv6 endpoint, in the forms that implementations of {@link UdpSocket} want it. */
export class Remote {
  readonly address: AddressBytes;
  readonly host: string;
  readonly port: number;

  constructor(address: AddressBytes) {
    this.address = address;
    this.host = formatHost(address);
    this.port = addressPort(address);
  }
}

/**
 * One datagram came. Called for every datagram of a turn of the event loop; the receiver gathers and acts once a turn.
 * `data` and `remote` are borrowed until the call returns.
 */
export type OnDatagram = (data: Uint8Array, offset: number, length: number, remote: AddressBytes) => void;

export interface UdpSocketOptions {
  readonly family: 4 | 6;
  /** IP to bind, undefined for any. */
  readonly host: string | undefined;
  /** 0 for one that the system chooses. */
  readonly port: number;
  readonly onDatagram: OnDatagram;
  /** Errors of single datagrams do not end a socket; a failure to bind does, and is told here once. */
  readonly onBindError: (error: Error) => void;
}

export interface UdpSocket {
  /** Port it is bound to; 0 while it is not. */
  readonly port: number;
  /** Datagrams that the system did not take at once and that refer to the caller's memory. */
  readonly hasPending: boolean;
  /**
   * Sends `header` (when given) and the payload as one datagram, at the latest when the event that is being handled is
   * done with. The memory is borrowed until then, and after that until {@link hasPending} is false.
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

/** An implementation of UDP. @returns a socket that is bound, or being bound */
export type OpenUdpSocket = (options: UdpSocketOptions) => UdpSocket;
