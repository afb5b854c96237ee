import type { Datapath } from "../../core/datapath/datapath.ts";
import { TYPESCRIPT_DATAPATH } from "../../core/datapath/typescript-datapath.ts";
import { ReceivedDatagrams, ROW_INTS } from "../../core/session/received-datagrams.ts";
import { unreachableKind } from "../../wire/capsule.ts";
import type { LatencyClass } from "../../wire/latency-class.ts";
import { LATENCY_CLASSES } from "../../wire/latency-class.ts";
import { copyAddress, isUnspecified, makeAddress } from "../../wire/socket-address.ts";
import { splitZone } from "../addresses/endpoint.ts";
import type { Outgoing } from "../addresses/outgoing.ts";
import type { Loop } from "../loop.ts";
import type { NativeModule } from "./native-module.ts";
import { ERROR_ROW_ADDRESS, ERROR_ROW_INTS, lazyInts, lazyMemory, scopedAddress } from "./native-module.ts";
import { hasShortcuts, NativeShortcuts } from "./shortcuts.ts";
import type { OnDatagrams, OnUnreachable, Remote, UdpIo, UdpSocket, UdpSocketOptions } from "./udp-io.ts";
import { UDP_BUFFER_BYTES } from "./udp-io.ts";

const SEND_ROW_INTS = 7;
const ADDRESS_BYTES = 19;
const HEADER_ARENA_BYTES = 65_536;
const NO_BYTES: Uint8Array = new Uint8Array(0);
const ANY_HOSTS = { 4: "0.0.0.0", 6: "::" } as const;
/** Port 0 of any host, for the sockets of associations, which are many. */
const ANY_ADDRESSES = { 4: makeAddress(ANY_HOSTS[4], 0)!, 6: makeAddress(ANY_HOSTS[6], 0)! } as const;

/** UDP over the native module: one call for everything that a turn of the loop receives, and one for everything it sends. */
class NativeUdpIo implements UdpIo {
  readonly kind = "native";
  readonly shortcuts: NativeShortcuts | undefined;
  readonly #native: NativeModule;
  readonly #loop: Loop;
  readonly #datapath: Datapath;
  readonly #received: ReceivedDatagrams;
  readonly #sockets: (NativeUdpSocket | undefined)[] = [];
  #isDelivering = false;
  readonly #afterTurn: (() => void)[] = [];

  readonly #maxRows: number;
  readonly #rows: Int32Array;
  readonly #addresses: Uint8Array;
  readonly #headers: Uint8Array;
  #data: Uint8Array = NO_BYTES;
  #count = 0;
  #addressEnd = 0;
  #headerEnd = 0;
  #lastHeader: Uint8Array | undefined;
  #lastHeaderOffset = 0;
  /** Number of the batch that is being gathered. */
  #batch = 1;
  /** Datagrams dropped by flushes that a full batch forced. */
  #dropped = 0;
  readonly #errors: Int32Array;
  readonly #errorBytes: Uint8Array;
  #willTell = false;

