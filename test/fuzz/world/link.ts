import type { TunnelClient } from "../../../src/core/client/client.ts";
import type { TunnelServer } from "../../../src/core/server/server.ts";
import type { Ledger } from "../ledger.ts";
import { Applications } from "./applications.ts";

/** Bytes in flight in one direction of a TCP connection. */
export class Pipe {
  /** While true, nothing arrives: the path is interrupted, or the receiver does not read. */
  isStalled = false;
  /** The sender has closed: the end follows the last byte. */
  isEnded = false;
  #bytes = new Uint8Array(4096);
  #start = 0;
  #end = 0;

  get size(): number {
    return this.#end - this.#start;
  }

  append(bytes: Uint8Array): void {
    if (this.#end + bytes.length > this.#bytes.length) {
      const size = this.size + bytes.length;
      const into = size > this.#bytes.length / 2 ? new Uint8Array(2 * size) : this.#bytes;
      into.set(this.#bytes.subarray(this.#start, this.#end));
      this.#bytes = into;
      this.#end = this.size;
      this.#start = 0;
    }
    this.#bytes.set(bytes, this.#end);
    this.#end += bytes.length;
  }

  /** Up to `count` of the bytes that arrive next, in a copy for the caller. */
  take(count: number): Uint8Array {
    const end = Math.min(this.#end, this.#start + count);
    const taken = this.#bytes.slice(this.#start, end);
    this.#start = end;
    return taken;
  }

  clear(): void {
    this.#start = this.#end;
  }
}

/** The host of one client end, with the applications behind it. */
export class ClientHost extends Applications {
  readonly index: number;
  /** By lane: the connection that the core has or will get. */
  readonly lanes: (Link | undefined)[] = [];
  /** Whether it was asked to end. */
  isClosed = false;

  constructor(index: number, core: TunnelClient, ledger: Ledger) {
    super(core, ledger);
    this.index = index;
  }
}

/** One TCP connection of a lane, from `connect` until neither end knows of it any more. */
export class Link {
  readonly client: ClientHost;
  readonly lane: number;
  readonly up = new Pipe();
  readonly down = new Pipe();
  server: TunnelServer | undefined;
  /** The server's number for it. */
  connection = -1;
  /** Whether the end has it open; neither end has before the connection is established. */
  clientIsOpen = false;
  serverIsOpen = false;
  /** Whether the end has lent a batch that the system has not accepted yet. */
  clientWaits = false;
  serverWaits = false;
  /** Nothing arrives any more, because bytes were lost. The ends are informed, or find out by themselves. */
  isCut = false;
  /** Bytes arrive only by single actions, not together with those of other links. */
  isSlow = false;
  /** An end will be informed that the connection is over, whatever is in flight. */
  clientLoses = false;
  serverLoses = false;
  /** When the server's host gives up waiting for the client to close. */
  destroyAt = Number.POSITIVE_INFINITY;

  /** When the end last received bytes. */
  heardByClientAt = 0;
  heardByServerAt = 0;
  /** Whether both ends are past their handshake, so that only capsules follow. */
  isEstablished = false;

  constructor(client: ClientHost, lane: number) {
    this.client = client;
    this.lane = lane;
  }
}
