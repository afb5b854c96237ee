/** gnb_udp_over_tcp of github.com/gnbdev: `total size 2 | type 1 | ignored 1 | data`, in network order. */
import { readUint16, writeUint16, writeUint32 } from "../network-order.ts";
import type { Codec, Dialect, Frame } from "./dialect.ts";
import { FRAME_KEEPALIVE, FRAME_MALFORMED, FRAME_OTHER, incomplete, setPayload } from "./dialect.ts";

const HEADER_BYTES = 4;
/** UTO_MAX_TCP_PAYLOAD_SIZE: the program closes a connection that has a larger frame. */
const MAX_FRAME_BYTES = 4_096;
const TYPE_DATAGRAM = 0x6f;
const TYPE_KEEPALIVE = 0x6b;
const KEEPALIVE_BYTES = 28;
const KEEPALIVE_TEXT = "keepalive";
const ECHO_TEXT = "keepalive echo";
/** The program sends one every 3 s of its 5 s timer, and closes after 15 s of silence, whichever end it is. */
const KEEPALIVE_MS = 5_000;
const IDLE_MS = 15_000;
const NOTHING = new Uint8Array(0);

class GnbCodec implements Codec {
  readonly hello = NOTHING;

  read(bytes: Uint8Array, offset: number, end: number, frame: Frame): number {
    if (end - offset < HEADER_BYTES) return incomplete(frame, HEADER_BYTES);
    const size = readUint16(bytes, offset);
    // A size below that of the header makes the program compute a negative length.
    if (size < HEADER_BYTES || size > MAX_FRAME_BYTES) return FRAME_MALFORMED;
    if (end - offset < size) return incomplete(frame, size);
    const type = bytes[offset + 2];
    if (type === TYPE_DATAGRAM) setPayload(frame, offset + HEADER_BYTES, offset + size);
    else frame.kind = type === TYPE_KEEPALIVE ? FRAME_KEEPALIVE : FRAME_OTHER;
    return size;
  }

  headerLength(): number {
    return HEADER_BYTES;
  }

  minPayload(): number {
    return 0;
  }

  maxPayload(): number {
    return MAX_FRAME_BYTES - HEADER_BYTES;
  }

  writeHeader(
    to: Uint8Array,
    at: number,
    _flow: number,
    _isNew: boolean,
    _address: unknown,
    length: number,
  ): number {
    writeUint16(to, at, HEADER_BYTES + length);
    to[at + 2] = TYPE_DATAGRAM;
    to[at + 3] = 0;
    return at + HEADER_BYTES;
  }

  keepalive(unixSeconds: number): Uint8Array {
    return encodeKeepalive(unixSeconds, KEEPALIVE_TEXT);
  }

  answerKeepalive(unixSeconds: number): Uint8Array {
    return encodeKeepalive(unixSeconds, ECHO_TEXT);
  }
}

/** `header 4 | seconds 8 | text 16` */
function encodeKeepalive(unixSeconds: number, text: string): Uint8Array {
  const bytes = new Uint8Array(KEEPALIVE_BYTES);
  writeUint16(bytes, 0, KEEPALIVE_BYTES);
  bytes[2] = TYPE_KEEPALIVE;
  writeUint32(bytes, 4, Math.floor(unixSeconds / 2 ** 32));
  writeUint32(bytes, 8, unixSeconds % 2 ** 32);
  for (let i = 0; i < text.length; i++) bytes[12 + i] = text.charCodeAt(i);
  return bytes;
}

export const gnb: Dialect = {
  name: "gnb",
  opening: {
    kind: "first-bytes",
    // Every client begins with a keepalive.
    sniff: (bytes, length) => {
      if (bytes[0] !== 0 || (length > 1 && bytes[1] !== KEEPALIVE_BYTES)) return "no";
      if (length < 3) return "more";
      return bytes[2] === TYPE_KEEPALIVE ? "yes" : "no";
    },
  },
  addresses: "none",
  flows: 1,
  keepaliveMs: KEEPALIVE_MS,
  idleMs: IDLE_MS,
  clientIdleMs: IDLE_MS,
  codec: () => new GnbCodec(),
};
