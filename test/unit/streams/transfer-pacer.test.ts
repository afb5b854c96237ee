import { describe, expect, it } from "vitest";
import { FlowTable } from "../../../src/core/lanes/flow-table.ts";
import { PathWatch } from "../../../src/core/lanes/transfers/path-watch.ts";
import type { Loop } from "../../../src/host/loop.ts";
import type { ByteStream } from "../../../src/host/stream/byte-stream.ts";
import type { PacedReader } from "../../../src/host/stream/transfer-pacer.ts";
import { TransferPacing } from "../../../src/host/stream/transfer-pacer.ts";

const FLOWS = new FlowTable();
FLOWS.reserve(1);

/** A loop whose time advances only on request. */
class StillLoop implements Loop {
  time = 0;
  readonly #timers: { at: number; callback: () => void }[] = [];

  now(): number {
    return this.time;
  }

  after(delayMs: number, callback: () => void) {
    const timer = { at: this.time + delayMs, callback };
    this.#timers.push(timer);
    return {
      cancel: () => {
        const index = this.#timers.indexOf(timer);
        if (index >= 0) this.#timers.splice(index, 1);
      },
    };
  }

  nextTurn(callback: () => void): void {
    this.after(0, callback);
  }

  get timers(): number {
    return this.#timers.length;
  }

  runTo(time: number): void {
    for (;;) {
      this.#timers.sort((a, b) => a.at - b.at);
      const [next] = this.#timers;
      if (next === undefined || next.at > time) break;
      this.#timers.shift();
      this.time = Math.max(this.time, next.at);
      next.callback();
    }
    this.time = time;
  }
}

/** A relay that reads as much as it may, one chunk per millisecond. */
class Reader implements PacedReader {
  bytes = 0;
  most = 0;
  bufferBytes = 0;
  isWaiting = false;

  read(pacing: TransferPacing, chunk: number): void {
    if (this.isWaiting) return;
    const length = this.most === 0 ? chunk : Math.min(chunk, this.most);
    this.bytes += length;
    this.isWaiting = pacing.down.spend(length, this);
    if (!this.isWaiting) this.most = 0;
  }

  proceed(most: number, bufferBytes: number): void {
    this.isWaiting = false;
    this.most = most;
    this.bufferBytes = bufferBytes;
  }
}

/** Runs for some milliseconds with a call, receipts that took `delay`, and readers of 2,500 bytes each. */
function run(
  loop: StillLoop,
  watch: PathWatch,
  pacing: TransferPacing,
  readers: Reader[],
  ms: number,
  delay: number,
) {
  for (const end = loop.time + ms; loop.time < end; ) {
    loop.runTo(loop.time + 1);
    if (loop.time % 20 === 0) {
      watch.noteSparse(loop.time, 0);
      watch.noteReceipt(loop.time, 1000 * (loop.time - delay + 1000), 50);
    }
    for (const reader of readers) reader.read(pacing, 2_500);
  }
}

function stream(remoteIp: string | undefined, leadsOn = false): ByteStream {
  return { remoteIp, leadsOn } as ByteStream;
}

describe("pacing of transfers", () => {
  it("lets readers take equal turns while a call meets a queue, and reads of any size before and after", () => {
    const loop = new StillLoop();
    const watch = new PathWatch(FLOWS);
    const pacing = new TransferPacing(loop, () => watch);
    const readers = [new Reader(), new Reader(), new Reader()];
    run(loop, watch, pacing, readers, 1_000, 25);
    expect(readers.every(({ most, isWaiting }) => most === 0 && !isWaiting)).toBe(true);
    // The queue persists: once the buffers are limited, hardly anything is read.
    run(loop, watch, pacing, readers, 2_000, 80);
    const before = readers.map(({ bytes }) => bytes);
    run(loop, watch, pacing, readers, 2_000, 80);
    expect(readers.every(({ most, bufferBytes }) => most > 0 && bufferBytes > 0)).toBe(true);
    const during = readers.map(({ bytes }, i) => bytes - before[i]);
    expect(Math.max(...during)).toBeLessThan(1.1 * Math.min(...during));
    expect(Math.max(...during)).toBeLessThan(0.2 * 2_000 * 2_500);
    // The call ends.
    loop.runTo(loop.time + 3_000);
    for (const reader of readers) reader.read(pacing, 2_500);
    expect(readers.every(({ most, isWaiting }) => most === 0 && !isWaiting)).toBe(true);
  });

  it("keeps its limit while a relay waits for what it has read before to be sent", () => {
    const loop = new StillLoop();
    const watch = new PathWatch(FLOWS);
    const pacing = new TransferPacing(loop, () => watch);
    const reader = new Reader();
    run(loop, watch, pacing, [reader], 1_000, 25);
    run(loop, watch, pacing, [reader], 1_000, 80);
    expect(pacing.down.isLimited).toBe(true);
    run(loop, watch, pacing, [], 2_500, 80);
    expect(pacing.down.isLimited).toBe(true);
    run(loop, watch, pacing, [], 10_000, 25);
    expect(pacing.down.isLimited).toBe(false);
  });

  it("does nothing beside a session that sees nothing of its path", () => {
    const loop = new StillLoop();
    const pacing = new TransferPacing(loop, () => undefined);
    const reader = new Reader();
    for (let i = 0; i < 100; i++) reader.read(pacing, 65_536);
    expect(reader.isWaiting).toBe(false);
    expect(loop.timers).toBe(0);
  });

  it("needs no timer once nothing has moved for a while", () => {
    const loop = new StillLoop();
    const watch = new PathWatch(FLOWS);
    const pacing = new TransferPacing(loop, () => watch);
    expect(pacing.up.spend(1_000, new Reader())).toBe(false);
    expect(loop.timers).toBe(1);
    loop.runTo(10_000);
    expect(loop.timers).toBe(0);
  });

  it("limits both directions of connections that leave this machine, and uploads that another program here relays", () => {
    const pacing = new TransferPacing(new StillLoop(), () => undefined);
    const { up, down } = pacing;
    for (const ip of ["192.0.2.1", "2001:db8::1", "fe80::1%eth0"]) {
      expect(pacing.pacersFor(stream(ip))).toEqual({ up, down });
      expect(pacing.pacersFor(stream(ip, true))).toEqual({ up, down });
    }
    const unixSocket = undefined;
    for (const ip of ["127.0.0.1", "127.9.9.9", "::1", unixSocket]) {
      expect(pacing.pacersFor(stream(ip))).toEqual({});
      expect(pacing.pacersFor(stream(ip, true))).toEqual({ up });
    }
  });
});
