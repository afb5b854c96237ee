import type { DeviceEvents } from "../../../src/host/index.ts";
import type { NativeModule } from "../../../src/host/io/native-module.ts";
import { datagramHeaderLength, writeDatagramHeader } from "../../../src/wire/capsule.ts";
import type { AddressBytes } from "../../../src/wire/socket-address.ts";
import {
  ATYP_IPV4,
  addressPort,
  copyAddress,
  formatAddress,
  formatHost,
  makeAddress,
} from "../../../src/wire/socket-address.ts";
import { udpPacket } from "../packet-oracle.ts";
import { MemoryDevice } from "./memory-device.ts";
import type { Shortcut } from "./memory-shortcuts.ts";
import { MemoryShortcuts } from "./memory-shortcuts.ts";

const ROW_INTS = 6;
const SEND_ROW_INTS = 7;
const ROWS = 64;
const EAGAIN_LATER = 0;
/** For `MemoryNet.chunkBytes`: reads are not cut. */
export const WHOLE = 65_536;

export interface Datagram {
  readonly to: AddressBytes;
  readonly from: AddressBytes;
  readonly bytes: Uint8Array;
  readonly toText: string;
  readonly fromText: string;
}

/** What connects several processes, and decides when something happens. */
export interface Net {
  readonly now: number;
  /** A random integer from 0 to `below` - 1. */
  readonly random: (below: number) => number;
  /** If false, native modules have no shortcuts. */
  readonly hasShortcuts: boolean;
  /** Capacity of a connection in each direction, and the largest read, in bytes. */
  readonly pipeBytes: number;
  readonly chunkBytes: number;
  /** Most reads of a connection in one turn. */
  readonly readRounds: number;
  readonly listeners: Map<string, { native: MemoryNative; onAccept: (descriptor: number) => void }>;
  nextPort: number;
  readonly nextTurn: (callback: () => void) => void;
  send(from: AddressBytes, to: AddressBytes, bytes: Uint8Array): void;
}

interface Socket {
  readonly id: number;
  readonly address: AddressBytes;
}

interface Stream {
  readonly descriptor: number;
  readonly name: AddressBytes;
  peer: Stream | undefined;
  /** Bytes received but not yet read. */
  inbox: number[];
  hasEnd: boolean;
  /** The stream has been read to its end. */
  hasEnded: boolean;
  isPaused: boolean;
  buffer: Uint8Array;
  onRead: (count: number) => void;
  onWritable: () => void;
  /** The system has not accepted all of the script's last write: `onWritable` is due. */
  owes: boolean;
  /** The rest of a shortcut's write. */
  rest: Uint8Array;
  endsAfterRest: boolean;
  /** Shortcuts may read. */
  mayRead: boolean;
  kept: number[];
}

/** The native module of a process, a readable version of the rules in native/io/shortcut.h. */
export class MemoryNative {
  readonly module: NativeModule;
  readonly #net: Net;
  readonly #ip: string;
  readonly #sockets = new Map<number, Socket>();
  readonly #byAddress = new Map<string, Socket>();
  readonly #streams = new Map<number, Stream>();
  readonly #shortcuts: MemoryShortcuts;
  #next = 3;
  readonly #devices = new Map<number, MemoryDevice>();
  #arena: Uint8Array = new Uint8Array(0);
  #rows: Int32Array = new Int32Array(0);
  #addresses: Uint8Array = new Uint8Array(0);
  #onBatch: (count: number) => void = () => {};
  /** Rows and reads passed to the script. */
  entered = 0;
  /** How many UDP sockets the system permits. */
  maxSockets = Number.POSITIVE_INFINITY;
  /** `TIME PORT` of each socket that was closed. */
  readonly closed: string[] = [];

  constructor(net: Net, ip: string) {
    this.#net = net;
    this.#ip = ip;
    this.#shortcuts = new MemoryShortcuts(() => net.now);
    this.module = this.#makeModule();
  }

