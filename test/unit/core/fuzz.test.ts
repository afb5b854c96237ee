import { describe, expect, it } from "vitest";
import { FrameReader } from "../../../src/core/dialects/frame-reader.ts";
import { HttpConnect } from "../../../src/core/handshakes/http-connect.ts";
import { Socks5Client } from "../../../src/core/handshakes/socks5-client.ts";
import { Socks5ServerConnection } from "../../../src/core/handshakes/socks5-server.ts";
import { CapsuleReader, READ_CAPSULE } from "../../../src/core/session/capsule-reader.ts";
import { decodeBase64 } from "../../../src/wire/base64.ts";
import {
  datagramHeaderLength,
  decodeWholeAddress,
  encodeAssociationClose,
  encodeAssociationOpen,
  encodeCompressionAck,
  encodeCompressionAssign,
  encodeCompressionClose,
  encodeContextAssign,
  encodeDscp,
  encodeHeartbeat,
  encodeHeartbeatEcho,
  encodeLatencyClass,
  encodeUnreachable,
  ipVersionFormLength,
  isDomain,
  readNumbers,
  writeDatagramHeader,
} from "../../../src/wire/capsule.ts";
import { FRAME_DATAGRAM } from "../../../src/wire/dialects/dialect.ts";
import { DIALECTS, sniffSocks5 } from "../../../src/wire/dialects/dialects.ts";
import { encodeRequestOfHttp2 } from "../../../src/wire/http/extended-connect.ts";
import { judgeFirstBytes, MAX_SNIFFED_BYTES } from "../../../src/wire/http/first-bytes.ts";
import { asciiBytes, decodeHead, findHeadEnd } from "../../../src/wire/http/http-head.ts";
import {
  BIND_PATH,
  decodeUpgradeRequest,
  decodeUpgradeResponse,
  encodeUpgradeRequest,
  encodeUpgradeResponse,
} from "../../../src/wire/http/upgrade.ts";
import { parseUdpProxyTemplate } from "../../../src/wire/http/uri-template.ts";
import {
  ATYP_IPV4,
  ATYP_IPV6,
  addressLength,
  makeAddress,
  parseIpv4,
  parseIpv6,
} from "../../../src/wire/socket-address.ts";
import {
  decodeGreeting,
  decodeMessage,
  decodeMethod,
  decodeUserPassword,
  decodeUserPasswordStatus,
  encodeGreeting,
  encodeMessage,
  encodeUserPassword,
  UdpHeader,
} from "../../../src/wire/socks5.ts";
import { readVarint, varintLengthFrom } from "../../../src/wire/varint.ts";
import { Network } from "../../sim/network.ts";
import { mutate, randomBytes, seededRandom } from "../random.ts";

const MILLION = 1_000_000;
const ipv4 = makeAddress("192.0.2.1", 53)!;
const ipv6 = makeAddress("2001:db8::1", 443)!;
const name = makeAddress("example.test", 443)!;

/** Half of the inputs are random, half are mutated good ones. */
function inputs(
  seed: number,
  count: number,
  valid: readonly Uint8Array[],
  use: (bytes: Uint8Array) => void,
): void {
  const random = seededRandom(seed);
  for (let i = 0; i < count; i++) {
    const isMutant = valid.length > 0 && i % 2 === 0;
    use(isMutant ? mutate(random, valid[random() % valid.length]) : randomBytes(random, random() % 64));
  }
}

const head = (text: string) => asciiBytes(text.replaceAll("\n", "\r\n"));
const extension = {
  nonce: new Uint8Array(16),
  lane: 0,
  ticket: { bytes: new Uint8Array(24), age: 1 },
  session: new Uint8Array(16),
  receipts: true,
  mac: new Uint8Array(32),
  resumeMac: new Uint8Array(32),
};
const requests = [
  encodeUpgradeRequest("a", BIND_PATH, true, extension),
  encodeUpgradeRequest("a", "/.well-known/masque/udp/192.0.2.1/53/", false, undefined),
  head(
    "GET https://a/.well-known/masque/udp/%3A%3A1/53/ HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: connect-udp\n\n",
  ),
];
const responses = [
  encodeUpgradeResponse(true, ["192.0.2.1:5"], { ...extension, resumed: true }),
  head("HTTP/1.1 401 Unauthorized\nUnderpass: v=1, c=:AQEBAQEBAQEBAQEBAQEBAQ==:\n\n"),
];

