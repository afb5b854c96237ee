import type { AddressBytes } from "../../wire/socket-address.ts";
import { makeAddress } from "../../wire/socket-address.ts";
import { splitZone } from "../addresses/endpoint.ts";

/**
 * The counts of {@link NativeModule.udpCounts}, in its order: the reasons why the system dropped datagrams and, last, the errors that were
 * not reported because too many came at once.
 */
export const NATIVE_DROP_REASONS = [
  "refused",
  "too_long",
  "no_buffers",
  "overflow",
  "failed",
  "untold",
] as const;
/**
 * A row of errors: socket (-1 if it has been closed), kind as on the wire, MTU, length of the address; the address.
 */
export const ERROR_ROW_INTS = 9;
export const ERROR_ROW_ADDRESS = 4;
/** Numbers of a row of {@link NativeModule.shortcutCounts}. */
export const SHORTCUT_ROW_NUMBERS = 7;

/**
 * The module in `native/`: batched sockets on descriptors. Addresses have the program's form of IPv4 and IPv6; those to bind or connect to
 * may be {@link scopedAddress}es. Calls that fail throw an Error whose `code` is the system's.
 */
export interface NativeModule {
  /** Zeroed memory that takes space only where it is used, for an engine whose arrays take all their space at once. */
  lazyMemory?(bytes: number): Uint8Array;
  /** The number of the interface that a zone of IPv6 addresses names. @throws ENODEV */
  zoneScope(zone: string): number;
  /**
   * Sizes for {@link udpSetup}: bytes of the arena, rows, bytes of addresses; most rows of one {@link udpSend}; rows of
   * errors.
   */
  udpSizes(): [arenaBytes: number, rows: number, addressBytes: number, sendRows: number, errorRows: number];
  /**
   * Called once per thread. What arrives is in the arrays when `onBatch` is called, and only until it returns.
   *
   * @param rows      socket, offset, length, address offset, address length, number of the local address
   * @param onErrors  gets the number of rows of `errors` at the end of a turn
   */
  udpSetup(
    arena: Uint8Array,
    rows: Int32Array,
    addresses: Uint8Array,
    onBatch: (count: number) => void,
    errors: Int32Array,
    onErrors: (count: number) => void,
  ): void;
  /**
   * @param tellLocals  true to number the local addresses that datagrams arrive at, up to 255 of them; others, and all on
   *   Windows, are 0
   * @returns the socket's number, which is reused only in a later turn of the loop
   */
  udpOpen(
    address: Uint8Array,
    reusePort: boolean,
    receiveBytes: number,
    sendBytes: number,
    tellLocals: boolean,
  ): number;
  /**
   * Opens a bound UDP socket that the process was given, and then owns it; after an error it leaves the socket alone. Not in the C library,
   * nor on Windows.
   */
  udpAdopt?(descriptor: number, receiveBytes: number, sendBytes: number): number;
  /** Another descriptor of a socket, which the caller owns and which outlives the socket. Available where {@link udpAdopt} is. */
  udpDescriptor?(socket: number): number;
  udpClose(socket: number): void;
  /** Enables reports of datagrams that did not get through: ICMP errors and missing routes. Linux only. */
  udpTellErrors?(socket: number): void;
  /** Makes a socket drop datagrams that would have to be fragmented. Linux only. */
  udpForbidFragments?(socket: number): void;
  /** Sets the class of a socket, by its number on the wire. Linux only. */
  udpLatency?(socket: number, latency: number): void;
  /** Sets the DSCP of what a socket sends, 0 to 63. Not on Windows. */
  udpDscp?(socket: number, dscp: number): void;
  /** @returns the number of rows of errors that have not been reported; the caller reports them */
  udpErrors(): number;
  /** Restricts a socket to an interface or gives it a mark; "" and 0 for none. Not on Windows. */
  udpRestrict?(socket: number, interfaceName: string, mark: number): void;
  udpPort(socket: number): number;
  /** Size of the receive buffer, as the system counts it. */
  udpReceiveBuffer(socket: number): number;
  /**
   * @param rows  socket, header offset, header length, offset, length, address offset, number of the local address to send
   *   from; 0, or an address that the machine no longer has, leaves the choice to routing
   * @returns how many datagrams were dropped
   */
  udpSend(
    data: Uint8Array,
    rows: Int32Array,
    count: number,
    addresses: Uint8Array,
    headers: Uint8Array,
  ): number;
  udpCounts(counts: Float64Array): void;

