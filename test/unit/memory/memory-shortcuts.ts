/** Shortcuts of native I/O: which flow's datagrams it carries by itself, and what it has carried. */

import { SHORTCUT_ROW_NUMBERS } from "../../../src/host/io/native-module.ts";
import { CAPSULE_DATAGRAM, datagramHeaderLength, MAX_DATAGRAM_BYTES } from "../../../src/wire/capsule.ts";
import { IpPacket, PROTOCOL_UDP } from "../../../src/wire/ip/ip-packet.ts";
import { UDP_HEADER_BYTES, udpEnd } from "../../../src/wire/ip/udp.ts";
import type { AddressBytes } from "../../../src/wire/socket-address.ts";
import { copyAddress, formatAddress, writeAddress } from "../../../src/wire/socket-address.ts";
import { readVarint, varintLengthFrom } from "../../../src/wire/varint.ts";
import type { MemoryDevice } from "./memory-device.ts";

const MAX_SHORTCUTS = 1_024;
const KEPT_BYTES = 2_048;
const IDLE_MS = 10_000;

export interface Shortcut {
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

/** All shortcuts of a process. */
export class MemoryShortcuts {
  /** Datagrams that shortcuts have carried. */
  carried = 0;
  readonly #now: () => number;
  readonly #shortcuts = new Map<number, Shortcut>();

  constructor(now: () => number) {
    this.#now = now;
  }

  get active(): number {
    return [...this.#shortcuts.values()].filter(({ hasEnded }) => !hasEnded).length;
  }

  make(
    isOut: boolean,
    stream: number,
    context: number,
    socket: number,
    header: Uint8Array,
    address: Uint8Array,
  ): Shortcut {
    const own = copyAddress(address, 0, address.length);
    const carried = { count: 0, packets: 0, bytes: 0, at: this.#now(), length: 0, hasEnded: false };
    const ends = { isOut, stream, context, socket, address: formatAddress(own), addressBytes: own };
    return { ...ends, header: header.slice(), ...carried };
  }

  /** Adds a shortcut, which replaces those for the same flow. @returns its number, or -1 */
  add(shortcut: Shortcut, isSame: (other: Shortcut) => boolean): number {
    if (shortcut.header.length > 22) return -1;
    this.end((other) => other.isOut === shortcut.isOut && isSame(other));
    for (let number = 0; number < MAX_SHORTCUTS; number++) {
      if (this.#shortcuts.has(number)) continue;
      this.#shortcuts.set(number, shortcut);
      return number;
    }
    return -1;
  }

  findOut(socket: number, from: string, bytes: Uint8Array): Shortcut | undefined {
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

  /** @returns "unclear" for a packet that may be of any flow */
  findPacket(device: MemoryDevice, bytes: Uint8Array) {
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

  /** A DATAGRAM capsule in shortest form, whose context has a shortcut. */
  capsuleAt(
    stream: number,
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
      (one) => !one.isOut && !one.hasEnded && one.stream === stream && one.context === context,
    );
    return shortcut && { shortcut, payload, end };
  }

  /** Whether the rest of a read is the beginning of such a capsule. */
  isBeginning(stream: number, rest: Uint8Array): boolean {
    const end = this.capsuleAt(stream, rest, 0)?.end ?? 0;
    return rest.length <= KEPT_BYTES && end > rest.length;
  }

  /** Counts a datagram that a shortcut has carried. */
  count(shortcut: Shortcut, length: number): void {
    shortcut.count++;
    if (shortcut.device !== undefined) shortcut.packets++;
    shortcut.bytes += length;
    shortcut.length = length;
    shortcut.at = this.#now();
    this.carried++;
  }

  end(isOf: (shortcut: Shortcut) => boolean): void {
    for (const shortcut of this.#shortcuts.values()) if (isOf(shortcut)) shortcut.hasEnded = true;
  }

  /** See `NativeModule.shortcutCounts`. */
  read(rows: Float64Array): number {
    let row = 0;
    for (const [number, one] of this.#shortcuts) {
      if (this.#now() - one.at > IDLE_MS) one.hasEnded = true;
      if (one.count === 0 && !one.hasEnded) continue;
      if ((row + 1) * SHORTCUT_ROW_NUMBERS > rows.length) break;
      const age = this.#now() - one.at;
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
  }
}
