import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Socks5Credentials } from "../../../../src/core/handshakes/socks5-server.ts";
import { Socks5ServerConnection } from "../../../../src/core/handshakes/socks5-server.ts";
import { asciiBytes, utf8Bytes } from "../../../../src/wire/http/http-head.ts";
import { formatAddress, makeAddress } from "../../../../src/wire/socket-address.ts";
import { encodeGreeting, encodeMessage, encodeUserPassword } from "../../../../src/wire/socks5.ts";
import { concat, cut, cutLengths } from "../../cuts.ts";
import { mutate, seededRandom } from "../../random.ts";

const CREDENTIALS = { user: "alice", password: "pässword" };
const ANYWHERE = makeAddress("0.0.0.0", 0)!;
const target = makeAddress("192.0.2.1", 53)!;
const name = makeAddress("a.test", 443)!;
const connect = encodeMessage(1, name);
const associate = encodeMessage(3, ANYWHERE);
const password = (user: string, word: string) => encodeUserPassword(utf8Bytes(user), utf8Bytes(word));
const rightPassword = password(CREDENTIALS.user, CREDENTIALS.password);

/** All outputs of a connection, as text: `write 05 00`, `request connect a.test:443`, `closed ERR_...`. */
function outputs(machine: Socks5ServerConnection): string[] {
  const texts: string[] = [];
  for (let output = machine.pollOutput(); output !== undefined; output = machine.pollOutput()) {
    if (output.kind === "write") texts.push(`write ${[...output.bytes].join(" ")}`);
    else if (output.kind === "request") {
      texts.push(`request ${output.command} ${formatAddress(output.address)}`);
    } else texts.push(`closed ${output.error?.code ?? "in order"}`);
  }
  return texts;
}

function talk(credentials: Socks5Credentials | undefined, ...pieces: readonly Uint8Array[]): string[] {
  const machine = new Socks5ServerConnection(0, credentials);
  for (const piece of pieces) machine.handleStream(0, piece);
  return outputs(machine);
}

