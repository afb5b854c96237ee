import { isIPv6 } from "node:net";
import fc from "fast-check";
import ipaddr from "ipaddr.js";
import { describe, expect, it } from "vitest";
import { decodeWholeAddress, fromIpVersionForm } from "../../../src/wire/capsule.ts";
import {
  ATYP_DOMAIN,
  ATYP_IPV4,
  ATYP_IPV6,
  addressDomain,
  addressLength,
  addressPort,
  copyAddress,
  copyOf,
  formatAddress,
  formatHost,
  ipAddress,
  makeAddress,
  parseIpv4,
  parseIpv6,
  writeAddress,
} from "../../../src/wire/socket-address.ts";
import { decodeMessage, UdpHeader } from "../../../src/wire/socks5.ts";

const RUNS = 5_000;
const port = fc.nat(65_535);

/** Parts of addresses put together at random: about as many good texts as bad ones. */
const ipv4Text = fc
  .array(
    fc.oneof(
      { weight: 8, arbitrary: fc.nat(255).map(String) },
      fc.constantFrom("256", "00", "01", "", "0x1", "-1", " 1", "1e1", "999999999999"),
    ),
    {
      minLength: 3,
      maxLength: 5,
      size: "max",
    },
  )
  .map((parts) => parts.join("."));

const group = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom("0", "00", "0000", "1", "a", "F", "dB8", "ffff", "0001") },
  fc.constantFrom("", "10000", "g", "00000", "-1", " 1", "0x1"),
);
const ipv6Text = fc
  .tuple(
    fc.array(group, { maxLength: 9, size: "max" }),
    fc.option(fc.nat(8)),
    fc.option(fc.oneof(fc.ipV4(), fc.constantFrom("1.2.3", "1.2.3.256", "1.2.3.4.5"))),
  )
  .map(([groups, gap, ipv4]) => {
    const parts = ipv4 === null ? groups : [...groups, ipv4];
    if (gap === null || gap > parts.length) return parts.join(":");
    return `${parts.slice(0, gap).join(":")}::${parts.slice(gap).join(":")}`;
  });

/** ipaddr.js treats any IPv4 at the end as mapped, so it gets that part as two groups. */
function inGroups(text: string): string {
  return text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...parts) => {
    const [a, b, c, d] = parts.map(Number);
    return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  });
}

/** Groups of which about half are 0, so that there are runs of zeros to choose from. */
const ipv6Bytes = fc
  .array(fc.oneof(fc.constant(0), fc.nat(0xffff), fc.nat(0xf)), { minLength: 8, maxLength: 8 })
  .map((groups) => groups.flatMap((value) => [value >> 8, value & 0xff]));

describe("texts of IP addresses", () => {
  it("are read as IPv4 exactly if ipaddr.js sees four decimal parts, as the same bytes", () => {
    let good = 0;
    fc.assert(
      fc.property(ipv4Text, (text) => {
        const isGood = ipaddr.IPv4.isValidFourPartDecimal(text);
        if (isGood) good++;
        const bytes = isGood ? ipaddr.IPv4.parse(text).toByteArray() : undefined;
        expect({ text, bytes: parseIpv4(text) && [...parseIpv4(text)!] }).toEqual({ text, bytes });
      }),
      { seed: 81, numRuns: RUNS },
    );
    expect(good).toBeGreaterThan(RUNS / 20);
  });

  it("are read as IPv6 exactly if node:net does, as the bytes that ipaddr.js reads", () => {
    let good = 0;
    fc.assert(
      fc.property(fc.oneof(ipv6Text, fc.ipV6()), (text) => {
        const isGood = isIPv6(text);
        if (isGood) good++;
        const bytes = isGood ? ipaddr.IPv6.parse(inGroups(text)).toByteArray() : undefined;
        expect({ text, bytes: parseIpv6(text) && [...parseIpv6(text)!] }).toEqual({ text, bytes });
      }),
      { seed: 82, numRuns: RUNS },
    );
    expect(good).toBeGreaterThan(RUNS / 5);
  });

  it("are written as RFC 5952 requires, and read back", () => {
    fc.assert(
      fc.property(ipv6Bytes, port, (bytes, number) => {
        const text = ipaddr.fromByteArray(bytes).toString();
        const address = Uint8Array.of(ATYP_IPV6, ...bytes, number >> 8, number & 0xff);
        expect(formatHost(address)).toBe(text);
        expect(formatAddress(address)).toBe(`[${text}]:${number}`);
        expect(makeAddress(text, number)).toEqual(address);
      }),
      { seed: 83, numRuns: RUNS },
    );
  });

  it.each([
    ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
    ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
    ["0:0:0:0:0:0:0:0", "::"],
    ["1:0:0:0:0:0:0:0", "1::"],
    ["2001:DB8::0001", "2001:db8::1"],
    ["::ffff:192.0.2.1", "192.0.2.1"],
    ["0:0:0:0:0:FFFF:c000:0201", "192.0.2.1"],
    ["::fffe:c000:201", "::fffe:c000:201"],
    ["::ffff:0:c000:201", "::ffff:0:c000:201"],
    ["64:ff9b::192.0.2.1", "64:ff9b::c000:201"],
    ["192.0.2.1", "192.0.2.1"],
  ])("%s is written %s", (text, written) => {
    expect(formatHost(makeAddress(text, 1)!)).toBe(written);
  });
});