describe("a million random and mutated inputs neither throw, nor hang, nor are read past their end in", () => {
  it("the decoders of varints and numbers", () => {
    const numbers = [0, 0, 0];
    inputs(1, MILLION, [], (bytes) => {
      if (bytes.length >= 8) expect(readVarint(bytes, 0)).toBeGreaterThanOrEqual(-1);
      if (bytes.length > 0 && ![1, 2, 4, 8].includes(varintLengthFrom(bytes[0]))) throw new Error("length");
      const end = readNumbers(bytes, 0, bytes.length, 3, numbers);
      if (end > bytes.length) throw new Error("past the end");
    });
  });

  it("the decoders of addresses", () => {
    inputs(2, MILLION, [ipv4, ipv6, name], (bytes) => {
      if (addressLength(bytes, 0, bytes.length) > bytes.length) throw new Error("past the end");
      const whole = decodeWholeAddress(bytes, 0, bytes.length);
      const isMapped = bytes[0] === ATYP_IPV6 && whole?.[0] === ATYP_IPV4;
      if (whole !== undefined && whole.length !== bytes.length - (isMapped ? 12 : 0))
        throw new Error("not whole");
      if (ipVersionFormLength(bytes, 0, bytes.length) > bytes.length) throw new Error("past the end");
    });
  });

  it("the parsers of addresses and base64", () => {
    inputs(
      3,
      MILLION,
      [asciiBytes("192.0.2.1"), asciiBytes("2001:db8::1"), asciiBytes("AQEBAQ==")],
      (bytes) => {
        const text = String.fromCharCode(...bytes);
        const four = parseIpv4(text);
        const six = parseIpv6(text);
        const built = makeAddress(text, 1);
        if (four !== undefined && four.length !== 4) throw new Error("IPv4");
        if (six !== undefined && six.length !== 16) throw new Error("IPv6");
        if (built !== undefined && addressLength(built, 0, built.length) !== built.length)
          throw new Error("built");
        decodeBase64(text);
      },
    );
  });

  it("the decoders of SOCKS5 messages and UDP headers", () => {
    const valid = [
      encodeGreeting([0, 2]),
      encodeUserPassword(asciiBytes("user"), asciiBytes("password")),
      ...[ipv4, ipv6, name].map((address) => encodeMessage(1, address)),
      ...[ipv4, ipv6, name].map((address) => Uint8Array.of(0, 0, 0, ...address, 1, 2, 3)),
    ];
    const udpHeader = new UdpHeader();
    const decoders = [
      decodeGreeting,
      decodeMethod,
      decodeUserPassword,
      decodeUserPasswordStatus,
      decodeMessage,
    ];
    inputs(4, MILLION, valid, (bytes) => {
      if (udpHeader.read(bytes, 0, bytes.length) > bytes.length) throw new Error("past the end");
      for (const decode of decoders) {
        const result = decode(bytes, bytes.length);
        if (result === "malformed") continue;
        if ("need" in result ? result.need < 1 : result.length > bytes.length) throw new Error(decode.name);
      }
    });
  });

  it("the decoders of HTTP heads and of what they contain", () => {
    inputs(5, MILLION, [...requests, ...responses], (bytes) => {
      const end = findHeadEnd(bytes, 0, bytes.length);
      if (end < 0) return;
      const decoded = decodeHead(bytes, end);
      if (decoded === undefined) return;
      decodeUpgradeRequest(decoded);
      decodeUpgradeResponse(decoded);
    });
  });

  it("the parser of URI templates, and of HTTP/2 requests in terms of HTTP/1.1", () => {
    const templates = [
      "https://a/{target_host}/{target_port}/",
      "http://a:1/b{?target_host,target_port}{&c}",
    ];
    inputs(8, MILLION, templates.map(asciiBytes), (bytes) => {
      const text = String.fromCharCode(...bytes);
      const template = parseUdpProxyTemplate(text);
      if (typeof template !== "string" && !template.expand("::1", 1).startsWith("/")) throw new Error(text);
      const request = encodeRequestOfHttp2({
        ":method": "CONNECT",
        ":protocol": "connect-udp",
        ":path": text,
      });
      if (request !== undefined && decodeHead(request, request.length) === undefined) throw new Error(text);
    });
  });

  it("the reader of capsules, with and without the extension", () => {
    const valid = [...controlCapsules(), ...serverCapsules()];
    const sets = ["extension", "bind", "datagram"] as const;
    const readers = sets.map((known) => new CapsuleReader(known));
    let count = 0;
    inputs(6, MILLION, valid, (bytes) => {
      const isLast = ++count % 8 === 0;
      for (const [index, reader] of readers.entries()) {
        let status = READ_CAPSULE;
        for (let at = 0; status === READ_CAPSULE; at = reader.offset) {
          status = reader.next(bytes, at, bytes.length);
          if (reader.offset > bytes.length) throw new Error("past the end");
          if (status === READ_CAPSULE && reader.valueEnd > reader.data.length)
            throw new Error("past the end");
        }
        // A reader inside a long value would take the rest as part of it.
        if (status > READ_CAPSULE || isLast) readers[index] = new CapsuleReader(sets[index]);
      }
    });
  });

  it("the sniffers and decoders of all dialects", () => {
    const seeds = [
      ...[
        "0005 68656c6c6f",
        "001c6b00000000006b0769ff6b656570616c69766500000000000000",
        "00096f0068656c6c6f",
      ],
      ...["0e00020000cb0071051e6168656c6c6f", "1a000a010020010db8000000000000000000000001003568656c6c6f"],
      ...["00050a01cb0071051e6168656c6c6f", "0002080301611e616869", "0005ff01cb0071051e6168656c6c6f"],
      ...[
        "0001c0000201000900cb0071051e61000568656c6c6f",
        "0101cb0071051e61000568656c6c6f",
        "0201610035000161",
      ],
      "756470747566e6e656c206279206d642e00000001030610152128364555667891000568656c6c6f",
    ].map((hex) => new Uint8Array(Buffer.from(hex.replaceAll(" ", ""), "hex")));
    const kinds = DIALECTS.flatMap((dialect) => {
      const one = makeAddress("sp.udp-over-tcp.arpa", 0);
      return (["client", "server"] as const).flatMap((role) =>
        [undefined, one].map((request) => () => new FrameReader(dialect.codec(role, request))),
      );
    });
    const readers = kinds.map((make) => make());
    const protocols = DIALECTS.flatMap(({ name, opening }) =>
      opening.kind === "first-bytes" ? [{ name, sniff: opening.sniff }] : [],
    );
    protocols.push({ name: "socks5", sniff: sniffSocks5 });
    let count = 0;
    inputs(8, MILLION / 2, seeds, (bytes) => {
      const found = judgeFirstBytes(protocols, bytes, bytes.length, false);
      if (found === "more" && bytes.length >= MAX_SNIFFED_BYTES) throw new Error("never told");
      const isLast = ++count % 4 === 0;
      for (const [index, reader] of readers.entries()) {
        let status = 1;
        for (let at = 0; status > 0; at = reader.offset) {
          status = reader.next(bytes, at, bytes.length);
          const { frame, data, offset } = reader;
          if (offset > bytes.length || (status > 0 && offset < at)) throw new Error("past the end");
          if (status === 0 && frame.needed > 66_000) throw new Error("needs more than a frame");
          if (status <= 0 || frame.kind !== FRAME_DATAGRAM) continue;
          if (frame.dataOffset > frame.dataEnd || frame.dataEnd > data.length) throw new Error("payload");
          const { addresses, addressOffset, addressLength: length } = frame;
          if (length > 0 && addressLength(addresses, addressOffset, addresses.length) !== length) {
            throw new Error("address");
          }
        }
        if (status < 0 || isLast) readers[index] = kinds[index]();
      }
    });
  });

  it("the machines of SOCKS5 and CONNECT handshakes", () => {
    const random = seededRandom(7);
    const valid = [
      encodeGreeting([0, 2]),
      encodeUserPassword(asciiBytes("u"), asciiBytes("p")),
      encodeMessage(3, ipv4),
    ];
    const answers = [
      Uint8Array.of(5, 0),
      Uint8Array.of(1, 0),
      encodeMessage(0, ipv4),
      head("HTTP/1.1 200 OK\n\n"),
    ];
    for (let i = 0; i < 200_000; i++) {
      const server = new Socks5ServerConnection(0, i % 2 === 0 ? undefined : { user: "u", password: "p" });
      const clients = [
        new Socks5Client(name, { user: "u", password: "p" }),
        new HttpConnect("a:1", undefined),
      ];
      for (let part = 0; part < 5; part++) {
        server.handleStream(0, mutate(random, valid[random() % valid.length]));
        const answer =
          random() % 2 === 0 ? answers[random() % answers.length] : mutate(random, answers[part % 4]);
        for (const client of clients) client.handleStream(answer);
      }
      for (let output = server.pollOutput(); output !== undefined; output = server.pollOutput());
    }
  });
});

