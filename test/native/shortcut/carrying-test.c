// What shortcuts carry, what they leave to the caller, and in which order.
#ifdef __linux__
#include <linux/net_tstamp.h>
#endif
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../../native/io/loop/loop-state.h"
#include "../../../native/io/tcp/stream-state.h"
#include "shortcut-world.h"

static void a_datagram_of_a_shortcut_goes_to_the_stream_without_its_prefix_and_the_caller_is_not_called(void **state) {
  shortcut_world *world = *state;
  int32_t number = give_out(world, 70, sizeof HEADER);
  assert_int_equal(number, 0);
  send_from(world, world->app, sizeof HEADER, 7, 100);
  expect_capsule(world, 70, 7, 100);
  send_from(world, world->app, sizeof HEADER, 0, 0);
  expect_capsule(world, 70, 0, 0);
  assert_int_equal(world->heard, 0);
  double rows[4][IO_SHORTCUT_COUNT_NUMBERS];
  assert_int_equal(counts(world, rows, 4), 1);
  assert_true(rows[0][0] == number && rows[0][1] == 2 && rows[0][2] == 100 && rows[0][4] == 0 && rows[0][5] == 0);
  assert_true(rows[0][3] >= 0 && rows[0][3] < 5000);
  assert_int_equal(counts(world, rows, 4), 0);
}

static void what_is_of_another_source_prefix_or_local_address_is_the_caller_s_in_order(void **state) {
  shortcut_world *world = *state;
  int other = bound(SOCK_DGRAM);
  io_shortcut_flow elsewhere = flow_in_world(world, 9, sizeof HEADER);
  elsewhere.local = 3;
  assert_true(give_out(world, 8, sizeof HEADER) >= 0);
  assert_true(io_shortcut_out(world->world.io, &elsewhere) >= 0);
  send_from(world, other, sizeof HEADER, 1, 50);
  send_from(world, world->app, sizeof HEADER, 2, 50);
  send_from(world, world->app, 0, 3, 50);
  send_from(world, world->app, sizeof HEADER, 4, 50);
  send_from(world, world->app, sizeof HEADER - 1, 5, 50);
  RUN_UNTIL(&world->world, world->heard == 3);
  const uint8_t expected[] = {1, 3, 5};
  assert_memory_equal(world->heard_last, expected, 3);
  uint8_t bytes[256], capsules[256];
  size_t length = put_capsule(capsules, 8, 2, 50);
  length += put_capsule(capsules + length, 8, 4, 50);
  assert_int_equal(peer_receives(world, bytes, sizeof bytes), length);
  assert_memory_equal(bytes, capsules, length);
  close(other);
}

static void the_longest_prefix_counts_and_a_second_one_for_the_same_datagrams_replaces_the_first(void **state) {
  shortcut_world *world = *state;
  assert_int_equal(give_out(world, 1, 0), 0);
  assert_int_equal(give_out(world, 2, sizeof HEADER), 1);
  send_from(world, world->app, sizeof HEADER, 7, 5);
  expect_capsule(world, 2, 7, 5);
  send_app(world, 7, 5);
  expect_capsule(world, 1, 7, 5);
  assert_int_equal(give_out(world, 3, sizeof HEADER), 2);
  send_from(world, world->app, sizeof HEADER, 7, 5);
  expect_capsule(world, 3, 7, 5);
  double rows[4][IO_SHORTCUT_COUNT_NUMBERS];
  // The replaced shortcut's number is free only now.
  assert_int_equal(counts(world, rows, 4), 3);
  assert_true(rows[0][0] == 1 && rows[0][1] == 1 && rows[0][5] == 1);
  assert_int_equal(give_out(world, 4, 3), 1);
}

static void a_capsule_leaves_on_the_socket_behind_its_header_once_the_caller_resumes(void **state) {
  shortcut_world *world = *state;
  uint8_t capsule[64], got[64];
  size_t length = put_capsule(capsule, 0x4000, 9, 20);
  assert_true(give_in(world, 0x4000, sizeof HEADER) >= 0);
  send_peer(world, capsule, length);
  RUN_UNTIL(&world->world, world->read_bytes == length);
  assert_memory_equal(world->read, capsule, length);
  io_shortcut_resume(world->world.io, world->stream);
  send_peer(world, capsule, length);
  send_peer(world, capsule, length);
  for (int i = 0; i < 2; i++) {
    ssize_t count;
    RUN_UNTIL(&world->world, (count = app_receives(world, got, sizeof got)) >= 0);
    assert_int_equal(count, sizeof HEADER + 20);
    assert_memory_equal(got, HEADER, sizeof HEADER);
    assert_int_equal(got[sizeof HEADER + 19], 9);
  }
  assert_int_equal(world->reads, 1);
}

