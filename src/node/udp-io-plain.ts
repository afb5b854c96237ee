import type { RemoteInfo, Socket } from "node:dgram";
import { createSocket } from "node:dgram";
import { ReceivedDatagrams, ROW_INTS } from "../core/received-datagrams.ts";
import type { AddressBytes } from "../wire/socket-address.ts";
import { makeAddress } from "../wire/socket-address.ts";
import type { Remote, UdpIo, UdpSocket, UdpSocketOptions } from "./udp-io.ts";
import { UDP_BUFFER_BYTES } from "./udp-io.ts";

/** Bytes that may wait in a socket until the system accepts them. */
const MAX_PENDING_BYTES = 1_048_576;
const CACHED_REMOTES = 4096;

type Lookup = (
  host: string,
  family: unknown,
  callback: (error: Error | null, address: string, family: number) => void,
) => void;

/** Hosts are always IP addresses, so there is nothing to look up or to wait for. */
const noLookup: Lookup = (host, _family, callback) => callback(null, host, 0);

const NO_BYTES = new Uint8Array(0);

/** UDP over node:dgram: a system call and an event for each datagram. */
class PlainUdpSocket implements UdpSocket {
  readonly #socket: Socket;
  readonly #received = new ReceivedDatagrams(NO_BYTES, NO_BYTES, new Int32Array(ROW_INTS));
  readonly #remotes = new Map<string, Map<number, AddressBytes>>();
  #remoteCount = 0;
  #port = 0;
  #isClosed = false;

  constructor({ family, host, port, outgoing, onDatagrams, onBindError }: UdpSocketOptions) {
    const socket = createSocket({
      type: family === 4 ? "udp4" : "udp6",
      ipv6Only: family === 6,
      lookup: noLookup as never,
    });
    this.#socket = socket;
    socket.on("message", (data: Buffer, remote: RemoteInfo) => {
      this.#received.setOnly(data, 0, data.length, this.#addressOf(remote));
      onDatagrams(this.#received, 0, 1);
    });
    socket.on("error", (error) => {
      // Not before the caller has the socket that this is about.
      if (this.#port === 0 && !this.#isClosed) queueMicrotask(() => onBindError(error));
    });
    socket.once("listening", () => {
      this.#port = socket.address().port;
      try {
        socket.setRecvBufferSize(UDP_BUFFER_BYTES);
        socket.setSendBufferSize(UDP_BUFFER_BYTES);
      } catch {
        // The system's default works, with more loss in bursts.
      }
    });
    if (outgoing === undefined) socket.bind({ port, address: host, exclusive: true });
    else setImmediate(onBindError, new Error("an interface or a mark to leave by needs native I/O"));
  }

  get port(): number {
    return this.#port;
  }

  get receiveBufferBytes(): number {
    return this.#port === 0 ? 0 : this.#socket.getRecvBufferSize();
  }

  get hasPending(): boolean {
    return !this.#isClosed && this.#socket.getSendQueueCount() > 0;
  }

  send(
    header: Uint8Array | undefined,
    data: Uint8Array,
    offset: number,
    length: number,
    remote: Remote,
  ): boolean {
    if (this.#isClosed || this.#port === 0) return false;
    if (this.#socket.getSendQueueSize() > MAX_PENDING_BYTES) return false;
    if (header === undefined) this.#socket.send(data, offset, length, remote.port, remote.host);
    else this.#socket.send([header, data.subarray(offset, offset + length)], remote.port, remote.host);
    return true;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#socket.close();
  }

  /** Bytes of the source, parsed once for each source. */
  #addressOf({ address, port }: RemoteInfo): AddressBytes {
    let ports = this.#remotes.get(address);
    let bytes = ports?.get(port);
    if (bytes !== undefined) return bytes;
    if (this.#remoteCount >= CACHED_REMOTES) {
      this.#remotes.clear();
      this.#remoteCount = 0;
      ports = undefined;
    }
    // A link-local source has a zone, which is meaningless elsewhere.
    bytes = makeAddress(address.replace(/%.*$/, ""), port)!;
    if (ports === undefined) {
      ports = new Map();
      this.#remotes.set(address, ports);
    }
    ports.set(port, bytes);
    this.#remoteCount++;
    return bytes;
  }
}

/** @see UdpIo */
export const plainUdpIo: UdpIo = {
  kind: "plain",
  open: (options) => new PlainUdpSocket(options),
  flush: () => 0,
  afterTurn: (callback) => void setImmediate(callback),
};
