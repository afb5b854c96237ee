import { silentLogger, UdpLocalHost, UdpServerHost } from "../../src/host/index.ts";
import type { UdpSocket } from "../../src/host/io/udp-io.ts";
import type { TunnelStats } from "../../src/host/stats/tunnel-stats.ts";
import type { ByteStream, ByteStreamEvents } from "../../src/host/stream/byte-stream.ts";
import { asciiBytes } from "../../src/wire/http/http-head.ts";
import { addressPort, makeAddress } from "../../src/wire/socket-address.ts";
import {
  decodeMessage,
  encodeGreeting,
  encodeMessage,
  encodeUserPassword,
  writeUdpHeader,
} from "../../src/wire/socks5.ts";
import { check } from "../fuzz/failure.ts";
import { concat } from "../unit/cuts.ts";
import { LOCAL, SERVER } from "../unit/memory/memory-exchange.ts";
import { MemoryWorld, remoteOf } from "../unit/memory/memory-system.ts";
import { mutate, seededRandom } from "../unit/random.ts";
import { Dice } from "./capsules.ts";

export const CREDENTIALS = { user: "alice", password: "secret word" };
const ANYWHERE = makeAddress("0.0.0.0", 0)!;
const SOCKS = { host: "127.0.0.1", port: 1080 };
const PAGE = { host: "192.0.2.80", port: 80 };
/** Connections that the listener keeps: two for each association. */
export const MAX_CONNECTIONS = 2 * LOCAL.maxAssociations;
/** Longest time from the connection to the request. */
export const HANDSHAKE_MS = 10_000;

export const GREETING = encodeGreeting([2]);
export const PASSWORD = encodeUserPassword(asciiBytes(CREDENTIALS.user), asciiBytes(CREDENTIALS.password));
export const ASSOCIATE = encodeMessage(3, ANYWHERE);
/** What opens UDP on the connection itself. */
export const DIALECT_REQUESTS = {
  hev: encodeMessage(5, ANYWHERE),
  uot: encodeMessage(1, makeAddress("sp.v2.udp-over-tcp.arpa", 0)!),
};
export const CONNECT = encodeMessage(1, makeAddress(PAGE.host, PAGE.port)!);

/** One TCP connection to the SOCKS5 server. */
export class Caller implements ByteStreamEvents {
  readonly stream: ByteStream;
  readonly openedAt: number;
  readonly heard: number[] = [];
  isClosed = false;

  constructor(stream: ByteStream, openedAt: number) {
    this.stream = stream;
    this.openedAt = openedAt;
    stream.start(this);
  }

  send(...parts: readonly Uint8Array[]): void {
    for (const part of parts) if (!this.stream.isClosed) this.stream.write(part);
  }

  onBytes(chunk: Uint8Array, length: number): void {
    this.heard.push(...chunk.subarray(0, length));
  }

  onEnd(): void {
    this.stream.end();
  }

  onWritten(): void {}

  onClose(): void {
    this.isClosed = true;
  }
}

/** A udp-local with a SOCKS5 server that wants a password, and a udp-server, in memory and in virtual time. */
export class Socks5World {
  readonly world = new MemoryWorld();
  /** What the target of CONNECT received, by connection. */
  readonly page: number[][] = [];
  #local!: UdpLocalHost;
  #server!: UdpServerHost;
  readonly #answers: string[] = [];

  static async open(): Promise<Socks5World> {
    const made = new Socks5World();
    await made.#open();
    return made;
  }

  async #open(): Promise<void> {
    const { world } = this;
    const options = { ...SERVER, maxSessions: 8 };
    this.#server = new UdpServerHost(options, silentLogger, world.system);
    await this.#server.listen();
    const local = { ...LOCAL, listen: `${SOCKS.host}:${SOCKS.port}`, forwards: [], socksAuth: CREDENTIALS };
    this.#local = new UdpLocalHost(local, silentLogger, world.system);
    let isUp = false;
    this.#local.events.on("session-up", () => {
      isUp = true;
    });
    await this.#local.listen();
    const target = this.#udp("192.0.2.1", 53, (bytes, from) => {
      target.send(
        undefined,
        bytes.map((byte) => byte ^ 0x20),
        0,
        bytes.length,
        remoteOf(hostOf(from), (from[5] << 8) | from[6]),
      );
    });
    await world.tcp.listen(PAGE, {
      onStream: (stream) => {
        const bytes: number[] = [];
        this.page.push(bytes);
        stream.start({
          onBytes: (chunk, length) => void bytes.push(...chunk.subarray(0, length)),
          onEnd: () => stream.end(),
          onWritten: () => {},
          onClose: () => {},
        });
      },
      onError: () => {},
    });
    await this.until(() => isUp);
  }

  #udp(host: string, port: number, onBytes: (bytes: Uint8Array, from: Uint8Array) => void): UdpSocket {
    return this.world.udp.open({
      ...{ family: 4, host, port, reusePort: false, onBindError: () => {} },
      onDatagrams: (received) => onBytes(received.data.slice(), received.addresses),
    });
  }

  get now(): number {
    return this.world.system.now();
  }

  get stats(): TunnelStats {
    return this.#local.stats();
  }

  async until(holds: () => boolean, withinMs = 1_000): Promise<void> {
    const end = this.now + withinMs;
    while (!holds()) {
      check(this.now <= end, "it does not happen in time");
      await this.#turn();
    }
  }

  async pass(ms: number): Promise<void> {
    for (const end = this.now + ms; this.now < end; ) await this.#turn();
  }

  async #turn(): Promise<void> {
    this.world.step();
    // Promises of the host continue between two turns.
    for (let i = 0; i < 4; i++) await undefined;
  }

  async call(): Promise<Caller> {
    let caller: Caller | undefined;
    this.world.tcp.connect(SOCKS, undefined, (stream) => {
      check(typeof stream !== "string", "the SOCKS5 server does not listen");
      caller = new Caller(stream, this.now);
    });
    await this.until(() => caller !== undefined);
    return caller!;
  }

  /** Opens an association like an honest client. @returns its connection and where to send */
  async associate(): Promise<{ readonly caller: Caller; readonly port: number }> {
    const caller = await this.call();
    caller.send(GREETING, PASSWORD, ASSOCIATE);
    await this.until(() => caller.heard.length >= 14);
    const reply = decodeMessage(Uint8Array.from(caller.heard.slice(4)), caller.heard.length - 4);
    check(
      typeof reply === "object" && "value" in reply && reply.value.code === 0,
      "an honest client is refused",
    );
    return { caller, port: addressPort(reply.value.address) };
  }

  /** Sends a datagram through an association and waits for its answer. */
  async exchange(port: number, text: string): Promise<void> {
    const payload = asciiBytes(text);
    const bytes = new Uint8Array(10 + payload.length);
    bytes.set(payload, writeUdpHeader(bytes, 0, makeAddress("192.0.2.1", 53)!));
    const socket = this.#udp("127.0.0.1", 7_000, (answer) =>
      this.#answers.push(String.fromCharCode(...answer.subarray(10).map((byte) => byte ^ 0x20))),
    );
    const before = this.#answers.length;
    socket.send(undefined, bytes, 0, bytes.length, remoteOf("127.0.0.1", port));
    await this.until(() => this.#answers.length > before);
    socket.close();
    check(this.#answers.at(-1) === text, "a wrong answer", () => `${this.#answers.at(-1)}`);
  }
}

