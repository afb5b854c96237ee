/** What is common to the wire formats of other UDP-over-TCP programs. */
import type { Sniffed } from "../http/first-bytes.ts";
import type { AddressBytes } from "../socket-address.ts";

/** How a server knows that a connection speaks a dialect. */
export type Opening =
  /** By the client's first bytes, see FirstBytesProtocol. */
  | { readonly kind: "first-bytes"; readonly sniff: (bytes: Uint8Array, length: number) => Sniffed }
  /** By a SOCKS5 request. A client sends `request`. */
  | {
      readonly kind: "socks5";
      readonly command: number;
      readonly request: AddressBytes;
      readonly matches: (address: AddressBytes) => boolean;
    }
  /** Its clients may begin with anything: it has a listener of its own. */
  | { readonly kind: "listener" };

/** Largest payload of a UDP datagram over IPv4. */
export const MAX_UDP_BYTES = 65_507;

/** What {@link Codec.read} found instead of a frame. */
export const FRAME_INCOMPLETE = 0;
export const FRAME_MALFORMED = -1;

/** What a frame is. */
export const FRAME_DATAGRAM = 0;
export const FRAME_KEEPALIVE = 1;
/** Nothing to act on: a greeting, or what is to be ignored. */
export const FRAME_OTHER = 2;
/** The frame has the address that all that follows is for. */
export const FRAME_TARGET = 3;

/** The frame that was read last; one view for all frames of a reader. */
export class Frame {
  kind = FRAME_DATAGRAM;
  /** Number of the flow, where a connection carries many. */
  flow = 0;
  /** The flow's number is used anew. */
  isNew = false;
  /** The datagram is for the server's own resolver, whatever its address. */
  isDns = false;
  /** A whole address in its one form, `addresses[addressOffset..+addressLength)`; length 0 for none. */
  addresses: Uint8Array = new Uint8Array(0);
  addressOffset = 0;
  addressLength = 0;
  /** The payload is `[dataOffset..dataEnd)` of the bytes that were read. */
  dataOffset = 0;
  dataEnd = 0;
  /** After {@link FRAME_INCOMPLETE}: bytes from the frame's first one on, without which no more of it can be read. */
  needed = 0;
}

/** One end of one connection: reads the other end's frames, writes its own. Keeps only what the format makes it keep. */
export interface Codec {
  /** What this end sends before its first frame. */
  readonly hello: Uint8Array;
  /**
   * Reads one frame from `bytes[offset..end)`.
   *
   * @returns its length in bytes, {@link FRAME_INCOMPLETE} or {@link FRAME_MALFORMED}. Never throws.
   */
  read(bytes: Uint8Array, offset: number, end: number, frame: Frame): number;
  /** Bytes before a payload. @param address  the remote's, IP or, where the dialect has them, a name */
  headerLength(address: AddressBytes): number;
  /** Smallest and largest payload that the other end accepts in the next frame. */
  minPayload(): number;
  maxPayload(address: AddressBytes): number;
  /**
   * Writes what goes before a payload.
   *
   * @param isNew   the first datagram of `flow` since its number was free
   * @returns the offset behind it
   */
  writeHeader(
    to: Uint8Array,
    at: number,
    flow: number,
    isNew: boolean,
    address: AddressBytes,
    length: number,
  ): number;
  /** A keepalive of this end, or undefined if it sends none. */
  keepalive(unixSeconds: number): Uint8Array | undefined;
  /** The answer to a keepalive of the other end, or undefined if there is none. */
  answerKeepalive(unixSeconds: number): Uint8Array | undefined;
}

export type Role = "client" | "server";

/** A wire format of another program. Times in milliseconds. */
export interface Dialect {
  readonly name: string;
  readonly opening: Opening;
  /** `none`: the server sends all datagrams to one target. `ip`: each has an IP address. `any`: or a name. */
  readonly addresses: "none" | "ip" | "any";
  /** Flows, each with one address, that a connection carries at a time; 1: one, with many addresses if it has any. */
  readonly flows: number;
  /** How long a client sends nothing before it sends a keepalive; undefined if it sends none. */
  readonly keepaliveMs: number | undefined;
  /** After so long without a byte of the client a server closes, or without any datagram if there are no keepalives. */
  readonly idleMs: number | undefined;
  /** The same for a client, which hears answers to its keepalives. */
  readonly clientIdleMs: number | undefined;
  /** @param request  the address of the SOCKS5 request that has opened the connection */
  codec(role: Role, request?: AddressBytes): Codec;
}

/** Points a frame at a payload without an address. */
export function setPayload(frame: Frame, dataOffset: number, dataEnd: number): void {
  frame.kind = FRAME_DATAGRAM;
  frame.addressLength = 0;
  frame.dataOffset = dataOffset;
  frame.dataEnd = dataEnd;
}

/** @returns {@link FRAME_INCOMPLETE} */
export function incomplete(frame: Frame, needed: number): number {
  frame.needed = needed;
  return FRAME_INCOMPLETE;
}
