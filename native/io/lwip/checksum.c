#ifdef UNDERPASS_LWIP

#include <string.h>

#include "stack-state.h"

#define BLOCK_BYTES 32

static uint64_t load(const uint8_t *from) {
  uint64_t word;
  memcpy(&word, from, sizeof word);
  return word;
}

static void store(uint8_t *to, uint64_t word) {
  memcpy(to, &word, sizeof word);
}

// Adds both halves of a word. Sums cannot overflow, because a packet has too few bytes, so several sums can proceed at once.
static uint64_t halves(uint64_t word) {
  return (uint32_t)word + (word >> 32);
}

static uint64_t with_carry(uint64_t sum, uint64_t word) {
  sum += word;
  return sum + (sum < word);
}

static uint64_t add_rest(uint64_t sum, const uint8_t *bytes, size_t length) {
  while (length > 0) {
    uint64_t word = 0;
    size_t count = length < sizeof word ? length : sizeof word;
    memcpy(&word, bytes, count);
    sum = with_carry(sum, word);
    bytes += count;
    length -= count;
  }
  return sum;
}

uint64_t checksum_add(uint64_t sum, const uint8_t *bytes, size_t length) {
  uint64_t even = 0, odd = 0;
  for (; length >= BLOCK_BYTES; bytes += BLOCK_BYTES, length -= BLOCK_BYTES) {
    even += halves(load(bytes)) + halves(load(bytes + 16));
    odd += halves(load(bytes + 8)) + halves(load(bytes + 24));
  }
  return add_rest(with_carry(sum, even + odd), bytes, length);
}

uint64_t checksum_copy(uint64_t sum, uint8_t *to, const uint8_t *from, size_t length) {
  uint64_t even = 0, odd = 0;
  for (; length >= BLOCK_BYTES; to += BLOCK_BYTES, from += BLOCK_BYTES, length -= BLOCK_BYTES) {
    uint64_t first = load(from), second = load(from + 8), third = load(from + 16), fourth = load(from + 24);
    store(to, first);
    store(to + 8, second);
    store(to + 16, third);
    store(to + 24, fourth);
    even += halves(first) + halves(third);
    odd += halves(second) + halves(fourth);
  }
  memcpy(to, from, length);
  return add_rest(with_carry(sum, even + odd), from, length);
}

uint16_t checksum_fold(uint64_t sum) {
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)sum;
}

uint64_t checksum_pseudo(const uint8_t *ip, size_t segment_bytes) {
  uint8_t rest[4] = {0, IP_PROTO_TCP, (uint8_t)(segment_bytes >> 8), (uint8_t)segment_bytes};
  bool is_ipv4 = ip[0] >> 4 == 4;
  return checksum_add(checksum_add(0, rest, sizeof rest), ip + (is_ipv4 ? 12 : 8), is_ipv4 ? 8 : 32);
}

#else

typedef int underpass_has_no_checksum;

#endif
