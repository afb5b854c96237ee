// UDP in IP packets, for shortcuts of devices: IPv4 (RFC 791), IPv6 (RFC 8200), UDP (RFC 768), with or without a virtio-net header
// (virtio 1.2 §5.1.6) before them. Nothing beyond the given bytes is read.
#ifndef UNDERPASS_IO_PACKET_H
#define UNDERPASS_IO_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../address.h"
#include "../tun.h"
#include "capsule.h"

#define PACKET_VIRTIO_BYTES 10
#define PACKET_IPV4_BYTES 20
#define PACKET_IPV6_BYTES 40
#define PACKET_UDP_BYTES 8
#define PACKET_MAX_HEADER_BYTES (PACKET_VIRTIO_BYTES + PACKET_IPV6_BYTES + PACKET_UDP_BYTES)
// Largest total length of an IPv4 packet.
#define PACKET_MAX_BYTES 65535
// Limit of datagrams in one packet: what the kernel puts into one (UDP_MAX_SEGMENTS), and what every kernel accepts.
#define PACKET_MAX_SEGMENTS 128
#define PACKET_MAX_RUN_SEGMENTS 64
#define PACKET_UDP_CHECKSUM 6

enum { PACKET_ICMP = 1, PACKET_TCP = 6, PACKET_UDP_PROTOCOL = 17, PACKET_ICMPV6 = 58 };
enum { PACKET_NEEDS_CHECKSUM = 1, PACKET_GSO_NONE = 0, PACKET_GSO_UDP_L4 = 5 };

static inline uint16_t read_be16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }

static inline uint8_t *write_be16(uint8_t *at, size_t value) {
  at[0] = (uint8_t)(value >> 8);
  at[1] = (uint8_t)value;
  return at + 2;
}

static inline uint16_t read_le16(const uint8_t *at) { return (uint16_t)(at[1] << 8 | at[0]); }

static inline void write_le16(uint8_t *at, size_t value) {
  at[0] = (uint8_t)value;
  at[1] = (uint8_t)(value >> 8);
}

// RFC 1071: adds bytes to a sum of words in the machine's order. Only the last bytes may be odd in number.
static inline uint64_t sum_bytes(uint64_t sum, const uint8_t *bytes, size_t count) {
  for (; count >= sizeof(uint32_t); bytes += sizeof(uint32_t), count -= sizeof(uint32_t)) {
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    sum += word;
  }
  uint32_t rest = 0;
  memcpy(&rest, bytes, count);
  return sum + rest;
}

// In the machine's order: stored and compared as it is in memory.
static inline uint16_t fold_sum(uint64_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)sum;
}

static inline void store_sum(uint8_t *at, uint16_t sum) { memcpy(at, &sum, sizeof sum); }

// Adds the pseudo header. `addresses`: both addresses, one after the other.
static inline uint64_t sum_pseudo_header(const uint8_t *addresses, size_t address_bytes, size_t udp_bytes) {
  const uint8_t rest[4] = {0, PACKET_UDP_PROTOCOL, (uint8_t)(udp_bytes >> 8), (uint8_t)udp_bytes};
  return sum_bytes(sum_bytes(0, addresses, 2 * address_bytes), rest, sizeof rest);
}

typedef enum {
  // UDP that can be carried.
  PACKET_UDP,
  // Certainly not UDP.
  PACKET_NO_UDP,
  // Possibly UDP, of any flow: fragments, options, or a packet that is not valid.
  PACKET_UNCLEAR
} packet_kind;

typedef struct udp_packet {
  // In the form of address.h.
  uint8_t source[IO_ADDRESS_IPV6_BYTES], remote[IO_ADDRESS_IPV6_BYTES];
  size_t address_bytes;
  int32_t dscp;
  const uint8_t *payload;
  size_t payload_bytes;
  // Length of the datagrams in the payload, of which only the last may be shorter.
  size_t segment_bytes;
} udp_packet;

