import type { Socket as UdpSocket } from "node:dgram";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import type { Socket } from "node:net";
import { connect } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { UdpLocal, UdpServer } from "../../../src/node/handles.ts";
import { hostOf } from "../../support/hosts.ts";
import { residentBytes, startUdpLocal, startUdpServer } from "../../support/start.ts";
import { startUdpEcho } from "../../support/udp-echo.ts";
import { mutate, seededRandom } from "../../unit/random.ts";

/** Connections of an attack. Set ATTACKERS for more if the system allows that many descriptors. */
const CONNECTIONS = Number(process.env.ATTACKERS ?? 400);
/** Fewer than the half-open connections of an attack, ... */
const FEW_HALF_OPEN = 64;
/** ... or more than all connections, for tests that need every one read: a busy machine accepts many before it reads. */
const ALL_HALF_OPEN = 2 * CONNECTIONS;
const KEY = Buffer.alloc(32, "k");
const MIB = 1_048_576;
const bytesOf = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");

/** First bytes that fit several protocols, fit none, or never end. */
const AMBIGUOUS = [
  "",
  "47",
  "4745",
  "05",
  "05ff",
  "050102",
  "75647074",
  "00",
  "001c",
  "0e00",
  "0d0a",
  "0d0a0d0a",
  "50524920",
];
const GREETING = "7564707475 6e6e656c 20627920 6d642e 00000001 03061015 21283645 55667891";
/** Bytes of each dialect's clients, from which the test makes malformed ones. */
const FRAMES = [
  `${GREETING} 0005 68656c6c6f`,
  "001c 6b00 000000006b0769ff 6b656570616c697665 00000000000000 0009 6f00 68656c6c6f",
  "0e00 02 0000 7f000001 1e61 68656c6c6f 1a00 0a 0100 20010db8000000000000000000000001 0035 68656c6c6f",
  "050100 05050001 00000000 0000 0005 0a 01 7f000001 1e61 68656c6c6f",
  "050100 05f30001 00000000 0000 0005 ff 01 7f000001 1e61 68656c6c6f",
  "050100 05010003 17 73702e76322e7564702d6f7665722d7463702e61727061 0000 00 01 7f000001 1e61 00 7f000001 1e61 0002 6869",
].map(bytesOf);
/** The HTTP/2 preface, SETTINGS, and unfinished HEADERS of an extended CONNECT. */
const HTTP2 = Buffer.concat([
  Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
  bytesOf("000000 04 00 00000000 000005 01 00 00000001 4107434f4e"),
]);
const SHADOWSOCKS = "ss://chacha20-ietf-poly1305:attacked@127.0.0.1:";
const OBFS = { listen: "/?plugin=obfs-server%3Bobfs%3Dhttp", via: "/?plugin=obfs-local%3Bobfs%3Dhttp" };
/** The C library lacks HTTP/2 at either end (test/support/c-host-lacks.ts). */
const HTTP_VERSIONS = hostOf("local") === "c" || hostOf("server") === "c" ? ["1.1"] : ["1.1", "2"];
const MASQUE = "/.well-known/masque/udp/{target_host}/{target_port}/";

/** Whether the attacker with this number connects to the shadowsocks port. */
const isProbe = (attacker: number) => attacker % 4 === 3;

