import { TunnelServer } from "../../src/core/server/server.ts";
import type { TunnelServerOptions } from "../../src/core/server/server-options.ts";
import { formatAddress, makeAddress } from "../../src/wire/socket-address.ts";
import { seededCryptography } from "./network.ts";
import { SERVER_DEFAULTS } from "./server-defaults.ts";

const bytesOf = (text: string) => new TextEncoder().encode(text);

/** One connection of an RFC 9298 client that writes its bytes by hand. */
export class PlainPeer {
  readonly #world: PlainWorld;
  readonly index: number;
  #received = "";
  isClosed = false;

  constructor(world: PlainWorld, index: number) {
    this.#world = world;
    this.index = index;
  }

  /** Sends a request for `HOST/PORT` in the template. @returns the start line and fields of the answer */
  request(target: string, fields: readonly string[] = []): string {
    const lines = ["Host: a", "Connection: Upgrade", "Upgrade: connect-udp", ...fields];
    this.sendBytes(
      bytesOf(`GET /.well-known/masque/udp/${target}/ HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`),
    );
    return this.takeText();
  }

  /** A bound tunnel without fallback. */
  bind(): string {
    return this.request("%2A/%2A", ["Connect-UDP-Bind: ?1"]);
  }

  send(hex: string): void {
    this.sendBytes(Buffer.from(hex.replaceAll(" ", ""), "hex"));
  }

  sendBytes(bytes: Uint8Array): void {
    this.#world.stream(this, bytes);
  }

  end(): void {
    this.#world.server.handleEnded(this.#world.now, this.index);
    this.#world.drain();
  }

  hear(bytes: Uint8Array): void {
    this.#received += Buffer.from(bytes).toString("latin1");
  }

  /** Bytes received since the last call. */
  takeText(): string {
    const text = this.#received;
    this.#received = "";
    return text;
  }

  /** The same in hex. */
  take(): string {
    return Buffer.from(this.takeText(), "latin1").toString("hex");
  }
}

/**
 * A server in virtual time that serves RFC 9298 clients. Associations bind ports 40000 and up of 192.0.2.100; the policy
 * denies targets in 10.0.0.0/8.
 */
export class PlainWorld {
  now = 1_000;
  readonly server: TunnelServer;
  /** Datagrams that targets received: `association > target: payload`. */
  readonly atTargets: string[] = [];
  readonly #peers = new Map<number, PlainPeer>();
  #nextPort = 40_000;

  constructor(options: Partial<TunnelServerOptions> = {}) {
    this.server = new TunnelServer({
      ...SERVER_DEFAULTS,
      crypto: seededCryptography(1),
      ...options,
    });
  }

  connect(): PlainPeer {
    const index = this.server.handleAccept(this.now);
    const peer = new PlainPeer(this, index);
    this.#peers.set(index, peer);
    this.drain();
    return peer;
  }

  stream(peer: PlainPeer, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      at = this.server.handleStream(this.now, peer.index, bytes, at, bytes.length);
      const { outgoing, contexts } = this.server;
      for (let row = 0; row < outgoing.count; row++) {
        const { [row]: offset } = outgoing.offset;
        const payload = outgoing.data.subarray(offset, offset + outgoing.length[row]);
        const target = formatAddress(contexts.target[outgoing.context[row]]!);
        this.atTargets.push(`${outgoing.association[row]} > ${target}: ${Buffer.from(payload).toString()}`);
      }
      this.drain();
    }
  }

  /** Delivers a datagram to an association's socket. */
  receive(association: number, source: string, payload: string): void {
    const at = source.lastIndexOf(":");
    const host = source.slice(0, at).replace(/^\[|\]$/g, "");
    const remote = makeAddress(host, Number(source.slice(at + 1)))!;
    const bytes = bytesOf(payload);
    this.server.handleDatagram(this.now, association, bytes, 0, bytes.length, remote);
    this.drain();
  }

  /** Advances time and meets every deadline. */
  pass(ms: number): void {
    const end = this.now + ms;
    while (this.server.nextTimeout() <= end) {
      this.now = Math.max(this.now, this.server.nextTimeout());
      this.server.handleTimeout(this.now);
      this.drain();
    }
    this.now = end;
  }

  drain(): void {
    const { server } = this;
    for (let output = server.pollOutput(); output !== undefined; output = server.pollOutput()) {
      if (output.kind === "bind") {
        server.handleBound(this.now, output.association, [`192.0.2.100:${this.#nextPort++}`]);
      } else if (output.kind === "close") {
        this.#write(output.connection);
        this.#peers.get(output.connection)!.isClosed = true;
        this.#peers.delete(output.connection);
        server.handleDisconnected(this.now, output.connection);
      }
    }
    for (let index = server.pollDirty(this.now); index >= 0; index = server.pollDirty(this.now))
      this.#write(index);
  }

  #write(index: number): void {
    for (;;) {
      const bytes = this.server.pollTransmit(this.now, index);
      if (bytes === undefined) return;
      this.#peers.get(index)?.hear(bytes);
      this.server.handleTransmitted(index);
    }
  }
}
