import type { Counters } from "../../core/counters.ts";
import { DialectServer } from "../../core/dialects/dialect-server.ts";
import type { DialectServerOptions } from "../../core/dialects/dialect-server-options.ts";
import type { DialectServerOutput } from "../../core/dialects/dialect-server-output.ts";
import type { Dialect } from "../../wire/dialects/dialect.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import type { NameLookups } from "../addresses/name-lookups.ts";
import { Driver } from "../driver.ts";
import type { Logger } from "../log.ts";
import type { PathCounts } from "../stats/path-counts.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import type { ConnectionLink } from "../stream/connection-link.ts";
import { linkConnection } from "../stream/connection-link.ts";
import type { System } from "../system.ts";
import type { UdpPath, UdpPathHost } from "../udp-paths/udp-path.ts";
import { OutgoingDatagram } from "../udp-paths/udp-path.ts";

/** Time limit for a closing connection to send the rest. */
const CLOSE_MS = 1_000;

/** Connects {@link DialectServer} with connections, a way out for datagrams, a resolver and a timer. */
export class DialectHost implements UdpPathHost {
  readonly #core: DialectServer;
  readonly #names: NameLookups;
  readonly #system: System;
  readonly #log: Logger;
  readonly #driver: Driver;
  readonly #links: (ConnectionLink | undefined)[] = [];
  readonly #datagram = new OutgoingDatagram();
  #path: UdpPath | undefined;
  #isClosing = false;

  /** @param counters  of the process; shared with its other endpoints */
  constructor(
    options: DialectServerOptions,
    names: NameLookups,
    counters: Counters,
    system: System,
    log: Logger,
  ) {
    this.#names = names;
    this.#core = new DialectServer(options, counters);
    this.#driver = new Driver(system, system.io.udp, {
      drain: (now) => this.#carryOut(now),
      handleTimeout: (now) => this.#core.handleTimeout(now),
      nextTimeout: () => this.#core.nextTimeout(),
    });
    this.#log = log;
    this.#system = system;
  }

  /** Sets the way out, which delivers answers here. Call this before the first connection. */
  use(path: UdpPath): void {
    this.#path = path;
  }

  get connectionCount(): number {
    return this.#core.connectionCount;
  }

  get flowCount(): number {
    return this.#core.flowCount;
  }

  /** See `UdpPath.counts`. */
  pathCounts(): PathCounts | undefined {
    return this.#path?.counts?.();
  }

  /**
   * Serves a connection.
   *
   * @param how      see {@link DialectServer.handleAccept}
   * @param request  the address of the SOCKS5 request that opened it
   */
  accept(stream: ByteStream, how: Dialect | readonly Dialect[], request?: AddressBytes): void {
    const core = this.#core;
    const connection = core.handleAccept(this.#system.now(), how, request);
    const source = {
      pollTransmit: (now: number) => core.pollTransmit(now, connection),
      handleTransmitted: () => core.handleTransmitted(connection),
    };
    linkConnection(this.#links, connection, stream, source, this.#system, {
      onBytes: (chunk, length) => this.#handleStream(connection, chunk, length),
      onEnded: () => {
        core.handleEnded(connection);
        this.#drain();
      },
      onDisconnected: () => {
        core.handleDisconnected(connection);
        this.#drain();
      },
      onFailed: (error) => this.#log.debug({ error: error.message }, "connection failed"),
    });
    this.#drain();
  }

  async close(): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    this.#driver.stop();
    const links = this.#links.filter((link) => link !== undefined);
    this.#core.close();
    this.#handleOutputs();
    await Promise.all(
      links.map(({ writer, stream }) => (stream.isClosed ? undefined : writer.endWithin(CLOSE_MS))),
    );
  }

  // UdpPathHost

  deliver(association: number, remote: AddressBytes, data: Uint8Array, offset: number, length: number): void {
    this.#core.handleDatagram(this.#driver.now(), association, data, offset, length, remote);
    this.#driver.schedule();
  }

  /** No dialect can express it. */
  refuse(): void {}

  drop(reason: Parameters<UdpPathHost["drop"]>[0], count: number): void {
    this.#core.counters.drops[reason] += count;
  }

  // The loop

  #handleStream(connection: number, chunk: Uint8Array, end: number): void {
    const now = this.#driver.now();
    for (let at = 0; at < end; ) {
      at = this.#core.handleStream(now, connection, chunk, at, end);
      // No output belongs to a flow that has ended.
      this.#handleOutputs();
      this.#sendOutgoing(chunk);
    }
    this.#drain();
  }

  /** @param chunk  memory that does not change before it is sent; other memory is copied */
  #sendOutgoing(chunk: Uint8Array | undefined): void {
    const { outgoing, remotes } = this.#core;
    const { count, association, context, offset, length } = outgoing;
    if (count === 0) return;
    const data = outgoing.data === chunk ? chunk : outgoing.data.slice();
    const { tap } = this.#core.counters;
    if (tap !== undefined) this.#core.recordOutgoing(tap);
    const datagram = this.#datagram;
    for (let i = 0; i < count; i++) {
      const target = remotes.target[context[i]];
      if (target === undefined) {
        this.#core.dropOutgoing(i, data);
        continue;
      }
      datagram.setPayload(association[i], data, offset[i], length[i], 0);
      datagram.setTarget(target, 0, target.length);
      this.#path!.send(datagram);
    }
    this.#path!.flush();
    outgoing.count = 0;
  }

  #drain(): void {
    this.#driver.drain();
  }

  #carryOut(now: number): void {
    this.#handleOutputs();
    for (let index = this.#core.pollDirty(); index >= 0; index = this.#core.pollDirty()) {
      this.#links[index]?.writer.pump(now);
    }
  }

  #handleOutputs(): void {
    const core = this.#core;
    for (let output = core.pollOutput(); output !== undefined; output = core.pollOutput()) {
      this.#handleOutput(output);
    }
  }

  #handleOutput(output: DialectServerOutput): void {
    switch (output.kind) {
      case "open":
        this.#path!.open(output.flow, undefined);
        return;
      case "release":
        this.#path!.close(output.flow);
        return;
      case "close": {
        const link = this.#links[output.connection];
        if (output.error !== undefined) {
          this.#log.info({ code: output.error.code, error: output.error.message }, "closing a connection");
        }
        if (link === undefined) return;
        link.writer.end();
        this.#system.after(CLOSE_MS, () => link.stream.destroy(), true);
        return;
      }
      case "resolve":
        void this.#resolve(output.client, output.query, output.name, output.port);
    }
  }

  async #resolve(client: string, query: number, name: string, port: number): Promise<void> {
    const addresses = await this.#names.resolve(client, name, port);
    this.#core.handleResolved(this.#system.now(), query, addresses);
    this.#sendOutgoing(undefined);
    this.#drain();
  }
}
