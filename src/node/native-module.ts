import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import type { AddressBytes } from "../wire/socket-address.ts";
import { makeAddress } from "../wire/socket-address.ts";
import { splitZone } from "./endpoint.ts";

/**
 * What {@link NativeModule.udpCounts} counts, in its order: why the system dropped datagrams, and, last, of how many
 * errors nobody was told because there were too many at once.
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
 * A row of errors: socket (-1 for one that has been closed), kind as on the wire, MTU, bytes of the address; the
 * address.
 */
export const ERROR_ROW_INTS = 9;
export const ERROR_ROW_ADDRESS = 4;

/**
 * The module in `native/`: sockets on descriptors, in batches. Addresses are in the program's form of IPv4 and IPv6; those
 * to bind and to connect to may be {@link scopedAddress}es.
 * Calls that fail throw an Error whose `code` is the system's.
 */
export interface NativeModule {
  /** The number of the interface that a zone of IPv6 addresses names. @throws ENODEV */
  zoneScope(zone: string): number;
  /**
   * Bytes of the arena, rows, bytes of addresses that {@link udpSetup} wants; most rows of one {@link udpSend}; rows of
   * errors.
   */
  udpSizes(): [arenaBytes: number, rows: number, addressBytes: number, sendRows: number, errorRows: number];
  /**
   * Once in a thread. What arrives is in the arrays when `onBatch` is called, and only until it returns.
   *
   * @param rows  socket, offset, length, address offset, address length, number of this machine's address
   * @param onErrors  told at the end of a turn how many rows of `errors` it brought
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
   * @param tellLocals  whether the addresses of this machine that datagrams come to are numbered, up to 255 of them;
   *   others, and all on Windows, are 0
   * @returns the socket's number, used again only in a later turn of the loop
   */
  udpOpen(
    address: Uint8Array,
    reusePort: boolean,
    receiveBytes: number,
    sendBytes: number,
    tellLocals: boolean,
  ): number;
  udpClose(socket: number): void;
  /** Has it told where datagrams of a socket did not get to: ICMP errors, and no way there. Linux only. */
  udpTellErrors?(socket: number): void;
  /** Has datagrams of a socket dropped that would have to be fragmented. Linux only. */
  udpForbidFragments?(socket: number): void;
  /** @returns how many rows of errors wait to be told, which the caller now does */
  udpErrors(): number;
  /** Has a socket leave by an interface alone, or with a mark; "" and 0 for none. Not on Windows. */
  udpRestrict?(socket: number, interfaceName: string, mark: number): void;
  udpPort(socket: number): number;
  /** What the system granted, in its own count. */
  udpReceiveBuffer(socket: number): number;
  /**
   * @param rows  socket, header offset, header length, offset, length, address offset, number of the address to send
   *   from. That of one that this machine does not have any more, or 0, leaves the choice to routing
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
   * Ends the measuring of this thread's idle time, which costs a system call for each wait. For threads that are ours:
   * performance.eventLoopUtilization() tells nothing from then on. @returns whether that could be done
   */
  loopForgoIdleTime(): boolean;

  /** Undefined where the system has no such thing (Windows). @returns the listener's descriptor */
  tcpListen?(
    address: Uint8Array,
    reusePort: boolean,
    backlog: number,
    onAccept: (descriptor: number) => void,
  ): number;
  tcpUnlisten?(listener: number): void;
  /** The local address of an IP socket. */
  socketAddress?(descriptor: number): AddressBytes | undefined;
  /** Sends at once, keeps alive, and sets the two. @returns false where the system lacks one of them */
  tcpTune?(descriptor: number, notSentLowWaterBytes: number, userTimeoutMs: number): boolean;
  /**
   * Connects by an interface alone, or with a mark.
   *
   * @param onDone  gets the descriptor, or a system error, which is negative
   * @returns the attempt's number
   */
  tcpConnect?(
    address: Uint8Array,
    interfaceName: string,
    mark: number,
    onDone: (result: number) => void,
  ): number;
  /** Gives an attempt up, and closes its descriptor: `onDone` is not called. Only before it is. */
  tcpConnectCancel?(attempt: number): void;
  /** Another descriptor of the same connection, which outlives the first. */
  descriptorDuplicate?(descriptor: number): number;
  descriptorClose?(descriptor: number): void;

  /**
   * Reads a connected socket into `buffer`, until {@link streamRelease} or {@link streamClose}. Not on Windows, as the
   * others.
   *
   * @param onRead      gets the bytes that are in the buffer until it returns, 0 at the end, or a system error
   * @param onWritable  after a {@link streamWrite} of which the system took less than all: it takes more
   */
  streamOpen?(
    descriptor: number,
    buffer: Uint8Array,
    onRead: (count: number) => void,
    onWritable: () => void,
  ): void;
  /** @returns how many bytes the system took, or a system error, which is negative */
  streamWrite?(descriptor: number, bytes: Uint8Array, length: number): number;
  /** Nothing more is written. */
  streamEnd?(descriptor: number): void;
  /** The descriptor is the caller's again, open. */
  streamRelease?(descriptor: number): void;
  streamClose?(descriptor: number): void;

  /**
   * Creates or opens a TUN device: Linux, and utun on macOS.
   *
   * @param offload  asks for virtio-net headers and packets longer than the MTU, where the system has such
   */
  tunOpen?(
    name: string,
    offload: boolean,
  ): [descriptor: number, name: string, hasFamily: boolean, hasVirtio: boolean, hasUso: boolean];
  /**
   * Reads a descriptor that gives one IP packet a read. Packet i is `arena[offsets[i] .. offsets[i] + lengths[i])`, in the
   * arrays when `onPackets` is called and only until it returns.
   *
   * @param hasFamily  whether 4 bytes with the family precede each packet, both ways; they are not in the arena's rows
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
  /** Packet i lies in `input` where `isInput[i]` is 1, else in `arena`. @returns how many were dropped */
  tunWrite?(
    descriptor: number,
    input: Uint8Array,
    arena: Uint8Array,
    isInput: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    count: number,
  ): number;
  /** Ends the watch, and closes the descriptor. */
  tunClose?(descriptor: number): void;
  /** Linux only, as all that follow. @param address  4 or 16 bytes */
  interfaceAddress?(name: string, address: Uint8Array, prefixLength: number): void;
  interfaceRoute?(name: string, address: Uint8Array, prefixLength: number): void;
  /** The first address of an interface, which need not be up. */
  interfaceIpv4?(name: string): Uint8Array | undefined;
  interfaceUp?(name: string, mtu: number): void;
  /** Whether an address of 4 or 16 bytes is the system's. */
  addressIsLocal?(address: Uint8Array): boolean;
  /**
   * Ends the TCP connections from an address in this network namespace: their applications get ECONNABORTED, their peers
   * a RST. @returns how many. @throws EPERM; ENOTSUP where the kernel has no such call
   */
  tcpDestroyFrom?(address: Uint8Array): number;
}

const DIRECTORY = fileURLToPath(new URL("../../native", import.meta.url));

let loaded: NativeModule | Error | undefined;

/** The module, or why there is none. */
export function loadNativeModule(): NativeModule | Error {
  if (loaded !== undefined) return loaded;
  try {
    const require = createRequire(import.meta.url);
    const load = require("node-gyp-build") as (directory: string) => NativeModule;
    loaded = load(DIRECTORY);
  } catch (error) {
    loaded = error as Error;
  }
  return loaded;
}

/**
 * An address to bind or to connect to: with the number of its interface behind it where the host has a zone.
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
