import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FrameReader } from "../../../src/core/dialects/frame-reader.ts";
import type { Codec, Role } from "../../../src/wire/dialects/dialect.ts";
import {
  FRAME_DATAGRAM,
  FRAME_INCOMPLETE,
  FRAME_KEEPALIVE,
  FRAME_MALFORMED,
  FRAME_TARGET,
  Frame,
} from "../../../src/wire/dialects/dialect.ts";
import { DIALECTS, dialectByName, sniffSocks5 } from "../../../src/wire/dialects/dialects.ts";
import type { FirstBytesProtocol } from "../../../src/wire/http/first-bytes.ts";
import { judgeFirstBytes } from "../../../src/wire/http/first-bytes.ts";
import type { AddressBytes } from "../../../src/wire/socket-address.ts";
import { copyAddress, formatAddress, makeAddress } from "../../../src/wire/socket-address.ts";
import { cut, cutLengths } from "../cuts.ts";

const bytesOf = (hex: string) => new Uint8Array(Buffer.from(hex.replaceAll(" ", ""), "hex"));
const hexOf = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const hello = Buffer.from("hello");
const target = makeAddress("203.0.113.5", 7777)!;
const target6 = makeAddress("2001:db8::1", 53)!;
const none = makeAddress("0.0.0.0", 0)!;
const UDPTUNNEL_HELLO = "7564707475 6e6e656c 20627920 6d642e 00000001 03061015 21283645 55667891";
const GNB_KEEPALIVE = "001c 6b00 000000006b0769ff 6b656570616c697665 00000000000000";
const GNB_ECHO = "001c 6b00 000000006b0769ff 6b656570616c697665206563686f 0000";
const GNB_TIME = 0x6b07_69ff;

function codec(name: string, role: Role, request?: AddressBytes): Codec {
  return dialectByName(name)!.codec(role, request);
}

/** Frames as text. */
function read(reader: FrameReader, pieces: readonly Uint8Array[]): string[] {
  const found: string[] = [];
  const { frame } = reader;
  for (const piece of pieces) {
    for (let at = 0; ; at = reader.offset) {
      const status = reader.next(piece, at, piece.length);
      if (status === FRAME_INCOMPLETE) break;
      if (status === FRAME_MALFORMED) return [...found, "malformed"];
      const address =
        frame.addressLength === 0
          ? ""
          : formatAddress(copyAddress(frame.addresses, frame.addressOffset, frame.addressLength));
      if (frame.kind === FRAME_KEEPALIVE) found.push("keepalive");
      else if (frame.kind === FRAME_TARGET) found.push(`target ${address}`);
      else if (frame.kind === FRAME_DATAGRAM) {
        const payload = Buffer.from(reader.data.subarray(frame.dataOffset, frame.dataEnd)).toString();
        found.push(`${address} ${payload}`.trim());
      }
    }
  }
  return found;
}

/** What one end sends for one datagram. */
function write(
  name: string,
  role: Role,
  address: AddressBytes,
  isNew: boolean,
  request?: AddressBytes,
): string {
  const it = codec(name, role, request);
  const to = new Uint8Array(100);
  const at = it.writeHeader(to, 0, 0, isNew, address, hello.length);
  expect(at).toBe(it.headerLength(address));
  to.set(hello, at);
  return hexOf(it.hello) + hexOf(to.subarray(0, at + hello.length));
}

const UOT = { one: makeAddress("sp.udp-over-tcp.arpa", 0)!, two: makeAddress("sp.v2.udp-over-tcp.arpa", 0)! };

/** Captured bytes of the programs: one datagram `hello` to 203.0.113.5:7777 or to the fixed target. */
const CAPTURES = [
  ["udptunnel", "client", `${UDPTUNNEL_HELLO} 0005 68656c6c6f`],
  ["udptunnel", "server", "0005 68656c6c6f"],
  ["mullvad", "client", "0005 68656c6c6f"],
  ["mullvad", "server", "0005 68656c6c6f"],
  ["gnb", "client", "0009 6f00 68656c6c6f"],
  ["gnb", "server", "0009 6f00 68656c6c6f"],
  ["udpgw", "client", "0e00 02 0000 cb007105 1e61 68656c6c6f"],
  ["udpgw", "server", "0e00 00 0000 cb007105 1e61 68656c6c6f"],
  ["hev", "client", "0005 0a 01 cb007105 1e61 68656c6c6f"],
  ["hev", "server", "0005 0a 01 cb007105 1e61 68656c6c6f"],
  ["gost", "client", "0005 ff 01 cb007105 1e61 68656c6c6f"],
  ["gost", "server", "0005 ff 01 cb007105 1e61 68656c6c6f"],
] as const;