/** @param address  IPv4, in the form of SOCKS5 */
function hostOf(address: Uint8Array): string {
  return address.subarray(1, 5).join(".");
}

/** Hostile SOCKS5 clients beside an honest one. Everything follows from the seed. */
export class Socks5Siege {
  readonly seen = { served: 0, timedOut: 0, accepted: 0 };
  readonly #dice: Dice;
  readonly #world: Socks5World;
  readonly #port: number;
  readonly #foes: { readonly caller: Caller; rest: Uint8Array }[] = [];
  #steps = 0;

  private constructor(seed: number, world: Socks5World, port: number) {
    this.#dice = new Dice(seededRandom(seed));
    this.#world = world;
    this.#port = port;
  }

  static async open(seed: number): Promise<Socks5Siege> {
    const world = await Socks5World.open();
    const { port } = await world.associate();
    return new Socks5Siege(seed, world, port);
  }

  async step(): Promise<void> {
    const dice = this.#dice;
    switch (dice.below(8)) {
      case 0:
      case 1: {
        const caller = await this.#world.call();
        this.#foes.push({ caller, rest: this.#drawStream() });
        break;
      }
      case 2:
        this.#leave();
        break;
      case 3:
        await this.#world.pass(dice.isOneIn(20) ? dice.below(8_000) : dice.below(100));
        break;
      default:
        this.#trickle();
    }
    if (++this.#steps % 32 === 0) {
      await this.#world.exchange(this.#port, `step ${this.#steps}`);
      this.seen.served++;
    }
    this.#check();
  }

  /** Ends the siege: nothing of it stays. */
  async end(): Promise<void> {
    for (const { caller } of this.#foes) caller.stream.destroy();
    await this.#world.pass(HANDSHAKE_MS);
    await this.#world.exchange(this.#port, "at the end");
    const { associations } = this.#world.stats;
    check(associations === 1, "associations stay", () => `${associations}`);
  }

  /** A handshake, or part of one, with too much after it. */
  #drawStream(): Uint8Array {
    const dice = this.#dice;
    const request = dice.pick([ASSOCIATE, CONNECT, encodeMessage(dice.below(256), dice.target())]);
    const password = dice.isOneIn(6) ? mutate(dice.random, PASSWORD) : PASSWORD;
    const after = new Uint8Array(dice.pick([0, 0, 1, 100, 5_000, 70_000]));
    const handshake = Uint8Array.of(...GREETING, ...password, ...request);
    return concat(dice.isOneIn(3) ? mutate(dice.random, handshake) : handshake, after);
  }

  #trickle(): void {
    const dice = this.#dice;
    if (this.#foes.length === 0) return;
    const foe = dice.pick(this.#foes);
    const count = dice.isOneIn(4) ? foe.rest.length : dice.pick([1, 1, 1, 2, 10]);
    foe.caller.send(foe.rest.slice(0, count));
    foe.rest = foe.rest.slice(count);
  }

  #leave(): void {
    const dice = this.#dice;
    if (this.#foes.length === 0) return;
    const [{ caller }] = this.#foes.splice(dice.below(this.#foes.length), 1);
    if (dice.isOneIn(2)) caller.stream.destroy();
    else if (!caller.stream.isClosed) caller.stream.end();
  }

  #check(): void {
    const { now } = this.#world;
    for (let i = this.#foes.length - 1; i >= 0; i--) {
      const { caller } = this.#foes[i];
      // A method, the status of the password, and a reply.
      const isAccepted = caller.heard.length >= 14;
      const isOverdue = now - caller.openedAt > HANDSHAKE_MS + 2;
      check(isAccepted || caller.isClosed || !isOverdue, "a handshake lasts too long");
      if (!caller.isClosed) continue;
      this.#foes.splice(i, 1);
      if (isAccepted) this.seen.accepted++;
      else if (now - caller.openedAt >= HANDSHAKE_MS) this.seen.timedOut++;
    }
  }
}
