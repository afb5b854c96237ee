import type { TunnelServer } from "../../core/server/server.ts";
import type { ServerOutput } from "../../core/server/server-output.ts";
import type { Driver } from "../driver.ts";
import type { Logger } from "../log.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import { CodedByteStream } from "../stream/byte-stream-coded.ts";
import { DescriptorStream } from "../stream/byte-stream-native.ts";
import type { ConnectionLink } from "../stream/connection-link.ts";
import { linkConnection } from "../stream/connection-link.ts";
import type { OpenWebServer, WebServer } from "../stream/web-server.ts";
import type { System } from "../system.ts";
import { acceptWebSocket } from "../web-socket/open.ts";
import type { HandedOver, OtherWorkers } from "../workers.ts";

/** Time limit for a closing connection to send the rest. */
const CLOSE_MS = 1_000;

/** Outputs of core about a single connection. */
export type ConnectionOutput = Extract<
  ServerOutput,
  { readonly kind: "close" | "hand-over" | "web-socket" | "http2" | "stranger" }
>;

/** What the connections of a server get from its host. */
export interface ConnectionsHost {
  readonly core: TunnelServer;
  readonly driver: Driver;
  readonly system: System;
  readonly log: Logger;
  /** The workers besides this one. */
  readonly others: Pick<OtherWorkers, "handOver"> | undefined;
  /** Sends on what core has read. @param chunk  the bytes that it read */
  handleRead(chunk: Uint8Array): void;
  /** All bytes that a connection has received so far have been handled. */
  handleAllRead(connection: number): void;
}

/** The connections of a server: accepts, reads and writes them, and hands them over to other workers or to the web server. */
export class TunnelConnections {
  readonly #host: ConnectionsHost;
  readonly #links: (ConnectionLink | undefined)[] = [];
  /** By connection: its description for operators. */
  readonly #carriers: string[] = [];
  #web: WebServer | undefined;

  constructor(host: ConnectionsHost) {
    this.#host = host;
  }

  /** Describes a connection for operators. */
  carrier(connection: number): string {
    return this.#carriers[connection];
  }

  stream(connection: number): ByteStream | undefined {
    return this.#links[connection]?.stream;
  }

  /** Writes what core has for a connection. */
  pump(now: number, connection: number): void {
    this.#links[connection]?.writer.pump(now);
  }

  // Beginnings

  accept(stream: ByteStream, acceptedAt: number): void {
    // Its descriptor's bytes are not the tunnel's, so another thread could not continue with it.
    const isNested = stream instanceof CodedByteStream;
    this.#attach(stream, this.#host.core.handleAccept(acceptedAt, isNested), carrierOf(stream));
  }

  #acceptNested(stream: ByteStream, carrier: string): void {
    const { core, system } = this.#host;
    this.#attach(stream, core.handleAccept(system.now(), true), carrier);
  }

  /** Takes over a connection whose request another worker has read and accepted. */
  takeOver({ descriptor, head, holder, surplus }: HandedOver): void {
    const { core, system } = this.#host;
    const stream = system.io.tcp.adopt!(descriptor);
    stream.unread(surplus);
    const connection = core.handleHandedOver(system.now(), head, holder);
    this.#attach(stream, connection, carrierOf(stream));
  }

  /** Opens the web server for connections that core leaves to it. */
  async openWebServer(
    open: OpenWebServer,
    options: {
      readonly decoy: string | undefined;
      readonly maxHalfOpen: number;
      readonly handshakeTimeoutMs: number;
    },
  ): Promise<void> {
    this.#web = await open({
      ...options,
      onRequest: (stream) => this.#acceptNested(stream, "HTTP/2"),
      onRefused: (reason) => this.#host.core.counters.refused[reason]++,
    });
  }

  #attach(stream: ByteStream, connection: number, carrier: string): void {
    const { core, driver, system, log } = this.#host;
    this.#carriers[connection] = carrier;
    const source = {
      pollTransmit: (now: number) => core.pollTransmit(now, connection),
      handleTransmitted: () => core.handleTransmitted(connection),
      isLimited: (now: number) => core.isLimited(now, connection),
    };
    linkConnection(this.#links, connection, stream, source, system, {
      onBytes: (chunk, length) => this.#handleBytes(connection, chunk, length),
      onEnded: () => {
        core.handleEnded(system.now(), connection);
        driver.drain();
      },
      onDisconnected: () => {
        core.handleDisconnected(system.now(), connection);
        driver.drain();
      },
      onFailed: (error) => log.debug({ error: error.message }, "connection failed"),
    });
    driver.drain();
  }

  #handleBytes(connection: number, chunk: Uint8Array, end: number): void {
    const host = this.#host;
    const { core, driver } = host;
    const now = driver.now();
    for (let at = 0; at < end; ) {
      at = core.handleStream(now, connection, chunk, at, end);
      host.handleRead(chunk);
    }
    driver.drain();
    host.handleAllRead(connection);
  }

  // Ends

  handleOutput(output: ConnectionOutput): void {
    const { log, others, system } = this.#host;
    switch (output.kind) {
      case "close": {
        const link = this.#links[output.connection];
        if (output.error !== undefined) {
          log.info({ code: output.error.code, error: output.error.message }, "closing a connection");
        }
        if (output.refusal !== undefined) log.debug(output.refusal, "refused a connection");
        if (link === undefined) return;
        link.writer.end();
        system.after(CLOSE_MS, () => link.stream.destroy(), true);
        return;
      }
      case "hand-over": {
        const stream = this.#take(output.connection);
        const { worker, head, holder, surplus } = output;
        const released = stream instanceof DescriptorStream ? stream.release() : undefined;
        if (released === undefined) stream?.destroy();
        else others!.handOver(worker, { descriptor: released.descriptor, head, holder, surplus });
        return;
      }
      case "web-socket": {
        const stream = this.#take(output.connection);
        if (stream === undefined) return;
        this.#acceptNested(acceptWebSocket(system, stream, output.key, output.surplus), "WebSocket");
        return;
      }
      case "http2": {
        const stream = this.#take(output.connection);
        if (stream !== undefined) this.#web!.serveHttp2(stream, output.head, output.surplus);
        return;
      }
      case "stranger": {
        const { connection, refusal, head, surplus } = output;
        log.debug(refusal, "refused a connection");
        const stream = this.#take(connection);
        if (stream !== undefined) this.#web!.answerStranger(stream, head, surplus);
      }
    }
  }

  /** Takes a connection out of core. @returns undefined if it is closed */
  #take(connection: number): ByteStream | undefined {
    const { core, system } = this.#host;
    const link = this.#links[connection];
    this.#links[connection] = undefined;
    core.handleDisconnected(system.now(), connection);
    return link?.stream;
  }

  /**
   * Ends all connections, which have `withinMs` to send the rest.
   *
   * @param others  what else has to end before HTTP/2 does
   */
  async end(others: Promise<unknown> | undefined, withinMs = CLOSE_MS): Promise<void> {
    const ends = this.#links.map((link) => link?.writer.endWithin(withinMs));
    this.#web?.closeStrangers();
    await Promise.all([others, ...ends]);
    // HTTP/2 connections carry nothing more once their requests have ended.
    this.#web?.close();
  }
}

function carrierOf(stream: ByteStream): string {
  if (stream instanceof CodedByteStream) return "shadowsocks";
  return stream.localIp === undefined ? "Unix socket" : "TCP";
}
