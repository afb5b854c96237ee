// Tests the TCP of a terminating proxy by the sections of RFC 9293 and related RFCs, with segments in and out.
// How data is delivered, sent and repeated, and how windows limit it.
#include "segment-peer.h"

#ifdef UNDERPASS_LWIP

// §3.8.6, §3.10.7.4: data in order is delivered and acknowledged.
static void delivers_data_in_order(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  peer_send(peer, ACK | PSH, peer->sequence, ZEROS, 1460);
  assert_int_equal(peer->received, 1460);
  peer_expect_nothing(peer);
  // §3.8.6.3: at least every second full segment is acknowledged at once.
  peer_send(peer, ACK, peer->sequence + 1460, ZEROS, 1460);
  assert_int_equal(peer_next(peer)->acknowledgment, peer->sequence + 2920);
  // The others are acknowledged within half a second, here after 40 ms.
  peer_send(peer, ACK, peer->sequence + 2920, ZEROS, 1);
  peer_pass(peer, 39);
  peer_expect_nothing(peer);
  peer_pass(peer, 2);
  const seen_segment *seen = peer_next(peer);
  assert_int_equal(seen->acknowledgment, peer->sequence + 2921);
  assert_int_equal(seen->window, 1 << 20);
}

// RFC 2018: gaps are reported.
static void keeps_data_that_comes_early_and_reports_it_by_sack(void **state) {
  segment_peer *peer = *state;
  uint8_t bytes[3000];
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7);
  peer_connect(peer);
  peer_send(peer, ACK, peer->sequence + 1000, bytes + 1000, 1000);
  const seen_segment *seen = peer_next(peer);
  assert_int_equal(seen->acknowledgment, peer->sequence);
  assert_int_equal(seen->sacks, 1);
  assert_int_equal(seen->sack[0], peer->sequence + 1000);
  assert_int_equal(seen->sack[1], peer->sequence + 2000);
  peer_send(peer, ACK, peer->sequence + 2000, bytes + 2000, 1000);
  assert_int_equal(peer_next(peer)->sack[1], peer->sequence + 3000);
  assert_int_equal(peer->received, 0);
  // Overlaps data that has already arrived.
  peer_send(peer, ACK, peer->sequence, bytes, 1500);
  assert_int_equal(peer->received, 3000);
  uint64_t sum = 0;
  for (size_t i = 0; i < sizeof bytes; i++) sum = sum * 31 + bytes[i];
  assert_true(peer->sum == sum);
  peer_pass(peer, 50);
  while (peer->seen_next < peer->seen_count) seen = peer_next(peer);
  assert_int_equal(seen->acknowledgment, peer->sequence + 3000);
  assert_int_equal(seen->sacks, 0);
}

// §3.10.7.4: repeated data is acknowledged again, and not delivered twice.
static void acknowledges_repeated_data_again(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  for (int i = 0; i < 2; i++) peer_send(peer, ACK, peer->sequence, ZEROS, 100);
  assert_int_equal(peer->received, 100);
  assert_int_equal(peer_next(peer)->acknowledgment, peer->sequence + 100);
  peer_send(peer, ACK, peer->sequence + 50, ZEROS, 100);
  assert_int_equal(peer->received, 150);
}

// RFC 6298 §5, RFC 5681 §3.1: lost data is repeated at growing intervals, and not forever.
static void repeats_data_until_it_gives_up(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 100), 100);
  peer_collect(peer);
  uint32_t sequence = peer_next(peer)->sequence;
  double last = peer->now, gap = 0;
  int repeated = 0;
  while (peer->closed == 0) {
    peer_pass(peer, 100);
    if (peer->seen_next == peer->seen_count) continue;
    const seen_segment *seen = peer_next(peer);
    assert_int_equal(seen->sequence, sequence);
    assert_int_equal(seen->length, 100);
    if (repeated == 0) assert_in_range((int)(peer->now - last), 200, 1200);
    assert_true(peer->now - last >= gap);
    gap = peer->now - last;
    last = peer->now;
    repeated++;
    assert_true(peer->now < 3600e3);
  }
  assert_in_range(repeated, 8, 15);
  assert_int_equal(peer->error, UV_ETIMEDOUT);
}