static void from_the_first_byte_of_anything_else_on_all_is_the_caller_s(void **state) {
  shortcut_world *world = *state;
  uint8_t bytes[512];
  // Capsules of this context, of another, and of this one again; a capsule of another type; a length that is too large.
  static const uint8_t others[][9] = {{0x11, 2, 0, 0}, {0, 0xc0, 0, 0, 1, 0, 0, 0, 0}, {0, 0}, {0x40, 0, 1, 5}};
  static const size_t other_bytes[] = {4, 9, 2, 4};
  assert_true(give_in(world, 5, 0) >= 0);
  for (size_t i = 0; i < 5; i++) {
    size_t head = put_capsule(bytes, 5, 1, 10), length = head;
    if (i < 4) {
      memcpy(bytes + length, others[i], other_bytes[i]);
      length += other_bytes[i];
    } else {
      length += put_capsule(bytes + length, 6, 2, 10);
    }
    length += put_capsule(bytes + length, 5, 3, 10);
    io_shortcut_resume(world->world.io, world->stream);
    world->read_bytes = 0;
    send_peer(world, bytes, length);
    RUN_UNTIL(&world->world, world->read_bytes == length - head);
    assert_memory_equal(world->read, bytes + head, length - head);
    uint8_t got[64];
    assert_int_equal(app_receives(world, got, sizeof got), 10);
    assert_int_equal(got[0], 1);
    // Not before it resumes.
    send_peer(world, bytes, head);
    RUN_UNTIL(&world->world, world->read_bytes == length);
    assert_int_equal(app_receives(world, got, sizeof got), -1);
  }
}

static void a_capsule_may_come_in_any_pieces(void **state) {
  shortcut_world *world = *state;
  uint8_t bytes[256], got[256];
  size_t length = put_capsule(bytes, 0x4000, 1, 90);
  length += put_capsule(bytes + length, 0x4000, 2, 60);
  assert_true(give_in(world, 0x4000, 0) >= 0);
  io_shortcut_resume(world->world.io, world->stream);
  for (size_t cut = 1; cut < length; cut++) {
    send_peer(world, bytes, cut);
    world_settle(&world->world);
    send_peer(world, bytes + cut, length - cut);
    for (uint8_t i = 1; i <= 2; i++) {
      ssize_t count;
      RUN_UNTIL(&world->world, (count = app_receives(world, got, sizeof got)) >= 0);
      assert_int_equal(count, i == 1 ? 90 : 60);
      assert_int_equal(got[0], i);
    }
  }
  for (size_t i = 0; i < length; i++) {
    send_peer(world, bytes + i, 1);
    world_settle(&world->world);
  }
  RUN_UNTIL(&world->world, app_receives(world, got, sizeof got) == 90);
  RUN_UNTIL(&world->world, app_receives(world, got, sizeof got) == 60);
  assert_int_equal(world->reads, 0);
}

static void what_is_too_long_to_keep_or_of_no_shortcut_comes_to_the_caller_cut(void **state) {
  shortcut_world *world = *state;
  static uint8_t bytes[8192];
  assert_true(give_in(world, 5, 0) >= 0);
  io_shortcut_resume(world->world.io, world->stream);
  size_t length = put_capsule(bytes, 5, 1, 6000);
  send_peer(world, bytes, 2048);
  world_settle(&world->world);
  assert_int_equal(world->reads, 0);
  send_peer(world, bytes + 2048, 1);
  RUN_UNTIL(&world->world, world->read_bytes == 2049);
  send_peer(world, bytes + 2049, length - 2049);
  RUN_UNTIL(&world->world, world->read_bytes == length);
  assert_memory_equal(world->read, bytes, length);
  io_shortcut_resume(world->world.io, world->stream);
  world->read_bytes = 0;
  put_capsule(bytes, 6, 1, 100);
  // Its context is not known yet.
  send_peer(world, bytes, 3);
  world_settle(&world->world);
  assert_int_equal(world->read_bytes, 0);
  send_peer(world, bytes + 3, 1);
  RUN_UNTIL(&world->world, world->read_bytes == 4);
}

