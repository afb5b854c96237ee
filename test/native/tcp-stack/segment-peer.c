#include "segment-peer.h"

#include <stdlib.h>
#include <string.h>

#define VIRTIO 10

static const uint8_t SYN_OPTIONS[] = {2, 4, 1460 >> 8, 1460 & 255, 4, 2, 1, 1, 3, 3, 0, 1};

segment_peer *peer_new(const peer_options *wanted) {
  segment_peer *peer = calloc(1, sizeof *peer);
  peer->is_ipv6 = wanted->is_ipv6;
  peer->has_virtio = wanted->has_virtio;
  peer->now = 5000;
  peer->port = 40000;
  peer->target_port = 443;
  peer->sequence = 0xfffffff0;
  peer->window = 65535;
  peer->memory = (io_tcp_stack_memory){.packets = malloc(PEER_PACKET_BYTES),
                                       .packet_bytes = PEER_PACKET_BYTES,
                                       .offsets = malloc(PEER_PACKETS * sizeof(int32_t)),
                                       .lengths = malloc(PEER_PACKETS * sizeof(int32_t)),
                                       .capacity = PEER_PACKETS,
                                       .received = malloc(PEER_RECEIVED_BYTES),
                                       .received_bytes = PEER_RECEIVED_BYTES,
                                       .events = malloc(PEER_EVENTS * IO_TCP_STACK_EVENT_INTS * sizeof(int32_t)),
                                       .event_capacity = PEER_EVENTS};
  io_tcp_stack_options options = {.mtu = wanted->mtu == 0 ? 1500 : wanted->mtu,
                                  .has_virtio = wanted->has_virtio,
                                  .max_flows = 1 << 16,
                                  .memory_bytes = wanted->memory_bytes == 0 ? 64 << 20 : wanted->memory_bytes,
                                  .secret = {1, 2, 3}};
  assert_int_equal(io_tcp_stack_create(&options, &peer->memory, &peer->stack), 0);
  return peer;
}

void peer_free(segment_peer *peer) {
  io_tcp_stack_free(peer->stack);
  free(peer->memory.packets);
  free(peer->memory.offsets);
  free(peer->memory.lengths);
  free(peer->memory.received);
  free(peer->memory.events);
  free(peer);
}

static void put(uint8_t *to, size_t bytes, uint64_t value) {
  for (size_t i = 0; i < bytes; i++) to[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
}

static uint64_t get(const uint8_t *from, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; i++) value = value << 8 | from[i];
  return value;
}

// Written independently, so that it does not share a fault with the code that it checks.
static uint32_t sum_of(const uint8_t *bytes, size_t length) {
  uint32_t sum = 0;
  for (size_t i = 0; i < length; i++) {
    sum += i % 2 == 0 ? (uint32_t)bytes[i] << 8 : bytes[i];
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return sum;
}

static uint16_t segment_sum(const uint8_t *ip, const uint8_t *tcp, size_t bytes) {
  bool is_ipv6 = ip[0] >> 4 == 6;
  uint32_t sum = sum_of(is_ipv6 ? ip + 8 : ip + 12, is_ipv6 ? 32 : 8) + 6 + (uint32_t)bytes + sum_of(tcp, bytes);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)sum;
}

