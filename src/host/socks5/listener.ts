import { HostError } from "../../core/errors.ts";
import type { Socks5Credentials } from "../../core/handshakes/socks5-server.ts";
import { Socks5ServerConnection } from "../../core/handshakes/socks5-server.ts";
import type { Dialect } from "../../wire/dialects/dialect.ts";
import { DIALECTS } from "../../wire/dialects/dialects.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { addressPort, formatAddress, makeAddress, sameBytes } from "../../wire/socket-address.ts";
import { parseEndpoint, splitZone } from "../addresses/endpoint.ts";
import { openOnEach } from "../addresses/listen-hosts.ts";
import { Cancellation } from "../cancellation.ts";
import { DeadlineTimer } from "../deadline-timer.ts";
import { HalfOpen } from "../half-open.ts";
import type { Logger } from "../log.ts";
import type { Loop } from "../loop.ts";
import type { ByteStream, ByteStreamEvents } from "../stream/byte-stream.ts";
import { PatientWriter } from "../stream/patient-writer.ts";
import type { StreamListener, Tcp } from "../stream/tcp.ts";
import { acceptErrors, joinListeners } from "../stream/tcp.ts";
import { relayTcp } from "../stream/tcp-relay.ts";
import type { TransferPacing } from "../stream/transfer-pacer.ts";
import type { Socks5Association } from "./udp.ts";

/** Probes start after this idle time; a client that has vanished is noticed some 10 s later. */
const KEEP_ALIVE_MS = 30_000;
/** Beyond so many connections without a request, each has its place only until another needs it. */
const HALF_OPEN_GRACE = 64;
/** RFC 1928 §6. */
const SUCCEEDED = 0;
const GENERAL_FAILURE = 1;
const HOST_UNREACHABLE = 4;

/** What a listener needs from its program. */
export interface Socks5ListenerOptions {
  readonly loop: Loop;
  readonly credentials: Socks5Credentials | undefined;
  readonly maxConnections: number;
  readonly tcp: Tcp;
  /** True if other threads listen on the same port. */
  readonly sharesPort: boolean;
  readonly log: Logger;
  /**
   * Begins an association for a client.
   *
   * @param client   its IP, and the port that it will send from, or 0
   * @param localIp  IP text of the local address of its connection, with its zone
   * @returns undefined if it is refused
   */
  readonly associate: (client: AddressBytes, localIp: string) => Promise<Socks5Association | undefined>;
  /** Connects for a CONNECT. */
  readonly connect: (target: AddressBytes, cancellation: Cancellation) => Promise<ByteStream>;
  /** Serves a client that asks for UDP on its own connection, which is handed on and no longer counts here. */
  readonly serveDialect: (stream: ByteStream, dialect: Dialect, request: AddressBytes) => void;
  /** Paces the TCP that is relayed for a CONNECT. */
  readonly pacing: TransferPacing;
  readonly onRefused: () => void;
  /** Nothing more is accepted on one of its addresses. */
  readonly onListenerFailed: (error: Error) => void;
}

/** SOCKS5 over TCP: UDP ASSOCIATE for the tunnel, CONNECT relayed past it. */
export class Socks5Listener {
  readonly #options: Socks5ListenerOptions;
  readonly #streams = new Set<ByteStream>();
  /** Those of them that have not made their request yet. */
  readonly #halfOpen = new HalfOpen<ByteStream>(HALF_OPEN_GRACE);
  #listener: StreamListener | undefined;

  constructor(options: Socks5ListenerOptions) {
    this.#options = options;
  }

  /** @param hosts  of `text`, see {@link listenHosts}. @throws HostError ERR_LISTEN */
  async listen(text: string, hosts: readonly string[]): Promise<void> {
    const { tcp, sharesPort, log, onListenerFailed } = this.#options;
    const open = (host: string, port: number) =>
      tcp.listen(
        { host, port },
        {
          sharesPort,
          keepAliveMs: KEEP_ALIVE_MS,
          onStream: (stream) => this.#accept(stream),
          onError: acceptErrors(log, onListenerFailed),
        },
      );
    try {
      const { port } = parseEndpoint(text) as { port: number };
      this.#listener = joinListeners(await openOnEach(hosts, port, open));
    } catch (cause) {
      throw new HostError("ERR_LISTEN", `${text}: ${(cause as Error).message}`, { cause });
    }
  }

  /** Where it listens. */
  get address(): string {
    return this.#listener!.address;
  }

  async close(): Promise<void> {
    const closed = this.#listener?.close();
    for (const stream of this.#streams) stream.destroy();
    await closed;
  }

  #accept(stream: ByteStream): void {
    const { maxConnections, loop, log } = this.#options;
    if (this.#streams.size >= maxConnections) {
      log.debug({ limit: maxConnections }, "too many SOCKS5 connections");
      this.#options.onRefused();
      const loser = this.#halfOpen.givingWay(loop.now()) ?? stream;
      this.#forget(loser);
      loser.destroy();
      if (loser === stream) return;
    }
    this.#streams.add(stream);
    this.#halfOpen.add(stream, loop.now());
    const onRequest = () => this.#halfOpen.delete(stream);
    new Socks5Connection(stream, this.#options, onRequest, () => this.#forget(stream)).start();
  }

  #forget(stream: ByteStream): void {
    this.#streams.delete(stream);
    this.#halfOpen.delete(stream);
  }
}

