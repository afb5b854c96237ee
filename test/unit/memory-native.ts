import type { PacketBatch } from "../../src/core/tun2socks/packet-batch.ts";
import type { Device, DeviceEvents } from "../../src/host/index.ts";
import { NativeTcp, openNativeUdpIo } from "../../src/host/index.ts";
import type { NativeModule } from "../../src/host/io/native-module.ts";
import { SHORTCUT_ROW_NUMBERS } from "../../src/host/io/native-module.ts";
import type { System } from "../../src/host/system.ts";
import {
  CAPSULE_DATAGRAM,
  datagramHeaderLength,
  MAX_DATAGRAM_BYTES,
  writeDatagramHeader,
} from "../../src/wire/capsule.ts";
import { IpPacket, PROTOCOL_UDP } from "../../src/wire/ip/ip-packet.ts";
import { UDP_HEADER_BYTES, udpEnd } from "../../src/wire/ip/udp.ts";
import type { AddressBytes } from "../../src/wire/socket-address.ts";
import {
  ATYP_IPV4,
  addressPort,
  copyAddress,
  formatAddress,
  formatHost,
  makeAddress,
  writeAddress,
} from "../../src/wire/socket-address.ts";
import { readVarint, varintLengthFrom } from "../../src/wire/varint.ts";
import { udpPacket } from "./packet-oracle.ts";
import { seededIntegers } from "./random.ts";

const ROW_INTS = 6;
const SEND_ROW_INTS = 7;
const ROWS = 64;
const KEPT_BYTES = 2_048;
const MAX_SHORTCUTS = 1_024;
const IDLE_MS = 10_000;
const EAGAIN_LATER = 0;
/** For {@link MemoryNet.chunkBytes}: reads are not cut. */
export const WHOLE = 65_536;

type OnBytes = (bytes: Uint8Array, from: AddressBytes) => void;

interface Datagram {
  readonly to: AddressBytes;
  readonly from: AddressBytes;
  readonly bytes: Uint8Array;
  readonly toText: string;
  readonly fromText: string;
}

/** Several processes with native I/O and the test's sockets, in shared memory and virtual time. */
export class MemoryNet {
  now = 1_000;
  /** A random integer from 0 to `below` - 1. */
  readonly random: (below: number) => number;
  /** If false, native modules have no shortcuts. */
  readonly hasShortcuts: boolean;
  /** Capacity of a connection in each direction, and the largest read, in bytes. */
  pipeBytes = 65_536;
  chunkBytes = WHOLE;
  /** Most reads of a connection in one turn. */
  readRounds = 1;
  readonly listeners = new Map<string, { native: MemoryNative; onAccept: (descriptor: number) => void }>();
  readonly #natives: MemoryNative[] = [];
  readonly #plain = new Map<string, OnBytes>();
  #turns: (() => void)[] = [];
  #datagrams: Datagram[] = [];
  readonly #timers = new Set<{ readonly at: number; readonly callback: () => void }>();
  nextPort = 40_000;

  constructor(seed: number, hasShortcuts: boolean) {
    this.hasShortcuts = hasShortcuts;
    this.random = seededIntegers(seed);
  }

  /** A process. @param ip  from which it sends, unless a socket is bound to another */
  process(ip: string): { readonly native: MemoryNative; readonly system: System } {
    const native = new MemoryNative(this, ip);
    this.#natives.push(native);
    return { native, system: systemOf(this, native) };
  }

  readonly nextTurn = (callback: () => void): void => void this.#turns.push(callback);