describe("dialects", () => {
  it.each(CAPTURES)("%s: the %s writes the captured bytes of the program", (name, role, hex) => {
    expect(write(name, role, target, true)).toBe(hex.replaceAll(" ", ""));
  });

  it.each(CAPTURES)(
    "%s: the other end reads the bytes of a program's %s, cut anywhere",
    (name, role, hex) => {
      const other = role === "client" ? "server" : "client";
      const hasAddress = dialectByName(name)!.addresses !== "none";
      const expected = hasAddress ? "203.0.113.5:7777 hello" : "hello";
      const frames = bytesOf(hex + (name === "udptunnel" && role === "client" ? hex.slice(-15) : hex));
      fc.assert(
        fc.property(cutLengths, (lengths) => {
          const reader = new FrameReader(codec(name, other));
          expect(read(reader, cut(frames, lengths))).toEqual([expected, expected]);
          expect(reader.isBetweenFrames).toBe(true);
        }),
        { numRuns: 50 },
      );
    },
  );

  it("gnb: keepalives and their answers equal the captured bytes", () => {
    expect(hexOf(codec("gnb", "client").keepalive(GNB_TIME)!)).toBe(GNB_KEEPALIVE.replaceAll(" ", ""));
    expect(hexOf(codec("gnb", "server").answerKeepalive(GNB_TIME)!)).toBe(GNB_ECHO.replaceAll(" ", ""));
    expect(read(new FrameReader(codec("gnb", "server")), [bytesOf(GNB_KEEPALIVE)])).toEqual(["keepalive"]);
    expect(codec("udpgw", "client").keepalive(0)).toEqual(bytesOf("0300 01 0000"));
  });

  it("udpgw: reads and writes IPv6, and later datagrams of a flow without REBIND", () => {
    expect(write("udpgw", "client", target6, false)).toBe(
      "1a00080000 20010db8000000000000000000000001 0035 68656c6c6f".replaceAll(" ", ""),
    );
    const bytes = bytesOf("1a00 0a 0100 20010db8000000000000000000000001 0035 68656c6c6f");
    const reader = new FrameReader(codec("udpgw", "server"));
    expect(read(reader, [bytes])).toEqual(["[2001:db8::1]:53 hello"]);
    expect(reader.frame).toMatchObject({ flow: 1, isNew: true, isDns: false });
  });

  it("udpgw: packets without room for an address are skipped, and unknown flags are accepted", () => {
    const reader = new FrameReader(codec("udpgw", "server"));
    const bytes = bytesOf("0000 0100 00 0500 00 0000 cb00 0e00 f2 0000 cb007105 1e61 68656c6c6f");
    expect(read(reader, [bytes])).toEqual(["203.0.113.5:7777 hello"]);
  });

  it("hev: reads an IPv4-mapped address as IPv4, and a name", () => {
    const mapped = bytesOf("0002 16 04 00000000000000000000ffffcb007105 1e61 6869");
    const named = bytesOf("0002 08 03 01 61 1e61 6869");
    const reader = new FrameReader(codec("hev", "server"));
    expect(read(reader, [mapped, named])).toEqual(["203.0.113.5:7777 hi", "a:7777 hi"]);
  });

  it("uot: versions 1 and 2, connected and not", () => {
    const v1 = bytesOf("00 cb007105 1e61 0005 68656c6c6f 02 01 61 0035 0001 61");
    expect(read(new FrameReader(codec("uot", "server", UOT.one)), [v1])).toEqual([
      "203.0.113.5:7777 hello",
      "a:53 a",
    ]);
    const v2 = bytesOf("00 01 c0000201 0009 00 cb007105 1e61 0005 68656c6c6f");
    expect(read(new FrameReader(codec("uot", "server", UOT.two)), [v2])).toEqual(["203.0.113.5:7777 hello"]);
    const connected = bytesOf("01 01 cb007105 1e61 0005 68656c6c6f");
    expect(read(new FrameReader(codec("uot", "server", UOT.two)), [connected])).toEqual([
      "target 203.0.113.5:7777",
      "hello",
    ]);
    expect(write("uot", "client", target, true, UOT.two)).toBe(
      "0001c00002010009 00cb0071051e61 0005 68656c6c6f".replaceAll(" ", ""),
    );
    expect(write("uot", "client", target6, true, UOT.one)).toBe(
      "01 20010db8000000000000000000000001 0035 0005 68656c6c6f".replaceAll(" ", ""),
    );
  });

  it("gost: reads an empty datagram, which its own client sends although its server cannot read it", () => {
    const reader = new FrameReader(codec("gost", "server"));
    const bytes = bytesOf("0000 ff 01 cb007105 1e61 0005 ff 01 cb007105 1e61 68656c6c6f");
    expect(read(reader, [bytes])).toEqual(["203.0.113.5:7777", "203.0.113.5:7777 hello"]);
  });

  it("observe the limits of the programs", () => {
    const limits = (name: string, address = none) => {
      const it = codec(name, "client");
      return [it.minPayload(), it.maxPayload(address)];
    };
    expect(limits("hev")).toEqual([1, 1_493]);
    expect(limits("hev", target6)).toEqual([1, 1_481]);
    expect(limits("gnb")).toEqual([0, 4_092]);
    expect(limits("udpgw")).toEqual([0, 65_507]);
    expect(limits("gost", target)).toEqual([1, 65_507]);
    expect(limits("uot", target)).toEqual([0, 16_384]);
    expect(limits("mullvad")).toEqual([0, 65_507]);
    const udptunnel = codec("udptunnel", "client");
    expect(udptunnel.maxPayload(none)).toBe(65_502);
    udptunnel.writeHeader(new Uint8Array(10), 0, 0, true, none, 1);
    expect(udptunnel.maxPayload(none)).toBe(65_507);
  });

  it.each([
    ["gnb", "0000 6f00"],
    ["gnb", "0003 6f00"],
    ["gnb", "1001 6f00"],
    ["hev", "0001 0a 02 7f"],
    ["hev", "0001 0b 01 7f000001 0035 61"],
    ["hev", "0001 05 03 00"],
    ["gost", "0001 00 01 7f000001 0035 61"],
    ["uot", "02 01 7f000001 0035"],
    ["uot", "00 05 7f000001 0035"],
    ["uot", "00 01 7f000001 0035 03 0101"],
    ["uot", "00 01 7f000001 0035 02 00"],
    ["udptunnel", "00"],
    ["udptunnel", "7564707475 6e6e656c 20627920 6d642f"],
  ])("%s: refuses %s", (name, hex) => {
    expect(read(new FrameReader(codec(name, "server")), [bytesOf(hex)])).toEqual(["malformed"]);
  });

  it("a truncated frame takes no more memory than its bytes that have arrived", () => {
    const reader = new FrameReader(codec("mullvad", "server"));
    expect(reader.next(bytesOf("fffe 00"), 0, 3)).toBe(FRAME_INCOMPLETE);
    expect(reader.data.length).toBeLessThan(1_000);
    expect(reader.frame.needed).toBe(0xfffe + 2);
  });
});

