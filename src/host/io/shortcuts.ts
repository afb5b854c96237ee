import type { Shortcut, Shortcuts } from "../../core/session/shortcuts.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import type { NativeModule } from "./native-module.ts";
import { SHORTCUT_ROW_NUMBERS } from "./native-module.ts";

/** Limit of the bytes before a payload: the SOCKS5 header of an IP address. */
const MAX_HEADER_BYTES = 22;
/** Rows fetched at once. */
const MAX_ROWS = 1_024;
/** How often a turn that needs no exact counts requests them; the order of idleness is exact to a second. */
const COLLECT_MS = 100;
const NO_BYTES: Uint8Array = new Uint8Array(0);
const NO_ROWS = new Int32Array(0);

/** The calls of {@link NativeModule} for shortcuts. */
export type ShortcutModule = NativeModule &
  Required<
    Pick<NativeModule, "shortcutOut" | "shortcutIn" | "shortcutEnd" | "shortcutResume" | "shortcutCounts">
  >;

export function hasShortcuts(native: NativeModule): native is ShortcutModule {
  return native.shortcutOut !== undefined;
}

/** The UDP end of a flow: a socket ... */
export interface SocketEnd {
  readonly socket: { readonly number?: number };
  readonly remote: { readonly address: AddressBytes; readonly local: number };
  /** Bytes before each payload, both ways; undefined for none. */
  readonly header: Uint8Array | undefined;
}

/** ... or a device, by its descriptor, with UDP packets. */
export interface PacketEnd {
  readonly device: number;
  /** The application's address, and the other end's. */
  readonly source: AddressBytes;
  readonly remote: AddressBytes;
  /** For packets from the application. */
  readonly dscp: number;
}

export type FlowEnd = SocketEnd | PacketEnd;

/** Receives what a shortcut has carried and, once, that it has ended. */
interface Listener {
  readonly shortcut: Shortcut;
  handleCarried(
    time: number,
    shortcut: Shortcut,
    count: number,
    bytes: number,
    length: number,
    packets: number,
  ): void;
  handleEnded(shortcut: Shortcut): void;
}

/** The shortcuts of a thread, whose hosts share the native module. */
export class NativeShortcuts {
  readonly #native: ShortcutModule;
  /** By number. */
  readonly #listeners: (Listener | undefined)[] = [];
  #count = 0;
  #rows: Float64Array | undefined;
  #collectedAt = Number.NEGATIVE_INFINITY;
  /** Whether some have ended since the last count. */
  #hasEnded = false;

  constructor(native: ShortcutModule) {
    this.#native = native;
  }

  /** @returns false if the shortcut cannot be given */
  give(now: number, listener: Listener, end: FlowEnd, stream: ByteStream): boolean {
    let number = this.#tryToGive(listener.shortcut, end, stream);
    if (number < 0 && this.#hasEnded) {
      // Ended shortcuts keep their places until they have been counted.
      this.collect(now);
      number = this.#tryToGive(listener.shortcut, end, stream);
    }
    if (number < 0) return false;
    this.#rows ??= new Float64Array(MAX_ROWS * SHORTCUT_ROW_NUMBERS);
    this.#listeners[number] = listener;
    this.#count++;
    return true;
  }

  /** @returns its number, or a negative one */
  #tryToGive({ isOut, id }: Shortcut, end: FlowEnd, stream: ByteStream): number {
    const { descriptor } = stream;
    if (descriptor === undefined || stream.isClosed) return -1;
    const native = this.#native;
    if ("device" in end) {
      const { device, source, remote, dscp } = end;
      const given = isOut
        ? native.shortcutPacketsOut?.(device, source, remote, dscp, descriptor, id)
        : native.shortcutPacketsIn?.(device, source, remote, dscp, descriptor, id);
      return given ?? -1;
    }
    const { socket, remote, header = NO_BYTES } = end;
    const { number = -1 } = socket;
    if (number < 0 || header.length > MAX_HEADER_BYTES) return -1;
    const { address, local } = remote;
    return isOut
      ? native.shortcutOut(number, address, local, header, descriptor, id)
      : native.shortcutIn(number, address, local, header, descriptor, id);
  }

  end(stream: ByteStream): void {
    const { descriptor } = stream;
    this.#hasEnded = true;
    if (descriptor !== undefined) this.#native.shortcutEnd(descriptor);
  }

  resume(stream: ByteStream): void {
    const { descriptor } = stream;
    if (descriptor !== undefined) this.#native.shortcutResume(descriptor);
  }

  /** Calls {@link collect} if the last call was long ago. */
  refresh(now: number): void {
    if (this.#count > 0 && now - this.#collectedAt >= COLLECT_MS) this.collect(now);
  }

  /** Whether any shortcut was ever given. */
  get isUsed(): boolean {
    return this.#rows !== undefined;
  }

  /** Reports what has been carried so far, in the order of time. */
  collect(now: number): void {
    if (this.#count === 0) return;
    this.#collectedAt = now;
    this.#hasEnded = false;
    const rows = this.#rows!;
    for (let count = MAX_ROWS; count === MAX_ROWS; ) {
      count = this.#native.shortcutCounts(rows);
      if (count === 1) this.#report(now, rows, 0);
      else for (const at of byAge(rows, count)) this.#report(now, rows, at);
    }
  }

  #report(now: number, rows: Float64Array, at: number): void {
    const number = rows[at];
    const listener = this.#listeners[number];
    if (listener === undefined) return;
    const count = rows[at + 1];
    if (count > 0) {
      const time = now - rows[at + 3];
      listener.handleCarried(time, listener.shortcut, count, rows[at + 2], rows[at + 4], rows[at + 6]);
    }
    if (rows[at + 5] === 0) return;
    this.#listeners[number] = undefined;
    this.#count--;
    listener.handleEnded(listener.shortcut);
  }

  /** @returns how many datagrams were dropped after they had been accepted, and have not been reported */
  takeDropped(): number {
    return this.#native.udpSend(NO_BYTES, NO_ROWS, 0, NO_BYTES, NO_BYTES);
  }
}