  /** Datagrams that shortcuts have carried. */
  get carried(): number {
    return this.#shortcuts.carried;
  }

  get active(): number {
    return this.#shortcuts.active;
  }

  get descriptors(): readonly number[] {
    return [...this.#streams.keys()];
  }

  /** @param datagrams  all datagrams of this step */
  step(datagrams: readonly Datagram[]): boolean {
    let moved = this.#receive(datagrams);
    for (const device of this.#devices.values()) moved = this.#readDevice(device) || moved;
    for (const stream of [...this.#streams.values()]) {
      moved = this.#write(stream) || moved;
      for (let round = 0; round < this.#net.readRounds && this.#read(stream); round++) moved = true;
    }
    return moved;
  }

  // UDP

  #receive(datagrams: readonly Datagram[]): boolean {
    let rows: [Socket, Datagram][] = [];
    for (const datagram of datagrams) {
      const socket = this.#byAddress.get(datagram.toText);
      if (socket !== undefined) rows.push([socket, datagram]);
    }
    const moved = rows.length > 0;
    while (rows.length > 0) {
      this.#receiveRows(rows.slice(0, ROWS));
      rows = rows.slice(ROWS);
    }
    return moved;
  }

  #receiveRows(rows: [Socket, Datagram][]): void {
    const outputs = new Map<Stream, number[]>();
    const left = rows.filter(([socket, { fromText, bytes }]) => {
      const shortcut = this.#shortcuts.findOut(socket.id, fromText, bytes);
      return !this.#carryOut(shortcut, bytes.subarray(shortcut?.header.length ?? 0), outputs);
    });
    this.#writeAll(outputs);
    if (left.length === 0) return;
    let at = 0;
    let addressAt = 0;
    for (const [row, [socket, { from, fromText, bytes }]] of left.entries()) {
      const isSame = row > 0 && left[row - 1][0] === socket && left[row - 1][1].fromText === fromText;
      if (!isSame) {
        addressAt = row * 19;
        this.#addresses.set(from, addressAt);
      }
      this.#arena.set(bytes, at);
      this.#rows.set([socket.id, at, bytes.length, addressAt, from.length, 0], row * ROW_INTS);
      at += bytes.length;
    }
    this.entered++;
    this.#onBatch(left.length);
  }

  /** @returns false if the datagram is the caller's */
  #carryOut(shortcut: Shortcut | undefined, payload: Uint8Array, outputs: Map<Stream, number[]>): boolean {
    const stream = shortcut && this.#streams.get(shortcut.stream);
    if (shortcut === undefined || stream === undefined || stream.owes || stream.rest.length > 0) return false;
    const output = outputs.get(stream) ?? [];
    outputs.set(stream, output);
    const header = new Uint8Array(datagramHeaderLength(shortcut.context, payload.length));
    writeDatagramHeader(header, 0, shortcut.context, payload.length);
    output.push(...header, ...payload);
    this.#shortcuts.count(shortcut, payload.length);
    return true;
  }

  #writeAll(outputs: ReadonlyMap<Stream, readonly number[]>): void {
    for (const [stream, output] of outputs) {
      const bytes = Uint8Array.from(output);
      stream.rest = bytes.slice(this.#accept(stream, bytes));
    }
  }

  // Devices

  openDevice(events: DeviceEvents): MemoryDevice {
    const device = new MemoryDevice(this.#next++, events);
    this.#devices.set(device.descriptor, device);
    return device;
  }

  #readDevice(device: MemoryDevice): boolean {
    const packets = device.sent.splice(0, ROWS);
    if (packets.length === 0) return false;
    const outputs = new Map<Stream, number[]>();
    let goesOn = true;
    const left = packets.filter((packet) => {
      const found = goesOn ? this.#shortcuts.findPacket(device, packet) : undefined;
      if (found === "unclear") goesOn = false;
      if (found === undefined || found === "unclear") return true;
      if (!this.#carryOut(found.shortcut, found.payload, outputs)) goesOn = false;
      return !goesOn;
    });
    this.#writeAll(outputs);
    if (left.length === 0) return true;
    const lengths = Int32Array.from(left, ({ length }) => length);
    const offsets = lengths.map((_, i) => lengths.subarray(0, i).reduce((sum, length) => sum + length, 0));
    this.entered++;
    device.events.onPackets(
      Uint8Array.from(left.flatMap((each) => [...each])),
      offsets,
      lengths,
      left.length,
    );
    return true;
  }

  /** @returns false if the packet would be larger than the MTU */
  #writePacket(device: MemoryDevice, { addressBytes, source }: Shortcut, payload: Uint8Array): boolean {
    const [from, to] = [addressBytes, source!].map((one) => [formatHost(one), addressPort(one)] as const);
    const packet = udpPacket(...from, ...to, payload, { identification: 0 });
    if (packet.length > device.mtu) return false;
    device.written.push(packet);
    return true;
  }

  /** @returns false if the socket is closed */
  #sendFrom(socket: number, to: AddressBytes, bytes: Uint8Array): boolean {
    const from = this.#sockets.get(socket)?.address;
    if (from !== undefined) this.#net.send(from, to, bytes);
    return from !== undefined;
  }

