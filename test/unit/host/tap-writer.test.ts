import { describe, expect, it } from "vitest";
import { parseTargetRule } from "../../../src/core/target-rule.ts";
import type { RingFile } from "../../../src/host/tap/ring-file.ts";
import { numbered } from "../../../src/host/tap/ring-file.ts";
import type { TapWriterOptions } from "../../../src/host/tap/tap-writer.ts";
import { TapWriter } from "../../../src/host/tap/tap-writer.ts";
import { makeAddress } from "../../../src/wire/socket-address.ts";

const LOCAL = makeAddress("127.0.0.1", 5_000)!;
const REMOTE = makeAddress("192.0.2.1", 53)!;

interface Block {
  readonly type: number;
  readonly body: DataView;
}

/** A ring in memory: one list of chunks for each file. */
class MemoryRing implements RingFile {
  isFull = false;
  readonly files: Uint8Array[][] = [[]];

  write(bytes: Uint8Array): void {
    this.files.at(-1)!.push(bytes);
  }

  rotate(): void {
    this.files.push([]);
  }

  async close(): Promise<void> {}

  /** The blocks of a file, whose lengths have been compared. */
  blocks(index: number): Block[] {
    const bytes = Buffer.concat(this.files[index]);
    const blocks: Block[] = [];
    for (let at = 0; at < bytes.length; ) {
      const length = bytes.readUInt32LE(at + 4);
      expect(length % 4).toBe(0);
      expect(bytes.readUInt32LE(at + length - 4)).toBe(length);
      blocks.push({
        type: bytes.readUInt32LE(at),
        body: new DataView(bytes.buffer, bytes.byteOffset + at + 8, length - 12),
      });
      at += length;
    }
    return blocks;
  }

  count(index: number, type: number): number {
    return this.blocks(index).filter((block) => block.type === type).length;
  }
}

function open(more: Partial<TapWriterOptions> = {}) {
  const ring = new MemoryRing();
  const losses: string[] = [];
  const writer = new TapWriter(
    {
      program: "udp-local",
      fileBytes: 1_048_576,
      payloadBytes: 65_535,
      filter: [],
      isByAssociation: false,
      unixMs: () => 1_700_000_000_123.5,
      after: () => ({ cancel: () => {} }),
      onLoss: () => losses.push("lost"),
      ...more,
    },
    ring,
  );
  return { ring, writer, losses };
}

function write(writer: TapWriter, length = 100, remote = REMOTE, association = 1, local = LOCAL): void {
  writer.writeDatagram(false, true, undefined, association, local, remote, new Uint8Array(length), 0, length);
}

const SECTION = 0x0a0d0d0a;
const INTERFACE = 1;
const STATISTICS = 5;
const PACKET = 6;

describe("a tap's file", () => {
  it("begins with a section and an interface, and ends with counts", async () => {
    const { ring, writer } = open();
    write(writer);
    await writer.close();
    expect(ring.blocks(0).map(({ type }) => type)).toEqual([SECTION, INTERFACE, PACKET, STATISTICS]);
    const [section, , packet] = ring.blocks(0);
    expect(section.body.getUint32(0, true)).toBe(0x1a2b3c4d);
    const micros = packet.body.getUint32(4, true) * 2 ** 32 + packet.body.getUint32(8, true);
    expect(micros).toBe(1_700_000_000_123_500);
    expect([packet.body.getUint32(12, true), packet.body.getUint32(16, true)]).toEqual([128, 128]);
  });

  it("is a valid file when nothing was seen", async () => {
    const { ring, writer } = open();
    await writer.close();
    expect(ring.blocks(0).map(({ type }) => type)).toEqual([SECTION, INTERFACE, STATISTICS]);
  });

  it("keeps the configured number of bytes of a payload, and its length", async () => {
    const { ring, writer } = open({ payloadBytes: 10 });
    write(writer, 1_000);
    await writer.close();
    const { body } = ring.blocks(0)[2];
    expect([body.getUint32(12, true), body.getUint32(16, true)]).toEqual([38, 1_028]);
  });

  it("is followed by another before it exceeds its size, each of which can be read by itself", async () => {
    const { ring, writer } = open();
    for (let i = 0; i < 2_000; i++) write(writer, 1_200);
    await writer.close();
    expect(ring.files.length).toBe(3);
    let total = 0;
    for (const [index, chunks] of ring.files.entries()) {
      expect(Buffer.concat(chunks).length).toBeLessThanOrEqual(1_048_576);
      const types = ring.blocks(index).map(({ type }) => type);
      expect([types[0], types[1], types.at(-1)]).toEqual([SECTION, INTERFACE, STATISTICS]);
      total += ring.count(index, PACKET);
    }
    expect(total).toBe(2_000);
  });

  it("stays whole when the disk does not keep up: records are lost, and counted", async () => {
    const { ring, writer, losses } = open({ isByAssociation: true });
    write(writer);
    writer.flush();
    ring.isFull = true;
    for (let i = 0; i < 5; i++) write(writer, 100, REMOTE, 2, makeAddress("127.0.0.1", 6_000)!);
    ring.isFull = false;
    write(writer, 100, REMOTE, 3, makeAddress("127.0.0.1", 7_000)!);
    await writer.close();
    expect({ written: writer.written, lost: writer.lost, losses }).toEqual({
      written: 2,
      lost: 5,
      losses: ["lost"],
    });
    const packets = ring.blocks(0).filter(({ type }) => type === PACKET);
    expect(packets.map(({ body }) => body.getUint32(0, true))).toEqual([1, 2]);
    expect(ring.count(0, INTERFACE)).toBe(3);
  });

  it("has an interface for each association on request, again in each file", async () => {
    const { ring, writer } = open({ isByAssociation: true });
    const locals = [1, 2, 3].map((port) => makeAddress("127.0.0.1", port)!);
    for (let i = 0; i < 1_500; i++) write(writer, 1_200, REMOTE, i % 3, locals[i % 3]);
    await writer.close();
    expect(ring.files.map((_, index) => ring.count(index, INTERFACE))).toEqual([4, 4]);
  });
});

describe("a tap's filter", () => {
  it.each([
    ["192.0.2.0/24", "192.0.2.1", 53, true],
    ["192.0.2.0/24", "198.51.100.1", 53, false],
    ["192.0.2.0/24:1000-2000", "192.0.2.1", 53, false],
    ["*:53", "2001:db8::1", 53, true],
    ["*:53", "example.com", 53, true],
    ["[2001:db8::/32]:53", "2001:db8::1", 53, true],
    ["2001:db8::/32", "192.0.2.1", 53, false],
    ["192.0.2.0/24", "example.com", 53, false],
  ])("%s and a datagram to %s port %d: %s", (rule, host, port, isWritten) => {
    const { writer } = open({ filter: [parseTargetRule(rule)!] });
    write(writer, 10, makeAddress(host, port)!);
    expect(writer.written).toBe(isWritten ? 1 : 0);
  });
});

it.each([
  ["/tmp/tap.pcapng", "/tmp/tap.1.pcapng"],
  ["/tmp/a.b/tap", "/tmp/a.b/tap.1"],
  ["tap", "tap.1"],
])("an older file of %s is %s", (path, older) => {
  expect(numbered(path, 1)).toBe(older);
});