  /**
   * Sends a message to the service manager (sd_notify(3)), and waits until there is room for it. Linux only, and not in the C
   * library.
   *
   * @param socket       as in NOTIFY_SOCKET
   * @param descriptors  at most 253, which stay open
   */
  serviceNotify?(socket: string, message: string, descriptors: Int32Array, timeoutMs: number): void;
  /** Waits until the manager has handled all earlier messages. @throws ETIMEDOUT */
  serviceBarrier?(socket: string, timeoutMs: number): void;
  /** Makes memory that nobody can change any more. @returns its descriptor */
  sealedMemory?(bytes: Uint8Array): number;

  /**
   * Undefined on Windows.
   *
   * @param onAccept  gets each connection; or a system error, after which the listener accepts nothing more, and is still to be closed
   * @returns the listener's descriptor
   */
  tcpListen?(
    address: Uint8Array,
    reusePort: boolean,
    backlog: number,
    onAccept: (result: number) => void,
  ): number;
  /**
   * Listens on a Unix socket. Replaces a socket at the path on which nothing answers.
   *
   * @param mode  permissions, 0o660
   */
  unixListen?(path: string, mode: number, backlog: number, onAccept: (result: number) => void): number;
  /** Accepts on a listening socket that the process was given. Not in the C library. @returns its descriptor */
  listenOn?(descriptor: number, backlog: number, onAccept: (result: number) => void): number;
  /** Closes a listener, and removes the path of a Unix socket. */
  tcpUnlisten?(listener: number): void;
  /** The local address of an IP socket. */
  socketAddress?(descriptor: number): AddressBytes | undefined;
  /** The address of an IP socket or of its peer as text, with its zone if it is link-local. */
  socketName?(descriptor: number, isPeer: boolean): [ip: string, port: number] | undefined;
  /** Sets the two given values, TCP_NODELAY and keepalive. @returns false if the system lacks one of the two */
  tcpTune?(descriptor: number, notSentLowWaterBytes: number, userTimeoutMs: number): boolean;
  /** Sets TCP_NODELAY, and keepalive after so many seconds unless 0. Does nothing on a Unix socket. */
  tcpKeepAlive?(descriptor: number, idleSeconds: number): void;
  /**
   * Connects.
   *
   * @param interfaceName  interface for the connection; "" for any
   * @param mark           0 for none
   * @param onDone         gets the descriptor, or a system error, which is negative
   * @returns the attempt's number
   */
  tcpConnect?(
    address: Uint8Array,
    interfaceName: string,
    mark: number,
    onDone: (result: number) => void,
  ): number;
  /** Connects to a Unix socket. */
  unixConnect?(path: string, onDone: (result: number) => void): number;
  /** Aborts an attempt and closes its descriptor; `onDone` is not called. Only before it was called. */
  tcpConnectCancel?(attempt: number): void;
  /** Another descriptor of the same connection, which outlives the first. */
  descriptorDuplicate?(descriptor: number): number;
  descriptorClose?(descriptor: number): void;

  /**
   * Reads a connected socket into `buffer`, until {@link streamRelease} or {@link streamClose}. Like the others, not on
   * Windows.
   *
   * @param onRead      gets the number of bytes in the buffer, valid until it returns; 0 at the end; or a system error
   * @param onWritable  called when the system accepts more, after a {@link streamWrite} that it did not accept completely
   */
  streamOpen?(
    descriptor: number,
    buffer: Uint8Array,
    onRead: (count: number) => void,
    onWritable: () => void,
  ): void;
  /**
   * @param hasMore  more follows soon, so received bytes are acknowledged with that, and not separately
   * @returns how many bytes the system accepted, or a system error, which is negative
   */
  streamWrite?(descriptor: number, bytes: Uint8Array, length: number, hasMore: boolean): number;
  /** Ends writing. */
  streamEnd?(descriptor: number): void;
  /** Returns the open descriptor to the caller. */
  streamRelease?(descriptor: number): void;
  streamClose?(descriptor: number): void;
  /**
   * While paused, nothing is read, not even the end; writing continues. A connection that fails meanwhile is reported to `onRead`, on Linux
   * at once unless bytes are left to read first.
   */
  streamPause?(descriptor: number, isPaused: boolean): void;
  /** Limits the bytes of one read, and the system's receive buffer if that limit can be lifted later; 0 and 0 for no limits. */
  streamLimit?(descriptor: number, readBytes: number, bufferBytes: number): void;
  /** Closes it with a RST. */
  streamReset?(descriptor: number): void;

