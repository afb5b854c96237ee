// How shortcuts begin, are counted, and end.
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../../native/io/loop/loop-state.h"
#include "../../../native/io/shortcut/table.h"
#include "shortcut-world.h"

static void closing_a_socket_or_a_stream_ends_its_shortcuts(void **state) {
  shortcut_world *world = *state;
  io_loop *io = world->world.io;
  double rows[8][IO_SHORTCUT_COUNT_NUMBERS];
  assert_true(give_out(world, 5, 0) >= 0 && give_in(world, 5, 0) >= 0);
  send_app(world, 1, 10);
  expect_capsule(world, 5, 1, 10);
  io_stream_close(io, world->stream);
  // Its number is reused.
  int first = world->stream, other;
  close(world->peer);
  connect_pair(&world->stream, &world->peer);
  if (world->stream != first && world->peer == first) {
    other = world->stream, world->stream = world->peer, world->peer = other;
  }
  assert_int_equal(io_stream_open(io, world->stream, world->buffer, STREAM_BYTES, &STREAM_CALLBACKS, world), 0);
  send_app(world, 2, 10);
  RUN_UNTIL(&world->world, world->heard == 1);
  assert_int_equal(give_out(world, 5, 0), 2);
  assert_int_equal(give_in(world, 6, 0), 3);
  assert_int_equal(counts(world, rows, 1), 1);
  assert_true(rows[0][0] == 0 && rows[0][1] == 1 && rows[0][2] == 10 && rows[0][5] == 1);
  assert_int_equal(counts(world, rows, 8), 1);
  assert_true(rows[0][0] == 1 && rows[0][1] == 0 && rows[0][5] == 1);
  io_shortcut_resume(io, world->stream);
  io_udp_close(io, world->socket);
  uint8_t bytes[64];
  size_t length = put_capsule(bytes, 6, 1, 10);
  send_peer(world, bytes, length);
  RUN_UNTIL(&world->world, world->read_bytes == length);
  assert_int_equal(give_out(world, 5, 0), -1);
  assert_int_equal(give_in(world, 5, 0), -1);
  assert_int_equal(counts(world, rows, 8), 2);
  assert_int_equal(counts(world, rows, 8), 0);
}

static void close_both(shortcut_world *world) {
  io_udp_close(world->world.io, world->socket);
  io_stream_close(world->world.io, world->stream);
  world->then = NULL;
}

static void both_may_be_closed_within_a_call(void **state) {
  shortcut_world *world = *state;
  assert_true(give_out(world, 5, sizeof HEADER) >= 0 && give_in(world, 5, 0) >= 0);
  world->then = close_both;
  uint8_t bytes[64];
  io_shortcut_resume(world->world.io, world->stream);
  for (int i = 0; i < 4; i++) send_from(world, world->app, i % 2 == 0 ? 0 : sizeof HEADER, 1, 10);
  send_peer(world, bytes, put_capsule(bytes, 5, 1, 10));
  RUN_UNTIL(&world->world, world->then == NULL);
  world_settle(&world->world);
  double rows[8][IO_SHORTCUT_COUNT_NUMBERS];
  assert_int_equal(counts(world, rows, 8), 2);
}

static void end_context(shortcut_world *world) {
  world_end_context(&world->world);
  world->then = NULL;
}

static void the_context_may_end_within_a_call_while_a_rest_waits(void **state) {
  shortcut_world *world = *state;
  assert_true(give_out(world, 5, 0) >= 0 && give_in(world, 5, 0) >= 0);
  fill(world);
  io_shortcut_resume(world->world.io, world->stream);
  uint8_t bytes[64];
  send_peer(world, bytes, put_capsule(bytes, 5, 1, 10) - 3);
  world_settle(&world->world);
  world->then = end_context;
  send_app(world, 1, 10);
  RUN_UNTIL(&world->world, world->world.ended == 1);
}

static void end_shortcuts(shortcut_world *world) { io_shortcut_end(world->world.io, world->stream); }

