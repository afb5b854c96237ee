import type { TargetRule } from "../../core/target-rule.ts";
import { isWithin } from "../../core/target-rule.ts";
import { fold, pseudoHeaderSum, sumBytes } from "../../wire/ip/checksum.ts";
import { PROTOCOL_UDP } from "../../wire/ip/ip-packet.ts";
import { IPV4_DESTINATION, IPV4_HEADER_BYTES, IPV4_SOURCE, writeIpv4Header } from "../../wire/ip/ipv4.ts";
import { IPV6_DESTINATION, IPV6_HEADER_BYTES, IPV6_SOURCE, writeIpv6Header } from "../../wire/ip/ipv6.ts";
import { UDP_CHECKSUM, UDP_HEADER_BYTES, udpChecksumOf, writeUdpHeader } from "../../wire/ip/udp.ts";
import { readUint16, writeUint16 } from "../../wire/network-order.ts";
import {
  asciiBytes,
  COMMENT_BYTES,
  MAX_OTHER_BLOCK_BYTES,
  PACKET_BLOCK_BYTES,
  PACKET_INBOUND,
  PACKET_OUTBOUND,
  packetOffset,
  writeInterface,
  writePacket,
  writeSection,
  writeStatistics,
} from "../../wire/pcapng.ts";
import type { AddressBytes } from "../../wire/socket-address.ts";
import {
  ATYP_DOMAIN,
  ATYP_IPV6,
  addressDomain,
  addressPort,
  formatAddress,
} from "../../wire/socket-address.ts";
import type { Loop, Timer } from "../loop.ts";
import type { RingFile } from "./ring-file.ts";

/** Bytes that are gathered before the file gets them. */
const CHUNK_BYTES = 262_144;
/** How long a record may wait for others. */
const FLUSH_MS = 100;
const MAX_PACKET_BYTES = 65_535;
const HOP_LIMIT = 64;
const NO_COMMENT = new Uint8Array(0);

export interface TapWriterOptions {
  /** Names the interface, and the program in the file. */
  readonly program: string;
  /** Size at which the next file begins. */
  readonly fileBytes: number;
  /** Limit of the bytes that are kept of a payload. */
  readonly payloadBytes: number;
  /** Only these remote addresses; empty for all. */
  readonly filter: readonly TargetRule[];
  /** Whether each association has an interface of its own. */
  readonly isByAssociation: boolean;
  /** Milliseconds since 1970. */
  readonly unixMs: () => number;
  readonly after: Loop["after"];
  /** The first record was lost. */
  readonly onLoss: () => void;
}

/** A datagram's addresses, as IP packets contain them. */
interface Ends {
  readonly isIpv6: boolean;
  readonly local: Uint8Array;
  readonly localPort: number;
  readonly remote: Uint8Array;
  readonly remotePort: number;
}

/** Writes the datagrams that taps see into pcapng files, as IP packets: one record for each counted datagram. */
export class TapWriter {
  /** Records since the start: written, and lost because the disk was too slow or full. */
  written = 0;
  lost = 0;

  readonly #options: TapWriterOptions;
  readonly #file: RingFile;
  #chunk: Uint8Array | undefined;
  #used = 0;
  /** Bytes of the current file that were handed over. */
  #fileBytes = 0;
  #interfaceCount = 0;
  /** By the application's address, which is the association's own object, or by number if that is unknown. */
  readonly #interfaces = new Map<AddressBytes | number, number>();
  readonly #comments = new Map<string, Uint8Array>();
  #timer: Timer | undefined;

  constructor(options: TapWriterOptions, file: RingFile) {
    this.#options = options;
    this.#file = file;
  }