static inline void packet_address(uint8_t *to, const uint8_t *ip, size_t ip_bytes, const uint8_t *port) {
  to[0] = ip_bytes == 4 ? 1 : 4;
  memcpy(to + 1, ip, ip_bytes);
  memcpy(to + 1 + ip_bytes, port, 2);
}

// Judges a packet of at least one byte.
static inline packet_kind packet_read(const uint8_t *bytes, size_t count, bool has_virtio, udp_packet *result) {
  const uint8_t *virtio = bytes;
  size_t gso_bytes = 0;
  bool is_partial = false;
  if (has_virtio) {
    if (count < PACKET_VIRTIO_BYTES + PACKET_IPV4_BYTES) return PACKET_UNCLEAR;
    bytes += PACKET_VIRTIO_BYTES;
    count -= PACKET_VIRTIO_BYTES;
    is_partial = (virtio[0] & PACKET_NEEDS_CHECKSUM) != 0;
  }
  if (count < PACKET_IPV4_BYTES) return PACKET_UNCLEAR;
  bool is_ipv4 = bytes[0] >> 4 == 4;
  uint8_t protocol = is_ipv4 ? bytes[9] : bytes[6];
  if (protocol == PACKET_TCP || protocol == (is_ipv4 ? PACKET_ICMP : PACKET_ICMPV6)) return PACKET_NO_UDP;
  if (protocol != PACKET_UDP_PROTOCOL) return PACKET_UNCLEAR;
  size_t header_bytes = is_ipv4 ? PACKET_IPV4_BYTES : PACKET_IPV6_BYTES, ip_bytes = is_ipv4 ? 4 : 16;
  if (count < header_bytes + PACKET_UDP_BYTES) return PACKET_UNCLEAR;
  if (is_ipv4) {
    bool is_whole = bytes[0] == 0x45 && read_be16(bytes + 2) == count && (read_be16(bytes + 6) & 0x3fff) == 0;
    if (!is_whole || bytes[8] <= 1 || fold_sum(sum_bytes(0, bytes, header_bytes)) != 0xffff) return PACKET_UNCLEAR;
    result->dscp = bytes[1] >> 2;
  } else {
    if (bytes[0] >> 4 != 6 || header_bytes + read_be16(bytes + 4) != count || bytes[7] <= 1) return PACKET_UNCLEAR;
    result->dscp = (read_be16(bytes) >> 6) & 0x3f;
  }
  const uint8_t *udp = bytes + header_bytes, *addresses = udp - 2 * ip_bytes;
  size_t udp_bytes = count - header_bytes;
  if (read_be16(udp + 4) != udp_bytes || read_be16(udp) == 0 || read_be16(udp + 2) == 0) return PACKET_UNCLEAR;
  if (has_virtio && virtio[1] != PACKET_GSO_NONE) {
    gso_bytes = read_le16(virtio + 4);
    if (virtio[1] != PACKET_GSO_UDP_L4 || gso_bytes == 0 || !is_partial) return PACKET_UNCLEAR;
  }
  if (is_partial) {
    bool is_of_udp = read_le16(virtio + 6) == header_bytes && read_le16(virtio + 8) == PACKET_UDP_CHECKSUM;
    if (!is_of_udp || read_le16(virtio + 2) > count) return PACKET_UNCLEAR;
  } else {
    uint64_t sum = sum_pseudo_header(addresses, ip_bytes, udp_bytes);
    if (read_be16(udp + PACKET_UDP_CHECKSUM) == 0 || fold_sum(sum_bytes(sum, udp, udp_bytes)) != 0xffff)
      return PACKET_UNCLEAR;
  }
  result->payload = udp + PACKET_UDP_BYTES;
  result->payload_bytes = udp_bytes - PACKET_UDP_BYTES;
  result->segment_bytes = gso_bytes > 0 ? gso_bytes : result->payload_bytes;
  if (result->payload_bytes > result->segment_bytes * PACKET_MAX_SEGMENTS) return PACKET_UNCLEAR;
  size_t longest = result->payload_bytes < result->segment_bytes ? result->payload_bytes : result->segment_bytes;
  if (longest > CAPSULE_MAX_DATAGRAM_BYTES) return PACKET_UNCLEAR;
  result->address_bytes = 1 + ip_bytes + 2;
  packet_address(result->source, addresses, ip_bytes, udp);
  packet_address(result->remote, addresses + ip_bytes, ip_bytes, udp + 2);
  return PACKET_UDP;
}