/** A server without a key accepts HTTP/2, too. Shadowsocks needs its own port, because its bytes look like noise. */
describe.each([
  ["with a key", { psk: KEY }],
  ["without a key", {}],
])("a listener with all protocols on one port, and a shadowsocks listener beside it, %s", (_, key) => {
  const beginnings = "psk" in key ? AMBIGUOUS : [...AMBIGUOUS, HTTP2.subarray(0, 24).toString("hex")];
  const frames = "psk" in key ? FRAMES : [...FRAMES, HTTP2];
  let server: UdpServer;
  let honest: UdpLocal[];
  let apps: UdpSocket[];
  let echo: UdpSocket;
  /** All listen on 127.0.0.1. */
  let ports: number[];
  let attackers: Socket[];

  beforeEach(() => {
    attackers = [];
    honest = [];
    apps = [];
  });

  /** Starts the server and its honest clients, and expects an answer for each. */
  async function start(maxHalfOpen: number): Promise<void> {
    echo = await startUdpEcho();
    const target = `127.0.0.1:${echo.address().port}`;
    server = await startUdpServer({
      listen: ["127.0.0.1:0", `${SHADOWSOCKS}0${OBFS.listen}`],
      ...key,
      wsPath: "/tunnel",
      allow: ["127.0.0.1/32"],
      dialects: ["udptunnel,gnb,udpgw,hev,gost,uot"],
      dialectTarget: target,
      handshakeTimeoutMs: 2_000,
      maxHalfOpen,
    });
    const at = server.address.listen[0];
    ports = server.address.listen.map((listen) => Number(/:(\d+)$/.exec(listen)![1]));
    const forwards = [{ listen: "127.0.0.1:0", target }];
    honest.push(await startUdpLocal({ server: at, ...key, forwards }));
    await once(honest[0], "session-up");
    honest.push(
      await startUdpLocal({ server: at, via: [`${SHADOWSOCKS}${ports[1]}${OBFS.via}`], ...key, forwards }),
    );
    for (const dialect of ["udptunnel", "gnb", "udpgw", "hev", "gost", "uot"]) {
      honest.push(await startUdpLocal({ server: at, dialect, forwards }));
    }
    if (!("psk" in key)) {
      for (const version of HTTP_VERSIONS)
        honest.push(await startUdpLocal({ masque: `http://${at}${MASQUE}#http=${version}`, forwards }));
    }
    apps = honest.map(({ address }) => {
      const socket = createSocket("udp4");
      socket.connect(Number(address.forwards[0].listen.split(":")[1]), "127.0.0.1");
      return socket;
    });
    await Promise.all(apps.map((app) => once(app, "connect")));
    await askAll("before");
  }

  afterEach(async () => {
    for (const socket of attackers) socket.destroy();
    for (const app of apps) app.close();
    for (const local of honest) await local.close();
    echo.close();
    await server.close();
  });

  /** Expects an answer for each honest client on its existing connection. */
  async function askAll(text: string): Promise<void> {
    const answers = apps.map(async (app) => {
      const again = setInterval(() => app.send(text), 200);
      app.send(text);
      // A failed test closes the socket; stop sending then.
      app.once("close", () => clearInterval(again));
      const [answer] = await once(app, "message");
      clearInterval(again);
      return String(answer);
    });
    for (const answer of await Promise.all(answers)) expect(["before", "between", "after"]).toContain(answer);
  }

  async function settled(socket: Socket): Promise<void> {
    if (socket.connecting) await Promise.race([once(socket, "connect"), once(socket, "close")]);
    while (!socket.destroyed && socket.writableLength > 0) await new Promise((done) => setImmediate(done));
  }

  async function attack(batch: number, first: (i: number) => Buffer): Promise<void> {
    for (let i = 0; i < CONNECTIONS; i++) {
      const socket = connect({ port: ports[isProbe(i) ? 1 : 0], host: "127.0.0.1" });
      socket.on("error", () => {});
      socket.on("data", () => {});
      const bytes = first(i);
      if (bytes.length > 0) socket.write(bytes);
      attackers.push(socket);
      // The server accepts waiting connections before it reads, so a batch must not exceed the half-open limit.
      if (i % batch === batch - 1) await Promise.all(attackers.slice(-batch).map(settled));
    }
    await Promise.all(attackers.map(settled));
  }

  const lanesLost = () => honest.map((local) => local.stats().refused.protocol_error);

  it("serves all clients beside half-open connections and slow or ambiguous first bytes, and bounds those", async () => {
    await start(FEW_HALF_OPEN);
    const before = residentBytes(server);
    const errors: unknown[] = [];
    for (const local of honest) local.on("session-down", (error) => errors.push(error));
    await attack(100, (i) => bytesOf(beginnings[i % beginnings.length]));
    await askAll("between");
    // More bytes that arrive slowly do not extend the handshake timeout.
    for (const [i, socket] of attackers.entries()) if (i % 3 === 0) socket.write(Buffer.of(0xff));
    await askAll("after");
    // Those at the shadowsocks port get silence, which lasts longer. 050102ff begins a frame of udpgw, whose clients may be idle for 20 s.
    const isUdpgw = (i: number) => i % 3 === 0 && beginnings[i % beginnings.length] === "050102";
    const open = () =>
      attackers.filter(
        (socket, i) => !isProbe(i) && !isUdpgw(i) && !socket.destroyed && !socket.readableEnded,
      ).length;
    while (open() > 0) await new Promise((done) => setTimeout(done, 50));
    expect(errors).toEqual([]);
    expect(lanesLost()).toEqual(honest.map(() => 0));
    const { half_open_limit, handshake_timeout } = server.stats().refused;
    expect(half_open_limit).toBeGreaterThan(0);
    expect(half_open_limit + handshake_timeout).toBeLessThanOrEqual(CONNECTIONS);
    expect(residentBytes(server) - before).toBeLessThan(64 * MIB + CONNECTIONS * 16_384);
  });

  it("serves all clients beside malformed frames of every dialect", async () => {
    await start(ALL_HALF_OPEN);
    const random = seededRandom(12);
    await attack(16, (i) =>
      Buffer.concat([frames[i % frames.length], mutate(random, frames[i % frames.length])]),
    );
    await askAll("between");
    for (const socket of attackers)
      if (!socket.destroyed) socket.write(mutate(random, frames[random() % frames.length]));
    await askAll("after");
    expect(lanesLost()).toEqual(honest.map(() => 0));
    for (let turn = 0; turn < 200 && server.stats().refused.protocol_error === 0; turn++) {
      await new Promise((done) => setTimeout(done, 20));
    }
    expect(server.stats().refused.protocol_error).toBeGreaterThan(0);
  });

  it("serves all clients beside clients that send but never read", async () => {
    await start(ALL_HALF_OPEN);
    await attack(16, (i) => Buffer.concat([FRAMES[2], Buffer.alloc(i % 2 === 0 ? 0 : 16_384, FRAMES[2])]));
    for (const socket of attackers) socket.pause();
    await askAll("between");
    for (const socket of attackers) if (!socket.destroyed) socket.write(Buffer.alloc(8_192, FRAMES[2]));
    await askAll("after");
    expect(lanesLost()).toEqual(honest.map(() => 0));
  });
});