/** Offsets of rows, in the order of their last datagrams, the oldest first. */
function byAge(rows: Float64Array, count: number): number[] {
  const offsets = Array.from({ length: count }, (_, row) => row * SHORTCUT_ROW_NUMBERS);
  return offsets.sort((a, b) => rows[b + 3] - rows[a + 3]);
}

/** What shortcuts need from a machine of core. */
export interface ShortcutCore {
  readonly shortcuts: Shortcuts;
  readonly counters: { readonly drops: { send_error: number } };
  pollShortcut(): Shortcut | undefined;
  mayReadShortcuts(connection: number): boolean;
  handleShortcut(time: number, shortcut: Shortcut, count: number, bytes: number, length: number): void;
}

/** What shortcuts need from a host. */
export interface ShortcutEnds {
  /** The UDP end of a flow, if there is one that may have shortcuts. */
  flowEnd(shortcut: Shortcut): FlowEnd | undefined;
  stream(connection: number): ByteStream | undefined;
  /**
   * Shortcuts have carried datagrams, the last one at `time`.
   *
   * @param packets  of a device, otherwise 0
   */
  handleCarried?(time: number, shortcut: Shortcut, count: number, bytes: number, packets: number): void;
  /** Sends what the script has delivered and not sent yet, before what shortcuts read. */
  flush?(): void;
}

/** The shortcuts of one host: connects the flows that core permits with sockets and streams. */
export class HostShortcuts {
  readonly #native: NativeShortcuts;
  readonly #core: ShortcutCore;
  readonly #ends: ShortcutEnds;

  constructor(native: NativeShortcuts, core: ShortcutCore, ends: ShortcutEnds) {
    this.#native = native;
    this.#core = core;
    this.#ends = ends;
    core.shortcuts.isWanted = true;
  }

  /** Gives the shortcuts that core offers. Call this when everything has been written. */
  give(now: number): void {
    const core = this.#core;
    for (let shortcut = core.pollShortcut(); shortcut !== undefined; shortcut = core.pollShortcut()) {
      const stream = this.#ends.stream(shortcut.connection);
      const end = this.#ends.flowEnd(shortcut);
      if (stream === undefined || end === undefined || !this.#giveOne(now, shortcut, end, stream)) {
        core.shortcuts.decline(shortcut);
      }
    }
  }

  #giveOne(now: number, shortcut: Shortcut, end: FlowEnd, stream: ByteStream): boolean {
    const { shortcuts } = this.#core;
    const listener: Listener = {
      shortcut,
      handleCarried: this.#handleCarried,
      handleEnded: (ended) => shortcuts.handleEnded(ended),
    };
    if (!this.#native.give(now, listener, end, stream)) return false;
    shortcut.epoch.begin(shortcut, () => this.#native.end(stream));
    return true;
  }

  readonly #handleCarried = (
    time: number,
    shortcut: Shortcut,
    count: number,
    bytes: number,
    length: number,
    packets: number,
  ): void => {
    this.#core.handleShortcut(time, shortcut, count, bytes, length);
    this.#ends.handleCarried?.(time, shortcut, count, bytes, packets);
  };

  /** Call this after {@link give}, when everything that a connection has read has been handled. */
  resume(connection: number): void {
    if (!this.#core.mayReadShortcuts(connection)) return;
    const stream = this.#ends.stream(connection);
    if (stream === undefined) return;
    this.#ends.flush?.();
    this.#native.resume(stream);
  }

  /** A turn begins: reports to core what has been carried, unless that was done recently. */
  refresh(now: number): void {
    this.#native.refresh(now);
  }

  /** Reports to core what has been carried so far. Call this before core's time advances, or its state is read. */
  collect(now: number): void {
    if (!this.#native.isUsed) return;
    this.#native.collect(now);
    this.#core.counters.drops.send_error += this.#native.takeDropped();
  }
}