  constructor(native: NativeModule, loop: Loop, datapath: Datapath) {
    this.#datapath = datapath;
    this.#native = native;
    this.#loop = loop;
    this.shortcuts = hasShortcuts(native) ? new NativeShortcuts(native) : undefined;
    const [arenaBytes, rows, addressBytes, sendRows, errorRows] = native.udpSizes();
    this.#received = new ReceivedDatagrams(
      lazyMemory(native, arenaBytes),
      lazyMemory(native, addressBytes),
      lazyInts(native, rows * ROW_INTS),
      datapath,
    );
    this.#maxRows = sendRows;
    this.#rows = lazyInts(native, sendRows * SEND_ROW_INTS);
    this.#addresses = lazyMemory(native, (sendRows + 1) * ADDRESS_BYTES);
    this.#headers = lazyMemory(native, HEADER_ARENA_BYTES);
    this.#errors = new Int32Array(errorRows * ERROR_ROW_INTS);
    this.#errorBytes = new Uint8Array(this.#errors.buffer);
    native.udpSetup(
      this.#received.data,
      this.#received.rows,
      this.#received.addresses,
      (count) => this.#deliver(count),
      this.#errors,
      (count) => this.#tell(count),
    );
  }

  open(options: UdpSocketOptions): UdpSocket {
    const { family, host, port, reusePort, outgoing, tellsLocal, onBindError } = options;
    try {
      if (options.descriptor !== undefined) return this.#adopt(options.descriptor, options);
      const isAnyPort = host === undefined && port === 0;
      const bound = host ?? ANY_HOSTS[family];
      const address = isAnyPort ? ANY_ADDRESSES[family] : scopedAddress(this.#native, bound, port);
      const id = this.#native.udpOpen(
        address,
        reusePort,
        UDP_BUFFER_BYTES,
        UDP_BUFFER_BYTES,
        tellsLocal === true && isUnspecified(makeAddress(splitZone(bound).ip, 0)!),
      );
      if (outgoing !== undefined) this.#restrict(id, outgoing);
      if (options.onUnreachable !== undefined) this.#native.udpTellErrors?.(id);
      if (options.forbidsFragments) this.#native.udpForbidFragments?.(id);
      return this.#add(id, options);
    } catch (error) {
      // Only once the caller has the socket that the error concerns.
      void Promise.resolve().then(() => onBindError(error as Error));
      return new NativeUdpSocket(this, -1, 0, options, error as Error);
    }
  }

  #adopt(descriptor: number, options: UdpSocketOptions): UdpSocket {
    let id: number;
    try {
      id = this.#native.udpAdopt!(descriptor, UDP_BUFFER_BYTES, UDP_BUFFER_BYTES);
    } catch (error) {
      this.#native.descriptorClose?.(descriptor);
      throw error;
    }
    if (options.onUnreachable !== undefined) this.#native.udpTellErrors?.(id);
    return this.#add(id, options);
  }

  #add(id: number, options: UdpSocketOptions): UdpSocket {
    const socket = new NativeUdpSocket(this, id, this.#native.udpPort(id), options);
    this.#sockets[id] = socket;
    if (options.latency !== undefined) this.setLatency(id, options.latency);
    if (options.dscp) this.setDscp(id, options.dscp);
    return socket;
  }

  descriptor(id: number): number | undefined {
    return this.#native.udpDescriptor?.(id);
  }

  receiveBufferBytes(id: number): number {
    return this.#native.udpReceiveBuffer(id);
  }

  #restrict(id: number, { interfaceName, mark }: Outgoing): void {
    try {
      this.#native.udpRestrict!(id, interfaceName, mark);
    } catch (error) {
      this.#native.udpClose(id);
      throw error;
    }
  }

  setLatency(id: number, latency: LatencyClass): void {
    this.#native.udpLatency?.(id, LATENCY_CLASSES.indexOf(latency));
  }

  setDscp(id: number, dscp: number): void {
    this.#native.udpDscp?.(id, dscp);
  }

  close(id: number): void {
    this.#sockets[id] = undefined;
    this.#native.udpClose(id);
  }

  add(
    id: number,
    header: Uint8Array | undefined,
    data: Uint8Array,
    offset: number,
    length: number,
    remote: Remote,
  ): void {
    this.#begin(header, data, remote);
    const rows = this.#rows;
    const row = this.#count++ * SEND_ROW_INTS;
    rows[row] = id;
    rows[row + 1] = header === undefined ? 0 : this.#lastHeaderOffset;
    rows[row + 2] = header === undefined ? 0 : header.length;
    rows[row + 3] = offset;
    rows[row + 4] = length;
    rows[row + 5] = remote.batchOffset;
    rows[row + 6] = remote.local;
  }

  addAll(
    id: number,
    header: Uint8Array | undefined,
    data: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    first: number,
    end: number,
    remote: Remote,
  ): void {
    for (let from = first; from < end; ) {
      this.#begin(header, data, remote);
      const to = Math.min(end, from + this.#maxRows - this.#count);
      this.#datapath.addSendRows(
        this.#rows,
        this.#count,
        id,
        header === undefined ? 0 : this.#lastHeaderOffset,
        header === undefined ? 0 : header.length,
        offsets,
        lengths,
        from,
        to,
        remote.batchOffset,
        remote.local,
      );
      this.#count += to - from;
      from = to;
    }
  }

  /** Makes room for a row, with the address and the header in place. */
  #begin(header: Uint8Array | undefined, data: Uint8Array, remote: Remote): void {
    if (this.#count > 0 && (this.#data !== data || this.#isFull(header))) this.#dropped += this.#send();
    this.#data = data;
    if (remote.batch !== this.#batch) {
      remote.batch = this.#batch;
      remote.batchOffset = this.#addressEnd;
      this.#addresses.set(remote.address, this.#addressEnd);
      this.#addressEnd += ADDRESS_BYTES;
    }
    if (header === undefined || header === this.#lastHeader) return;
    this.#lastHeader = header;
    this.#lastHeaderOffset = this.#headerEnd;
    this.#headers.set(header, this.#headerEnd);
    this.#headerEnd += header.length;
  }

  flush(): number {
    const dropped = this.#dropped + (this.#count > 0 ? this.#send() : 0);
    this.#dropped = 0;
    return dropped;
  }

  afterTurn(callback: () => void): void {
    if (this.#isDelivering) this.#afterTurn.push(callback);
    else this.#loop.nextTurn(callback);
  }

  #isFull(header: Uint8Array | undefined): boolean {
    return (
      this.#count === this.#maxRows ||
      (header !== undefined && this.#headerEnd + header.length > HEADER_ARENA_BYTES)
    );
  }

  #send(): number {
    const count = this.#count;
    const data = this.#data;
    this.#count = 0;
    // Most batches have one remote, whose address stays in place for the next batch.
    if (this.#addressEnd > ADDRESS_BYTES) {
      this.#addressEnd = 0;
      this.#batch++;
    }
    this.#headerEnd = 0;
    this.#lastHeader = undefined;
    this.#data = NO_BYTES;
    const dropped = this.#native.udpSend(data, this.#rows, count, this.#addresses, this.#headers);
    // Otherwise the loop might wait long before it reports these errors.
    if (dropped > 0 && !this.#willTell) {
      this.#willTell = true;
      this.#loop.nextTurn(this.#tellNow);
    }
    return dropped;
  }

  readonly #tellNow = (): void => {
    this.#willTell = false;
    this.#tell(this.#native.udpErrors());
  };

  /** Reports errors to the sockets; each remote address is a copy. */
  #tell(count: number): void {
    const errors = this.#errors;
    for (let row = 0, at = 0; row < count; row++, at += ERROR_ROW_INTS) {
      const socket = errors[at] < 0 ? undefined : this.#sockets[errors[at]];
      const address = (at + ERROR_ROW_ADDRESS) * Int32Array.BYTES_PER_ELEMENT;
      const remote = copyAddress(this.#errorBytes, address, errors[at + 3]);
      socket?.onUnreachable?.(remote, unreachableKind(errors[at + 1]), errors[at + 2]);
    }
  }

  #deliver(count: number): void {
    const received = this.#received;
    this.#isDelivering = true;
    for (let first = 0; first < count; ) {
      const id = received.socket(first);
      const end = received.endOfSocket(first, count);
      this.#sockets[id]?.onDatagrams(received, first, end);
      first = end;
    }
    this.#isDelivering = false;
    for (let callback = this.#afterTurn.pop(); callback !== undefined; callback = this.#afterTurn.pop()) {
      callback();
    }
  }
}

