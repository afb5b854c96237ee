import type { AddressInfo, Server } from "node:net";
import { createServer, type Socket } from "node:net";
import { performance } from "node:perf_hooks";
import { HostError } from "../core/errors.ts";
import type { AcceptedFlow } from "../core/tun2socks/tcp-segments.ts";
import type { Tun2Socks } from "../core/tun2socks/tun2socks.ts";
import type { Logger } from "../host/log.ts";
import { formatAddress } from "../wire/socket-address.ts";
import type { TcpStream } from "./coded-stream.ts";
import { relayTcp } from "./tcp-relay.ts";

const BACKLOG = 1024;

export interface FlowRelayOptions {
  /** Called at each use, as core is created once the listeners' ports are known. */
  readonly core: () => Tun2Socks;
  readonly log: Logger;
  /** Connects to a flow's target by its route. */
  readonly connect: (flow: AcceptedFlow, signal: AbortSignal) => Promise<TcpStream>;
  /** Drains the core. */
  readonly drain: () => void;
}

/** Relays TCP flows of a device: connects what the kernel accepts on the device's own address to the flow's target. */
export class FlowRelay {
  readonly #options: FlowRelayOptions;
  readonly #servers: Server[] = [];
  readonly #sockets: (Socket | undefined)[] = [];

  constructor(options: FlowRelayOptions) {
    this.#options = options;
  }

  /** Listens on an address of the device. @returns the port. @throws HostError ERR_LISTEN */
  async listen(host: string): Promise<number> {
    const family = host.includes(":") ? 6 : 4;
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
      this.#accept(socket, family);
    });
    this.#servers.push(server);
    await new Promise<void>((done, failed) => {
      server.once("error", (cause) =>
        failed(new HostError("ERR_LISTEN", `${host}: ${cause.message}`, { cause })),
      );
      server.listen({ host, port: 0, backlog: BACKLOG, ipv6Only: true }, done);
    });
    server.on("error", (error) => this.#options.log.warn({ error: error.message }, "cannot accept"));
    return (server.address() as AddressInfo).port;
  }

  /** Core has forgotten a flow before its connection ended. */
  forget(flow: number, reason: "finished" | "idle" | "evicted"): void {
    const socket = this.#sockets[flow];
    this.#sockets[flow] = undefined;
    if (reason !== "finished") socket?.destroy();
  }

  async close(): Promise<void> {
    const closed = this.#servers.map((server) => new Promise((done) => server.close(done)));
    for (const socket of this.#sockets) socket?.destroy();
    await Promise.all(closed);
  }

  #accept(socket: Socket, family: 4 | 6): void {
    const { drain } = this.#options;
    const core = this.#options.core();
    socket.on("error", () => {});
    const flow = core.acceptFlow(performance.now(), family, socket.remotePort ?? 0);
    if (flow === undefined) {
      socket.destroy();
      return;
    }
    this.#sockets[flow.flow] = socket;
    const abort = new AbortController();
    socket.once("close", () => {
      abort.abort();
      if (this.#sockets[flow.flow] !== socket) return;
      this.#sockets[flow.flow] = undefined;
      core.endFlow(performance.now(), flow.flow);
      drain();
    });
    void this.#connect(flow, socket, abort.signal);
  }

  async #connect(flow: AcceptedFlow, socket: Socket, signal: AbortSignal): Promise<void> {
    const { log, connect, drain } = this.#options;
    const core = this.#options.core();
    try {
      const stream = await connect(flow, signal);
      if (socket.destroyed) stream.destroy();
      else relayTcp(socket, stream);
    } catch (error) {
      if (this.#sockets[flow.flow] !== socket) return;
      const target = formatAddress(flow.target);
      log.debug({ target, error: (error as Error).message }, "cannot connect a flow");
      this.#sockets[flow.flow] = undefined;
      // The application gets a reset at once.
      while (!core.refuseFlow(flow.flow)) drain();
      drain();
      socket.destroy();
    }
  }
}
