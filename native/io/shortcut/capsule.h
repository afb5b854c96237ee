// DATAGRAM capsules (RFC 9297 §3.5), for shortcuts and for the loops of the C library: numbers of variable length (RFC 9000 §16), a
// context (RFC 9298 §5), a payload. Nothing beyond the given bytes is read.
#ifndef UNDERPASS_IO_CAPSULE_H
#define UNDERPASS_IO_CAPSULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CAPSULE_DATAGRAM 0
// RFC 9298 §5, and the largest UDP payload over IPv4.
#define CAPSULE_MAX_PAYLOAD_BYTES 65527
#define CAPSULE_MAX_DATAGRAM_BYTES 65507

static inline size_t varint_length(uint32_t value) {
  return value < 0x40 ? 1 : value < 0x4000 ? 2 : value < 0x40000000 ? 4 : 8;
}

static inline uint8_t *write_varint(uint8_t *to, uint32_t value) {
  switch (varint_length(value)) {
    case 1:
      *to++ = (uint8_t)value;
      return to;
    case 2:
      *to++ = (uint8_t)(0x40 | value >> 8);
      *to++ = (uint8_t)value;
      return to;
    case 4:
      *to++ = (uint8_t)(0x80 | value >> 24);
      break;
    default:
      *to++ = 0xc0;
      *to++ = 0;
      *to++ = 0;
      *to++ = 0;
      *to++ = (uint8_t)(value >> 24);
  }
  *to++ = (uint8_t)(value >> 16);
  *to++ = (uint8_t)(value >> 8);
  *to++ = (uint8_t)value;
  return to;
}

// The length of a number whose first byte is `first`.
static inline size_t varint_length_from(uint8_t first) { return (size_t)1 << (first >> 6); }

// Reads a complete number.
static inline uint64_t read_varint(const uint8_t *at) {
  uint64_t value = *at & 0x3f;
  for (size_t i = 1; i < varint_length_from(*at); i++) value = value << 8 | at[i];
  return value;
}

// The length of a DATAGRAM capsule.
static inline size_t capsule_bytes(uint32_t context, size_t payload_bytes) {
  size_t value_bytes = varint_length(context) + payload_bytes;
  return 1 + varint_length((uint32_t)value_bytes) + value_bytes;
}

static inline uint8_t *capsule_write_header(uint8_t *to, uint32_t context, size_t payload_bytes) {
  *to++ = CAPSULE_DATAGRAM;
  to = write_varint(to, (uint32_t)(varint_length(context) + payload_bytes));
  return write_varint(to, context);
}

typedef enum {
  // A capsule that can be carried.
  CAPSULE_WHOLE,
  // The beginning of a possible capsule, or a capsule too long to be judged yet.
  CAPSULE_CUT,
  // Anything else: another type, or a capsule to be refused.
  CAPSULE_OTHER
} capsule_kind;

typedef struct datagram_capsule {
  // Offsets in the bytes; the end may be beyond them if the capsule is truncated.
  size_t payload, end;
  // -1 while unknown.
  int64_t context;
} datagram_capsule;

// Judges the bytes at `at`, which is before `stop`.
static inline capsule_kind capsule_read(const uint8_t *bytes, size_t at, size_t stop, datagram_capsule *result) {
  result->context = -1;
  if (bytes[at] != CAPSULE_DATAGRAM) return CAPSULE_OTHER;
  if (at + 1 >= stop) return CAPSULE_CUT;
  size_t value = at + 1 + varint_length_from(bytes[at + 1]);
  if (value > stop) return CAPSULE_CUT;
  uint64_t length = read_varint(bytes + at + 1);
  if (length < 1 || length > CAPSULE_MAX_PAYLOAD_BYTES + 8) return CAPSULE_OTHER;
  if (value == stop) return CAPSULE_CUT;
  size_t payload = value + varint_length_from(bytes[value]), end = value + (size_t)length;
  if (payload > end || end - payload > CAPSULE_MAX_DATAGRAM_BYTES) return CAPSULE_OTHER;
  if (payload > stop) return CAPSULE_CUT;
  uint64_t context = read_varint(bytes + value);
  if (context > INT32_MAX) return CAPSULE_OTHER;
  result->context = (int64_t)context;
  result->payload = payload;
  result->end = end;
  return end <= stop ? CAPSULE_WHOLE : CAPSULE_CUT;
}

#endif