  // Streams

  /** @returns the other end's free space in bytes */
  #accept({ peer }: Stream, bytes: Uint8Array): number {
    if (peer === undefined) return bytes.length;
    const count = Math.max(0, Math.min(bytes.length, this.#net.pipeBytes - peer.inbox.length));
    peer.inbox.push(...bytes.subarray(0, count));
    return count;
  }

  #write(stream: Stream): boolean {
    if (stream.rest.length === 0 && !stream.owes) return false;
    const { peer } = stream;
    if (peer !== undefined && peer.inbox.length >= this.#net.pipeBytes) return false;
    if (stream.rest.length > 0) {
      stream.rest = stream.rest.slice(this.#accept(stream, stream.rest));
      if (stream.rest.length > 0) return true;
      if (stream.endsAfterRest && peer !== undefined) peer.hasEnd = true;
    }
    if (stream.owes) {
      stream.owes = false;
      stream.onWritable();
    }
    return true;
  }

  #read(stream: Stream): boolean {
    if (stream.isPaused || stream.hasEnded) return false;
    if (stream.inbox.length === 0) {
      if (!stream.hasEnd) return false;
      stream.hasEnded = true;
      stream.onRead(0);
      return true;
    }
    const { chunkBytes, random } = this.#net;
    const most = Math.min(stream.inbox.length, chunkBytes);
    const came = stream.inbox.splice(0, chunkBytes === WHOLE ? most : 1 + random(most));
    const bytes = Uint8Array.from([...stream.kept, ...came]);
    stream.kept = [];
    const at = stream.mayRead ? this.#carryIn(stream, bytes) : 0;
    const rest = bytes.subarray(at);
    if (rest.length === 0) return true;
    if (stream.mayRead && this.#shortcuts.isBeginning(stream.descriptor, rest)) {
      stream.kept = [...rest];
      return true;
    }
    stream.mayRead = false;
    stream.buffer.set(rest);
    this.entered++;
    stream.onRead(rest.length);
    return true;
  }

  /** @returns the offset behind the capsules that shortcuts have carried */
  #carryIn(stream: Stream, bytes: Uint8Array): number {
    let at = 0;
    for (;;) {
      const capsule = this.#shortcuts.capsuleAt(stream.descriptor, bytes, at);
      if (capsule?.end === undefined || capsule.end > bytes.length) return at;
      const { shortcut, payload, end } = capsule;
      const { device, header, socket, addressBytes } = shortcut;
      if (device === undefined) {
        this.#sendFrom(socket, addressBytes, Uint8Array.of(...header, ...bytes.subarray(payload, end)));
      } else if (!this.#writePacket(device, shortcut, bytes.subarray(payload, end))) return at;
      this.#shortcuts.count(shortcut, end - payload);
      at = end;
    }
  }

  /** Ends a connection silently, as a crash of the other end does. */
  cut(descriptor: number): void {
    const stream = this.#streams.get(descriptor)!;
    this.#shortcuts.end((one) => one.stream === descriptor);
    stream.onRead(-104);
  }

  connectionTo(address: string): number {
    const listener = this.#net.listeners.get(address);
    if (listener === undefined) return -111;
    const [near, far] = [this.#addStream(), listener.native.#addStream()];
    near.peer = far;
    far.peer = near;
    this.#net.nextTurn(() => listener.onAccept(far.descriptor));
    return near.descriptor;
  }

  #addStream(): Stream {
    const descriptor = this.#next++;
    const stream: Stream = {
      descriptor,
      name: makeAddress("127.0.0.1", 1)!,
      peer: undefined,
      inbox: [],
      hasEnd: false,
      hasEnded: false,
      isPaused: true,
      buffer: new Uint8Array(0),
      onRead: () => {},
      onWritable: () => {},
      owes: false,
      rest: new Uint8Array(0),
      endsAfterRest: false,
      mayRead: false,
      kept: [],
    };
    this.#streams.set(descriptor, stream);
    return stream;
  }

  #closeStream(descriptor: number): void {
    const stream = this.#streams.get(descriptor);
    if (stream === undefined) return;
    this.#streams.delete(descriptor);
    this.#shortcuts.end((one) => one.stream === descriptor);
    if (stream.peer === undefined) return;
    stream.peer.hasEnd = true;
    stream.peer.peer = undefined;
  }

