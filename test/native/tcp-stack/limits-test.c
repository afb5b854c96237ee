// Tests the TCP of a terminating proxy by the sections of RFC 9293 and related RFCs, with segments in and out.
// Invalid packets, memory, packets of a kernel, and many connections.
#include <string.h>

#include "segment-peer.h"

#ifdef UNDERPASS_LWIP

// §3.1: anything but a segment of this connection is dropped and counted.
static void drops_what_is_not_valid(void **state) {
  segment_peer *peer = *state;
  double counts[IO_TCP_STACK_COUNTS];
  uint8_t packet[2000];
  size_t transport, length;
  peer_connect(peer);
  length = peer_build(peer, packet, ACK, peer->sequence, NULL, 0, ZEROS, 100, &transport);
  packet[transport + 16] ^= 1;
  peer_give(peer, packet, length, transport);
  length = peer_build(peer, packet, ACK, peer->sequence, NULL, 0, ZEROS, 100, &transport);
  packet[transport + 12] = 4 << 4;
  peer_give(peer, packet, length, transport);
  length = peer_build(peer, packet, ACK, peer->sequence, NULL, 0, NULL, 0, &transport);
  peer_give(peer, packet, length - 1, transport);
  peer_give(peer, packet, length, transport + 1);
  assert_int_equal(peer->received, 0);
  io_tcp_stack_counts(peer->stack, counts);
  assert_true(counts[IO_TCP_STACK_COUNT_BAD_CHECKSUM] == 1);
  assert_true(counts[IO_TCP_STACK_COUNT_MALFORMED] == 3);
  // Rows that point outside the memory.
  int32_t rows[][IO_TCP_STACK_SEGMENT_INTS] = {
      {0, -1, 20, 40}, {0, 0, 20, 2001}, {0, 1990, 2010, 2050}, {-1, 0, 20, 40}, {1 << 16, 0, 20, 40}, {0, 0, INT32_MIN, 40}};
  io_tcp_stack_handle_segments(peer->stack, peer->now, packet, sizeof packet, rows[0], 6);
  io_tcp_stack_counts(peer->stack, counts);
  assert_true(counts[IO_TCP_STACK_COUNT_MALFORMED] == 9);
}

// §3.2: options that are truncated, or have an impossible length, end the list.
static void survives_options_that_are_cut_off(void **state) {
  static const uint8_t lists[][8] = {{1, 1, 1, 2}, {1, 1, 2, 4}, {3, 0, 1, 1}, {2, 40, 5, 180}, {4, 1, 1, 5}, {254, 2, 8, 10}};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
    segment_peer *peer = peer_new(&(peer_options){0});
    peer_send_options(peer, SYN, 1, lists[i], 4, NULL, 0);
    assert_int_equal(peer_next(peer)->flags, SYN | ACK);
    peer_free(peer);
  }
  (void)state;
}

// Back-pressure from the device: data without room in the packets' memory is sent once there is room.
static void sends_what_found_no_room_later(void **state) {
  (void)state;
  segment_peer *peer = peer_new(&(peer_options){.mtu = 65000});
  static const uint8_t options[] = {2, 4, 253, 192, 3, 3, 7, 1};
  peer_send_options(peer, SYN, peer->sequence, options, sizeof options, NULL, 0);
  peer_acknowledge(peer, peer_next(peer));
  peer_send(peer, ACK, ++peer->sequence, NULL, 0);
  // More than the memory for packets, in the second round trip.
  size_t written = 0, got = 0;
  for (int i = 0; i < 100 && got < 8 << 20; i++) {
    int64_t part = io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, sizeof ZEROS);
    for (; part == (int64_t)sizeof ZEROS; part = io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, sizeof ZEROS)) written += (size_t)part;
    written += (size_t)part;
    for (int j = 0; j < 20 && got < written; j++) {
      peer_collect(peer);
      while (peer->seen_next < peer->seen_count) {
        const seen_segment *seen = peer_next(peer);
        assert_int_equal(seen->sequence, peer->acknowledgment);
        peer_acknowledge(peer, seen);
        got += seen->length;
      }
      peer_send(peer, ACK, peer->sequence, NULL, 0);
    }
    assert_int_equal(got, written);
  }
  assert_true(got >= 8 << 20);
  peer_free(peer);
}

