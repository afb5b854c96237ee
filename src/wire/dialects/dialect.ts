/** The common interface of the wire formats of other UDP-over-TCP programs. */
import type { Sniffed } from "../http/first-bytes.ts";
import type { AddressBytes } from "../socket-address.ts";

/** How a server recognises a connection in a dialect. */
export type Opening =
  /** By the client's first bytes, see FirstBytesProtocol. */
  | { readonly kind: "first-bytes"; readonly sniff: (bytes: Uint8Array, length: number) => Sniffed }
  /** By a SOCKS5 request, which a client sends as `request`. */
  | {
      readonly kind: "socks5";
      readonly command: number;
      readonly request: AddressBytes;
      readonly matches: (address: AddressBytes) => boolean;
    }
  /** By the listener: its clients may begin with any bytes. */
  | { readonly kind: "listener" };

/** Largest payload of a UDP datagram over IPv4. */
export const MAX_UDP_BYTES = 65_507;

/** What {@link Codec.read} found instead of a frame. */
export const FRAME_INCOMPLETE = 0;
export const FRAME_MALFORMED = -1;

/** Kinds of frames. */
export const FRAME_DATAGRAM = 0;
export const FRAME_KEEPALIVE = 1;
/** A frame that needs no action, such as a greeting. */
export const FRAME_OTHER = 2;
/** The frame has the target of all following datagrams. */
export const FRAME_TARGET = 3;

/** A view of the frame that was read last, reused for all frames of a reader. */
export class Frame {
  kind = FRAME_DATAGRAM;
  /** Number of the flow, if a connection carries many. */
  flow = 0;
  /** Whether the flow's number is reused for a new flow. */
  isNew = false;
  /** Whether the datagram is for the server's own resolver, regardless of its address. */
  isDns = false;
  /** A complete address in canonical form, `addresses[addressOffset..+addressLength)`; length 0 for none. */
  addresses: Uint8Array = new Uint8Array(0);
  addressOffset = 0;
  addressLength = 0;
  /** The payload is `[dataOffset..dataEnd)` of the bytes that were read. */
  dataOffset = 0;
  dataEnd = 0;
  /** After {@link FRAME_INCOMPLETE}: how many bytes of the frame are needed before more of it can be read. */
  needed = 0;
}

/** One end of one connection: reads the other end's frames, and writes its own. It keeps only the state that the format requires. */
export interface Codec {
  /** Bytes that this end sends before its first frame. */
  readonly hello: Uint8Array;
  /**
   * Reads one frame from `bytes[offset..end)`.
   *
   * @returns its length in bytes, {@link FRAME_INCOMPLETE} or {@link FRAME_MALFORMED}. Never throws.
   */
  read(bytes: Uint8Array, offset: number, end: number, frame: Frame): number;
  /** Length of the header before a payload. @param address  the remote's, an IP or, if the dialect has them, a name */
  headerLength(address: AddressBytes): number;
  /** Smallest and largest payload that the other end accepts in the next frame. */
  minPayload(): number;
  maxPayload(address: AddressBytes): number;
  /**
   * Writes the header before a payload.
   *
   * @param isNew   whether this is the first datagram of `flow` since its number was free
   * @returns the end offset
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

/** A wire format of another program. Times are in milliseconds. */
export interface Dialect {
  readonly name: string;
  readonly opening: Opening;
  /** `none`: the server sends all datagrams to one target. `ip`: each datagram has an IP address. `any`: an IP address or a name. */
  readonly addresses: "none" | "ip" | "any";
  /** Most concurrent flows of a connection, each with one address; 1: a single flow, with many addresses if the dialect has any. */
  readonly flows: number;
  /** Idle time after which a client sends a keepalive; undefined if it sends none. */
  readonly keepaliveMs: number | undefined;
  /** Time without a byte from the client, or without any datagram if there are no keepalives, after which a server closes. */
  readonly idleMs: number | undefined;
  /** The same for a client, whose keepalives are answered. */
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