// Writes the headers of a packet from `remote` to `source` without its UDP checksum: not fragmented, 64 hops, DSCP 0. With virtio,
// the kernel completes the checksum; if `segment_bytes` is less than the payload, the packet contains several datagrams. Returns
// the headers' length.
static inline size_t packet_write_headers(uint8_t *to, const uint8_t *source, const uint8_t *remote, bool has_virtio,
                                          size_t payload_bytes, size_t segment_bytes) {
  bool is_ipv4 = source[0] == 1;
  size_t ip_bytes = is_ipv4 ? 4 : 16, header_bytes = is_ipv4 ? PACKET_IPV4_BYTES : PACKET_IPV6_BYTES;
  size_t udp_bytes = PACKET_UDP_BYTES + payload_bytes, virtio_bytes = has_virtio ? PACKET_VIRTIO_BYTES : 0;
  memset(to, 0, virtio_bytes + header_bytes);
  if (has_virtio) {
    to[0] = PACKET_NEEDS_CHECKSUM;
    if (segment_bytes < payload_bytes) {
      to[1] = PACKET_GSO_UDP_L4;
      write_le16(to + 2, header_bytes + PACKET_UDP_BYTES);
      write_le16(to + 4, segment_bytes);
    }
    write_le16(to + 6, header_bytes);
    write_le16(to + 8, PACKET_UDP_CHECKSUM);
  }
  uint8_t *ip = to + virtio_bytes, *udp = ip + header_bytes, *addresses = udp - 2 * ip_bytes;
  memcpy(addresses, remote + 1, ip_bytes);
  memcpy(addresses + ip_bytes, source + 1, ip_bytes);
  if (is_ipv4) {
    ip[0] = 0x45;
    write_be16(ip + 2, header_bytes + udp_bytes);
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = PACKET_UDP_PROTOCOL;
    store_sum(ip + 10, (uint16_t)~fold_sum(sum_bytes(0, ip, header_bytes)));
  } else {
    ip[0] = 0x60;
    write_be16(ip + 4, udp_bytes);
    ip[6] = PACKET_UDP_PROTOCOL;
    ip[7] = 64;
  }
  memcpy(udp, remote + 1 + ip_bytes, 2);
  memcpy(udp + 2, source + 1 + ip_bytes, 2);
  write_be16(udp + 4, udp_bytes);
  store_sum(udp + PACKET_UDP_CHECKSUM, has_virtio ? fold_sum(sum_pseudo_header(addresses, ip_bytes, udp_bytes)) : 0);
  return virtio_bytes + header_bytes + PACKET_UDP_BYTES;
}

// Completes the checksum of headers that were written without virtio.
static inline void packet_write_checksum(uint8_t *headers, bool is_ipv4, const uint8_t *payload, size_t payload_bytes) {
  size_t ip_bytes = is_ipv4 ? 4 : 16;
  uint8_t *udp = headers + (is_ipv4 ? PACKET_IPV4_BYTES : PACKET_IPV6_BYTES);
  uint64_t sum = sum_pseudo_header(udp - 2 * ip_bytes, ip_bytes, PACKET_UDP_BYTES + payload_bytes);
  uint16_t checksum = (uint16_t)~fold_sum(sum_bytes(sum_bytes(sum, udp, PACKET_UDP_BYTES), payload, payload_bytes));
  store_sum(udp + PACKET_UDP_CHECKSUM, checksum == 0 ? 0xffff : checksum);
}

#endif