/** A client's connection until it is handed on, or as long as its association lasts. */
class Socks5Connection implements ByteStreamEvents {
  readonly #stream: ByteStream;
  readonly #writer: PatientWriter;
  readonly #options: Socks5ListenerOptions;
  readonly #onRequest: () => void;
  readonly #forget: () => void;
  readonly #machine: Socks5ServerConnection;
  readonly #timer: DeadlineTimer;
  readonly #cancellation = new Cancellation();
  #association: Socks5Association | undefined;
  /** The target's connection of a CONNECT, until both are handed on. */
  #far: ByteStream | undefined;
  #isLost = false;

  /**
   * @param onRequest  called once the client has made its request
   * @param forget     called when the connection ends, or serves a dialect, whose host has a limit of its own
   */
  constructor(stream: ByteStream, options: Socks5ListenerOptions, onRequest: () => void, forget: () => void) {
    this.#stream = stream;
    this.#writer = new PatientWriter(stream);
    this.#options = options;
    this.#onRequest = onRequest;
    this.#forget = forget;
    this.#machine = new Socks5ServerConnection(options.loop.now(), options.credentials, DIALECTS);
    this.#timer = new DeadlineTimer(options.loop, () => {
      this.#machine.handleTimeout(this.#options.loop.now());
      this.#drain();
    });
  }

  start(): void {
    this.#stream.start(this);
    this.#drain();
  }

  onBytes(chunk: Uint8Array, length: number): void {
    this.#machine.handleStream(this.#options.loop.now(), chunk.subarray(0, length));
    this.#drain();
  }

  /** The client has not made a request, or ends its association. */
  onEnd(): void {
    this.#writer.whenDrained(() => this.#stream.end());
  }

  onWritten(): void {
    this.#writer.handleWritten();
  }

  onClose(): void {
    this.#isLost = true;
    this.#timer.stop();
    this.#cancellation.cancel();
    this.#association?.end();
    // The client has gone before it accepted the reply.
    this.#far?.destroy();
    this.#forget();
  }

  #drain(): void {
    const machine = this.#machine;
    for (let output = machine.pollOutput(); output !== undefined; output = machine.pollOutput()) {
      switch (output.kind) {
        case "write":
          this.#writer.write(output.bytes);
          break;
        case "closed":
          if (output.error !== undefined) this.#options.onRefused();
          this.#close();
          break;
        default:
          this.#onRequest();
          if (output.command === "udp-associate") void this.#associate(output.address);
          else {
            this.#stream.pause();
            if (output.command === "dialect") this.#serveDialect(output.dialect, output.address);
            else void this.#connect(output.address);
          }
      }
    }
    this.#timer.arm(machine.nextTimeout());
  }

  /** Closes it once everything written has been accepted. */
  #close(): void {
    this.#writer.whenDrained(() => this.#stream.destroy());
  }

  async #associate(requested: AddressBytes): Promise<void> {
    const { localIp, remoteIp } = this.#stream;
    if (localIp === undefined || remoteIp === undefined) {
      this.#stream.destroy();
      return;
    }
    const { ip } = splitZone(remoteIp);
    const named = makeAddress(ip, addressPort(requested))!;
    // The port is trusted only together with the right IP: a client behind a NAT knows neither.
    const isOwn = requested.length === named.length && sameBytes(requested, 0, named, 0, named.length);
    let association: Socks5Association | undefined;
    try {
      association = await this.#options.associate(isOwn ? named : makeAddress(ip, 0)!, localIp);
    } catch (error) {
      this.#options.log.warn({ error: (error as Error).message }, "cannot open a UDP socket");
    }
    if (this.#isLost) {
      association?.end();
      return;
    }
    this.#association = association;
    if (association === undefined) this.#machine.reply(GENERAL_FAILURE, makeAddress("0.0.0.0", 0)!);
    else this.#machine.reply(SUCCEEDED, association.bound);
    this.#drain();
  }

  #serveDialect(dialect: Dialect, request: AddressBytes): void {
    this.#reply(SUCCEEDED);
    this.#handOn((stream) => {
      this.#forget();
      this.#options.serveDialect(stream, dialect, request);
    });
  }

  async #connect(target: AddressBytes): Promise<void> {
    try {
      const far = await this.#options.connect(target, this.#cancellation);
      if (this.#isLost) {
        far.destroy();
        return;
      }
      this.#far = far;
      this.#reply(SUCCEEDED);
      this.#handOn((near) =>
        relayTcp(near, far, this.#options.loop, { onClosed: this.#forget, pacing: this.#options.pacing }),
      );
    } catch (error) {
      this.#options.log.debug(
        { target: formatAddress(target), error: (error as Error).message },
        "cannot relay a CONNECT",
      );
      if (this.#isLost) return;
      this.#reply(HOST_UNREACHABLE);
      this.#close();
    }
  }

  #reply(code: number): void {
    this.#machine.reply(code, makeAddress("0.0.0.0", 0)!);
    this.#drain();
  }

  /** Hands the connection on once the reply is written, together with any bytes after the request. */
  #handOn(take: (stream: ByteStream) => void): void {
    this.#writer.whenDrained(() => {
      this.#timer.stop();
      this.#stream.unread(this.#machine.surplus);
      take(this.#stream);
    });
  }
}
