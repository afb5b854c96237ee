import type { ReceivedDatagrams } from "../core/received-datagrams.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import { addressPort, copyAddress, sameBytes } from "../wire/socket-address.ts";
import { UDP_HEADER_FRAGMENT, UdpHeader, writeUdpHeader } from "../wire/socks5.ts";
import type { Relay, RelayHost } from "./fixed-forward.ts";
import type { UdpIo, UdpSocket } from "./udp-io.ts";
import { Remote } from "./udp-io.ts";

/**
 * The UDP port of one SOCKS5 UDP ASSOCIATE (RFC 1928 §7). Hears only the client's IP, and of it only the port that
 * the request named or that sent first.
 */
export class Socks5Relay implements Relay {
  readonly socket: UdpSocket;
  readonly #host: RelayHost;
  readonly #association: number;
  /** The client's IP, with port 0 until it is known. */
  readonly #client: AddressBytes;
  #remote: Remote | undefined;
  readonly #header = new UdpHeader();
  /** UDP headers by context slot, and the generation of the slot that each is for. */
  readonly #headers: (Uint8Array | undefined)[] = [];
  readonly #generations: number[] = [];

  constructor(
    host: RelayHost,
    io: UdpIo,
    listen: { readonly family: 4 | 6; readonly host: string },
    client: AddressBytes,
    association: number,
    onBindError: (error: Error) => void,
  ) {
    this.#host = host;
    this.#association = association;
    this.#client = client;
    if (addressPort(client) !== 0) this.#remote = new Remote(client);
    this.socket = io.open({
      ...listen,
      port: 0,
      reusePort: false,
      onDatagrams: (received, first, end) => {
        for (let row = first; row < end; row++) this.#handleDatagram(received, row);
        this.#host.schedule();
      },
      onBindError,
    });
  }

  deliver(_association: number, context: number, data: Uint8Array, offset: number, length: number): boolean {
    if (this.#remote === undefined) return false;
    const { contexts } = this.#host.core;
    let header = this.#headers[context];
    if (header === undefined || this.#generations[context] !== contexts.generation[context]) {
      const address = contexts.address[context]!;
      header = new Uint8Array(3 + address.length);
      writeUdpHeader(header, 0, address);
      this.#headers[context] = header;
      this.#generations[context] = contexts.generation[context];
    }
    return this.socket.send(header, data, offset, length, this.#remote);
  }

  forget(): void {
    this.socket.close();
  }

  #handleDatagram(received: ReceivedDatagrams, row: number): void {
    const { core } = this.#host;
    const { data, addresses } = received;
    const source = received.addressOffset(row);
    const sourceLength = received.addressLength(row);
    const isKnown = this.#remote !== undefined;
    const compared = isKnown ? sourceLength : sourceLength - 2;
    const expected = this.#remote?.address ?? this.#client;
    if (sourceLength !== expected.length || !sameBytes(addresses, source, expected, 0, compared)) {
      core.counters.drops.wrong_source++;
      return;
    }
    const offset = received.offset(row);
    const length = received.length(row);
    const header = this.#header;
    const headerLength = header.read(data, offset, offset + length);
    if (headerLength < 0) {
      core.counters.drops[headerLength === UDP_HEADER_FRAGMENT ? "fragment" : "malformed"]++;
      return;
    }
    if (!isKnown) this.#remote = new Remote(copyAddress(addresses, source, sourceLength));
    core.handleDatagram(
      this.#host.now(),
      this.#association,
      data,
      offset + headerLength,
      length - headerLength,
      header.addresses,
      header.addressOffset,
      header.addressLength,
    );
  }
}