// RFC 5681 §3.2
static void repeats_a_segment_after_three_duplicate_acknowledgments(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 6 * 1460), 6 * 1460);
  peer_collect(peer);
  uint32_t first = peer->seen[peer->seen_next].sequence;
  while (peer->seen_next < peer->seen_count) assert_true(peer_next(peer)->length > 1400 || peer->seen_next == peer->seen_count);
  for (int i = 0; i < 2; i++) peer_send(peer, ACK, peer->sequence, NULL, 0);
  peer_expect_nothing(peer);
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  assert_int_equal(peer_next(peer)->sequence, first);
}

// RFC 6582: a partial acknowledgment makes the stack repeat the next segment at once.
static void repeats_each_of_several_lost_segments_without_its_timer(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 9 * 1440), 9 * 1440);
  peer_collect(peer);
  uint32_t first = peer->seen[peer->seen_next].sequence;
  size_t bytes = peer->seen[peer->seen_next].length;
  peer->seen_next = peer->seen_count;
  for (int i = 0; i < 3; i++) peer_send(peer, ACK, peer->sequence, NULL, 0);
  assert_int_equal(peer_next(peer)->sequence, first);
  for (uint32_t lost = 2; lost < 5; lost += 2) {
    peer->acknowledgment = first + lost * (uint32_t)bytes;
    peer_send(peer, ACK, peer->sequence, NULL, 0);
    assert_int_equal(peer_next(peer)->sequence, peer->acknowledgment);
  }
  peer->acknowledgment = first + 9 * 1440;
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  peer_expect_nothing(peer);
}

// RFC 6928, RFC 5681 §3.1: the stack sends ten segments at first, and more after each acknowledgment.
static void begins_with_ten_segments(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 60000), 60000);
  peer_collect(peer);
  size_t sent = 0;
  while (peer->seen_next < peer->seen_count) sent += peer_next(peer)->length;
  assert_int_equal(sent, 10 * 1460);
  peer->acknowledgment += 2 * 1460;
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  sent = 0;
  while (peer->seen_next < peer->seen_count) sent += peer_next(peer)->length;
  assert_int_equal(sent, 4 * 1460);
}

// §3.8.6.1: a closed window is probed, so a lost update does not stop the connection.
static void probes_a_closed_window(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 1000), 1000);
  peer_collect(peer);
  peer_acknowledge(peer, peer_next(peer));
  peer->window = 0;
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 5000), 5000);
  peer_collect(peer);
  peer_expect_nothing(peer);
  int probes = 0;
  for (int second = 0; second < 60; second++) {
    peer_pass(peer, 1000);
    while (peer->seen_next < peer->seen_count) {
      assert_true(peer_next(peer)->length <= 1);
      probes++;
      peer_send(peer, ACK, peer->sequence, NULL, 0);
    }
  }
  assert_in_range(probes, 5, 30);
  assert_int_equal(peer->closed, 0);
  peer->window = 65535;
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  size_t sent = 0;
  while (peer->seen_next < peer->seen_count) sent += peer_next(peer)->length;
  assert_int_equal(sent, 5000);
}

// §3.8.6.2.2: a stalled reader closes the window. Nothing beyond it is accepted, and an update follows when the reader continues.
static void closes_its_window_while_nobody_reads(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  io_tcp_stack_pause(peer->stack, 0, true);
  uint32_t window = 1 << 20;
  size_t sent = 0;
  while (window >= 1460) {
    peer_send(peer, ACK, peer->sequence + (uint32_t)sent, ZEROS, 1460);
    sent += 1460;
    while (peer->seen_next < peer->seen_count) {
      const seen_segment *seen = peer_next(peer);
      assert_true(seen->window <= window);
      window = seen->window;
      // §3.8.6.2.2: the right edge never moves back, except by what the scale cannot express.
      assert_true(window + sent <= (1 << 20) + 2 * 1460 && window + sent + 2 * 1460 + 31 >= 1 << 20);
    }
    assert_true(sent <= 1 << 20);
  }
  peer_pass(peer, 100);
  assert_int_equal(peer->received, 0);
  assert_in_range(io_tcp_stack_memory_used(peer->stack), sent, sent * 2);
  // Beyond the window.
  peer_send(peer, ACK, peer->sequence + (1 << 20) + 10, ZEROS, 1460);
  size_t used = io_tcp_stack_memory_used(peer->stack);
  io_tcp_stack_pause(peer->stack, 0, false);
  peer_collect(peer);
  assert_int_equal(peer->received, sent);
  assert_true(io_tcp_stack_memory_used(peer->stack) < used - sent);
  const seen_segment *seen = NULL;
  while (peer->seen_next < peer->seen_count) seen = peer_next(peer);
  assert_non_null(seen);
  assert_in_range(seen->window, 1 << 19, 1 << 20);
}