// All waiting data together stays within the limit, and new connections are still accepted.
static void keeps_within_its_memory(void **state) {
  (void)state;
  size_t bound = 8 << 20;
  segment_peer *peer = peer_new(&(peer_options){.memory_bytes = bound});
  double counts[IO_TCP_STACK_COUNTS];
  for (uint32_t flow = 0; flow < 40; flow++) {
    peer->flow = flow;
    peer->port = (uint16_t)(1000 + flow);
    peer->accepted = 0;
    peer_connect(peer);
    io_tcp_stack_pause(peer->stack, flow, true);
    for (uint32_t sent = 0; sent < 500000; sent += 1460) {
      // With and without a gap.
      peer_send(peer, ACK, peer->sequence + sent + flow % 2, ZEROS, 1460);
      peer->seen_next = peer->seen_count;
    }
    assert_true(io_tcp_stack_memory_used(peer->stack) <= bound);
  }
  io_tcp_stack_counts(peer->stack, counts);
  assert_true(counts[IO_TCP_STACK_COUNT_NO_MEMORY] > 1000);
  for (uint32_t flow = 0; flow < 40; flow++) io_tcp_stack_drop(peer->stack, flow, false);
  assert_int_equal(io_tcp_stack_memory_used(peer->stack), 0);
  peer_free(peer);
}

// Offloads: a packet of 60 KB arrives as one, and consecutive segments leave as one.
static void exchanges_packets_longer_than_the_mtu_with_a_kernel(void **state) {
  for (int is_ipv6 = 0; is_ipv6 < 2; is_ipv6++) {
    segment_peer *peer = peer_new(&(peer_options){.has_virtio = true, .is_ipv6 = is_ipv6 == 1});
    uint8_t packet[65536];
    size_t transport;
    peer_connect(peer);
    size_t length = peer_build(peer, packet, ACK, peer->sequence, NULL, 0, ZEROS, 60000, &transport);
    packet[0] = 1;
    packet[transport + 16] ^= 0x55;
    peer_give(peer, packet, length, transport);
    assert_int_equal(peer->received, 60000);
    assert_int_equal(peer_next(peer)->acknowledgment, peer->sequence + 60000);
    peer->sequence += 60000;
    assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 14000), 14000);
    peer_collect(peer);
    const seen_segment *seen = peer_next(peer);
    assert_int_equal(seen->length, 14000);
    assert_int_equal(seen->flags, ACK | PSH);
    const uint8_t *header = peer->memory.packets;
    assert_int_equal(header[0], 1);
    assert_int_equal(header[1], is_ipv6 == 1 ? 4 : 1);
    uint16_t gso;
    memcpy(&gso, header + 4, 2);
    assert_int_equal(gso, is_ipv6 == 1 ? 1440 : 1460);
    peer_expect_nothing(peer);
    peer_free(peer);
  }
  (void)state;
}

// Two stacks are independent.
static void keeps_stacks_apart(void **state) {
  segment_peer *first = *state, *second = peer_new(&(peer_options){.is_ipv6 = true, .mtu = 9000});
  peer_connect(first);
  peer_connect(second);
  peer_send(first, ACK, first->sequence, ZEROS, 100);
  peer_send(second, ACK, second->sequence, ZEROS, 200);
  io_tcp_stack_drop(first->stack, 0, true);
  peer_collect(first);
  assert_true((peer_last(first)->flags & RST) != 0);
  peer_send(second, FIN | ACK, second->sequence + 200, NULL, 0);
  assert_int_equal(first->received, 100);
  assert_int_equal(second->received, 200);
  assert_int_equal(second->ended, 1);
  assert_int_equal(first->ended, 0);
  peer_free(second);
}

// Ten thousand idle connections need no timers, and no more memory than docs/reference/tcp-stack.md states.
static void holds_ten_thousand_idle_connections(void **state) {
  segment_peer *peer = *state;
  for (uint32_t flow = 0; flow < 10000; flow++) {
    peer->flow = flow;
    peer->port = (uint16_t)(1000 + flow);
    peer->accepted = 0;
    peer_connect(peer);
  }
  assert_true(io_tcp_stack_memory_used(peer->stack) <= 10000 * 640);
  peer_pass(peer, 1000);
  assert_true(io_tcp_stack_next_timeout(peer->stack) > peer->now + 7e6);
}

int tcp_stack_limits_tests(void) {
  const struct CMUnitTest tests[] = {
      PEER_TESTS(drops_what_is_not_valid),
      cmocka_unit_test(survives_options_that_are_cut_off),
      cmocka_unit_test(sends_what_found_no_room_later),
      cmocka_unit_test(keeps_within_its_memory),
      cmocka_unit_test(exchanges_packets_longer_than_the_mtu_with_a_kernel),
      cmocka_unit_test_setup_teardown(keeps_stacks_apart, peer_setup, peer_teardown),
      cmocka_unit_test_setup_teardown(holds_ten_thousand_idle_connections, peer_setup, peer_teardown),
  };
  return cmocka_run_group_tests_name("TCP stack: limits", tests, NULL, NULL);
}

#else

int tcp_stack_limits_tests(void) { return 0; }

#endif