describe("Socks5ServerConnection", () => {
  it.each([
    ["CONNECT to a name", connect, "request connect a.test:443"],
    ["CONNECT to IPv4", encodeMessage(1, target), "request connect 192.0.2.1:53"],
    [
      "CONNECT to IPv6",
      encodeMessage(1, makeAddress("2001:db8::1", 53)!),
      "request connect [2001:db8::1]:53",
    ],
    ["UDP ASSOCIATE", associate, "request udp-associate 0.0.0.0:0"],
  ])("accepts %s", (_, message, request) => {
    expect(talk(undefined, encodeGreeting([2, 0]), message)).toEqual(["write 5 0", request]);
    expect(talk(CREDENTIALS, encodeGreeting([0, 2]), rightPassword, message)).toEqual([
      "write 5 2",
      "write 1 0",
      request,
    ]);
  });

  it.each([
    ["version 4", [Uint8Array.of(4, 1)], ["closed ERR_SOCKS_VERSION"]],
    ["HTTP", [asciiBytes(`GET / HTTP/1.1\r\n${"x".repeat(600)}`)], ["closed ERR_SOCKS_VERSION"]],
    ["a greeting without methods", [Uint8Array.of(5, 0)], ["closed ERR_SOCKS_MALFORMED"]],
    [
      "a client that offers a password alone",
      [encodeGreeting([2])],
      ["write 5 255", "closed ERR_SOCKS_METHOD"],
    ],
    [
      "BIND",
      [encodeGreeting([0]), encodeMessage(2, target)],
      ["write 5 0", "write 5 7 0 1 0 0 0 0 0 0", "closed ERR_SOCKS_COMMAND"],
    ],
    [
      "command 255",
      [encodeGreeting([0]), encodeMessage(255, target)],
      ["write 5 0", "write 5 7 0 1 0 0 0 0 0 0", "closed ERR_SOCKS_COMMAND"],
    ],
    [
      "an unknown address type",
      [encodeGreeting([0]), Uint8Array.of(5, 1, 0, 9)],
      ["write 5 0", "closed ERR_SOCKS_MALFORMED"],
    ],
  ])("refuses %s, once", (_, pieces, expected) => {
    expect(talk(undefined, ...pieces)).toEqual(expected);
    expect(talk(undefined, ...pieces, new Uint8Array(1_000))).toEqual(expected);
    expect(talk(undefined, concat(...pieces, new Uint8Array(1_000)))).toEqual(expected);
  });

  it.each([
    ["no password offered", [encodeGreeting([0, 1])], ["write 5 255", "closed ERR_SOCKS_METHOD"]],
    ["another user", [password("bob", CREDENTIALS.password)], undefined],
    ["another password", [password(CREDENTIALS.user, "password")], undefined],
    ["the beginning of the password", [password(CREDENTIALS.user, "pässwor")], undefined],
    ["an empty password", [password(CREDENTIALS.user, "")], undefined],
    ["user and password exchanged", [password(CREDENTIALS.password, CREDENTIALS.user)], undefined],
    ["a request instead", [connect], ["write 5 2", "closed ERR_SOCKS_MALFORMED"]],
  ])("refuses, if a password is required, %s", (_, pieces, expected) => {
    const stream = expected?.[0] === "write 5 255" ? pieces : [encodeGreeting([2]), ...pieces];
    const refused = expected ?? ["write 5 2", "write 1 1", "closed ERR_SOCKS_AUTH"];
    expect(talk(CREDENTIALS, ...stream, connect)).toEqual(refused);
  });

  it("gives the same result however its bytes are cut, valid or not", () => {
    const random = seededRandom(51);
    const good = fc.constantFrom(
      [encodeGreeting([0, 2]), connect, asciiBytes("behind")],
      [encodeGreeting([0, 2]), associate],
      [encodeGreeting([2]), rightPassword, connect, asciiBytes("behind")],
      [encodeGreeting([2]), password("alice", "no"), connect],
      [encodeGreeting([0]), encodeMessage(2, name)],
    );
    fc.assert(
      fc.property(good, fc.boolean(), fc.boolean(), cutLengths, (messages, isMutant, isOpen, lengths) => {
        const credentials = isOpen ? undefined : CREDENTIALS;
        const whole = concat(...messages);
        const stream = isMutant ? mutate(random, whole) : whole;
        const [atOnce, inPieces] = [[stream], cut(stream, lengths)].map((pieces) => {
          const machine = new Socks5ServerConnection(0, credentials);
          for (const piece of pieces) machine.handleStream(0, piece);
          const said = outputs(machine);
          const isWaiting = said.at(-1)?.startsWith("request") === true;
          return { said, surplus: isWaiting ? machine.surplus : undefined };
        });
        expect(inPieces).toEqual(atOnce);
      }),
      { seed: 52, numRuns: 3_000 },
    );
  });

  it("accepts no command before the right password, whatever is sent", () => {
    const random = seededRandom(53);
    const message = fc.oneof(
      fc.constantFrom(
        encodeGreeting([0]),
        encodeGreeting([2]),
        encodeGreeting([0, 2]),
        connect,
        associate,
        password("alice", "password"),
        password("", ""),
        mutate(random, password("alice", "wrong")),
        Uint8Array.of(1, 0),
      ),
      fc.uint8Array({ maxLength: 30 }),
    );
    const openers = fc.constantFrom(encodeGreeting([2]), encodeGreeting([0, 2]), new Uint8Array(0));
    fc.assert(
      fc.property(openers, fc.array(message, { maxLength: 8 }), cutLengths, (opener, messages, lengths) => {
        const said = talk(CREDENTIALS, ...cut(concat(opener, ...messages), lengths));
        expect(said.filter((text) => text.startsWith("request") || text === "write 1 0")).toEqual([]);
      }),
      { seed: 54, numRuns: 3_000 },
    );
  });

  it("keeps the bytes after a CONNECT, up to 64 KiB", () => {
    const machine = new Socks5ServerConnection(0, undefined);
    machine.handleStream(0, concat(encodeGreeting([0]), connect, asciiBytes("early ")));
    machine.handleStream(0, asciiBytes("data"));
    expect(machine.surplus).toEqual(asciiBytes("early data"));
    machine.handleStream(0, new Uint8Array(65_536 - 10));
    expect(outputs(machine)).toEqual(["write 5 0", "request connect a.test:443"]);
    machine.handleStream(0, new Uint8Array(1));
    expect(outputs(machine)).toEqual(["closed ERR_SOCKS_MALFORMED"]);
    machine.reply(0, target);
    expect(outputs(machine)).toEqual([]);
  });

  it("answers a request once, and stays open only after a success", () => {
    const machines = [0, 4].map((code) => {
      const machine = new Socks5ServerConnection(0, undefined);
      machine.reply(0, target);
      machine.handleStream(0, concat(encodeGreeting([0]), connect));
      machine.reply(code, target);
      machine.reply(code, target);
      machine.handleStream(0, associate);
      return outputs(machine).slice(2);
    });
    expect(machines).toEqual([
      ["write 5 0 0 1 192 0 2 1 0 53"],
      ["write 5 4 0 1 192 0 2 1 0 53", "closed in order"],
    ]);
  });

  it("closes when the request is not complete after 10 s, and has no deadline after it", () => {
    const slow = new Socks5ServerConnection(1_000, undefined);
    slow.handleStream(9_000, encodeGreeting([0]));
    expect(slow.nextTimeout()).toBe(11_000);
    slow.handleTimeout(10_999);
    expect(outputs(slow)).toEqual(["write 5 0"]);
    slow.handleTimeout(11_000);
    slow.handleTimeout(12_000);
    expect(outputs(slow)).toEqual(["closed ERR_HANDSHAKE_TIMEOUT"]);
    slow.handleStream(12_000, connect);
    expect(outputs(slow)).toEqual([]);
    const quick = new Socks5ServerConnection(1_000, undefined);
    quick.handleStream(1_000, concat(encodeGreeting([0]), connect));
    expect(quick.nextTimeout()).toBe(Number.POSITIVE_INFINITY);
    quick.handleTimeout(1_000_000);
    expect(outputs(quick)).toHaveLength(2);
  });
});
