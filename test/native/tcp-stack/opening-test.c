// Tests the TCP of a terminating proxy by the sections of RFC 9293 and related RFCs, with segments in and out.
// How connections are opened, and what both ends agree on.
#include "segment-peer.h"

#ifdef UNDERPASS_LWIP

// §3.5, §3.7.1: the SYN is answered with MSS, window scale and SACK of RFC 7323 and 2018.
static void accepts_any_address_and_port(void **state) {
  segment_peer *peer = *state;
  static const uint8_t options[] = {2, 4, 5, 0xb4, 4, 2, 1, 1, 3, 3, 7, 1};
  peer->target_port = 1;
  peer_send_options(peer, SYN, peer->sequence, options, sizeof options, NULL, 0);
  const seen_segment *answer = peer_next(peer);
  assert_int_equal(answer->flags, SYN | ACK);
  assert_int_equal(answer->mss, peer->is_ipv6 ? 1440 : 1460);
  assert_int_equal(answer->scale, 5);
  assert_int_equal(answer->sack_permitted, 1);
  assert_int_equal(answer->window, 65535);
  assert_int_equal(peer->accepted, 0);
}

static void uses_no_option_that_the_peer_does_not_offer(void **state) {
  segment_peer *peer = *state;
  peer_send(peer, SYN, peer->sequence, NULL, 0);
  const seen_segment *answer = peer_next(peer);
  assert_int_equal(answer->scale, -1);
  assert_int_equal(answer->sack_permitted, 0);
  peer_acknowledge(peer, answer);
  peer_send(peer, ACK, ++peer->sequence, NULL, 0);
  assert_int_equal(peer->accepted, 1);
  // §3.7.1: without the option the send MSS is 536; over IPv6 it may be 1220.
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 3000), 3000);
  peer_collect(peer);
  size_t total = 0;
  while (peer->seen_next < peer->seen_count) {
    const seen_segment *seen = peer_next(peer);
    assert_true(seen->length <= 1220);
    total += seen->length;
  }
  assert_int_equal(total, 3000);
}

static void announces_the_mss_of_its_device(void **state) {
  (void)state;
  static const struct {
    int mtu, mss;
  } cases[] = {{1280, 1240}, {1500, 1460}, {9000, 8960}, {65000, 64960}, {65535, 64960}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    segment_peer *peer = peer_new(&(peer_options){.mtu = cases[i].mtu});
    peer_send(peer, SYN, 1, NULL, 0);
    assert_int_equal(peer_next(peer)->mss, cases[i].mss);
    peer_free(peer);
  }
}

// §3.10.7.1
static void answers_a_segment_of_no_connection_with_a_rst(void **state) {
  segment_peer *peer = *state;
  peer->acknowledgment = 77;
  peer_send(peer, ACK, 100, ZEROS, 10);
  const seen_segment *answer = peer_next(peer);
  assert_true((answer->flags & RST) != 0);
  assert_int_equal(answer->sequence, 77);
  peer_send(peer, RST, 100, NULL, 0);
  peer_expect_nothing(peer);
}

// §3.10.7.4, in SYN-RECEIVED: an unacceptable ACK is answered with a RST that has its number.
static void refuses_a_wrong_acknowledgment_of_its_syn(void **state) {
  segment_peer *peer = *state;
  peer_send(peer, SYN, peer->sequence, NULL, 0);
  const seen_segment *answer = peer_next(peer);
  peer->acknowledgment = answer->sequence + 2;
  peer_send(peer, ACK, ++peer->sequence, NULL, 0);
  answer = peer_next(peer);
  assert_true((answer->flags & RST) != 0);
  assert_int_equal(answer->sequence, peer->acknowledgment);
  assert_int_equal(peer->accepted, 0);
}