static void what_is_kept_comes_before_the_end_and_before_what_follows_the_end_of_the_shortcuts(void **state) {
  shortcut_world *world = *state;
  uint8_t bytes[128];
  size_t length = put_capsule(bytes, 5, 1, 100);
  assert_true(give_in(world, 5, 0) >= 0);
  io_shortcut_resume(world->world.io, world->stream);
  send_peer(world, bytes, 40);
  world_settle(&world->world);
  assert_int_equal(world->reads, 0);
  io_shortcut_end(world->world.io, world->stream);
  world_settle(&world->world);
  assert_int_equal(world->reads, 0);
  send_peer(world, bytes + 40, length - 40);
  RUN_UNTIL(&world->world, world->read_bytes == length);
  assert_memory_equal(world->read, bytes, length);
  assert_true(give_in(world, 5, 0) >= 0);
  io_shortcut_resume(world->world.io, world->stream);
  world->read_bytes = 0;
  send_peer(world, bytes, 40);
  world_settle(&world->world);
  assert_int_equal(world->read_bytes, 0);
  shutdown(world->peer, SHUT_WR);
  RUN_UNTIL(&world->world, world->result == 0);
  assert_int_equal(world->read_bytes, 40);
}

static void the_rest_of_a_write_comes_before_what_the_caller_writes(void **state) {
  shortcut_world *world = *state;
  assert_true(give_out(world, 5, 0) >= 0);
  size_t carried = fill(world);
  assert_true(carried > 0);
  stream *stream = io_stream_of(world->world.io, world->stream);
  static const uint8_t text[] = "by the caller";
  ssize_t written = io_stream_write(world->world.io, world->stream, text, sizeof text, false);
  assert_int_equal(written, 0);
  // It does not write in between either.
  send_app(world, 99, 1000);
  world_settle(&world->world);
  assert_int_equal(world->heard, 2);
  drain(world, carried, 5, NULL, 0);
  RUN_UNTIL(&world->world, world->writable == 1);
  assert_null(stream->rest);
  // The caller first writes what it could not write before.
  send_app(world, 98, 1000);
  world_settle(&world->world);
  assert_int_equal(world->heard, 3);
  assert_int_equal(io_stream_write(world->world.io, world->stream, text, sizeof text, false), sizeof text);
  drain(world, 0, 5, text, sizeof text);
  send_app(world, 0, 1000);
  drain(world, 1, 5, NULL, 0);
  assert_int_equal(world->heard, 3);
}

static void no_shortcut_writes_while_more_of_the_caller_comes(void **state) {
  shortcut_world *world = *state;
  assert_true(give_out(world, 5, 0) >= 0);
  static const uint8_t text[] = "begun";
  assert_int_equal(io_stream_write(world->world.io, world->stream, text, sizeof text, true), sizeof text);
  send_app(world, 1, 10);
  RUN_UNTIL(&world->world, world->heard == 1);
  assert_int_equal(io_stream_write(world->world.io, world->stream, text, sizeof text, false), sizeof text);
  send_app(world, 1, 10);
  uint8_t got[64];
  size_t received = 0;
  RUN_UNTIL(&world->world, (received += peer_receives(world, got, sizeof got)) == 2 * sizeof text + 13);
  assert_int_equal(world->heard, 1);
}

static void the_end_comes_behind_the_rest_of_a_write(void **state) {
  shortcut_world *world = *state;
  assert_true(give_out(world, 5, 0) >= 0);
  size_t carried = fill(world);
  io_stream_end(world->world.io, world->stream);
  drain(world, carried, 5, NULL, 0);
  uint8_t byte;
  RUN_UNTIL(&world->world, recv(world->peer, &byte, 1, 0) == 0);
  send_app(world, 1, 10);
  RUN_UNTIL(&world->world, world->heard == 2);
}

