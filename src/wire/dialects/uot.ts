/**
 * UDP over TCP of sing-box and mihomo, versions 1 and 2, which is opened by a CONNECT to a special name. Version 2 begins with
 * `isConnect 1 | ATYP ADDR PORT`. If isConnect is 1, all datagrams are `length 2 | payload`, to that address. Otherwise, and in version 1, each
 * datagram is `family 1 | ADDR | PORT 2 | length 2 | payload`, with the family 0, 1 or 2 for IPv4, IPv6 or a name.
 */
import { readUint16, writeUint16 } from "../network-order.ts";
import type { AddressBytes } from "../socket-address.ts";
import {
  ADDRESS_INVALID,
  ATYP_DOMAIN,
  ATYP_IPV4,
  ATYP_IPV6,
  addressDomain,
  addressLength,
  makeAddress,
} from "../socket-address.ts";
import { COMMAND_CONNECT } from "../socks5.ts";
import { readAddress } from "./address.ts";
import type { Codec, Dialect, Frame, Role } from "./dialect.ts";
import { FRAME_MALFORMED, FRAME_OTHER, FRAME_TARGET, incomplete, setPayload } from "./dialect.ts";

const NAME_1 = "sp.udp-over-tcp.arpa";
const NAME_2 = "sp.v2.udp-over-tcp.arpa";
const LENGTH_BYTES = 2;
/** Buffer of both programs, which close a connection on a larger datagram. */
const BUFFER_BYTES = 16_384;
const ATYP_OF_FAMILY = [ATYP_IPV4, ATYP_IPV6, ATYP_DOMAIN];
/** A request with isConnect 0. A router may look at its address, so this is one that cannot be a target (TEST-NET-1). */
const REQUEST = Uint8Array.of(0, ...makeAddress("192.0.2.1", 9)!);
const NOTHING = new Uint8Array(0);

class UotCodec implements Codec {
  readonly hello: Uint8Array;
  /** Whether the request of version 2 is still to be read. */
  #awaitsRequest: boolean;
  #isConnected = false;
  /** The address of the last frame, with the ATYP of SOCKS. */
  readonly #address = new Uint8Array(4 + 255);
  readonly #unmapped = new Uint8Array(7);

  constructor(role: Role, version: 1 | 2) {
    this.hello = role === "client" && version === 2 ? REQUEST : NOTHING;
    this.#awaitsRequest = role === "server" && version === 2;
  }

  read(bytes: Uint8Array, offset: number, end: number, frame: Frame): number {
    if (this.#awaitsRequest) return this.#readRequest(bytes, offset, end, frame);
    const have = end - offset;
    if (this.#isConnected) {
      if (have < LENGTH_BYTES) return incomplete(frame, LENGTH_BYTES);
      const length = LENGTH_BYTES + readUint16(bytes, offset);
      if (have < length) return incomplete(frame, length);
      setPayload(frame, offset + LENGTH_BYTES, offset + length);
      return length;
    }
    if (have < 2) return incomplete(frame, 2);
    const atyp = ATYP_OF_FAMILY[bytes[offset]];
    const addressBytes =
      atyp === ATYP_IPV4 ? 7 : atyp === ATYP_IPV6 ? 19 : atyp === ATYP_DOMAIN ? 4 + bytes[offset + 1] : 0;
    if (addressBytes === 0 || (atyp === ATYP_DOMAIN && addressBytes === 4)) return FRAME_MALFORMED;
    const headerBytes = addressBytes + LENGTH_BYTES;
    if (have < headerBytes) return incomplete(frame, headerBytes);
    const length = headerBytes + readUint16(bytes, offset + addressBytes);
    if (have < length) return incomplete(frame, length);
    setPayload(frame, offset + headerBytes, offset + length);
    const address = this.#address;
    address[0] = atyp;
    for (let i = 1; i < addressBytes; i++) address[i] = bytes[offset + i];
    readAddress(address, 0, addressBytes, frame, this.#unmapped);
    return length;
  }

  #readRequest(bytes: Uint8Array, offset: number, end: number, frame: Frame): number {
    const have = end - offset;
    if (have < 2) return incomplete(frame, 2);
    const isConnect = bytes[offset];
    const addressBytes = addressLength(bytes, offset + 1, end);
    if (isConnect > 1 || addressBytes === ADDRESS_INVALID) return FRAME_MALFORMED;
    if (addressBytes < 0) return incomplete(frame, have - addressBytes);
    this.#awaitsRequest = false;
    this.#isConnected = isConnect === 1;
    frame.kind = this.#isConnected ? FRAME_TARGET : FRAME_OTHER;
    readAddress(bytes, offset + 1, addressBytes, frame, this.#unmapped);
    return 1 + addressBytes;
  }

  headerLength(address: AddressBytes): number {
    return LENGTH_BYTES + (this.#isConnected ? 0 : address.length);
  }

  minPayload(): number {
    return 0;
  }

  maxPayload(): number {
    return BUFFER_BYTES;
  }

  writeHeader(
    to: Uint8Array,
    at: number,
    _flow: number,
    _isNew: boolean,
    address: AddressBytes,
    length: number,
  ): number {
    let end = at;
    if (!this.#isConnected) {
      to[end] = ATYP_OF_FAMILY.indexOf(address[0]);
      for (let i = 1; i < address.length; i++) to[end + i] = address[i];
      end += address.length;
    }
    writeUint16(to, end, length);
    return end + LENGTH_BYTES;
  }

  keepalive(): undefined {}

  answerKeepalive(): undefined {}
}

export const uot: Dialect = {
  name: "uot",
  opening: {
    kind: "socks5",
    command: COMMAND_CONNECT,
    request: makeAddress(NAME_2, 0)!,
    // The programs check only the name.
    matches: (address) => versionOf(address) !== undefined,
  },
  addresses: "any",
  flows: 1,
  keepaliveMs: undefined,
  idleMs: undefined,
  clientIdleMs: undefined,
  codec: (role, request) => new UotCodec(role, (request && versionOf(request)) ?? 2),
};

function versionOf(address: AddressBytes): 1 | 2 | undefined {
  if (address[0] !== ATYP_DOMAIN) return undefined;
  const name = addressDomain(address);
  return name === NAME_2 ? 2 : name === NAME_1 ? 1 : undefined;
}