/** Good capsules that only a server sends: from a client they end the tunnel. */
function serverCapsules(): Uint8Array[] {
  return [encodeUnreachable(2, "port", 0), encodeUnreachable(1, "too-big", 1280)];
}

/** Good capsules from a client that do not end its tunnel. */
function honestCapsules(): Uint8Array[] {
  const [datagram] = controlCapsules();
  return [
    datagram,
    datagram,
    encodeAssociationOpen(1, undefined),
    encodeLatencyClass(1, 0),
    encodeDscp(1, 46),
    encodeContextAssign(2, 1, ipv4),
    encodeContextAssign(4, 1, name),
    encodeCompressionAck(2),
    encodeCompressionClose(2),
    encodeHeartbeat(1, 2),
    encodeAssociationClose(1, "done"),
  ];
}

/** Good capsules of every other type. */
function controlCapsules(): Uint8Array[] {
  const datagram = new Uint8Array(datagramHeaderLength(2, 5) + 5);
  writeDatagramHeader(datagram, 0, 2, 5);
  return [
    datagram,
    encodeCompressionAssign(2, ipv4),
    encodeCompressionAssign(4, undefined),
    encodeCompressionAck(1),
    encodeCompressionClose(2),
    encodeHeartbeat(1, 2),
    encodeHeartbeatEcho(0, 2),
    encodeAssociationOpen(1, ipv6),
    encodeAssociationOpen(2, undefined),
    encodeLatencyClass(1, 2),
    encodeDscp(1, 63),
    encodeAssociationClose(1, "done"),
    encodeContextAssign(2, 1, ipv4),
    encodeContextAssign(4, 1, name),
    encodeContextAssign(1, 1, ipv6),
  ];
}