size_t peer_build(const segment_peer *peer, uint8_t *packet, uint8_t flags, uint32_t sequence, const uint8_t *options,
                  size_t options_bytes, const uint8_t *data, size_t length, size_t *transport) {
  size_t start = peer->has_virtio ? VIRTIO : 0, header = peer->is_ipv6 ? 40 : 20, segment = 20 + options_bytes + length;
  uint8_t *ip = packet + start, *tcp = ip + header;
  memset(packet, 0, start + header + 20);
  if (peer->is_ipv6) {
    ip[0] = 0x60;
    put(ip + 4, 2, segment);
    ip[6] = 6;
    ip[7] = 64;
    memcpy(ip + 8, "\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", 16);
    memcpy(ip + 24, "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02", 16);
  } else {
    ip[0] = 0x45;
    put(ip + 2, 2, header + segment);
    ip[8] = 64;
    ip[9] = 6;
    memcpy(ip + 12, "\x0a\x00\x00\x01\xc0\x00\x02\x01", 8);
  }
  put(tcp, 2, peer->port);
  put(tcp + 2, 2, peer->target_port);
  put(tcp + 4, 4, sequence);
  put(tcp + 8, 4, (flags & ACK) != 0 ? peer->acknowledgment : 0);
  tcp[12] = (uint8_t)((20 + options_bytes) / 4 << 4);
  tcp[13] = flags;
  put(tcp + 14, 2, peer->window);
  if (options_bytes > 0) memcpy(tcp + 20, options, options_bytes);
  if (length > 0) memcpy(tcp + 20 + options_bytes, data, length);
  put(tcp + 16, 2, (uint16_t)~segment_sum(ip, tcp, segment));
  *transport = start + header;
  return start + header + segment;
}

void peer_give(segment_peer *peer, uint8_t *packet, size_t length, size_t transport) {
  // Exactly as large as the packet, so that access to one more byte is detected.
  uint8_t *copy = malloc(length);
  memcpy(copy, packet, length);
  int32_t row[IO_TCP_STACK_SEGMENT_INTS] = {(int32_t)peer->flow, 0, (int32_t)transport, (int32_t)length};
  io_tcp_stack_handle_segments(peer->stack, peer->now, copy, length, row, 1);
  free(copy);
  peer_collect(peer);
}

void peer_send_options(segment_peer *peer, uint8_t flags, uint32_t sequence, const uint8_t *options, size_t options_bytes,
                       const uint8_t *data, size_t length) {
  uint8_t packet[VIRTIO + 65536];
  size_t transport, bytes = peer_build(peer, packet, flags, sequence, options, options_bytes, data, length, &transport);
  peer_give(peer, packet, bytes, transport);
}

void peer_send(segment_peer *peer, uint8_t flags, uint32_t sequence, const uint8_t *data, size_t length) {
  peer_send_options(peer, flags, sequence, NULL, 0, data, length);
}

static void read_options(const uint8_t *at, const uint8_t *end, seen_segment *seen) {
  seen->mss = seen->scale = -1;
  while (at < end && *at != 0) {
    size_t bytes = *at == 1 ? 1 : at[1];
    if (*at == 2) seen->mss = (int)get(at + 2, 2);
    else if (*at == 3) seen->scale = at[2];
    else if (*at == 4) seen->sack_permitted = 1;
    else if (*at == 5) {
      seen->sacks = (int)(bytes - 2) / 8;
      for (int i = 0; i < seen->sacks * 2; i++) seen->sack[i] = (uint32_t)get(at + 2 + 4 * i, 4);
    }
    at += bytes;
  }
}

static void see(segment_peer *peer, const uint8_t *packet, size_t length) {
  size_t start = peer->has_virtio ? VIRTIO : 0, header = peer->is_ipv6 ? 40 : 20;
  const uint8_t *ip = packet + start, *tcp = ip + header;
  size_t bytes = length - start - header, header_bytes = (size_t)(tcp[12] >> 4) * 4;
  assert_int_equal(ip[0], peer->is_ipv6 ? 0x60 : 0x45);
  assert_int_equal(get(ip + (peer->is_ipv6 ? 4 : 2), 2), peer->is_ipv6 ? bytes : header + bytes);
  if (!peer->is_ipv6) assert_int_equal(sum_of(ip, 20), 0xffff);
  if (!peer->has_virtio) assert_int_equal(segment_sum(ip, tcp, bytes), 0xffff);
  assert_int_equal(get(tcp, 2), peer->target_port);
  assert_int_equal(get(tcp + 2, 2), peer->port);
  assert_true(peer->seen_count < 64);
  seen_segment *seen = &peer->seen[peer->seen_count++];
  memset(seen, 0, offsetof(seen_segment, data));
  seen->flags = tcp[13];
  seen->sequence = (uint32_t)get(tcp + 4, 4);
  seen->acknowledgment = (uint32_t)get(tcp + 8, 4);
  read_options(tcp + 20, tcp + header_bytes, seen);
  seen->window = (uint32_t)get(tcp + 14, 2) << ((seen->flags & SYN) != 0 ? 0 : peer->scale);
  seen->length = bytes - header_bytes;
  memcpy(seen->data, tcp + header_bytes, seen->length);
}