// §3.8.6.2.1, and back-pressure: the bytes accepted for sending are bounded, and room is reported.
static void accepts_no_more_for_sending_than_its_buffer(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  size_t written = 0;
  int64_t part;
  while ((part = io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, sizeof ZEROS)) == (int64_t)sizeof ZEROS) written += sizeof ZEROS;
  written += (size_t)part;
  assert_in_range(written, 1 << 19, 1 << 20);
  assert_true(io_tcp_stack_is_full(peer->stack, 0));
  assert_int_equal(peer->writable, 0);
  size_t acknowledged = 0;
  for (int i = 0; i < 4000 && acknowledged < written; i++) {
    peer_collect(peer);
    while (peer->seen_next < peer->seen_count) {
      const seen_segment *seen = peer_next(peer);
      peer_acknowledge(peer, seen);
      acknowledged += seen->length;
    }
    peer_send(peer, ACK, peer->sequence, NULL, 0);
  }
  assert_int_equal(acknowledged, written);
  assert_int_equal(peer->writable, 1);
  assert_false(io_tcp_stack_is_full(peer->stack, 0));
}

// The flow counts as full before a write is refused, so a relay is left with no bytes.
static void is_full_while_the_next_write_may_not_fit(void **state) {
  segment_peer *peer = *state;
  peer_connect(peer);
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 1000), 1000);
  assert_false(io_tcp_stack_is_full(peer->stack, 0));
  size_t written = 1000;
  while (!io_tcp_stack_is_full(peer->stack, 0)) {
    assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 65535), 65535);
    written += 65535;
  }
  assert_in_range(written, 1 << 19, 1 << 20);
  assert_false(io_tcp_stack_is_full(peer->stack, 1));
}

// A lost segment of odd length, and the data that joined it before it could be repeated.
static void sums_bytes_that_join_an_odd_segment(void **state) {
  segment_peer *peer = *state;
  uint8_t bytes[378];
  for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(7 * i + 1);
  peer_connect(peer);
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 1000), 1000);
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, bytes, 301), 301);
  peer_collect(peer);
  peer_acknowledge(peer, peer_next(peer));
  assert_int_equal(peer_next(peer)->length, 301);
  // A window may become smaller only with an acknowledgment.
  peer->window = 0;
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  peer_pass(peer, 1500);
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, bytes + 301, 77), 77);
  peer->window = 65535;
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  const seen_segment *seen = peer_last(peer);
  assert_int_equal(seen->length, sizeof bytes);
  assert_memory_equal(seen->data, bytes, sizeof bytes);
}

int tcp_stack_data_tests(void) {
  const struct CMUnitTest tests[] = {
      PEER_TESTS(delivers_data_in_order),
      PEER_TESTS(keeps_data_that_comes_early_and_reports_it_by_sack),
      PEER_TESTS(acknowledges_repeated_data_again),
      PEER_TESTS(repeats_data_until_it_gives_up),
      PEER_TESTS(repeats_a_segment_after_three_duplicate_acknowledgments),
      PEER_TESTS(repeats_each_of_several_lost_segments_without_its_timer),
      cmocka_unit_test_setup_teardown(begins_with_ten_segments, peer_setup, peer_teardown),
      PEER_TESTS(probes_a_closed_window),
      PEER_TESTS(closes_its_window_while_nobody_reads),
      PEER_TESTS(accepts_no_more_for_sending_than_its_buffer),
      PEER_TESTS(is_full_while_the_next_write_may_not_fit),
      PEER_TESTS(sums_bytes_that_join_an_odd_segment),
  };
  return cmocka_run_group_tests_name("TCP stack: data", tests, NULL, NULL);
}

#else

int tcp_stack_data_tests(void) { return 0; }

#endif
