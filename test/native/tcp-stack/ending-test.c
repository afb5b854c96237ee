// Tests the TCP of a terminating proxy by the sections of RFC 9293 and related RFCs, with segments in and out.
// How connections end, and what does not end them.
#include "segment-peer.h"

#ifdef UNDERPASS_LWIP

// RFC 5961 §3, §4, §5: segments that a stranger could send are answered with a challenge, and change nothing.
static void is_not_ended_by_a_guess(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  peer_send(peer, RST, peer->sequence + 1, NULL, 0);
  assert_int_equal(peer_next(peer)->flags, ACK);
  peer_send(peer, RST, peer->sequence - 1, NULL, 0);
  peer_expect_nothing(peer);
  peer_send(peer, SYN, peer->sequence, NULL, 0);
  assert_int_equal(peer_next(peer)->flags, ACK);
  peer_send(peer, SYN | ACK, peer->sequence, NULL, 0);
  assert_int_equal(peer_next(peer)->flags, ACK);
  peer->acknowledgment += 1 << 20;
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  assert_int_equal(peer_next(peer)->flags, ACK);
  assert_int_equal(peer->closed, 0);
  // §3.10.7.4: the exact number ends the connection.
  peer_send(peer, RST, peer->sequence, NULL, 0);
  assert_int_equal(peer->closed, 1);
  assert_int_equal(peer->error, UV_ECONNRESET);
  peer_expect_nothing(peer);
}

// §3.6: the peer ends first, and still gets written data.
static void half_closes_when_the_peer_ends(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  peer_send(peer, FIN | ACK, peer->sequence, ZEROS, 10);
  assert_int_equal(peer->received, 10);
  assert_int_equal(peer->ended, 1);
  assert_int_equal(peer_next(peer)->acknowledgment, peer->sequence + 11);
  peer->sequence += 11;
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 100), 100);
  peer_collect(peer);
  const seen_segment *seen = peer_next(peer);
  assert_int_equal(seen->length, 100);
  peer_acknowledge(peer, seen);
  // It still exists long afterwards.
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  peer_pass(peer, 600000);
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 1), 1);
  io_tcp_stack_end(peer->stack, peer->now, 0);
  assert_true(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 1) == UV_EPIPE);
  peer_collect(peer);
  peer_acknowledge(peer, peer_next(peer));
  seen = peer_next(peer);
  assert_int_equal(seen->flags & FIN, FIN);
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  assert_int_equal(peer->closed, 0);
  // A lost FIN is repeated.
  peer_pass(peer, 5000);
  seen = peer_next(peer);
  assert_int_equal(seen->flags & FIN, FIN);
  peer_acknowledge(peer, seen);
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  assert_int_equal(peer->closed, 1);
  assert_int_equal(peer->error, 0);
}

// §3.6: this side ends first, still receives data, and remembers the connection for 2 MSL.
static void half_closes_and_waits_for_the_peer(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  io_tcp_stack_end(peer->stack, peer->now, 0);
  peer_collect(peer);
  const seen_segment *seen = peer_next(peer);
  assert_int_equal(seen->flags & FIN, FIN);
  peer_acknowledge(peer, seen);
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  peer_pass(peer, 600000);
  peer_send(peer, ACK, peer->sequence, ZEROS, 500);
  assert_int_equal(peer->received, 500);
  peer_send(peer, FIN | ACK, peer->sequence + 500, NULL, 0);
  assert_int_equal(peer->ended, 1);
  peer_pass(peer, 50000);
  assert_int_equal(peer->closed, 0);
  while (peer->seen_next < peer->seen_count) seen = peer_next(peer);
  assert_int_equal(seen->acknowledgment, peer->sequence + 501);
  // §3.10.7.4, in TIME-WAIT: a repeated FIN is acknowledged again, and restarts the wait.
  peer_send(peer, FIN | ACK, peer->sequence + 500, NULL, 0);
  assert_int_equal(peer_next(peer)->acknowledgment, peer->sequence + 501);
  peer_pass(peer, 50000);
  assert_int_equal(peer->closed, 0);
  // RFC 1337: a RST does not end it.
  peer_send(peer, RST, peer->sequence + 501, NULL, 0);
  assert_int_equal(peer->closed, 0);
  peer_pass(peer, 20000);
  assert_int_equal(peer->closed, 1);
  assert_int_equal(peer->error, 0);
}

