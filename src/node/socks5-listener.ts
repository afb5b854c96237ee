import type { AddressInfo, Server } from "node:net";
import { createServer, Socket } from "node:net";
import { performance } from "node:perf_hooks";
import { HostError } from "../core/errors.ts";
import type { Socks5Credentials } from "../core/socks5-server.ts";
import { Socks5ServerConnection } from "../core/socks5-server.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import { addressPort, formatAddress, makeAddress, sameBytes } from "../wire/socket-address.ts";
import { DeadlineTimer } from "./deadline-timer.ts";
import { formatEndpoint, parseEndpoint } from "./endpoint.ts";
import type { Logger } from "./log.ts";
import type { NativeModule } from "./native-module.ts";
import { relayTcp } from "./tcp-relay.ts";

const BACKLOG = 1024;
/** A client that vanished is noticed some 10 s later. */
const KEEP_ALIVE_MS = 30_000;
/** RFC 1928 §6. */
const SUCCEEDED = 0;
const GENERAL_FAILURE = 1;
const HOST_UNREACHABLE = 4;

/** What a listener asks of the program that it stands in. */
export interface Socks5ListenerOptions {
  readonly credentials: Socks5Credentials | undefined;
  readonly maxConnections: number;
  /** Given when the port is shared with other threads. */
  readonly native: NativeModule | undefined;
  readonly log: Logger;
  /**
   * Begins an association for a client.
   *
   * @param client  its IP, and the port that it will send from, or 0
   * @param localIp  the IP of the listener that it reached
   * @returns the relay's UDP port and how to end it, or undefined when there are too many
   */
  readonly associate: (
    client: AddressBytes,
    localIp: string,
    onEnd: () => void,
  ) => { readonly port: number; end(): void } | undefined;
  /** Connects for a CONNECT. */
  readonly connect: (target: AddressBytes, signal: AbortSignal) => Promise<Socket>;
  readonly onRefused: () => void;
}

/** SOCKS5 over TCP: UDP ASSOCIATE for the tunnel, CONNECT relayed past it. */
export class Socks5Listener {
  readonly #options: Socks5ListenerOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #shared: number | undefined;
  #sharedAddress: string | undefined;

  constructor(options: Socks5ListenerOptions) {
    this.#options = options;
    this.#server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#accept(socket));
    this.#server.maxConnections = options.maxConnections;
  }

  /** @throws HostError ERR_LISTEN */
  async listen(text: string): Promise<void> {
    const { host, port } = parseEndpoint(text) as { host: string; port: number };
    const { native } = this.#options;
    if (native !== undefined) {
      this.#listenShared(native, host, port, text);
      return;
    }
    await new Promise<void>((done, failed) => {
      this.#server.once("error", (cause) => {
        failed(new HostError("ERR_LISTEN", `${text}: ${cause.message}`, { cause }));
      });
      this.#server.listen({ host, port }, done);
    });
    this.#server.on("error", (error) => this.#options.log.warn({ error: error.message }, "cannot accept"));
  }

  #listenShared(native: NativeModule, host: string, port: number, text: string): void {
    try {
      this.#shared = native.tcpListen!(makeAddress(host, port)!, true, BACKLOG, (fd) => {
        const socket = new Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
        if (this.#sockets.size >= this.#options.maxConnections) socket.destroy();
        else this.#accept(socket.setNoDelay(true));
      });
      this.#sharedAddress = formatEndpoint(host, addressPort(native.socketAddress!(this.#shared)!));
    } catch (cause) {
      throw new HostError("ERR_LISTEN", `${text}: ${(cause as Error).message}`, { cause });
    }
  }

  get address(): string {
    if (this.#sharedAddress !== undefined) return this.#sharedAddress;
    const { address, port } = this.#server.address() as AddressInfo;
    return formatEndpoint(address, port);
  }

  async close(): Promise<void> {
    if (this.#shared !== undefined) this.#options.native?.tcpUnlisten?.(this.#shared);
    const closed = new Promise((done) => this.#server.close(done));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #accept(socket: Socket): void {
    const machine = new Socks5ServerConnection(performance.now(), this.#options.credentials);
    const abort = new AbortController();
    const timer = new DeadlineTimer(() => {
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
    // The client asks for nothing, or no longer for its association.
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
        } else if (output.command === "udp-associate")
          this.#associate(socket, machine, output.address, drain);
        else {
          socket.off("data", handleData);
          socket.off("end", handleEnd);
          socket.pause();
          void this.#connect(socket, machine, output.address, abort.signal, drain);
        }
      }
      timer.arm(machine.nextTimeout());
    };
    socket.on("data", handleData);
    socket.on("end", handleEnd);
    drain();
  }

  #associate(
    socket: Socket,
    machine: Socks5ServerConnection,
    requested: AddressBytes,
    drain: () => void,
  ): void {
    const localIp = plainIp(socket.localAddress);
    const client = makeAddress(plainIp(socket.remoteAddress), 0)!;
    const port = addressPort(requested);
    // A port counts only beside the client's own IP: behind a NAT of its own it cannot know either.
    if (
      requested.length === client.length &&
      sameBytes(requested, 0, client, 0, client.length - 2) &&
      port > 0
    ) {
      client[client.length - 2] = port >> 8;
      client[client.length - 1] = port & 0xff;
    }
    const relay = this.#options.associate(client, localIp, () => socket.destroy());
    if (relay === undefined) machine.reply(GENERAL_FAILURE, makeAddress("0.0.0.0", 0)!);
    else {
      machine.reply(SUCCEEDED, makeAddress(localIp, relay.port)!);
      socket.once("close", () => relay.end());
    }
    drain();
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

/** IP text without the prefix of an IPv4 address on a dual-stack socket, and without a zone. */
function plainIp(text: string | undefined): string {
  return (text ?? "0.0.0.0").replace(/^::ffff:(?=\d+\.)/, "").replace(/%.*$/, "");
}