class NativeUdpSocket implements UdpSocket {
  readonly port: number;
  /** The module copies datagrams that the system does not accept at once. */
  readonly onDatagrams: OnDatagrams;
  readonly onUnreachable: OnUnreachable | undefined;
  readonly error: Error | undefined;
  readonly #io: NativeUdpIo;
  #id: number;

  constructor(io: NativeUdpIo, id: number, port: number, options: UdpSocketOptions, error?: Error) {
    this.error = error;
    this.#io = io;
    this.#id = id;
    this.port = port;
    this.onDatagrams = options.onDatagrams;
    this.onUnreachable = options.onUnreachable;
  }

  get number(): number {
    return this.#id;
  }

  get receiveBufferBytes(): number {
    return this.#io.receiveBufferBytes(this.#id);
  }

  send(
    header: Uint8Array | undefined,
    data: Uint8Array,
    offset: number,
    length: number,
    remote: Remote,
  ): boolean {
    if (this.#id < 0) return false;
    this.#io.add(this.#id, header, data, offset, length, remote);
    return true;
  }

  sendAll(
    header: Uint8Array | undefined,
    data: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    first: number,
    end: number,
    remote: Remote,
  ): number {
    if (this.#id < 0) return end - first;
    if (end - first === 1) this.#io.add(this.#id, header, data, offsets[first], lengths[first], remote);
    else this.#io.addAll(this.#id, header, data, offsets, lengths, first, end, remote);
    return 0;
  }

  setLatency(latency: LatencyClass): void {
    if (this.#id >= 0) this.#io.setLatency(this.#id, latency);
  }

  setDscp(dscp: number): void {
    if (this.#id >= 0) this.#io.setDscp(this.#id, dscp);
  }

  release(): number | undefined {
    const descriptor = this.#id < 0 ? undefined : this.#io.descriptor(this.#id);
    this.close();
    return descriptor;
  }

  close(): void {
    if (this.#id < 0) return;
    this.#io.close(this.#id);
    this.#id = -1;
  }
}

/** Called once per thread, because the module has one arena. */
export function openNativeUdpIo(
  native: NativeModule,
  loop: Loop,
  datapath: Datapath = TYPESCRIPT_DATAPATH,
): UdpIo {
  return new NativeUdpIo(native, loop, datapath);
}
