import { NativeTcp, openNativeUdpIo } from "../../../src/host/index.ts";
import type { System } from "../../../src/host/system.ts";
import type { AddressBytes } from "../../../src/wire/socket-address.ts";
import { formatAddress, makeAddress } from "../../../src/wire/socket-address.ts";
import { seededIntegers } from "../random.ts";
import { bareSystem } from "./bare-system.ts";
import type { Datagram, Net } from "./memory-native.ts";
import { MemoryNative, WHOLE } from "./memory-native.ts";

type OnBytes = (bytes: Uint8Array, from: AddressBytes) => void;

/** Several processes with native I/O and the test's sockets, in shared memory and virtual time. */
export class MemoryNet implements Net {
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
  const bare = bareSystem(() => net.random(256));
  const loop = {
    now: () => net.now,
    after: (delayMs: number, callback: () => void) => net.after(delayMs, callback),
    nextTurn: net.nextTurn,
  };
  const udp = openNativeUdpIo(native.module, loop);
  return {
    ...bare,
    ...loop,
    unixMs: () => net.now,
    io: { udp, tcp: new NativeTcp(native.module, bare), native: native.module, latency: "balanced" },
  };
}