  /**
   * A shortcut (native/io/shortcut.h): datagrams that a socket receives from one address at one local address, and that begin with
   * `prefix`, go without it to a stream, as DATAGRAM capsules. They do not reach `onBatch`. An existing shortcut for the same datagrams
   * ends.
   *
   * A module has either all functions that begin with `shortcut`, or none.
   *
   * @param local    number of the local address, as rows have it
   * @param prefix   at most 22 bytes. If several begin a datagram, the longest counts
   * @param context  0 to 2^31 - 1
   * @returns its number, 0 to 4,095; -1 if the table is full, or an argument is not open or not valid
   */
  shortcutOut?(
    socket: number,
    address: Uint8Array,
    local: number,
    prefix: Uint8Array,
    stream: number,
    context: number,
  ): number;
  /**
   * The way back: DATAGRAM capsules of a context leave on a socket behind `header`, once {@link shortcutResume} permits it. They do not
   * reach `onRead`. An existing shortcut for the same context ends.
   *
   * @param local   number of the local address to send from; 0 leaves the choice to routing
   * @param header  at most 22 bytes
   * @returns as {@link shortcutOut}
   */
  shortcutIn?(
    socket: number,
    address: Uint8Array,
    local: number,
    header: Uint8Array,
    stream: number,
    context: number,
  ): number;
  /**
   * The same for UDP packets of a device that {@link tunShortcuts} was called for, from `source` to `remote` and with a DSCP. Packets that
   * are fragments, have options or are not valid reach `onPackets`.
   *
   * @param source  the application's address; both are of one family
   * @param dscp    0 to 63
   * @returns as {@link shortcutOut}
   */
  shortcutPacketsOut?(
    device: number,
    source: Uint8Array,
    remote: Uint8Array,
    dscp: number,
    stream: number,
    context: number,
  ): number;
  /** The way back: the packets that {@link tunWrite} would write. Capsules that need packets larger than the MTU reach `onRead`. */
  shortcutPacketsIn?(
    device: number,
    source: Uint8Array,
    remote: Uint8Array,
    dscp: number,
    stream: number,
    context: number,
  ): number;
  /** Ends all shortcuts of a stream. Closing a stream, a socket or a device also ends them. */
  shortcutEnd?(stream: number): void;
  /**
   * Reports that what `onRead` got last, and everything before, ended at the end of a capsule and has been handled. Shortcuts may then read
   * on, until `onRead` is called again. Called within `onRead`, or later.
   */
  shortcutResume?(stream: number): void;
  /**
   * Fetches what shortcuts have carried since the last call. Those that have carried nothing for 10 seconds end here.
   *
   * @param rows  of {@link SHORTCUT_ROW_NUMBERS}: number; datagrams; bytes of payload, without prefix or header; milliseconds since the
   *   last datagram; bytes of the last payload; 1 if it has ended; packets of a device that the datagrams were in, else 0. A number is
   *   free once its row with 1 has been returned
   * @returns the rows written; to be called again until that is 0
   */
  shortcutCounts?(rows: Float64Array): number;