// §3.5: a repeated SYN is answered again with the same number. RFC 6298 §5: unanswered ones are repeated, and finally given up.
static void repeats_its_syn_until_it_gives_up(void **state) {
  segment_peer *peer = *state;
  peer_send(peer, SYN, peer->sequence, NULL, 0);
  uint32_t sequence = peer_next(peer)->sequence;
  peer_send(peer, SYN, peer->sequence, NULL, 0);
  assert_int_equal(peer_next(peer)->sequence, sequence);
  peer_pass(peer, 90000);
  int repeated = 0;
  while (peer->seen_next < peer->seen_count) {
    const seen_segment *seen = peer_next(peer);
    assert_int_equal(seen->sequence, sequence);
    assert_int_equal(seen->flags, SYN | ACK);
    repeated++;
  }
  assert_in_range(repeated, 2, 6);
  assert_int_equal(peer->closed, 1);
  assert_int_equal(peer->accepted, 0);
}

// RFC 6528: initial numbers of two connections differ unpredictably, and those of one grow with time.
static void chooses_initial_numbers_that_nobody_can_guess(void **state) {
  segment_peer *peer = *state;
  uint32_t numbers[3];
  for (int i = 0; i < 3; i++) {
    peer->flow = (uint32_t)i;
    if (i == 1) peer->port++;
    if (i == 2) {
      peer->port--;
      io_tcp_stack_drop(peer->stack, 0, false);
      peer->now += 1000;
    }
    peer_send(peer, SYN, 1, NULL, 0);
    numbers[i] = peer_next(peer)->sequence;
  }
  assert_true(numbers[1] - numbers[0] > 1000000 && numbers[0] - numbers[1] > 1000000);
  assert_int_equal(numbers[2] - numbers[0], 250000);
}

// RFC 9293 §3.7.1 and CVE-2019-11479: a tiny MSS does not make the sender produce endless tiny segments.
static void bounds_a_tiny_mss(void **state) {
  segment_peer *peer = *state;
  static const uint8_t options[] = {2, 4, 0, 1};
  peer_send_options(peer, SYN, peer->sequence, options, sizeof options, NULL, 0);
  peer_acknowledge(peer, peer_next(peer));
  peer_send(peer, ACK, ++peer->sequence, NULL, 0);
  int64_t written = io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 65535);
  assert_in_range(written, 1000, 65535);
  peer_collect(peer);
  assert_int_equal(peer_next(peer)->length, 48);
  assert_true(io_tcp_stack_memory_used(peer->stack) < 2 << 20);
}

// §3.2: the MSS is agreed on in the SYN; a later one, or one in a repeated SYN, does not exceed the MTU.
static void takes_no_other_mss_later(void **state) {
  segment_peer *peer = *state;
  static const uint8_t large[] = {2, 4, 0xff, 0xff};
  peer_send_options(peer, SYN, peer->sequence, large, 4, NULL, 0);
  peer_acknowledge(peer, peer_next(peer));
  peer_send_options(peer, SYN, peer->sequence, large, 4, NULL, 0);
  peer_send_options(peer, ACK, ++peer->sequence, large, 4, NULL, 0);
  peer->seen_next = peer->seen_count;
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 6000), 6000);
  peer_collect(peer);
  assert_int_equal(peer_next(peer)->length, peer->is_ipv6 ? 1440 : 1460);
}

int tcp_stack_opening_tests(void) {
  const struct CMUnitTest tests[] = {
      PEER_TESTS(accepts_any_address_and_port),
      PEER_TESTS(uses_no_option_that_the_peer_does_not_offer),
      cmocka_unit_test(announces_the_mss_of_its_device),
      PEER_TESTS(answers_a_segment_of_no_connection_with_a_rst),
      PEER_TESTS(refuses_a_wrong_acknowledgment_of_its_syn),
      PEER_TESTS(repeats_its_syn_until_it_gives_up),
      PEER_TESTS(chooses_initial_numbers_that_nobody_can_guess),
      PEER_TESTS(bounds_a_tiny_mss),
      PEER_TESTS(takes_no_other_mss_later),
  };
  return cmocka_run_group_tests_name("TCP stack: opening", tests, NULL, NULL);
}

#else

static void has_no_stack_without_lwip(void **state) {
  (void)state;
  io_tcp_stack *stack;
  assert_int_equal(io_tcp_stack_create(&(io_tcp_stack_options){0}, &(io_tcp_stack_memory){0}, &stack), UV_ENOTSUP);
}

int tcp_stack_opening_tests(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(has_no_stack_without_lwip)};
  return cmocka_run_group_tests_name("TCP stack", tests, NULL, NULL);
}

#endif
