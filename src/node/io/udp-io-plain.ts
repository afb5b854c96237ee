import type { RemoteInfo, Socket } from "node:dgram";
import { createSocket } from "node:dgram";
import { ReceivedDatagrams, ROW_INTS } from "../../core/session/received-datagrams.ts";
import { splitZone } from "../../host/addresses/endpoint.ts";
import type { Remote, UdpIo, UdpSocket, UdpSocketOptions } from "../../host/io/udp-io.ts";
import { UDP_BUFFER_BYTES } from "../../host/io/udp-io.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import { isLinkLocal, makeAddress } from "../../wire/socket-address.ts";

/** Bytes that may wait in a socket until the system accepts them. */
const MAX_PENDING_BYTES = 1_048_576;
const CACHED_REMOTES = 4096;
/** Zones that one socket distinguishes. */
const MAX_ZONES = 255;

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
  /** Zone of the address that the socket is bound to. */
  readonly #zone: string | undefined;
  /** Zones of sources, by their numbers minus 1. */
  readonly #zones: string[] = [];
  #port = 0;
  #isClosed = false;
  #error: Error | undefined;

  constructor({ family, host, port, outgoing, onDatagrams, onBindError }: UdpSocketOptions) {
    const socket = createSocket({
      type: family === 4 ? "udp4" : "udp6",
      ipv6Only: family === 6,
      lookup: noLookup as never,
    });
    this.#socket = socket;
    this.#zone = host === undefined ? undefined : splitZone(host).zone;
    socket.on("message", (data: Buffer, remote: RemoteInfo) => {
      this.#received.setOnly(data, 0, data.length, this.#addressOf(remote), this.#localOf(remote));
      onDatagrams(this.#received, 0, 1);
    });
    socket.on("error", (error) => {
      // Only once the caller has the socket that the error concerns.
      if (this.#port > 0 || this.#isClosed) return;
      this.#error = error;
      queueMicrotask(() => onBindError(error));
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
    else setImmediate(onBindError, new Error("an outgoing interface or mark needs native I/O"));
  }

  get port(): number {
    return this.#port;
  }

  get error(): Error | undefined {
    return this.#error;
  }

  get receiveBufferBytes(): number {
    return this.#port === 0 ? 0 : this.#socket.getRecvBufferSize();
  }

  send(
    header: Uint8Array | undefined,
    data: Uint8Array,
    offset: number,
    length: number,
    remote: Remote,
  ): boolean {
    if (this.#isClosed || this.#port === 0) return false;
    // node:dgram throws; a source may have port 0.
    if (remote.port === 0) return false;
    if (this.#socket.getSendQueueSize() > MAX_PENDING_BYTES) return false;
    const host = this.#hostOf(remote);
    if (header === undefined) this.#socket.send(data, offset, length, remote.port, host);
    else this.#socket.send([header, data.subarray(offset, offset + length)], remote.port, host);
    return true;
  }

  sendAll(
    header: Uint8Array | undefined,
    data: Uint8Array,
    offsets: Int32Array,
    lengths: Int32Array,
    first: number,
    end: number,
    remote: Remote,
  ): number {
    let dropped = 0;
    for (let i = first; i < end; i++) if (!this.send(header, data, offsets[i], lengths[i], remote)) dropped++;
    return dropped;
  }

  setLatency(): void {}

  setDscp(): void {}

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#socket.close();
  }

  /** The number of a link-local source's zone, which its answers need; 0 for other sources. */
  #localOf({ address }: RemoteInfo): number {
    const { zone } = splitZone(address);
    if (zone === undefined) return 0;
    const known = this.#zones.indexOf(zone);
    if (known >= 0) return known + 1;
    return this.#zones.length < MAX_ZONES ? this.#zones.push(zone) : 0;
  }

  /** Adds a zone to a link-local remote: the zone in which it was heard, or that of this socket. */
  #hostOf({ host, address, local }: Remote): string {
    const zone = this.#zones[local - 1] ?? this.#zone;
    return zone !== undefined && isLinkLocal(address) ? `${host}%${zone}` : host;
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
    bytes = makeAddress(splitZone(address).ip, port)!;
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