  /**
   * Creates or opens a TUN device: Linux, and utun on macOS.
   *
   * @param offload  requests virtio-net headers and packets longer than the MTU, if the system supports them
   */
  tunOpen?(
    name: string,
    offload: boolean,
  ): [descriptor: number, name: string, hasFamily: boolean, hasVirtio: boolean, hasUso: boolean];
  /**
   * Reads a descriptor with one IP packet per read. Packet i is `arena[offsets[i] .. offsets[i] + lengths[i])`, valid when
   * `onPackets` is called and only until it returns.
   *
   * @param hasFamily  true if 4 bytes with the family precede each packet, both ways; offsets skip them
   * @param onPackets  gets their number, or at the end a system error, which is negative
   */
  tunWatch?(
    descriptor: number,
    hasFamily: boolean,
    arena: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    onPackets: (count: number) => void,
  ): void;
  /**
   * Packet i is in `input` if `isInput[i]` is 1, else in `arena`. @returns how many were dropped, now or of shortcuts since the last call
   */
  tunWrite?(
    descriptor: number,
    input: Uint8Array,
    arena: Uint8Array,
    isInput: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    count: number,
  ): number;
  /** Permits shortcuts of a device. @param mtu  of what is written, without the virtio-net header */
  tunShortcuts?(descriptor: number, mtu: number, hasVirtio: boolean, hasUso: boolean): void;
  /** Sets the class of a device, by its number on the wire. Linux only. */
  tunLatency?(descriptor: number, latency: number): void;
  /** Stops watching the descriptor and closes it. */
  tunClose?(descriptor: number): void;
  /**
   * Opens a TCP stack (native/io/tcp-stack.h); undefined, like all that follow, where the module was built without lwIP. The arrays
   * are lent until {@link tcpStackFree}.
   *
   * @param secret  16 random bytes
   * @param packets  receives packets for the device, at `offsets` and with `lengths`
   * @param received  bytes that flows have received
   * @param events  rows of 4: flow, what happened (accepted, bytes, ended, writable, closed), and two numbers
   * @returns the stack's number
   */
  tcpStackOpen?(
    mtu: number,
    hasVirtio: boolean,
    maxFlows: number,
    memoryBytes: number,
    secret: Uint8Array,
    packets: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    received: Uint8Array,
    events: Int32Array,
  ): number;
  tcpStackFree?(stack: number): void;
  /** @param rows  of 4: flow, offset of the packet or its virtio-net header in `data`, offset of its TCP header, end */
  tcpStackSegments?(stack: number, now: number, data: Uint8Array, rows: Int32Array, count: number): void;
  /** @returns how many bytes were accepted, or a system error, which is negative */
  tcpStackWrite?(stack: number, now: number, flow: number, bytes: Uint8Array, length: number): number;
  /** True if the last write was not accepted completely, or the next one may not be; an event follows when there is room. */
  tcpStackIsFull?(stack: number, flow: number): boolean;
  /** Ends writing. */
  tcpStackEnd?(stack: number, now: number, flow: number): void;
  tcpStackPause?(stack: number, flow: number, isPaused: boolean): void;
  /** Ends both directions; the only event that follows reports that the flow is closed. */
  tcpStackClose?(stack: number, now: number, flow: number): void;
  /** Forgets a flow at once; no event follows. */
  tcpStackDrop?(stack: number, flow: number, hasReset: boolean): void;
  tcpStackTimeout?(stack: number, now: number): void;
  /** @returns Infinity for never */
  tcpStackNextTimeout?(stack: number): number;
  /** @returns the number of packets, valid until the next call */
  tcpStackPollPackets?(stack: number): number;
  /** @returns the number of events, valid with their bytes until the next call */
  tcpStackPollEvents?(stack: number): number;
  /** Fills in the numbers of wrong checksums, malformed segments, segments beyond the memory limit, RSTs sent, and packets sent. */
  tcpStackCounts?(stack: number, counts: Float64Array): void;
  /** Linux only, like all that follow. @param address  4 or 16 bytes */
  interfaceAddress?(name: string, address: Uint8Array, prefixLength: number): void;
  interfaceRoute?(name: string, address: Uint8Array, prefixLength: number): void;
  /** The first address of an interface, which need not be up. */
  interfaceIpv4?(name: string): Uint8Array | undefined;
  interfaceUp?(name: string, mtu: number): void;
  /** True if an address of 4 or 16 bytes is local. */
  addressIsLocal?(address: Uint8Array): boolean;
  /**
   * Ends the TCP connections from an address in this network namespace: their applications get ECONNABORTED, their peers
   * a RST. @returns how many. @throws EPERM; ENOTSUP if the kernel does not support that
   */
  tcpDestroyFrom?(address: Uint8Array): number;
}

/** Memory that may be used only in part. */
export function lazyMemory(native: NativeModule, bytes: number): Uint8Array {
  return native.lazyMemory?.(bytes) ?? new Uint8Array(bytes);
}

/** The same for integers. */
export function lazyInts(native: NativeModule, count: number): Int32Array {
  const { buffer, byteOffset } = lazyMemory(native, count * Int32Array.BYTES_PER_ELEMENT);
  return new Int32Array(buffer, byteOffset, count);
}

/**
 * An address to bind or connect to; if the host has a zone, the number of its interface follows.
 *
 * @param host  IP text
 * @throws Error when there is no such interface
 */
export function scopedAddress(native: NativeModule, host: string, port: number): Uint8Array {
  const { ip, zone } = splitZone(host);
  const address = makeAddress(ip, port)!;
  if (zone === undefined) return address;
  let scope: number;
  try {
    scope = native.zoneScope(zone);
  } catch (cause) {
    throw new Error(`${host}: there is no interface ${zone}`, { cause });
  }
  const scoped = new Uint8Array(address.length + 4);
  scoped.set(address);
  new DataView(scoped.buffer).setUint32(address.length, scope);
  return scoped;
}