static void they_may_end_within_a_call(void **state) {
  shortcut_world *world = *state;
  assert_true(give_out(world, 5, sizeof HEADER) >= 0 && give_in(world, 5, 0) >= 0);
  world->then = end_shortcuts;
  send_app(world, 1, 10);
  RUN_UNTIL(&world->world, world->heard == 1);
  send_from(world, world->app, sizeof HEADER, 2, 10);
  RUN_UNTIL(&world->world, world->heard == 2);
  assert_true(give_in(world, 5, 0) >= 0);
  uint8_t bytes[64];
  size_t length = put_capsule(bytes, 6, 1, 10);
  io_shortcut_resume(world->world.io, world->stream);
  send_peer(world, bytes, length);
  RUN_UNTIL(&world->world, world->read_bytes == length);
  io_shortcut_resume(world->world.io, world->stream);
  send_peer(world, bytes, put_capsule(bytes, 5, 1, 10));
  RUN_UNTIL(&world->world, world->read_bytes == 2 * length);
}

static void pausing_ends_them(void **state) {
  shortcut_world *world = *state;
  assert_true(give_out(world, 5, 0) >= 0);
  io_stream_pause(world->world.io, world->stream, true);
  send_app(world, 1, 10);
  RUN_UNTIL(&world->world, world->heard == 1);
}

static void the_table_holds_4096_and_has_room_again_when_those_that_ended_have_been_counted(void **state) {
  shortcut_world *world = *state;
  static double rows[IO_SHORTCUTS][IO_SHORTCUT_COUNT_NUMBERS];
  for (int32_t i = 0; i < IO_SHORTCUTS; i++) assert_int_equal(give_in(world, i, 0), i);
  assert_int_equal(give_out(world, 0, 0), -1);
  assert_int_equal(give_in(world, IO_SHORTCUTS, 0), -1);
  io_shortcut_end(world->world.io, world->stream);
  assert_int_equal(give_out(world, 0, 0), -1);
  assert_int_equal(counts(world, rows, 4000), 4000);
  assert_int_equal(counts(world, rows, 4000), 96);
  assert_int_equal(counts(world, rows, 4000), 0);
  assert_true(give_out(world, 0, 0) >= 0);
  send_app(world, 1, 10);
  expect_capsule(world, 0, 1, 10);
}

static void one_that_has_carried_nothing_for_10_seconds_ends_when_they_are_counted(void **state) {
  shortcut_world *world = *state;
  double rows[4][IO_SHORTCUT_COUNT_NUMBERS];
  int32_t number = give_out(world, 5, 0);
  shortcut_table *table = world->world.io->shortcuts;
  shortcut *shortcut = &table->shortcuts[number];
  shortcut->last_at -= IO_SHORTCUT_IDLE_MS - 5000;
  assert_int_equal(counts(world, rows, 4), 0);
  shortcut->last_at -= 5000;
  send_app(world, 1, 10);
  expect_capsule(world, 5, 1, 10);
  assert_int_equal(counts(world, rows, 4), 1);
  assert_true(rows[0][5] == 0);
  shortcut->last_at -= IO_SHORTCUT_IDLE_MS + 1;
  // As if the last search were long ago.
  table->looked_at = 0;
  assert_int_equal(counts(world, rows, 4), 1);
  assert_true(rows[0][0] == number && rows[0][1] == 0 && rows[0][3] >= IO_SHORTCUT_IDLE_MS && rows[0][5] == 1);
  send_app(world, 1, 10);
  RUN_UNTIL(&world->world, world->heard == 1);
}