  /**
   * A datagram.
   *
   * @param isInbound    out of a tunnel
   * @param toRemote     from the application to its target
   * @param association  -1 for none
   */
  writeDatagram(
    isInbound: boolean,
    toRemote: boolean,
    reason: string | undefined,
    association: number,
    local: AddressBytes | undefined,
    remote: AddressBytes | undefined,
    data: Uint8Array,
    offset: number,
    length: number,
  ): void {
    if (!this.#isWanted(remote)) return;
    const ends = endsOf(association, local, remote);
    const kept = Math.min(length, this.#options.payloadBytes);
    const headers = (ends.isIpv6 ? IPV6_HEADER_BYTES : IPV4_HEADER_BYTES) + UDP_HEADER_BYTES;
    const comment = this.#commentOf(reason, remote);
    const id = this.#begin(headers + kept + comment.length, association, local);
    if (id < 0) return;
    const chunk = this.#chunk!;
    const start = packetOffset(this.#used);
    const payload = start + headers;
    chunk.set(data.subarray(offset, offset + kept), payload);
    if (ends.isIpv6) writeIpv6(chunk, start, ends, toRemote, data, offset, length);
    else writeIpv4(chunk, start, ends, toRemote, length);
    this.#finish(id, headers + kept, headers + length, isInbound, comment);
  }

  /** A packet that was dropped on its way from the application into a tunnel. */
  writePacket(reason: string, data: Uint8Array, start: number, end: number): void {
    if (!this.#isWantedPacket(data, start, end)) return;
    const kept = Math.min(end - start, this.#options.payloadBytes + IPV6_HEADER_BYTES + UDP_HEADER_BYTES);
    const comment = this.#commentOf(reason, undefined);
    const id = this.#begin(kept + comment.length, -1, undefined);
    if (id < 0) return;
    this.#chunk!.set(data.subarray(start, start + kept), packetOffset(this.#used));
    this.#finish(id, kept, end - start, false, comment);
  }

  /** Hands over the gathered bytes. */
  flush(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#chunk === undefined || this.#used === 0) return;
    this.#file.write(this.#chunk.subarray(0, this.#used));
    this.#fileBytes += this.#used;
    this.#chunk = undefined;
    this.#used = 0;
  }

  /** Adds its counts to those of its host. */
  count(counters: { tapRecords: number; tapLost: number }): void {
    counters.tapRecords = this.written;
    counters.tapLost = this.lost;
  }

  async close(): Promise<void> {
    // A tap that saw nothing still writes a valid, empty file.
    if (this.#interfaceCount === 0) this.#begin(0, -1, undefined);
    this.#endFile();
    await this.#file.close();
  }

  #isWanted(remote: AddressBytes | undefined): boolean {
    const { filter } = this.#options;
    if (filter.length === 0) return true;
    if (remote === undefined) return false;
    const isName = remote[0] === ATYP_DOMAIN;
    const port = addressPort(remote);
    for (const rule of filter) {
      if (isWithin(rule, remote, 1, isName ? 0 : remote.length - 3, port)) return true;
    }
    return false;
  }

  #isWantedPacket(data: Uint8Array, start: number, end: number): boolean {
    const { filter } = this.#options;
    if (filter.length === 0) return true;
    const isIpv6 = data[start] >> 4 === 6;
    const header = isIpv6 ? IPV6_HEADER_BYTES : (data[start] & 15) * 4;
    if (end - start < header + 4) return false;
    const at = start + (isIpv6 ? IPV6_DESTINATION : IPV4_DESTINATION);
    const port = readUint16(data, start + header + 2);
    return filter.some((rule) => isWithin(rule, data, at, isIpv6 ? 16 : 4, port));
  }

  /** Makes room for a record, in the next file if the current one is full. @returns its interface; -1 when the record is lost */
  #begin(bytes: number, association: number, local: AddressBytes | undefined): number {
    const size = PACKET_BLOCK_BYTES + COMMENT_BYTES + bytes + 8;
    const needed = size + 3 * MAX_OTHER_BLOCK_BYTES;
    if (this.#chunk !== undefined && this.#used + needed > this.#chunk.length) this.flush();
    if (this.#chunk === undefined) {
      if (this.#file.isFull) {
        if (this.lost++ === 0) this.#options.onLoss();
        return -1;
      }
      this.#chunk = new Uint8Array(CHUNK_BYTES);
      this.#timer ??= this.#options.after(FLUSH_MS, () => this.flush(), true);
    }
    const isFileFull = this.#fileBytes + this.#used + needed > this.#options.fileBytes;
    if (isFileFull && this.#interfaceCount > 0) {
      this.#endFile();
      this.#file.rotate();
      this.#fileBytes = 0;
      this.#interfaceCount = 0;
      this.#interfaces.clear();
      this.#chunk = new Uint8Array(CHUNK_BYTES);
    }
    if (this.#interfaceCount === 0) {
      this.#used = writeSection(this.#chunk, this.#used, `Underpass ${this.#options.program}`);
      this.#addInterface(this.#options.program, "datagrams inside the tunnel");
    }
    return this.#interfaceOf(association, local);
  }

  #finish(id: number, captured: number, original: number, isInbound: boolean, comment: Uint8Array): void {
    const micros = Math.floor(this.#options.unixMs() * 1_000);
    const flags = isInbound ? PACKET_INBOUND : PACKET_OUTBOUND;
    const end = writePacket(this.#chunk!, this.#used, id, micros, captured, original, flags, comment);
    this.#used = end;
    this.written++;
  }

  #endFile(): void {
    if (this.#interfaceCount === 0) return;
    this.#chunk ??= new Uint8Array(MAX_OTHER_BLOCK_BYTES);
    const micros = Math.floor(this.#options.unixMs() * 1_000);
    this.#used = writeStatistics(this.#chunk, this.#used, 0, micros, this.written + this.lost, this.lost);
    this.flush();
  }

  #interfaceOf(association: number, local: AddressBytes | undefined): number {
    if (!this.#options.isByAssociation || association === -1) return 0;
    const known = this.#interfaces.get(local ?? association);
    if (known !== undefined) return known;
    const { program } = this.#options;
    const name = `association ${association < 0 ? `d${-2 - association}` : association}`;
    const source = local === undefined ? "an unknown address" : formatAddress(local);
    const id = this.#addInterface(name, `${program}, from ${source}`);
    this.#interfaces.set(local ?? association, id);
    return id;
  }

  #addInterface(name: string, description: string): number {
    this.#used = writeInterface(this.#chunk!, this.#used, 0, name, description);
    return this.#interfaceCount++;
  }

  #commentOf(reason: string | undefined, remote: AddressBytes | undefined): Uint8Array {
    const isName = remote?.[0] === ATYP_DOMAIN;
    if (reason === undefined && !isName) return NO_COMMENT;
    if (reason !== undefined && !isName) {
      let comment = this.#comments.get(reason);
      if (comment === undefined) {
        comment = asciiBytes(`dropped: ${reason}`);
        this.#comments.set(reason, comment);
      }
      return comment;
    }
    const name = `remote: ${formatAddress(remote!)}`;
    return asciiBytes(reason === undefined ? name : `dropped: ${reason}; ${name}`);
  }
}

function writeIpv6(
  chunk: Uint8Array,
  start: number,
  ends: Ends,
  toRemote: boolean,
  data: Uint8Array,
  offset: number,
  length: number,
): void {
  const udp = start + IPV6_HEADER_BYTES;
  const size = Math.min(MAX_PACKET_BYTES, UDP_HEADER_BYTES + length);
  writeIpv6Header(chunk, start, size, HOP_LIMIT, PROTOCOL_UDP);
  placeEnds(chunk, start + IPV6_SOURCE, start + IPV6_DESTINATION, udp, ends, toRemote, size);
  // Over the whole payload, however much of it is kept.
  const head = pseudoHeaderSum(chunk, start + IPV6_SOURCE, start + IPV6_DESTINATION, 16, PROTOCOL_UDP, size);
  const sum = sumBytes(data, offset, offset + length, sumBytes(chunk, udp, udp + UDP_HEADER_BYTES, head));
  writeUint16(chunk, udp + UDP_CHECKSUM, udpChecksumOf(fold(sum)));
}

/** Without a UDP checksum, which IPv4 allows. */
function writeIpv4(chunk: Uint8Array, start: number, ends: Ends, toRemote: boolean, length: number): void {
  const udp = start + IPV4_HEADER_BYTES;
  const total = Math.min(MAX_PACKET_BYTES, IPV4_HEADER_BYTES + UDP_HEADER_BYTES + length);
  const size = total - IPV4_HEADER_BYTES;
  placeEnds(chunk, start + IPV4_SOURCE, start + IPV4_DESTINATION, udp, ends, toRemote, size);
  writeIpv4Header(chunk, start, total, 0, 0, HOP_LIMIT, PROTOCOL_UDP);
}

function placeEnds(
  chunk: Uint8Array,
  source: number,
  destination: number,
  udp: number,
  { local, localPort, remote, remotePort }: Ends,
  toRemote: boolean,
  size: number,
): void {
  chunk.set(local, toRemote ? source : destination);
  chunk.set(remote, toRemote ? destination : source);
  writeUdpHeader(chunk, udp, toRemote ? localPort : remotePort, toRemote ? remotePort : localPort, size);
}

/** The addresses of a datagram in one family. Stand-in addresses replace unknown and named ones. */
function endsOf(
  association: number,
  local: AddressBytes | undefined,
  remote: AddressBytes | undefined,
): Ends {
  const isIpv6 = remote === undefined ? local?.[0] === ATYP_IPV6 : remote[0] === ATYP_IPV6;
  const localIp = local === undefined || local[0] === ATYP_DOMAIN ? standIn(19, association) : ipOf(local);
  const remoteIp =
    remote === undefined
      ? new Uint8Array(isIpv6 ? 16 : 4)
      : remote[0] === ATYP_DOMAIN
        ? standIn(18, hashOf(addressDomain(remote)))
        : ipOf(remote);
  const bytes = isIpv6 || localIp.length === 16 ? 16 : 4;
  return {
    isIpv6: bytes === 16,
    local: inBytes(localIp, bytes),
    localPort: local === undefined ? 0 : addressPort(local),
    remote: inBytes(remoteIp, bytes),
    remotePort: remote === undefined ? 0 : addressPort(remote),
  };
}

function ipOf(address: AddressBytes): Uint8Array {
  return address.subarray(1, address.length - 2);
}

/** An address of 198.18.0.0/15 (RFC 2544): 198.18 for names, 198.19 for applications. */
function standIn(second: number, number: number): Uint8Array {
  return Uint8Array.of(198, second, (number >> 8) & 0xff, number & 0xff);
}

function hashOf(text: string): number {
  let hash = 0x811c_9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x0100_0193);
  return (hash ^ (hash >>> 16)) & 0xffff;
}

/** An IPv4 address next to an IPv6 one is mapped (RFC 4291 §2.5.5.2). */
function inBytes(ip: Uint8Array, bytes: 4 | 16): Uint8Array {
  if (ip.length === bytes) return ip;
  const mapped = new Uint8Array(16);
  if (ip.length === 4) {
    mapped.set([0xff, 0xff], 10);
    mapped.set(ip, 12);
  }
  return mapped;
}