  // The calls

  #makeModule(): NativeModule {
    const net = this.#net;
    const streamOf = (descriptor: number) => this.#streams.get(descriptor)!;
    const give = (shortcut: Shortcut, isSame: (other: Shortcut) => boolean): number => {
      const hasEnd = shortcut.device !== undefined || this.#sockets.has(shortcut.socket);
      return this.#streams.has(shortcut.stream) && hasEnd ? this.#shortcuts.add(shortcut, isSame) : -1;
    };
    const shortcuts: Partial<NativeModule> = {
      shortcutOut: (socket, address, _local, prefix, stream, context) => {
        const one = this.#shortcuts.make(true, stream, context, socket, prefix, address);
        const isSame = (other: Shortcut) =>
          other.socket === socket && other.address === one.address && `${other.header}` === `${one.header}`;
        return give(one, isSame);
      },
      shortcutIn: (socket, address, _local, header, stream, context) => {
        const one = this.#shortcuts.make(false, stream, context, socket, header, address);
        return give(one, (other) => other.stream === stream && other.context === context);
      },
      shortcutPacketsOut: (descriptor, source, remote, dscp, stream, context) => {
        const device = this.#devices.get(descriptor)!;
        const one = this.#shortcuts.make(true, stream, context, -1, new Uint8Array(0), remote);
        const own = copyAddress(source, 0, source.length);
        const isSame = (other: Shortcut) =>
          other.device === device && other.address === one.address && `${other.source}` === `${own}`;
        return give({ ...one, device, source: own, dscp }, isSame);
      },
      shortcutPacketsIn: (descriptor, source, remote, _dscp, stream, context) => {
        const device = this.#devices.get(descriptor)!;
        const one = this.#shortcuts.make(false, stream, context, -1, new Uint8Array(0), remote);
        const own = copyAddress(source, 0, source.length);
        const isSame = (other: Shortcut) => other.stream === stream && other.context === context;
        return give({ ...one, device, source: own }, isSame);
      },
      tunShortcuts: (descriptor, mtu) => {
        this.#devices.get(descriptor)!.mtu = mtu;
      },
      shortcutEnd: (stream) => this.#shortcuts.end((one) => one.stream === stream),
      shortcutResume: (stream) => {
        streamOf(stream).mayRead = true;
      },
      shortcutCounts: (rows) => this.#shortcuts.read(rows),
    };
    return {
      ...(net.hasShortcuts ? shortcuts : {}),
      zoneScope: () => 0,
      udpSizes: () => [ROWS * 65_536, ROWS, ROWS * 19, ROWS, 1],
      udpSetup: (arena, rows, addresses, onBatch) => {
        this.#arena = arena;
        this.#rows = rows;
        this.#addresses = addresses;
        this.#onBatch = onBatch;
      },
      udpOpen: (address) => {
        if (this.#sockets.size >= this.maxSockets)
          throw Object.assign(new Error("no more"), { code: "EMFILE" });
        const host = formatHost(copyAddress(address, 0, address.length));
        const port = addressPort(copyAddress(address, 0, address.length)) || net.nextPort++;
        const own = makeAddress(host === "0.0.0.0" ? this.#ip : host, port)!;
        const socket: Socket = { id: this.#next++, address: own };
        this.#sockets.set(socket.id, socket);
        this.#byAddress.set(formatAddress(own), socket);
        return socket.id;
      },
      udpClose: (id) => {
        const { address } = this.#sockets.get(id)!;
        this.closed.push(`${net.now} ${addressPort(address)}`);
        this.#sockets.delete(id);
        this.#byAddress.delete(formatAddress(address));
        this.#shortcuts.end((one) => one.socket === id);
      },
      udpErrors: () => 0,
      udpPort: (id) => addressPort(this.#sockets.get(id)!.address),
      udpReceiveBuffer: () => 1 << 24,
      udpSend: (data, rows, count, addresses, headers) => {
        let dropped = 0;
        for (let row = 0; row < count; row++) {
          const [id, headerAt, headerLength, at, length, addressAt] = rows.subarray(row * SEND_ROW_INTS);
          const to = copyAddress(addresses, addressAt, addresses[addressAt] === ATYP_IPV4 ? 7 : 19);
          const header = headers.subarray(headerAt, headerAt + headerLength);
          const bytes = Uint8Array.from([...header, ...data.subarray(at, at + length)]);
          if (!this.#sendFrom(id, to, bytes)) dropped++;
        }
        return dropped;
      },
      udpCounts: () => {},
      tcpListen: (address, _reusePort, _backlog, onAccept) => {
        const stream = this.#addStream();
        net.listeners.set(formatAddress(copyAddress(address, 0, address.length)), { native: this, onAccept });
        return stream.descriptor;
      },
      tcpUnlisten: () => {},
      socketName: () => ["127.0.0.1", 1],
      socketAddress: () => makeAddress("127.0.0.1", 1),
      tcpTune: () => true,
      tcpKeepAlive: () => {},
      tcpConnect: (address, _interface, _mark, onDone) => {
        const to = formatAddress(copyAddress(address, 0, address.length));
        net.nextTurn(() => onDone(this.connectionTo(to)));
        return 1;
      },
      tcpConnectCancel: () => {},
      descriptorClose: (descriptor) => this.#closeStream(descriptor),
      streamOpen: (descriptor, buffer, onRead, onWritable) => {
        Object.assign(streamOf(descriptor), { buffer, onRead, onWritable });
      },
      streamWrite: (descriptor, bytes, length) => {
        const stream = streamOf(descriptor);
        if (stream.rest.length > 0) {
          stream.owes = true;
          return EAGAIN_LATER;
        }
        const accepted = this.#accept(stream, bytes.subarray(0, length));
        stream.owes = accepted < length;
        return accepted;
      },
      streamEnd: (descriptor) => {
        const stream = streamOf(descriptor);
        this.#shortcuts.end((one) => one.stream === descriptor);
        if (stream.rest.length > 0) stream.endsAfterRest = true;
        else if (stream.peer !== undefined) stream.peer.hasEnd = true;
      },
      streamRelease: () => {},
      streamClose: (descriptor) => this.#closeStream(descriptor),
      streamReset: (descriptor) => this.#closeStream(descriptor),
      streamPause: (descriptor, isPaused) => {
        streamOf(descriptor).isPaused = isPaused;
      },
    };
  }
}
