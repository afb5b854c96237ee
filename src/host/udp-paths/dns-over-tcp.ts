import { DNS_HEADER_BYTES, truncatedAnswer, udpAnswerLimit } from "../../wire/dns-message.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { copyAddress } from "../../wire/socket-address.ts";
import { Cancellation } from "../cancellation.ts";
import type { Loop } from "../loop.ts";
import type { ByteStream } from "../stream/byte-stream.ts";
import type { OutgoingDatagram, UdpPath, UdpPathHost } from "./udp-path.ts";

/** Pending queries; further ones are dropped, and applications repeat them. */
const MAX_QUERIES = 512;
const DEADLINE_MS = 10_000;

/** Sends each DNS query to its server over its own TCP connection (RFC 7766), for networks that let no UDP out. */
export class DnsOverTcpPath implements UdpPath {
  readonly #loop: Loop;
  readonly #host: UdpPathHost;
  readonly #connect: (target: AddressBytes, cancellation: Cancellation) => Promise<ByteStream>;
  /** By association: cancels its queries. */
  readonly #cancellations: (Cancellation | undefined)[] = [];
  #queries = 0;

  constructor(
    loop: Loop,
    host: UdpPathHost,
    connect: (target: AddressBytes, cancellation: Cancellation) => Promise<ByteStream>,
  ) {
    this.#loop = loop;
    this.#host = host;
    this.#connect = connect;
  }

  open(association: number): void {
    this.#cancellations[association] = new Cancellation();
  }

  send(datagram: OutgoingDatagram): void {
    const { association, data, offset, length } = datagram;
    const cancellation = this.#cancellations[association];
    if (cancellation === undefined || length < DNS_HEADER_BYTES || this.#queries >= MAX_QUERIES) {
      this.#host.drop(length < DNS_HEADER_BYTES ? "malformed" : "send_error", 1);
      return;
    }
    const query = new Uint8Array(2 + length);
    query[0] = length >> 8;
    query[1] = length;
    query.set(data.subarray(offset, offset + length), 2);
    const server = copyAddress(datagram.addresses, datagram.addressOffset, datagram.addressLength);
    void this.#ask(association, cancellation, query, server);
  }

  flush(): void {}

  close(association: number): void {
    this.#cancellations[association]?.cancel();
    this.#cancellations[association] = undefined;
  }

  async end(): Promise<void> {
    for (const association of this.#cancellations.keys()) this.close(association);
  }

  async #ask(
    association: number,
    cancellation: Cancellation,
    query: Uint8Array,
    server: AddressBytes,
  ): Promise<void> {
    this.#queries++;
    const deadline = cancellation.within(this.#loop, DEADLINE_MS);
    let stream: ByteStream | undefined;
    try {
      stream = await this.#connect(server, deadline);
      const answer = await exchange(stream, query, deadline);
      const isTooLong = answer.length > udpAnswerLimit(query, 2, query.length);
      const sent = isTooLong ? truncatedAnswer(answer) : answer;
      if (sent !== undefined) this.#host.deliver(association, server, sent, 0, sent.length);
      else this.#host.drop("malformed", 1);
    } catch {
      this.#host.drop("send_error", 1);
      // The association has ended.
      if (cancellation.isCancelled) return;
      this.#host.refuse(association, server, "port", 0);
    } finally {
      deadline.release();
      stream?.destroy();
      this.#queries--;
    }
  }
}

/** Sends one query and receives its answer, each preceded by its length. */
function exchange(stream: ByteStream, query: Uint8Array, cancellation: Cancellation): Promise<Uint8Array> {
  return new Promise((done, failed) => {
    let got = new Uint8Array(0);
    const lost = () => failed(new Error("closed by the server"));
    cancellation.onCancel(() => failed(new Error("the attempt was cancelled")));
    stream.start({
      onBytes: (chunk, count) => {
        const joined = new Uint8Array(got.length + count);
        joined.set(got);
        joined.set(chunk.subarray(0, count), got.length);
        got = joined;
        const length = got.length < 2 ? Number.POSITIVE_INFINITY : (got[0] << 8) | got[1];
        if (got.length >= 2 + length) done(got.subarray(2, 2 + length));
      },
      onEnd: lost,
      onWritten: () => {},
      onClose: lost,
    });
    stream.write(query);
  });
}