describe("200,000 chunks of random and mutated capsules after the handshake", () => {
  it("leave both ends within their bounds, and let others' datagrams through", () => {
    const network = new Network({
      server: { maxAssociationsPerSession: 50, maxContextsPerSession: 200, idleTimeoutMs: Number.MAX_VALUE },
      client: { maxContexts: 200 },
    });
    network.start();
    network.advance(100);
    const honest = network.client.openAssociation(network.now, undefined, false);
    const random = seededRandom(8);
    const valid = controlCapsules();
    const { server } = network;
    let connection = -1;
    let resets = 0;
    let rows = 0;
    for (let i = 0; i < 200_000; i++) {
      if (connection >= 0 && i % 100 === 0) {
        // A mutant may have started an unknown capsule that consumes the rest.
        server.handleDisconnected(network.now, connection);
        connection = -1;
      }
      if (connection < 0) {
        connection = server.handleAccept(network.now);
        const request = encodeUpgradeRequest("a", BIND_PATH, true, {
          ...extension,
          nonce: randomBytes(random, 16),
          session: undefined,
          receipts: false,
          mac: undefined,
          resumeMac: undefined,
        });
        server.handleStream(network.now, connection, request, 0, request.length);
        resets++;
      }
      const bytes = Buffer.concat(
        Array.from({ length: 1 + (random() % 6) }, () => {
          const some = random() % 16 === 0 ? valid : honestCapsules();
          const good = some[random() % some.length];
          if (random() % 50 === 0) return randomBytes(random, 20);
          return random() % 16 === 0 ? mutate(random, good) : good;
        }),
      );
      for (let at = 0; at < bytes.length; ) {
        at = server.handleStream(network.now, connection, bytes, at, bytes.length);
        const { outgoing, contexts } = server;
        for (let row = 0; row < outgoing.count; row++) {
          const target = contexts.target[outgoing.context[row]];
          // No datagram goes to a name, and contexts keep their meaning.
          if (target === undefined || isDomain(target)) throw new Error("no target");
          if (contexts.association[outgoing.context[row]] !== outgoing.association[row])
            throw new Error("another's");
          rows++;
        }
      }
      if (server.pollTransmit(network.now, connection) !== undefined) server.handleTransmitted(connection);
      for (let output = server.pollOutput(); output !== undefined; output = server.pollOutput()) {
        if (output.kind === "resolve") server.handleResolved(network.now, output.query, [ipv4]);
        if (output.kind !== "close" || output.connection !== connection) continue;
        server.handleDisconnected(network.now, connection);
        connection = -1;
      }
      while (server.pollDirty(network.now) >= 0);
      if (i % 10_000 === 0) {
        network.now += 1;
        network.send(honest, "192.0.2.9:53", `honest ${i}`);
        network.settle();
        expect(network.arrived.at(-1)?.payload).toBe(`honest ${i}`);
      }
    }
    expect(resets).toBeGreaterThan(5_000);
    expect(rows).toBeGreaterThan(1_000);
    expect(server.sessionCount).toBeLessThanOrEqual(64);
    expect(server.associationCount).toBeLessThanOrEqual(64 * 50);
    expect(server.contexts.size).toBeLessThanOrEqual(64 * 200);
  });

  it("do the client no harm when they come from the server", () => {
    const random = seededRandom(9);
    const valid = [...controlCapsules(), ...serverCapsules()];
    const network = new Network({ client: { maxContexts: 100 } });
    network.start();
    network.advance(100);
    const association = network.client.openAssociation(network.now, undefined, false);
    const { client } = network;
    let rows = 0;
    for (let i = 0; i < 200_000; i++) {
      if (i % 100 === 0) network.cutConnections();
      if (!client.isUp) network.advance(6_000);
      if (i % 10 === 0) network.send(association, `192.0.2.${1 + (i % 3)}:53`, "x");
      const bytes = Buffer.concat(
        Array.from({ length: 1 + (random() % 6) }, () => {
          const good = random() % 4 === 0 ? valid[random() % valid.length] : valid[0];
          return random() % 8 === 0 ? mutate(random, good) : good;
        }),
      );
      for (let at = 0; at < bytes.length; ) {
        at = client.handleStream(network.now, 0, bytes, at, bytes.length);
        const { received, contexts } = client;
        for (let row = 0; row < received.count; row++) {
          if (contexts.address[received.context[row]] === undefined) throw new Error("no source");
          rows++;
        }
      }
      network.settle();
    }
    expect(client.contexts.size).toBeLessThanOrEqual(100);
    expect(rows).toBeGreaterThan(20);
    network.advance(6_000);
    network.cutConnections();
    network.advance(6_000);
    network.send(association, "192.0.2.1:53", "still here");
    network.settle();
    expect(network.arrived.at(-1)?.payload).toBe("still here");
  });
});
