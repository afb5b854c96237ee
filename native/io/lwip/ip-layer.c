// The IP layer under lwIP's TCP: one interface for any address, with packets written into the caller's memory. lwIP's own would
// look for an interface that has the destination, and repeat the reassembly and routing that the caller has done.
#ifdef UNDERPASS_LWIP

#include <string.h>

#include "lwip/ip.h"
#include "lwip/nd6.h"
#include "stack-state.h"

#define IPV4_HEADER_BYTES 20
#define IPV6_HEADER_BYTES 40
#define VIRTIO_HEADER_BYTES 10
#define VIRTIO_NEEDS_CHECKSUM 1
#define VIRTIO_GSO_TCPV4 1
#define VIRTIO_GSO_TCPV6 4
#define TCP_CHECKSUM_AT 16
#define DO_NOT_FRAGMENT 0x40
// Limit of an IP packet's length field.
#define MAX_PACKET_BYTES 65535

struct ip_globals ip_data;

static void write16(uint8_t *to, size_t value) {
  to[0] = (uint8_t)(value >> 8);
  to[1] = (uint8_t)value;
}

static uint32_t read32(const uint8_t *from) {
  return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

void ip_layer_open(io_tcp_stack *stack) {
  struct netif *netif = &stack->netif;
  netif->mtu = (u16_t)stack->options.mtu;
  netif->flags = NETIF_FLAG_UP | NETIF_FLAG_LINK_UP;
}

void ip_layer_receive(io_tcp_stack *stack, const uint8_t *ip) {
  ip_data.current_netif = ip_data.current_input_netif = &stack->netif;
  ip_addr_t *source = &ip_data.current_iphdr_src, *destination = &ip_data.current_iphdr_dest;
  memset(source, 0, sizeof *source);
  memset(destination, 0, sizeof *destination);
  if (ip[0] >> 4 == 4) {
    memcpy(&ip_2_ip4(source)->addr, ip + 12, 4);
    memcpy(&ip_2_ip4(destination)->addr, ip + 16, 4);
    IP_SET_TYPE(source, IPADDR_TYPE_V4);
    IP_SET_TYPE(destination, IPADDR_TYPE_V4);
  } else {
    memcpy(ip_2_ip6(source)->addr, ip + 8, 16);
    memcpy(ip_2_ip6(destination)->addr, ip + 24, 16);
    IP_SET_TYPE(source, IPADDR_TYPE_V6);
    IP_SET_TYPE(destination, IPADDR_TYPE_V6);
  }
}

// Appends a packet that continues the last one to it; the kernel splits it again.
static bool join(io_tcp_stack *stack, const struct pbuf *p, size_t header_bytes, const uint8_t *tcp) {
  joinable *joinable = &stack->joinable;
  size_t data = (size_t)p->tot_len - TCP_HLEN;
  if (joinable->flow == NULL || joinable->flow != stack->selected || p->tot_len <= TCP_HLEN) return false;
  if (tcp[12] != TCP_HLEN / 4 << 4 || (tcp[13] & ~TCP_PSH) != TCP_ACK) return false;
  if (read32(tcp + 4) != joinable->next_sequence || data > joinable->segment_bytes) return false;
  int32_t row = stack->packet_count - 1;
  size_t length = (size_t)stack->memory.lengths[row];
  if (length - VIRTIO_HEADER_BYTES + data > MAX_PACKET_BYTES) return false;
  if (stack->packet_end + data > stack->memory.packet_bytes) return false;
  uint8_t *packet = stack->memory.packets + stack->memory.offsets[row], *ip = packet + VIRTIO_HEADER_BYTES;
  uint8_t *joined = ip + header_bytes;
  pbuf_copy_partial(p, packet + length, (u16_t)data, TCP_HLEN);
  // The latest acknowledgment and window, and PSH if the last one has it.
  memcpy(joined + 8, tcp + 8, 8);
  length += data;
  stack->packet_end += data;
  stack->memory.lengths[row] = (int32_t)length;
  size_t segment = length - VIRTIO_HEADER_BYTES - header_bytes;
  bool is_ipv4 = header_bytes == IPV4_HEADER_BYTES;
  packet[1] = is_ipv4 ? VIRTIO_GSO_TCPV4 : VIRTIO_GSO_TCPV6;
  uint16_t native[2] = {(uint16_t)(header_bytes + TCP_HLEN), (uint16_t)joinable->segment_bytes};
  memcpy(packet + 2, native, sizeof native);
  if (is_ipv4) {
    write16(ip + 2, header_bytes + segment);
    memset(ip + 10, 0, 2);
    uint16_t sum = (uint16_t)~checksum_fold(checksum_add(0, ip, IPV4_HEADER_BYTES));
    memcpy(ip + 10, &sum, 2);
  } else write16(ip + 4, segment);
  uint16_t pseudo = checksum_fold(checksum_pseudo(ip, segment));
  memcpy(joined + TCP_CHECKSUM_AT, &pseudo, 2);
  joinable->next_sequence += (uint32_t)data;
  // Only the last segment may be shorter.
  if (data < joinable->segment_bytes) joinable->flow = NULL;
  return true;
}

// Copies a segment, whose checksum lwIP left 0, and adds it to a sum.
static uint64_t copy_summed(uint64_t sum, uint8_t *to, const struct pbuf *p) {
  bool is_odd = false;
  for (; p != NULL; p = p->next) {
    if (is_odd) {
      uint16_t part = checksum_fold(checksum_copy(0, to, p->payload, p->len));
      sum = checksum_fold(sum) + (uint16_t)(part << 8 | part >> 8);
    } else sum = checksum_copy(sum, to, p->payload, p->len);
    is_odd ^= p->len & 1;
    to += p->len;
  }
  return sum;
}

static err_t output(struct pbuf *p, const ip_addr_t *source, const ip_addr_t *destination, u8_t hop_limit) {
  io_tcp_stack *stack = stack_current;
  io_tcp_stack_memory *memory = &stack->memory;
  bool is_ipv4 = IP_IS_V4(source);
  size_t header_bytes = is_ipv4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES;
  size_t virtio_bytes = stack->options.has_virtio ? VIRTIO_HEADER_BYTES : 0;
  size_t segment = p->tot_len, bytes = virtio_bytes + header_bytes + segment;
  uint8_t tcp[TCP_HLEN];
  if (pbuf_copy_partial(p, tcp, TCP_HLEN, 0) != TCP_HLEN) return ERR_VAL;
  bool is_joined = virtio_bytes > 0 && join(stack, p, header_bytes, tcp);
  if (!is_joined && ((size_t)stack->packet_count == memory->capacity || stack->packet_end + bytes > memory->packet_bytes)) {
    stack->is_full = true;
    return ERR_MEM;
  }
  if (stack->selected != NULL) stack->selected->unacknowledged = 0;
  if ((tcp[13] & TCP_RST) != 0) stack->counts[IO_TCP_STACK_COUNT_RESETS]++;
  stack->counts[IO_TCP_STACK_COUNT_PACKETS]++;
  if (is_joined) return ERR_OK;

  uint8_t *packet = memory->packets + stack->packet_end, *ip = packet + virtio_bytes, *out = ip + header_bytes;
  if (is_ipv4) {
    memset(ip, 0, IPV4_HEADER_BYTES);
    ip[0] = 0x45;
    write16(ip + 2, header_bytes + segment);
    ip[6] = DO_NOT_FRAGMENT;
    ip[8] = hop_limit;
    ip[9] = IP_PROTO_TCP;
    memcpy(ip + 12, &ip_2_ip4(source)->addr, 4);
    memcpy(ip + 16, &ip_2_ip4(destination)->addr, 4);
    uint16_t sum = (uint16_t)~checksum_fold(checksum_add(0, ip, IPV4_HEADER_BYTES));
    memcpy(ip + 10, &sum, 2);
  } else {
    memset(ip, 0, 8);
    ip[0] = 0x60;
    write16(ip + 4, segment);
    ip[6] = IP_PROTO_TCP;
    ip[7] = hop_limit;
    memcpy(ip + 8, ip_2_ip6(source)->addr, 16);
    memcpy(ip + 24, ip_2_ip6(destination)->addr, 16);
  }
  uint64_t sum = checksum_pseudo(ip, segment);
  stack->joinable.flow = NULL;
  if (virtio_bytes > 0) {
    pbuf_copy_partial(p, out, (u16_t)segment, 0);
    uint16_t partial = checksum_fold(sum), native[2] = {(uint16_t)header_bytes, TCP_CHECKSUM_AT};
    memset(packet, 0, virtio_bytes);
    packet[0] = VIRTIO_NEEDS_CHECKSUM;
    memcpy(packet + 6, native, sizeof native);
    memcpy(out + TCP_CHECKSUM_AT, &partial, 2);
    if (stack->selected != NULL && segment > TCP_HLEN && tcp[12] == TCP_HLEN / 4 << 4 && tcp[13] == TCP_ACK) {
      stack->joinable = (joinable){stack->selected, read32(tcp + 4) + (uint32_t)(segment - TCP_HLEN), segment - TCP_HLEN};
    }
  } else {
    uint16_t whole = (uint16_t)~checksum_fold(copy_summed(sum, out, p));
    memcpy(out + TCP_CHECKSUM_AT, &whole, 2);
  }
  memory->offsets[stack->packet_count] = (int32_t)stack->packet_end;
  memory->lengths[stack->packet_count] = (int32_t)bytes;
  stack->packet_count++;
  stack->packet_end += bytes;
  return ERR_OK;
}

// The functions that lwIP calls.

err_t ip4_output_if(struct pbuf *p, const ip4_addr_t *src, const ip4_addr_t *dest, u8_t ttl, u8_t tos, u8_t proto,
                    struct netif *netif) {
  ip_addr_t source, destination;
  (void)tos, (void)proto, (void)netif;
  ip_addr_copy_from_ip4(source, *src);
  ip_addr_copy_from_ip4(destination, *dest);
  return output(p, &source, &destination, ttl);
}

err_t ip6_output_if(struct pbuf *p, const ip6_addr_t *src, const ip6_addr_t *dest, u8_t hl, u8_t tc, u8_t nexth,
                    struct netif *netif) {
  ip_addr_t source, destination;
  (void)tc, (void)nexth, (void)netif;
  ip_addr_copy_from_ip6(source, *src);
  ip_addr_copy_from_ip6(destination, *dest);
  return output(p, &source, &destination, hl);
}

struct netif *ip4_route(const ip4_addr_t *dest) {
  (void)dest;
  return &stack_current->netif;
}

struct netif *ip6_route(const ip6_addr_t *src, const ip6_addr_t *dest) {
  (void)src, (void)dest;
  return &stack_current->netif;
}

struct netif *netif_get_by_index(u8_t index) {
  (void)index;
  return &stack_current->netif;
}

// lwIP needs this for outgoing connections, which do not occur here.
const ip_addr_t *ip6_select_source_address(struct netif *netif, const ip6_addr_t *dest) {
  (void)netif, (void)dest;
  return NULL;
}

u16_t nd6_get_destination_mtu(const ip6_addr_t *address, struct netif *netif) {
  (void)address;
  return netif->mtu;
}

#define ROTATE(value, bits) ((value) << (bits) | (value) >> (64 - (bits)))

static void round_of(uint64_t v[4]) {
  v[0] += v[1], v[1] = ROTATE(v[1], 13) ^ v[0], v[0] = ROTATE(v[0], 32);
  v[2] += v[3], v[3] = ROTATE(v[3], 16) ^ v[2];
  v[0] += v[3], v[3] = ROTATE(v[3], 21) ^ v[0];
  v[2] += v[1], v[1] = ROTATE(v[1], 17) ^ v[2], v[2] = ROTATE(v[2], 32);
}

// SipHash-2-4 over whole words.
static uint64_t sip_hash(const uint8_t key[16], const uint64_t *words, size_t count) {
  uint64_t k[2];
  memcpy(k, key, sizeof k);
  uint64_t v[4] = {k[0] ^ 0x736f6d6570736575, k[1] ^ 0x646f72616e646f6d, k[0] ^ 0x6c7967656e657261,
                   k[1] ^ 0x7465646279746573};
  for (size_t i = 0; i <= count; i++) {
    uint64_t word = i < count ? words[i] : (uint64_t)(count * 8) << 56;
    v[3] ^= word;
    round_of(v), round_of(v);
    v[0] ^= word;
  }
  v[2] ^= 0xff;
  for (int i = 0; i < 4; i++) round_of(v);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

// RFC 6528 §3: a clock with 4 µs ticks, and a secret function of the connection.
u32_t ip_layer_sequence_number(const ip_addr_t *local_ip, u16_t local_port, const ip_addr_t *remote_ip, u16_t remote_port) {
  uint64_t words[5] = {0};
  size_t bytes = IP_IS_V4(local_ip) ? 4 : 16;
  memcpy(words, IP_IS_V4(local_ip) ? (const void *)&ip_2_ip4(local_ip)->addr : ip_2_ip6(local_ip)->addr, bytes);
  memcpy(words + 2, IP_IS_V4(remote_ip) ? (const void *)&ip_2_ip4(remote_ip)->addr : ip_2_ip6(remote_ip)->addr, bytes);
  words[4] = (uint64_t)local_port << 16 | remote_port;
  return (u32_t)(sip_hash(stack_current->options.secret, words, 5) + (uint64_t)(stack_current->now_ms * 250));
}

#else

typedef int underpass_has_no_ip_layer;

#endif
