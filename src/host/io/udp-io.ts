import type { ReceivedDatagrams } from "../../core/session/received-datagrams.ts";
import type { UnreachableKind } from "../../wire/capsule.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { addressPort, formatHost } from "../../wire/socket-address.ts";
import type { Outgoing } from "../addresses/outgoing.ts";
import type { NativeShortcuts } from "./shortcuts.ts";

/** A remote IPv4 or IPv6 endpoint, in the forms that implementations of {@link UdpIo} need. */
export class Remote {
  readonly address: AddressBytes;
  readonly host: string;
  readonly port: number;
  /** The local address to send from, by the socket's number for it; 0 to let routing choose. */
  readonly local: number;
  /** Offset of the address in the batch that is being gathered, and the number of that batch. */
  batchOffset = 0;
  batch = 0;

  constructor(address: AddressBytes, local = 0) {
    this.address = address;
    this.local = local;
    this.host = formatHost(address);
    this.port = addressPort(address);
  }
}

/** Rows `first` to `end - 1` arrived at one socket. Borrowed until the call returns. */
export type OnDatagrams = (received: ReceivedDatagrams, first: number, end: number) => void;

/**
 * A datagram to `remote` did not get through, according to an ICMP error or the system.
 *
 * @param mtu  for too-big: the largest IP packet that would get through, 0 if unknown; at most 65,535
 */
export type OnUnreachable = (remote: AddressBytes, kind: UnreachableKind, mtu: number) => void;

export interface UdpSocketOptions {
  readonly family: 4 | 6;
  /** IP to bind, undefined for any. A zone after it also applies to the link-local addresses that it sends to. */
  readonly host: string | undefined;
  /** 0 to let the system choose. */
  readonly port: number;
  /** True if sockets of other threads may be bound to the same port. */
  readonly reusePort: boolean;
  /** Interface or mark for datagrams; native I/O only. By default, routing decides. */
  readonly outgoing?: Outgoing | undefined;
  /**
   * True if rows carry the local address that they arrived at, for a socket bound to any address; native I/O only, not on
   * Windows. Default false.
   */
  readonly tellsLocal?: boolean | undefined;
  /** Whether datagrams that would have to be fragmented are dropped; native I/O on Linux only. Default: no. */
  readonly forbidsFragments?: boolean | undefined;
  /** See {@link UdpSocket.setLatency}. Default: that of the {@link UdpIo}. */
  readonly latency?: LatencyClass | undefined;
  /**
   * A bound socket from another process, used instead of a new one whatever `host`, `port` and `reusePort` are; native I/O only, not on
   * Windows. It is closed if it cannot be used.
   */
  readonly descriptor?: number | undefined;
  /** See {@link UdpSocket.setDscp}. Default: 0. */
  readonly dscp?: number | undefined;
  readonly onDatagrams: OnDatagrams;
  /** Native I/O on Linux only: node:dgram and other systems report nothing for an unconnected socket. */
  readonly onUnreachable?: OnUnreachable;
  /** Called once, later, if the socket cannot be bound, which ends it. Errors of single datagrams do not. */
  readonly onBindError: (error: Error) => void;
}

export interface UdpSocket {
  /** The port that it is bound to; 0 before that. */
  readonly port: number;
  /** Size of the receive buffer as the system counts it; undefined if it was not requested. */
  readonly receiveBufferBytes?: number;
  /** Its number in the native module, negative once it is closed; native I/O only. */
  readonly number?: number;
  /** Why it cannot be used, if that is known already; `onBindError` follows. */
  readonly error?: Error | undefined;
  /**
   * Sends `header` (if given) and the payload as one datagram, no later than {@link UdpIo.flush}. The memory is borrowed until then;
   * node:dgram sends later and borrows it for longer, so it must not change at all.
   *
   * @returns false when the datagram was dropped because too many wait
   */
  send(
    header: Uint8Array | undefined,
    data: Uint8Array,
    offset: number,
    length: number,
    remote: Remote,
  ): boolean;
  /** The same for payloads `first` to `end - 1`, all to one remote. @returns how many were dropped */
  sendAll(
    header: Uint8Array | undefined,
    data: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    first: number,
    end: number,
    remote: Remote,
  ): number;
  /**
   * `interactive`: the thread polls for some tens of microseconds after the socket's traffic before it sleeps. `bulk`: after a
   * read the socket is not read again for up to a millisecond. Native I/O on Linux only.
   */
  setLatency(latency: LatencyClass): void;
  /** Sets the DSCP of datagrams sent from now on (RFC 2474), 0 to 63; native I/O only, not on Windows. */
  setDscp(dscp: number): void;
  /** Closes the socket, and keeps its port open in a descriptor for another process; native I/O only, not on Windows. */
  release?(): number | undefined;
  close(): void;
}

/** Size that is requested for the buffers of each socket. */
export const UDP_BUFFER_BYTES = 4_194_304;

/** An implementation of UDP sockets. */
export interface UdpIo {
  readonly kind: "native" | "plain";
  /** The flows that native I/O carries by itself, if it can. */
  readonly shortcuts?: NativeShortcuts | undefined;
  /** @returns a socket that is bound, being bound, or has failed and will report it */
  open(options: UdpSocketOptions): UdpSocket;
  /** Sends the datagrams that the sockets were given. @returns how many of them were dropped */
  flush(): number;
  /** Calls back once everything that this turn of the loop receives has been delivered. */
  afterTurn(callback: () => void): void;
}

/** The same, with another class for sockets without their own; balanced returns `udp` itself. */
export function withLatency(udp: UdpIo, latency: LatencyClass): UdpIo {
  if (latency === "balanced") return udp;
  return {
    kind: udp.kind,
    shortcuts: udp.shortcuts,
    open: (options) => udp.open({ ...options, latency: options.latency ?? latency }),
    flush: () => udp.flush(),
    afterTurn: (callback) => udp.afterTurn(callback),
  };
}