static void note(segment_peer *peer, const int32_t *row) {
  if (row[0] != (int32_t)peer->flow) {
    peer->others++;
    return;
  }
  assert_int_equal(peer->closed, 0);
  switch (row[1]) {
    case IO_TCP_STACK_ACCEPTED: peer->accepted++; break;
    case IO_TCP_STACK_BYTES:
      assert_int_equal(peer->ended, 0);
      for (int32_t i = 0; i < row[3]; i++) peer->sum = peer->sum * 31 + peer->memory.received[row[2] + i];
      peer->received += (size_t)row[3];
      break;
    case IO_TCP_STACK_ENDED: peer->ended++; break;
    case IO_TCP_STACK_WRITABLE: peer->writable++; break;
    default: peer->closed++; peer->error = row[2];
  }
}

void peer_collect(segment_peer *peer) {
  for (int32_t count = io_tcp_stack_poll_events(peer->stack); count > 0; count = io_tcp_stack_poll_events(peer->stack)) {
    for (int32_t i = 0; i < count; i++) note(peer, peer->memory.events + i * IO_TCP_STACK_EVENT_INTS);
  }
  for (int32_t count = io_tcp_stack_poll_packets(peer->stack); count > 0; count = io_tcp_stack_poll_packets(peer->stack)) {
    for (int32_t i = 0; i < count; i++) {
      // Earlier ones that were not examined.
      if (peer->seen_next == peer->seen_count) peer->seen_next = peer->seen_count = 0;
      see(peer, peer->memory.packets + peer->memory.offsets[i], (size_t)peer->memory.lengths[i]);
    }
  }
}

void peer_pass(segment_peer *peer, double ms) {
  double end = peer->now + ms;
  for (double due = io_tcp_stack_next_timeout(peer->stack); due <= end; due = io_tcp_stack_next_timeout(peer->stack)) {
    if (due > peer->now) peer->now = due;
    io_tcp_stack_handle_timeout(peer->stack, peer->now);
    peer_collect(peer);
    assert_true(io_tcp_stack_next_timeout(peer->stack) > peer->now);
  }
  peer->now = end;
}

const seen_segment *peer_next_at(segment_peer *peer, const char *file, int line) {
  _assert_true(peer->seen_next < peer->seen_count, "a segment", file, line);
  return &peer->seen[peer->seen_next++];
}

const seen_segment *peer_last(segment_peer *peer) {
  assert_true(peer->seen_count > 0);
  peer->seen_next = peer->seen_count;
  return &peer->seen[peer->seen_count - 1];
}

void peer_connect(segment_peer *peer) {
  peer_send_options(peer, SYN, peer->sequence, SYN_OPTIONS, sizeof SYN_OPTIONS, NULL, 0);
  const seen_segment *answer = peer_next(peer);
  assert_int_equal(answer->flags, SYN | ACK);
  assert_int_equal(answer->acknowledgment, ++peer->sequence);
  peer->acknowledgment = answer->sequence + 1;
  peer->scale = answer->scale;
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  assert_int_equal(peer->accepted, 1);
  peer_expect_nothing(peer);
  io_tcp_stack_pause(peer->stack, peer->flow, false);
}

void peer_acknowledge(segment_peer *peer, const seen_segment *seen) {
  peer->acknowledgment = seen->sequence + (uint32_t)seen->length + ((seen->flags & (SYN | FIN)) != 0 ? 1 : 0);
}

const uint8_t ZEROS[65536];

int peer_setup(void **state) {
  *state = peer_new(&(peer_options){0});
  return 0;
}

int peer_setup_ipv6(void **state) {
  *state = peer_new(&(peer_options){.is_ipv6 = true});
  return 0;
}

int peer_teardown(void **state) {
  peer_free(*state);
  return 0;
}
