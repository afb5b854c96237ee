import { Socket } from "node:net";
import { performance } from "node:perf_hooks";
import { HostError } from "../../core/errors.ts";
import type { Socks5Credentials } from "../../core/socks5-server.ts";
import { Socks5ServerConnection } from "../../core/socks5-server.ts";
import { parseEndpoint, splitZone } from "../../host/addresses/endpoint.ts";
import { openOnEach } from "../../host/addresses/listen-hosts.ts";
import { DeadlineTimer } from "../../host/deadline-timer.ts";
import type { NativeModule } from "../../host/io/native-module.ts";
import type { Logger } from "../../host/log.ts";
import type { Socks5Association } from "../../host/socks5/udp.ts";
import type { Dialect } from "../../wire/dialects/dialect.ts";
import { DIALECTS } from "../../wire/dialects/dialects.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { addressPort, formatAddress, makeAddress, sameBytes } from "../../wire/socket-address.ts";
import type { TcpStream } from "../coded-stream.ts";
import type { SocketListener } from "../socket-listener.ts";
import { joined, listenForDescriptors, listenForSockets } from "../socket-listener.ts";
import { nodeLoop } from "../system.ts";
import { relayTcp } from "../tcp-relay.ts";

/** Probes start after this idle time; a client that has vanished is noticed some 10 s later. */
const KEEP_ALIVE_MS = 30_000;
/** RFC 1928 §6. */
const SUCCEEDED = 0;
const GENERAL_FAILURE = 1;
const HOST_UNREACHABLE = 4;

/** What a listener needs from its program. */
export interface Socks5ListenerOptions {
  readonly credentials: Socks5Credentials | undefined;
  readonly maxConnections: number;
  /** Given when the port is shared with other threads. */
  readonly native: NativeModule | undefined;
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
  readonly connect: (target: AddressBytes, signal: AbortSignal) => Promise<TcpStream>;
  /** Serves a client that asks for UDP on its own connection. @param surplus  what came behind its request */
  readonly serveDialect: (
    socket: Socket,
    dialect: Dialect,
    request: AddressBytes,
    surplus: Uint8Array,
  ) => void;
  readonly onRefused: () => void;
}

/** SOCKS5 over TCP: UDP ASSOCIATE for the tunnel, CONNECT relayed past it. */
export class Socks5Listener {
  readonly #options: Socks5ListenerOptions;
  readonly #sockets = new Set<Socket>();
  #listener: SocketListener | undefined;

  constructor(options: Socks5ListenerOptions) {
    this.#options = options;
  }

  /** @param hosts  of `text`, see {@link listenHosts}. @throws HostError ERR_LISTEN */
  async listen(text: string, hosts: readonly string[]): Promise<void> {
    const { native, log } = this.#options;
    const onSocket = (socket: Socket) => this.#accept(socket);
    const onError = (error: Error) => log.warn({ error: error.message }, "cannot accept");
    const open = (host: string, port: number) =>
      native === undefined
        ? listenForSockets({ host, port }, true, onSocket, onError)
        : listenForDescriptors(native, { host, port }, true, (fd) =>
            onSocket(
              new Socket({ fd, readable: true, writable: true, allowHalfOpen: true }).setNoDelay(true),
            ),
          );
    try {
      const { port } = parseEndpoint(text) as { port: number };
      this.#listener = joined(await openOnEach(hosts, port, open));
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
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #accept(socket: Socket): void {
    if (this.#sockets.size >= this.#options.maxConnections) {
      socket.destroy();
      return;
    }
    const machine = new Socks5ServerConnection(performance.now(), this.#options.credentials, DIALECTS);
    const abort = new AbortController();
    const timer = new DeadlineTimer(nodeLoop, () => {
      machine.handleTimeout(performance.now());
      drain();
    });
    this.#sockets.add(socket);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.on("error", () => {});
    socket.once("close", () => {
      this.#sockets.delete(socket);
      timer.stop();
      abort.abort();
    });
    // The client has not made a request, or ends its association.
    const handleEnd = () => socket.end();
    const handleData = (chunk: Buffer) => {
      machine.handleStream(performance.now(), chunk);
      drain();
    };
    const drain = () => {
      for (let output = machine.pollOutput(); output !== undefined; output = machine.pollOutput()) {
        if (output.kind === "write") socket.write(output.bytes);
        else if (output.kind === "closed") {
          if (output.error !== undefined) this.#options.onRefused();
          socket.destroySoon();
        } else if (output.command === "udp-associate") {
          void this.#associate(socket, machine, output.address, drain);
        } else {
          socket.off("data", handleData);
          socket.off("end", handleEnd);
          socket.pause();
          if (output.command === "dialect") {
            this.#serveDialect(socket, machine, output.dialect, output.address);
            return;
          }
          void this.#connect(socket, machine, output.address, abort.signal, drain);
        }
      }
      timer.arm(machine.nextTimeout());
    };
    socket.on("data", handleData);
    socket.on("end", handleEnd);
    drain();
  }

  async #associate(
    socket: Socket,
    machine: Socks5ServerConnection,
    requested: AddressBytes,
    drain: () => void,
  ): Promise<void> {
    const { localAddress, remoteAddress } = socket;
    if (localAddress === undefined || remoteAddress === undefined) {
      socket.destroy();
      return;
    }
    const { ip } = splitZone(remoteAddress);
    const named = makeAddress(ip, addressPort(requested))!;
    // The port is trusted only together with the right IP: a client behind a NAT knows neither.
    const isOwn = requested.length === named.length && sameBytes(requested, 0, named, 0, named.length);
    let association: Socks5Association | undefined;
    try {
      association = await this.#options.associate(isOwn ? named : makeAddress(ip, 0)!, localAddress);
    } catch (error) {
      this.#options.log.warn({ error: (error as Error).message }, "cannot open a UDP socket");
    }
    if (socket.destroyed) {
      association?.end();
      return;
    }
    if (association === undefined) machine.reply(GENERAL_FAILURE, makeAddress("0.0.0.0", 0)!);
    else {
      machine.reply(SUCCEEDED, association.bound);
      socket.once("close", association.end);
    }
    drain();
  }

  #serveDialect(
    socket: Socket,
    machine: Socks5ServerConnection,
    dialect: Dialect,
    request: AddressBytes,
  ): void {
    machine.reply(SUCCEEDED, makeAddress("0.0.0.0", 0)!);
    const output = machine.pollOutput();
    if (output?.kind === "write") socket.write(output.bytes);
    this.#options.serveDialect(socket, dialect, request, machine.surplus);
  }

  async #connect(
    socket: Socket,
    machine: Socks5ServerConnection,
    target: AddressBytes,
    signal: AbortSignal,
    drain: () => void,
  ): Promise<void> {
    try {
      const stream = await this.#options.connect(target, signal);
      if (socket.destroyed) {
        stream.destroy();
        return;
      }
      machine.reply(SUCCEEDED, makeAddress("0.0.0.0", 0)!);
      drain();
      if (machine.surplus.length > 0) stream.write(machine.surplus.slice());
      relayTcp(socket, stream);
    } catch (error) {
      this.#options.log.debug(
        { target: formatAddress(target), error: (error as Error).message },
        "cannot relay a CONNECT",
      );
      if (socket.destroyed) return;
      machine.reply(HOST_UNREACHABLE, makeAddress("0.0.0.0", 0)!);
      drain();
      socket.destroySoon();
    }
  }
}