describe("first bytes", () => {
  const socks: FirstBytesProtocol = { name: "socks5", sniff: sniffSocks5 };
  const protocols = [
    socks,
    ...DIALECTS.flatMap(({ name, opening }) =>
      opening.kind === "first-bytes" ? [{ name, sniff: opening.sniff }] : [],
    ),
  ];
  const judge = (hex: string, isLate = false) => {
    const bytes = bytesOf(hex);
    const found = judgeFirstBytes(protocols, bytes, bytes.length, isLate);
    return typeof found === "string" ? found : found?.name;
  };
  const httpBytes = (text: string) => Buffer.from(text).toString("hex");

  it.each([
    [UDPTUNNEL_HELLO, "udptunnel"],
    [GNB_KEEPALIVE, "gnb"],
    ["0e00 02 0000 cb007105 1e61 68656c6c6f", "udpgw"],
    ["0300 01 0000", "udpgw"],
    ["1a00 0a 0100 2001", "udpgw"],
    ["050100", "socks5"],
    ["05020002", "socks5"],
    ["050100 05050001 00000000 0000", "socks5"],
    [httpBytes("GET / HTTP/1.1\r\n"), undefined],
    [httpBytes("CONNECT a:1 HTTP/1.1\r\n"), undefined],
    [httpBytes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), undefined],
    [httpBytes("\r\n\r\nGET / HTTP/1.1\r\n"), undefined],
    ["160301 0200 0100", undefined],
    ["ffffffff", undefined],
    ["050101", undefined],
    ["050000", undefined],
  ])("%s are recognised", (hex, name) => {
    expect(judge(hex)).toBe(name);
    // The verdict is final from some length on; a shorter prefix gives the same verdict or needs more bytes.
    const bytes = bytesOf(hex);
    for (let length = 1; length <= bytes.length; length++) {
      const found = judgeFirstBytes(protocols, bytes, length, false);
      expect(found === "more" || found === undefined || found.name === name).toBe(true);
      if (name !== undefined) expect(found).not.toBe(undefined);
    }
  });

  it("of no protocol are recognised within 3 bytes, unless they belong to a greeting", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 3, maxLength: 3 }), (bytes) => {
        const found = judgeFirstBytes(protocols, bytes, 3, false);
        if (found === "more") expect([0x05, 0x75]).toContain(bytes[0]);
      }),
    );
  });

  it("are judged at the deadline by what arrived", () => {
    expect(judge("7564")).toBe("more");
    expect(judge("7564", true)).toBe(undefined);
    expect(judge("05ff")).toBe("more");
    expect(judge("05ff", true)).toBe(undefined);
  });

  it("frames are never read past their end", () => {
    const frame = new Frame();
    for (const { name } of DIALECTS) {
      const it = codec(name, "server");
      expect(it.read(new Uint8Array(0), 0, 0, frame)).toBe(FRAME_INCOMPLETE);
      expect(frame.needed).toBeGreaterThan(0);
    }
  });
});