describe("makeAddress", () => {
  it("returns IPv4 for a dotted quad, and a name for other printable ASCII", () => {
    expect([...makeAddress("192.0.2.1", 0x1234)!]).toEqual([ATYP_IPV4, 192, 0, 2, 1, 0x12, 0x34]);
    expect([...makeAddress("a.b", 1)!]).toEqual([ATYP_DOMAIN, 3, 0x61, 0x2e, 0x62, 0, 1]);
    expect(formatAddress(makeAddress("a.b", 65_535)!)).toBe("a.b:65535");
  });

  it.each([
    "",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.256",
    "01.2.3.4",
    "1",
    "fe80::1%eth0",
    "[::1]",
    "::1::",
    "a b",
    "é.test",
    "a\n",
    "x".repeat(256),
  ])("refuses the host %j", (host) => {
    expect(makeAddress(host, 1)).toBeUndefined();
  });

  it.each([-1, 65_536, 1.5, Number.NaN])("refuses port %d", (number) => {
    expect(makeAddress("192.0.2.1", number)).toBeUndefined();
  });

  it("returns an address that addressLength accepts whole, and asks for the rest of if truncated", () => {
    const host = fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain());
    fc.assert(
      fc.property(host, port, fc.nat(30), (text, number, offset) => {
        const address = makeAddress(text, number)!;
        expect(addressPort(address)).toBe(number);
        if (address[0] === ATYP_DOMAIN) expect(addressDomain(address)).toBe(text);
        const bytes = new Uint8Array(offset + address.length + 5);
        bytes.set(address, offset);
        expect(addressLength(bytes, offset, bytes.length)).toBe(address.length);
        for (let have = 0; have < address.length; have++) {
          const need = -addressLength(bytes, offset, offset + have);
          expect(need > 0 && need <= address.length - have).toBe(true);
        }
      }),
      { seed: 84, numRuns: 500 },
    );
  });
});

describe("an IPv4-mapped address is IPv4, wherever it is read", () => {
  const mapped = (ip: Uint8Array, number: number) =>
    Uint8Array.of(ATYP_IPV6, ...Array(10).fill(0), 0xff, 0xff, ...ip, number >> 8, number & 0xff);
  const ipVersionForm = (bytes: Uint8Array) => Uint8Array.of(6, ...bytes.subarray(1));
  const header = new UdpHeader();
  /** Each takes the 19 bytes of an address of ATYP 4. */
  const doors: Record<string, (bytes: Uint8Array) => Uint8Array | undefined> = {
    copyAddress: (bytes) => copyAddress(bytes, 0, bytes.length),
    ipAddress: (bytes) => ipAddress(bytes.subarray(1, 17), addressPort(bytes)),
    makeAddress: (bytes) =>
      makeAddress(new ipaddr.IPv6([...bytes.subarray(1, 17)]).toString(), addressPort(bytes)),
    writeAddress: (bytes) => {
      const to = new Uint8Array(19);
      return to.slice(0, writeAddress(to, 0, bytes, 1, 16, 17));
    },
    "a capsule's address": (bytes) => decodeWholeAddress(bytes, 0, bytes.length),
    "an address in IP-version form": (bytes) => fromIpVersionForm(ipVersionForm(bytes), 0, bytes.length),
    "a SOCKS5 message": (bytes) => {
      const decoded = decodeMessage(Uint8Array.of(5, 3, 0, ...bytes), 3 + bytes.length);
      return decoded !== "malformed" && "value" in decoded ? decoded.value.address : undefined;
    },
    "a SOCKS5 UDP header": (bytes) => {
      const datagram = Uint8Array.of(0, 0, 0, ...bytes, 1, 2);
      expect(header.read(datagram, 0, datagram.length)).toBe(3 + bytes.length);
      const { addresses, addressOffset: at, addressLength: length } = header;
      return addresses.slice(at, at + length);
    },
  };

  it.each(Object.entries(doors))("%s", (_, door) => {
    const ip = fc.uint8Array({ minLength: 4, maxLength: 4 });
    fc.assert(
      fc.property(ip, port, (bytes, number) => {
        const address = mapped(bytes, number);
        const untouched = address.slice();
        expect(door(address)).toEqual(Uint8Array.of(ATYP_IPV4, ...bytes, number >> 8, number & 0xff));
        expect(address).toEqual(untouched);
      }),
      { seed: 85, numRuns: 200 },
    );
  });

  it.each(Object.entries(doors))("%s, and one bit beside it is IPv6", (_, door) => {
    for (let bit = 0; bit < 96; bit++) {
      const address = mapped(Uint8Array.of(192, 0, 2, 1), 53);
      address[1 + (bit >> 3)] ^= 0x80 >> (bit & 7);
      expect(door(address)).toEqual(address);
    }
  });
});

it("addressDomain shows a question mark for anything but printable ASCII", () => {
  const bytes = [0x61, 0x0a, 0x20, 0xe9, 0x7f, 0x62];
  expect(addressDomain(Uint8Array.of(ATYP_DOMAIN, bytes.length, ...bytes, 0, 1))).toBe("a????b");
});

it("copies even where a Buffer's own slice would share memory", () => {
  const chunk = Buffer.from([9, ...makeAddress("192.0.2.1", 53)!, 9]);
  const copy = copyOf(chunk, 1, 7);
  chunk.fill(0);
  expect(formatAddress(copy)).toBe("192.0.2.1:53");
});
