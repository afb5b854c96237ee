/**
 * Datagrams on the TCP connection of a SOCKS5 request, each after `data length 2 | 1 | ATYP 1 | ADDR | PORT 2`. The third byte is the only
 * difference between hev and gost.
 */
import { readUint16, writeUint16 } from "../network-order.ts";
import type { AddressBytes } from "../socket-address.ts";
import { ADDRESS_INVALID, addressLength, makeAddress } from "../socket-address.ts";
import { readAddress } from "./address.ts";
import type { Codec, Dialect, Frame } from "./dialect.ts";
import { FRAME_MALFORMED, incomplete, setPayload } from "./dialect.ts";

/** The length and the byte after it. */
const PREFIX_BYTES = 3;
const NOTHING = new Uint8Array(0);
/** Offset of ATYP, which determines the length of an address except for names. */
const ATYP_AT = PREFIX_BYTES;

export interface SocksDatagramOptions {
  /** The third byte. @param length  length of the address, from ATYP to PORT */
  readonly mark: (length: number) => number;
  readonly minBytes: number;
  /** Largest payload to or from an address. @param length  length of the address, from ATYP to PORT */
  readonly maxBytes: (length: number) => number;
}

export class SocksDatagrams implements Codec {
  readonly hello = NOTHING;
  readonly #options: SocksDatagramOptions;
  readonly #unmapped = new Uint8Array(7);

  constructor(options: SocksDatagramOptions) {
    this.#options = options;
  }

  read(bytes: Uint8Array, offset: number, end: number, frame: Frame): number {
    const have = end - offset;
    if (have <= ATYP_AT) return incomplete(frame, ATYP_AT + 1);
    const addressAt = offset + ATYP_AT;
    const addressBytes = addressLength(bytes, addressAt, end);
    if (addressBytes === ADDRESS_INVALID) return FRAME_MALFORMED;
    if (addressBytes < 0) return incomplete(frame, have - addressBytes);
    if (bytes[offset + 2] !== this.#options.mark(addressBytes)) return FRAME_MALFORMED;
    const length = PREFIX_BYTES + addressBytes + readUint16(bytes, offset);
    if (have < length) return incomplete(frame, length);
    setPayload(frame, addressAt + addressBytes, offset + length);
    readAddress(bytes, addressAt, addressBytes, frame, this.#unmapped);
    return length;
  }

  headerLength(address: AddressBytes): number {
    return PREFIX_BYTES + address.length;
  }

  minPayload(): number {
    return this.#options.minBytes;
  }

  maxPayload(address: AddressBytes): number {
    return this.#options.maxBytes(address.length);
  }

  writeHeader(
    to: Uint8Array,
    at: number,
    _flow: number,
    _isNew: boolean,
    address: AddressBytes,
    length: number,
  ): number {
    writeUint16(to, at, length);
    to[at + 2] = this.#options.mark(address.length);
    for (let i = 0; i < address.length; i++) to[at + PREFIX_BYTES + i] = address[i];
    return at + PREFIX_BYTES + address.length;
  }

  keepalive(): undefined {}

  answerKeepalive(): undefined {}
}

/** The opening of a dialect by a SOCKS5 request with a command of its own. */
export function bySocksCommand(command: number): Dialect["opening"] {
  return { kind: "socks5", command, request: makeAddress("0.0.0.0", 0)!, matches: () => true };
}
