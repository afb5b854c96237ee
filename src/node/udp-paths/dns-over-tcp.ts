import type { Duplex } from "node:stream";
import type { OutgoingDatagram, UdpPath, UdpPathHost } from "../../host/udp-paths/udp-path.ts";
import { DNS_HEADER_BYTES, truncatedAnswer, udpAnswerLimit } from "../../wire/dns-message.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyAddress } from "../../wire/socket-address.ts";

/** Pending queries; further ones are dropped, and applications repeat them. */
const MAX_QUERIES = 512;
const DEADLINE_MS = 10_000;

/** Sends each DNS query to its server over its own TCP connection (RFC 7766), where no UDP gets out. */
export class DnsOverTcpPath implements UdpPath {
  readonly #host: UdpPathHost;
  readonly #connect: (target: AddressBytes, signal: AbortSignal) => Promise<Duplex>;
  /** By association: aborts its queries. */
  readonly #aborts: (AbortController | undefined)[] = [];
  #queries = 0;

  constructor(host: UdpPathHost, connect: (target: AddressBytes, signal: AbortSignal) => Promise<Duplex>) {
    this.#host = host;
    this.#connect = connect;
  }

  open(association: number): void {
    this.#aborts[association] = new AbortController();
  }

  send(datagram: OutgoingDatagram): void {
    const { association, data, offset, length } = datagram;
    const abort = this.#aborts[association];
    if (abort === undefined || length < DNS_HEADER_BYTES || this.#queries >= MAX_QUERIES) {
      this.#host.drop(length < DNS_HEADER_BYTES ? "malformed" : "send_error", 1);
      return;
    }
    const query = new Uint8Array(2 + length);
    query[0] = length >> 8;
    query[1] = length;
    query.set(data.subarray(offset, offset + length), 2);
    const server = copyAddress(datagram.addresses, datagram.addressOffset, datagram.addressLength);
    void this.#ask(association, abort, query, server);
  }

  flush(): void {}

  close(association: number): void {
    this.#aborts[association]?.abort();
    this.#aborts[association] = undefined;
  }

  async end(): Promise<void> {
    for (const association of this.#aborts.keys()) this.close(association);
  }

  async #ask(
    association: number,
    abort: AbortController,
    query: Uint8Array,
    server: AddressBytes,
  ): Promise<void> {
    this.#queries++;
    const signal = AbortSignal.any([abort.signal, AbortSignal.timeout(DEADLINE_MS)]);
    let stream: Duplex | undefined;
    try {
      stream = await this.#connect(server, signal);
      const answer = await exchange(stream, query, signal);
      const isTooLong = answer.length > udpAnswerLimit(query, 2, query.length);
      const sent = isTooLong ? truncatedAnswer(answer) : answer;
      if (sent !== undefined) this.#host.deliver(association, server, sent, 0, sent.length);
    } catch {
      if (!abort.signal.aborted) this.#host.refuse(association, server, "port", 0);
    } finally {
      stream?.destroy();
      this.#queries--;
    }
  }
}

/** Sends one query and receives its answer, each preceded by its length. */
function exchange(stream: Duplex, query: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
  return new Promise((done, failed) => {
    let got = new Uint8Array(0);
    stream.on("error", failed);
    for (const event of ["end", "close"]) stream.once(event, () => failed(new Error("closed by the server")));
    signal.addEventListener("abort", () => failed(new Error("given up")), { once: true });
    stream.on("data", (chunk: Uint8Array) => {
      const joined = new Uint8Array(got.length + chunk.length);
      joined.set(got);
      joined.set(chunk, got.length);
      got = joined;
      const length = got.length < 2 ? Number.POSITIVE_INFINITY : (got[0] << 8) | got[1];
      if (got.length >= 2 + length) done(got.subarray(2, 2 + length));
    });
    stream.write(query);
    stream.resume();
  });
}