static void in_a_crowded_table_those_idle_for_a_second_end(void **state) {
  shortcut_world *world = *state;
  static double rows[IO_SHORTCUTS][IO_SHORTCUT_COUNT_NUMBERS];
  const int32_t most = IO_SHORTCUTS / 4 * 3;
  for (int32_t i = 0; i < most; i++) assert_int_equal(give_in(world, i, 0), i);
  shortcut_table *table = world->world.io->shortcuts;
  for (int32_t i = 0; i < 10; i++) table->shortcuts[i].last_at -= IO_SHORTCUT_CROWDED_IDLE_MS + 1;
  table->looked_at = 0;
  assert_int_equal(counts(world, rows, IO_SHORTCUTS), 0);
  assert_int_equal(give_in(world, most, 0), most);
  table->looked_at = 0;
  assert_int_equal(counts(world, rows, IO_SHORTCUTS), 10);
}

static void what_is_not_valid_gets_no_shortcut(void **state) {
  shortcut_world *world = *state;
  io_loop *io = world->world.io;
  uint8_t ipv6[IO_ADDRESS_IPV6_BYTES] = {IO_ADDRESS_IPV6};
  io_shortcut_flow good = flow_in_world(world, 1, 0), bad[9];
  for (int i = 0; i < 9; i++) bad[i] = good;
  bad[0].socket = 99;
  bad[1].socket = -1;
  bad[2].stream = world->app;
  bad[3].stream = -1;
  bad[4].context = -1;
  bad[5].header_bytes = IO_SHORTCUT_HEADER_BYTES + 1;
  bad[6].address_bytes = 6;
  bad[7].address = ipv6, bad[7].address_bytes = sizeof ipv6;
  bad[8].local = 256;
  for (int i = 0; i < 9; i++) {
    assert_int_equal(io_shortcut_out(io, &bad[i]), -1);
    assert_int_equal(io_shortcut_in(io, &bad[i]), -1);
  }
  io_shortcut_end(io, -1);
  io_shortcut_resume(io, world->app);
  double rows[1][IO_SHORTCUT_COUNT_NUMBERS];
  assert_int_equal(counts(world, rows, 1), 0);
}

static void what_could_not_be_sent_is_reported_with_the_caller_s_next_datagrams(void **state) {
  shortcut_world *world = *state;
  // Without SO_BROADCAST: EACCES.
  static const uint8_t everyone[] = {IO_ADDRESS_IPV4, 255, 255, 255, 255, 0, 9};
  io_shortcut_flow flow = flow_in_world(world, 5, 0);
  flow.address = everyone;
  int32_t number = io_shortcut_in(world->world.io, &flow);
  assert_true(number >= 0);
  io_shortcut_resume(world->world.io, world->stream);
  uint8_t bytes[64];
  send_peer(world, bytes, put_capsule(bytes, 5, 1, 10));
  RUN_UNTIL(&world->world, world->world.io->shortcuts->shortcuts[number].datagrams == 1);
  const io_udp_batch none = {.count = 0};
  assert_int_equal(io_udp_send(world->world.io, &none), 1);
  assert_int_equal(io_udp_send(world->world.io, &none), 0);
}

int shortcut_ending_tests(void) {
  const struct CMUnitTest tests[] = {
      SHORTCUT_TEST(closing_a_socket_or_a_stream_ends_its_shortcuts),
      SHORTCUT_TEST(both_may_be_closed_within_a_call),
      SHORTCUT_TEST(the_context_may_end_within_a_call_while_a_rest_waits),
      SHORTCUT_TEST(they_may_end_within_a_call),
      SHORTCUT_TEST(pausing_ends_them),
      SHORTCUT_TEST(the_table_holds_4096_and_has_room_again_when_those_that_ended_have_been_counted),
      SHORTCUT_TEST(one_that_has_carried_nothing_for_10_seconds_ends_when_they_are_counted),
      SHORTCUT_TEST(in_a_crowded_table_those_idle_for_a_second_end),
      SHORTCUT_TEST(what_is_not_valid_gets_no_shortcut),
      SHORTCUT_TEST(what_could_not_be_sent_is_reported_with_the_caller_s_next_datagrams),
  };
  return cmocka_run_group_tests_name("ends of shortcuts", tests, NULL, NULL);
}