// §3.6, Figure 13: both end at once.
static void ends_when_both_ends_do_so_at_once(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  io_tcp_stack_end(peer->stack, peer->now, 0);
  peer_collect(peer);
  const seen_segment *fin = peer_next(peer);
  peer_send(peer, FIN | ACK, peer->sequence, NULL, 0);
  assert_int_equal(peer->ended, 1);
  assert_int_equal(peer_next(peer)->acknowledgment, peer->sequence + 1);
  peer_acknowledge(peer, fin);
  peer_send(peer, ACK, peer->sequence + 1, NULL, 0);
  peer_pass(peer, 70000);
  assert_int_equal(peer->closed, 1);
  assert_int_equal(peer->error, 0);
}

// §3.6.1: closing with unread bytes sends a RST.
static void resets_a_peer_whose_bytes_nobody_reads(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  io_tcp_stack_pause(peer->stack, 0, true);
  peer_send(peer, ACK, peer->sequence, ZEROS, 10);
  io_tcp_stack_close(peer->stack, peer->now, 0);
  peer_collect(peer);
  assert_true((peer_next(peer)->flags & RST) != 0);
  assert_int_equal(peer->closed, 1);
}

static void closes_with_a_fin_and_resets_a_peer_that_sends_on(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 10), 10);
  io_tcp_stack_close(peer->stack, peer->now, 0);
  peer_collect(peer);
  assert_int_equal(peer_next(peer)->length, 10);
  const seen_segment *seen = peer_next(peer);
  assert_int_equal(seen->flags & FIN, FIN);
  peer_acknowledge(peer, seen);
  peer_send(peer, ACK, peer->sequence, ZEROS, 10);
  assert_true((peer_next(peer)->flags & RST) != 0);
  assert_int_equal(peer->received, 0);
  assert_int_equal(peer->closed, 1);
}

static void drops_a_connection_with_a_rst_or_silently(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  io_tcp_stack_drop(peer->stack, 0, true);
  peer_collect(peer);
  const seen_segment *seen = peer_next(peer);
  assert_true((seen->flags & RST) != 0);
  assert_int_equal(seen->sequence, peer->acknowledgment);
  assert_int_equal(peer->closed, 0);
  assert_int_equal(io_tcp_stack_memory_used(peer->stack), 0);
  peer->accepted = 0;
  peer_connect(peer);
  io_tcp_stack_drop(peer->stack, 0, false);
  peer_collect(peer);
  peer_expect_nothing(peer);
  assert_int_equal(io_tcp_stack_memory_used(peer->stack), 0);
}

// §3.8.4: a connection that is idle for two hours is probed, and ends if the peer does not answer.
static void asks_an_idle_peer_whether_it_is_there(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  assert_true(io_tcp_stack_next_timeout(peer->stack) > peer->now + 7.1e6);
  peer_pass(peer, 7199e3);
  peer_expect_nothing(peer);
  peer_pass(peer, 3e3);
  const seen_segment *probe = peer_next(peer);
  assert_int_equal(probe->length, 0);
  assert_int_equal(probe->sequence, peer->acknowledgment - 1);
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  peer_pass(peer, 7199e3);
  assert_int_equal(peer->closed, 0);
  peer_pass(peer, 700e3);
  assert_int_equal(peer->closed, 1);
  assert_int_equal(peer->error, UV_ETIMEDOUT);
}

int tcp_stack_ending_tests(void) {
  const struct CMUnitTest tests[] = {
      PEER_TESTS(is_not_ended_by_a_guess),
      PEER_TESTS(half_closes_when_the_peer_ends),
      PEER_TESTS(half_closes_and_waits_for_the_peer),
      PEER_TESTS(ends_when_both_ends_do_so_at_once),
      PEER_TESTS(resets_a_peer_whose_bytes_nobody_reads),
      PEER_TESTS(closes_with_a_fin_and_resets_a_peer_that_sends_on),
      PEER_TESTS(drops_a_connection_with_a_rst_or_silently),
      PEER_TESTS(asks_an_idle_peer_whether_it_is_there),
  };
  return cmocka_run_group_tests_name("TCP stack: ending", tests, NULL, NULL);
}

#else

int tcp_stack_ending_tests(void) { return 0; }

#endif
