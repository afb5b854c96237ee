// Tests the TCP of a terminating proxy by the sections of RFC 9293 and related RFCs, with segments in and out.
#include <stdlib.h>
#include <string.h>

#include "segment-peer.h"

#ifdef UNDERPASS_LWIP

static const uint8_t ZEROS[65536];

static int setup(void **state) {
  *state = peer_new(&(peer_options){0});
  return 0;
}

static int setup_ipv6(void **state) {
  *state = peer_new(&(peer_options){.is_ipv6 = true});
  return 0;
}

static int teardown(void **state) {
  peer_free(*state);
  return 0;
}

static void acknowledge(segment_peer *peer, const seen_segment *seen) {
  peer->acknowledgment = seen->sequence + (uint32_t)seen->length + ((seen->flags & (SYN | FIN)) != 0 ? 1 : 0);
}

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
  acknowledge(peer, answer);
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
  acknowledge(peer, seen);
  // It still exists long afterwards.
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  peer_pass(peer, 600000);
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 1), 1);
  io_tcp_stack_end(peer->stack, peer->now, 0);
  assert_true(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 1) == UV_EPIPE);
  peer_collect(peer);
  acknowledge(peer, peer_next(peer));
  seen = peer_next(peer);
  assert_int_equal(seen->flags & FIN, FIN);
  peer_send(peer, ACK, peer->sequence, NULL, 0);
  assert_int_equal(peer->closed, 0);
  // A lost FIN is repeated.
  peer_pass(peer, 5000);
  seen = peer_next(peer);
  assert_int_equal(seen->flags & FIN, FIN);
  acknowledge(peer, seen);
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
  acknowledge(peer, seen);
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
  acknowledge(peer, fin);
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
  acknowledge(peer, seen);
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
  acknowledge(peer, peer_next(peer));
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
      acknowledge(peer, seen);
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
  acknowledge(peer, peer_next(peer));
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

// RFC 9293 §3.7.1 and CVE-2019-11479: a tiny MSS does not make the sender produce endless tiny segments.
static void bounds_a_tiny_mss(void **state) {
  segment_peer *peer = *state;
  static const uint8_t options[] = {2, 4, 0, 1};
  peer_send_options(peer, SYN, peer->sequence, options, sizeof options, NULL, 0);
  acknowledge(peer, peer_next(peer));
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
  acknowledge(peer, peer_next(peer));
  peer_send_options(peer, SYN, peer->sequence, large, 4, NULL, 0);
  peer_send_options(peer, ACK, ++peer->sequence, large, 4, NULL, 0);
  peer->seen_next = peer->seen_count;
  assert_int_equal(io_tcp_stack_write(peer->stack, peer->now, 0, ZEROS, 6000), 6000);
  peer_collect(peer);
  assert_int_equal(peer_next(peer)->length, peer->is_ipv6 ? 1440 : 1460);
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
  acknowledge(peer, peer_next(peer));
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
        acknowledge(peer, seen);
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

#define BOTH(test) cmocka_unit_test_setup_teardown(test, setup, teardown), \
  {#test " (IPv6)", test, setup_ipv6, teardown, NULL}

int tcp_stack_tests(void) {
  const struct CMUnitTest tests[] = {
      BOTH(accepts_any_address_and_port),
      BOTH(uses_no_option_that_the_peer_does_not_offer),
      cmocka_unit_test(announces_the_mss_of_its_device),
      BOTH(answers_a_segment_of_no_connection_with_a_rst),
      BOTH(refuses_a_wrong_acknowledgment_of_its_syn),
      BOTH(repeats_its_syn_until_it_gives_up),
      BOTH(chooses_initial_numbers_that_nobody_can_guess),
      BOTH(delivers_data_in_order),
      BOTH(keeps_data_that_comes_early_and_reports_it_by_sack),
      BOTH(acknowledges_repeated_data_again),
      BOTH(is_not_ended_by_a_guess),
      BOTH(half_closes_when_the_peer_ends),
      BOTH(half_closes_and_waits_for_the_peer),
      BOTH(ends_when_both_ends_do_so_at_once),
      BOTH(resets_a_peer_whose_bytes_nobody_reads),
      BOTH(closes_with_a_fin_and_resets_a_peer_that_sends_on),
      BOTH(drops_a_connection_with_a_rst_or_silently),
      BOTH(repeats_data_until_it_gives_up),
      BOTH(repeats_a_segment_after_three_duplicate_acknowledgments),
      BOTH(repeats_each_of_several_lost_segments_without_its_timer),
      cmocka_unit_test_setup_teardown(begins_with_ten_segments, setup, teardown),
      BOTH(probes_a_closed_window),
      BOTH(closes_its_window_while_nobody_reads),
      BOTH(accepts_no_more_for_sending_than_its_buffer),
      BOTH(is_full_while_the_next_write_may_not_fit),
      BOTH(sums_bytes_that_join_an_odd_segment),
      BOTH(bounds_a_tiny_mss),
      BOTH(takes_no_other_mss_later),
      BOTH(asks_an_idle_peer_whether_it_is_there),
      BOTH(drops_what_is_not_valid),
      cmocka_unit_test(survives_options_that_are_cut_off),
      cmocka_unit_test(sends_what_found_no_room_later),
      cmocka_unit_test(keeps_within_its_memory),
      cmocka_unit_test(exchanges_packets_longer_than_the_mtu_with_a_kernel),
      cmocka_unit_test_setup_teardown(keeps_stacks_apart, setup, teardown),
      cmocka_unit_test_setup_teardown(holds_ten_thousand_idle_connections, setup, teardown),
  };
  return cmocka_run_group_tests_name("TCP stack", tests, NULL, NULL);
}

#else

static void has_no_stack_without_lwip(void **state) {
  (void)state;
  io_tcp_stack *stack;
  assert_int_equal(io_tcp_stack_create(&(io_tcp_stack_options){0}, &(io_tcp_stack_memory){0}, &stack), UV_ENOTSUP);
}

int tcp_stack_tests(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(has_no_stack_without_lwip)};
  return cmocka_run_group_tests_name("TCP stack", tests, NULL, NULL);
}

#endif
