/**
 * Blocks of a pcapng file (draft-ietf-opsawg-pcapng §4), in little-endian order. Each function writes one complete block at `out[at]`, where
 * the caller has made room, and returns its end offset.
 */

/** LINKTYPE_RAW: packets begin with an IPv4 or IPv6 header. */
export const LINKTYPE_RAW = 101;

/** `epb_flags`, bits 0 and 1 (§4.3.1). */
export const PACKET_INBOUND = 1;
export const PACKET_OUTBOUND = 2;

/** An Enhanced Packet Block without packet and comment: type, length, 5 words, flags, the end of options, length. */
export const PACKET_BLOCK_BYTES = 8 + 20 + 8 + 4 + 4;
/** The head of a comment. */
export const COMMENT_BYTES = 4;
/** Room for any block except those of packets, with texts of at most 255 bytes. */
export const MAX_OTHER_BLOCK_BYTES = 640;

const BLOCK_SECTION = 0x0a0d_0d0a;
const BLOCK_INTERFACE = 1;
const BLOCK_STATISTICS = 5;
const BLOCK_PACKET = 6;
const BYTE_ORDER_MAGIC = 0x1a2b_3c4d;

const OPTION_END = 0;
const OPTION_COMMENT = 1;
const OPTION_SECTION_PROGRAM = 4;
const OPTION_INTERFACE_NAME = 2;
const OPTION_INTERFACE_DESCRIPTION = 3;
const OPTION_PACKET_FLAGS = 2;
const OPTION_PACKETS_RECEIVED = 4;
const OPTION_PACKETS_LOST = 5;

/** Offset of the packet within its block. */
const PACKET_OFFSET = 28;
const TWO_32 = 2 ** 32;

/** Begins a file (§4.1). @param program  name of the program that writes it */
export function writeSection(out: Uint8Array, at: number, program: string): number {
  let end = begin(out, at, BLOCK_SECTION);
  end = write32(out, end, BYTE_ORDER_MAGIC);
  end = write16(out, write16(out, end, 1), 0);
  // The section's length is not known.
  end = write32(out, end, 0xffff_ffff);
  end = write32(out, end, 0xffff_ffff);
  end = writeText(out, end, OPTION_SECTION_PROGRAM, program);
  return finish(out, at, writeOption(out, end, OPTION_END, 0));
}

/**
 * Describes an interface of IP packets with times in microseconds (§4.2); interfaces count from 0 in each file.
 *
 * @param snapLength  most bytes of a packet that are kept; 0 for all
 */
export function writeInterface(
  out: Uint8Array,
  at: number,
  snapLength: number,
  name: string,
  description: string,
): number {
  let end = begin(out, at, BLOCK_INTERFACE);
  end = write16(out, write16(out, end, LINKTYPE_RAW), 0);
  end = write32(out, end, snapLength);
  end = writeText(out, end, OPTION_INTERFACE_NAME, name);
  end = writeText(out, end, OPTION_INTERFACE_DESCRIPTION, description);
  return finish(out, at, writeOption(out, end, OPTION_END, 0));
}

/** The offset at which {@link writePacket} expects the bytes of the packet whose block begins at `at`. */
export function packetOffset(at: number): number {
  return at + PACKET_OFFSET;
}

/**
 * Writes an Enhanced Packet Block (§4.3) around `captured` bytes that are already at {@link packetOffset}.
 *
 * @param micros   microseconds since 1970
 * @param original length of the packet, of which `captured` bytes are present
 * @param comment  UTF-8; empty for none
 */
export function writePacket(
  out: Uint8Array,
  at: number,
  interfaceId: number,
  micros: number,
  captured: number,
  original: number,
  flags: number,
  comment: Uint8Array,
): number {
  let end = begin(out, at, BLOCK_PACKET);
  end = write32(out, end, interfaceId);
  end = write32(out, end, Math.floor(micros / TWO_32));
  end = write32(out, end, micros % TWO_32);
  end = write32(out, end, captured);
  end = write32(out, end, original);
  end = pad(out, end + captured, captured);
  if (comment.length > 0) {
    end = writeOption(out, end, OPTION_COMMENT, comment.length);
    out.set(comment, end);
    end = pad(out, end + comment.length, comment.length);
  }
  end = writeOption(out, end, OPTION_PACKET_FLAGS, 4);
  end = write32(out, end, flags);
  return finish(out, at, writeOption(out, end, OPTION_END, 0));
}

/** Writes the counts of an interface (§4.6), at the end of the file. @param lost  packets that could not be written */
export function writeStatistics(
  out: Uint8Array,
  at: number,
  interfaceId: number,
  micros: number,
  received: number,
  lost: number,
): number {
  let end = begin(out, at, BLOCK_STATISTICS);
  end = write32(out, end, interfaceId);
  end = write32(out, end, Math.floor(micros / TWO_32));
  end = write32(out, end, micros % TWO_32);
  end = write64(out, writeOption(out, end, OPTION_PACKETS_RECEIVED, 8), received);
  end = write64(out, writeOption(out, end, OPTION_PACKETS_LOST, 8), lost);
  return finish(out, at, writeOption(out, end, OPTION_END, 0));
}

/** The length follows in {@link finish}. */
function begin(out: Uint8Array, at: number, type: number): number {
  write32(out, at, type);
  return at + 8;
}

function finish(out: Uint8Array, at: number, end: number): number {
  const length = end + 4 - at;
  write32(out, at + 4, length);
  return write32(out, end, length);
}

function writeOption(out: Uint8Array, at: number, code: number, length: number): number {
  return write16(out, write16(out, at, code), length);
}

function writeText(out: Uint8Array, at: number, code: number, text: string): number {
  const bytes = asciiBytes(text);
  const end = writeOption(out, at, code, bytes.length);
  out.set(bytes, end);
  return pad(out, end + bytes.length, bytes.length);
}

/** The text in at most 255 bytes of printable ASCII; other characters become `?`. */
export function asciiBytes(text: string): Uint8Array {
  return Uint8Array.from(text.slice(0, 255), (character) => {
    const code = character.charCodeAt(0);
    return code >= 0x20 && code < 0x7f ? code : 0x3f;
  });
}

/** Pads to a multiple of four bytes. */
function pad(out: Uint8Array, at: number, length: number): number {
  let end = at;
  for (let left = -length & 3; left > 0; left--) out[end++] = 0;
  return end;
}

function write16(out: Uint8Array, at: number, value: number): number {
  out[at] = value & 0xff;
  out[at + 1] = value >> 8;
  return at + 2;
}

function write32(out: Uint8Array, at: number, value: number): number {
  out[at] = value & 0xff;
  out[at + 1] = (value >>> 8) & 0xff;
  out[at + 2] = (value >>> 16) & 0xff;
  out[at + 3] = value >>> 24;
  return at + 4;
}

function write64(out: Uint8Array, at: number, value: number): number {
  return write32(out, write32(out, at, value % TWO_32), Math.floor(value / TWO_32));
}