#ifdef __linux__
static void an_error_condition_that_the_connection_outlives_cuts_no_capsule(void **state) {
  shortcut_world *world = *state;
  assert_true(give_out(world, 5, 0) >= 0);
  for (int i = 0; i < 40; i++) send_app(world, (uint8_t)i, 1000);
  world_settle(&world->world);
  stream *stream = io_stream_of(world->world.io, world->stream);
  assert_non_null(stream->rest);
  size_t carried = 40 - (size_t)world->heard;
  uint8_t got[65536], expected[1100];
  size_t received = 0;
  set_timestamps(world->stream, SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_SOFTWARE);
  world_start_clock(&world->world);
  for (;;) {
    assert_false(world->world.is_late);
    received += peer_receives(world, got + received, sizeof got - received);
    if (has_error_condition(world->stream)) break;
    uv_run(&world->world.loop, UV_RUN_NOWAIT);
  }
  uv_run(&world->world.loop, UV_RUN_NOWAIT);
  assert_non_null(stream->rest);
  set_timestamps(world->stream, 0);
  static const uint8_t text[] = "by the caller";
  size_t length = put_capsule(expected, 5, 0, 1000), total = carried * length + sizeof text;
  bool is_written = false;
  world_start_clock(&world->world);
  while (received < total) {
    is_written = is_written || io_stream_write(world->world.io, world->stream, text, sizeof text, false) > 0;
    uv_run(&world->world.loop, UV_RUN_NOWAIT);
    received += peer_receives(world, got + received, sizeof got - received);
    assert_false(world->world.is_late);
  }
  for (size_t i = 0; i < carried; i++) {
    put_capsule(expected, 5, (uint8_t)i, 1000);
    assert_memory_equal(got + i * length, expected, length);
  }
  assert_memory_equal(got + carried * length, text, sizeof text);
}
#endif

static void a_reset_behind_a_write_that_was_accepted_in_part_is_reported(void **state) {
  shortcut_world *world = *state;
  assert_true(give_out(world, 5, 0) >= 0);
  fill(world);
  // With bytes that were not read.
  close(world->peer);
  world->peer = -1;
  RUN_UNTIL(&world->world, world->result < 0);
  send_app(world, 1, 10);
  RUN_UNTIL(&world->world, world->heard == 2);
}

static void what_a_stream_that_has_failed_does_not_take_is_the_caller_s(void **state) {
  shortcut_world *world = *state;
  assert_true(give_out(world, 5, 0) >= 0);
  struct linger now = {1, 0};
  setsockopt(world->peer, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(world->peer);
  world->peer = -1;
  send_app(world, 1, 10);
  RUN_UNTIL(&world->world, world->heard == 1);
  uint8_t byte = 0;
  assert_true(io_stream_write(world->world.io, world->stream, &byte, 1, false) < 0);
}

#ifdef __linux__
static void within_the_host_a_connection_with_shortcuts_has_the_congestion_control_of_reno(void **state) {
  shortcut_world *world = *state;
  char algorithm[16] = "";
  socklen_t length = sizeof algorithm;
  assert_true(give_in(world, 1, 0) >= 0);
  assert_int_equal(getsockopt(world->stream, IPPROTO_TCP, TCP_CONGESTION, algorithm, &length), 0);
  assert_string_equal(algorithm, "reno");
}
#endif

int shortcut_carrying_tests(void) {
  const struct CMUnitTest tests[] = {
      SHORTCUT_TEST(a_datagram_of_a_shortcut_goes_to_the_stream_without_its_prefix_and_the_caller_is_not_called),
      SHORTCUT_TEST(what_is_of_another_source_prefix_or_local_address_is_the_caller_s_in_order),
      SHORTCUT_TEST(the_longest_prefix_counts_and_a_second_one_for_the_same_datagrams_replaces_the_first),
      SHORTCUT_TEST(a_capsule_leaves_on_the_socket_behind_its_header_once_the_caller_resumes),
      SHORTCUT_TEST(from_the_first_byte_of_anything_else_on_all_is_the_caller_s),
      SHORTCUT_TEST(a_capsule_may_come_in_any_pieces),
      SHORTCUT_TEST(what_is_too_long_to_keep_or_of_no_shortcut_comes_to_the_caller_cut),
      SHORTCUT_TEST(what_is_kept_comes_before_the_end_and_before_what_follows_the_end_of_the_shortcuts),
      SHORTCUT_TEST(the_rest_of_a_write_comes_before_what_the_caller_writes),
      SHORTCUT_TEST(no_shortcut_writes_while_more_of_the_caller_comes),
      SHORTCUT_TEST(the_end_comes_behind_the_rest_of_a_write),
#ifdef __linux__
      SHORTCUT_TEST(an_error_condition_that_the_connection_outlives_cuts_no_capsule),
#endif
      SHORTCUT_TEST(a_reset_behind_a_write_that_was_accepted_in_part_is_reported),
      SHORTCUT_TEST(what_a_stream_that_has_failed_does_not_take_is_the_caller_s),
#ifdef __linux__
      SHORTCUT_TEST(within_the_host_a_connection_with_shortcuts_has_the_congestion_control_of_reno),
#endif
  };
  return cmocka_run_group_tests_name("shortcuts", tests, NULL, NULL);
}