  after(delayMs: number, callback: () => void) {
    const timer = { at: this.now + Math.max(0, delayMs), callback };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  /** A socket of the test. */
  open(host: string, port: number, onBytes: OnBytes): (bytes: Uint8Array, to: AddressBytes) => void {
    const from = makeAddress(host, port)!;
    this.#plain.set(formatAddress(from), onBytes);
    return (bytes, to) => this.send(from, to, bytes);
  }

  send(from: AddressBytes, to: AddressBytes, bytes: Uint8Array): void {
    this.#datagrams.push({ from, to, bytes, fromText: formatAddress(from), toText: formatAddress(to) });
  }

  /** Handles everything that is due without time passing. */
  async settle(): Promise<void> {
    for (let idle = 0; idle < 3; ) {
      for (let i = 0; i < 8; i++) await Promise.resolve();
      idle = this.#step() ? 0 : idle + 1;
    }
  }

  async advance(ms: number): Promise<void> {
    const end = this.now + ms;
    await this.settle();
    for (;;) {
      const due = [...this.#timers].sort((a, b) => a.at - b.at)[0];
      if (due === undefined || due.at > end) break;
      this.now = Math.max(this.now, due.at);
      this.#timers.delete(due);
      due.callback();
      await this.settle();
    }
    this.now = end;
  }

  #step(): boolean {
    const turns = this.#turns;
    this.#turns = [];
    for (const turn of turns) turn();
    const datagrams = this.#datagrams;
    this.#datagrams = [];
    for (const { toText, from, bytes } of datagrams) this.#plain.get(toText)?.(bytes, from);
    let moved = turns.length > 0 || datagrams.length > 0;
    for (const native of this.#natives) moved = native.step(datagrams) || moved;
    return moved;
  }
}

function systemOf(net: MemoryNet, native: MemoryNative): System {
  const errors = { errorName: String, errorText: String };
  const loop = {
    now: () => net.now,
    after: (delayMs: number, callback: () => void) => net.after(delayMs, callback),
    nextTurn: net.nextTurn,
  };
  const udp = openNativeUdpIo(native.module, loop);
  return {
    ...loop,
    ...errors,
    unixMs: () => net.now,
    cryptography: {
      random: (length) => Uint8Array.from({ length }, () => net.random(256)),
      hmac: (key, data) => {
        const mac = new Uint8Array(32);
        for (const [i, byte] of [...key, ...data].entries()) mac[i % 32] = mac[i % 32] * 31 + byte;
        return mac;
      },
    },
    shadowsocks: undefined,
    io: { udp, tcp: new NativeTcp(native.module, errors), native: native.module, latency: "balanced" },
    lookUp: async (name) => {
      throw new Error(`no such name: ${name}`);
    },
    nameservers: () => [],
    interfaces: () => [],
    descriptorLimit: () => Number.POSITIVE_INFINITY,
    readFile: (path) => {
      throw new Error(`no such file: ${path}`);
    },
  };
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

interface Shortcut {
  readonly isOut: boolean;
  readonly stream: number;
  readonly context: number;
  readonly socket: number;
  readonly address: string;
  readonly addressBytes: AddressBytes;
  readonly header: Uint8Array;
  /** A shortcut of packets; `source` is the application's address. */
  readonly device?: MemoryDevice | undefined;
  readonly source?: AddressBytes;
  readonly dscp?: number;
  count: number;
  packets: number;
  bytes: number;
  at: number;
  length: number;
  hasEnded: boolean;
}

/** A device that native I/O reads. It recognizes UDP in packets that are not fragmented. */
export class MemoryDevice implements Device {
  readonly description = "fd:9";
  readonly virtio = false;
  readonly uso = false;
  readonly hasKernel = false;
  readonly descriptor: number;
  readonly events: DeviceEvents;
  /** Packets that its applications have sent and received. */
  readonly sent: Uint8Array[] = [];
  readonly written: Uint8Array[] = [];
  mtu = 0;

  constructor(descriptor: number, events: DeviceEvents) {
    this.descriptor = descriptor;
    this.events = events;
  }

  write(packets: PacketBatch): number {
    for (let i = 0; i < packets.count; i++) {
      const at = packets.offset[i];
      this.written.push(packets.buffer(i).slice(at, at + packets.length[i]));
    }
    return 0;
  }

  async close(): Promise<void> {}
}

/** The native module of a process, a readable version of the rules in native/io/shortcut.h. */
export class MemoryNative {
  readonly module: NativeModule;
  readonly #net: MemoryNet;
  readonly #ip: string;
  readonly #sockets = new Map<number, Socket>();
  readonly #byAddress = new Map<string, Socket>();
  readonly #streams = new Map<number, Stream>();
  readonly #shortcuts = new Map<number, Shortcut>();
  #next = 3;
  readonly #devices = new Map<number, MemoryDevice>();
  #arena: Uint8Array = new Uint8Array(0);
  #rows: Int32Array = new Int32Array(0);
  #addresses: Uint8Array = new Uint8Array(0);
  #onBatch: (count: number) => void = () => {};
  /** Datagrams that shortcuts have carried, and rows and reads passed to the script. */
  carried = 0;
  entered = 0;
  /** How many UDP sockets the system permits. */
  maxSockets = Number.POSITIVE_INFINITY;
  /** `TIME PORT` of each socket that was closed. */
  readonly closed: string[] = [];

  constructor(net: MemoryNet, ip: string) {
    this.#net = net;
    this.#ip = ip;
    this.module = this.#makeModule();
  }

  get active(): number {
    return [...this.#shortcuts.values()].filter(({ hasEnded }) => !hasEnded).length;
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
      const shortcut = this.#findOut(socket.id, fromText, bytes);
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
    this.#count(shortcut, payload.length);
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
      const found = goesOn ? this.#findPacket(device, packet) : undefined;
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

  /** @returns "unclear" for a packet that may be of any flow */
  #findPacket(device: MemoryDevice, bytes: Uint8Array) {
    const packet = new IpPacket();
    if (!packet.read(bytes, 0, bytes.length) || packet.isFragment || packet.hopLimit <= 1) return "unclear";
    if (packet.protocol !== PROTOCOL_UDP) return undefined;
    const { transport, addressBytes, source, destination } = packet;
    const textAt = (at: number, port: number) => {
      const address = new Uint8Array(19);
      const length = writeAddress(address, 0, bytes, at, addressBytes, port);
      return formatAddress(copyAddress(address, 0, length));
    };
    const [from, to] = [textAt(source, transport), textAt(destination, transport + 2)];
    const shortcut = [...this.#shortcuts.values()].find(
      (one) =>
        one.isOut &&
        !one.hasEnded &&
        one.device === device &&
        one.address === to &&
        formatAddress(one.source!) === from,
    );
    if (shortcut === undefined) return undefined;
    if (shortcut.dscp !== packet.dscp) return "unclear";
    return { shortcut, payload: bytes.subarray(transport + UDP_HEADER_BYTES, udpEnd(bytes, packet)) };
  }

  /** @returns false if the packet would be larger than the MTU */
  #writePacket(device: MemoryDevice, { addressBytes, source }: Shortcut, payload: Uint8Array): boolean {
    const [from, to] = [addressBytes, source!].map((one) => [formatHost(one), addressPort(one)] as const);
    const packet = udpPacket(...from, ...to, payload, { identification: 0 });
    if (packet.length > device.mtu) return false;
    device.written.push(packet);
    return true;
  }

  #findOut(socket: number, from: string, bytes: Uint8Array): Shortcut | undefined {
    return [...this.#shortcuts.values()].find(
      (one) =>
        one.isOut &&
        !one.hasEnded &&
        one.socket === socket &&
        one.address === from &&
        bytes.length >= one.header.length &&
        bytes.length - one.header.length <= MAX_DATAGRAM_BYTES &&
        one.header.every((byte, i) => byte === bytes[i]),
    );
  }

  #count(shortcut: Shortcut, length: number): void {
    shortcut.count++;
    if (shortcut.device !== undefined) shortcut.packets++;
    shortcut.bytes += length;
    shortcut.length = length;
    shortcut.at = this.#net.now;
    this.carried++;
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
    if (stream.mayRead && this.#isBeginning(stream, rest)) {
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
      const capsule = this.#capsuleAt(stream, bytes, at);
      if (capsule?.end === undefined || capsule.end > bytes.length) return at;
      const { shortcut, payload, end } = capsule;
      const { device, header, socket, addressBytes } = shortcut;
      if (device === undefined) {
        this.#sendFrom(socket, addressBytes, Uint8Array.of(...header, ...bytes.subarray(payload, end)));
      } else if (!this.#writePacket(device, shortcut, bytes.subarray(payload, end))) return at;
      this.#count(shortcut, end - payload);
      at = end;
    }
  }

  /** A DATAGRAM capsule in shortest form, whose context has a shortcut. */
  #capsuleAt(
    stream: Stream,
    bytes: Uint8Array,
    at: number,
  ): { shortcut: Shortcut; payload: number; end: number } | undefined {
    if (at + 3 > bytes.length || bytes[at] !== CAPSULE_DATAGRAM) return undefined;
    const valueAt = at + 1 + varintLengthFrom(bytes[at + 1]);
    if (valueAt >= bytes.length) return undefined;
    const payload = valueAt + varintLengthFrom(bytes[valueAt]);
    if (payload > bytes.length) return undefined;
    const end = valueAt + readVarint(bytes, at + 1);
    const context = readVarint(bytes, valueAt);
    const length = end - payload;
    if (length < 0 || length > MAX_DATAGRAM_BYTES) return undefined;
    if (payload - at !== datagramHeaderLength(context, length)) return undefined;
    const shortcut = [...this.#shortcuts.values()].find(
      (one) => !one.isOut && !one.hasEnded && one.stream === stream.descriptor && one.context === context,
    );
    return shortcut && { shortcut, payload, end };
  }

  #isBeginning(stream: Stream, rest: Uint8Array): boolean {
    const end = this.#capsuleAt(stream, rest, 0)?.end ?? 0;
    return rest.length <= KEPT_BYTES && end > rest.length;
  }

