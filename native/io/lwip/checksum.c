#ifdef UNDERPASS_LWIP

#include <string.h>

#include "stack-state.h"

uint64_t checksum_add(uint64_t sum, const uint8_t *bytes, size_t length) {
  uint64_t word;
  for (; length >= 32; bytes += 32, length -= 32) {
    uint64_t words[4];
    memcpy(words, bytes, sizeof words);
    for (int i = 0; i < 4; i++) {
      sum += words[i];
      sum += sum < words[i];
    }
  }
  for (; length > 0; bytes += sizeof word) {
    size_t count = length < sizeof word ? length : sizeof word;
    word = 0;
    memcpy(&word, bytes, count);
    sum += word;
    sum += sum < word;
    length -= count;
  }
  return sum;
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