  #endOf(isOf: (shortcut: Shortcut) => boolean): void {
    for (const shortcut of this.#shortcuts.values()) if (isOf(shortcut)) shortcut.hasEnded = true;
  }

  /** Ends a connection silently, as a crash of the other end does. */
  cut(descriptor: number): void {
    const stream = this.#streams.get(descriptor)!;
    this.#endOf((one) => one.stream === descriptor);
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
    this.#endOf((one) => one.stream === descriptor);
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
      if (!this.#streams.has(shortcut.stream) || !hasEnd) return -1;
      if (shortcut.header.length > 22) return -1;
      this.#endOf((other) => other.isOut === shortcut.isOut && isSame(other));
      for (let number = 0; number < MAX_SHORTCUTS; number++) {
        if (this.#shortcuts.has(number)) continue;
        this.#shortcuts.set(number, shortcut);
        return number;
      }
      return -1;
    };
    const make = (
      isOut: boolean,
      stream: number,
      context: number,
      socket: number,
      header: Uint8Array,
      address: Uint8Array,
    ): Shortcut => {
      const own = copyAddress(address, 0, address.length);
      const carried = { count: 0, packets: 0, bytes: 0, at: net.now, length: 0, hasEnded: false };
      const ends = { isOut, stream, context, socket, address: formatAddress(own), addressBytes: own };
      return { ...ends, header: header.slice(), ...carried };
    };
    const shortcuts: Partial<NativeModule> = {
      shortcutOut: (socket, address, _local, prefix, stream, context) => {
        const one = make(true, stream, context, socket, prefix, address);
        const isSame = (other: Shortcut) =>
          other.socket === socket && other.address === one.address && `${other.header}` === `${one.header}`;
        return give(one, isSame);
      },
      shortcutIn: (socket, address, _local, header, stream, context) => {
        const one = make(false, stream, context, socket, header, address);
        return give(one, (other) => other.stream === stream && other.context === context);
      },
      shortcutPacketsOut: (descriptor, source, remote, dscp, stream, context) => {
        const device = this.#devices.get(descriptor)!;
        const one = make(true, stream, context, -1, new Uint8Array(0), remote);
        const own = copyAddress(source, 0, source.length);
        const isSame = (other: Shortcut) =>
          other.device === device && other.address === one.address && `${other.source}` === `${own}`;
        return give({ ...one, device, source: own, dscp }, isSame);
      },
      shortcutPacketsIn: (descriptor, source, remote, _dscp, stream, context) => {
        const device = this.#devices.get(descriptor)!;
        const one = make(false, stream, context, -1, new Uint8Array(0), remote);
        const own = copyAddress(source, 0, source.length);
        const isSame = (other: Shortcut) => other.stream === stream && other.context === context;
        return give({ ...one, device, source: own }, isSame);
      },
      tunShortcuts: (descriptor, mtu) => {
        this.#devices.get(descriptor)!.mtu = mtu;
      },
      shortcutEnd: (stream) => this.#endOf((one) => one.stream === stream),
      shortcutResume: (stream) => {
        streamOf(stream).mayRead = true;
      },
      shortcutCounts: (rows) => {
        let row = 0;
        for (const [number, one] of this.#shortcuts) {
          if (net.now - one.at > IDLE_MS) one.hasEnded = true;
          if (one.count === 0 && !one.hasEnded) continue;
          if ((row + 1) * SHORTCUT_ROW_NUMBERS > rows.length) break;
          const age = net.now - one.at;
          const ended = one.hasEnded ? 1 : 0;
          rows.set(
            [number, one.count, one.bytes, age, one.length, ended, one.packets],
            row++ * SHORTCUT_ROW_NUMBERS,
          );
          one.count = 0;
          one.packets = 0;
          one.bytes = 0;
          if (one.hasEnded) this.#shortcuts.delete(number);
        }
        return row;
      },
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
        this.#endOf((one) => one.socket === id);
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
        this.#endOf((one) => one.stream === descriptor);
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
