#include <stdlib.h>
#include <string.h>

#include "../../native/io/udp.h"
#include "world.h"

#define MAX_HEARD 256

typedef struct heard {
  int32_t socket, local;
  size_t length;
  uint8_t first, last;
  uint8_t from[IO_ADDRESS_MAX_BYTES];
  size_t from_bytes;
} heard;

// The UDP of one context, and what it has received.
typedef struct udp_world {
  world world;
  io_udp_memory memory;
  heard heard[MAX_HEARD];
  int heard_count, batches;
  int32_t errors[MAX_HEARD][IO_UDP_ERROR_ROW_INTS];
  int error_count;
  int released;
  // What `received` also does.
  void (*then)(struct udp_world *udp);
  int32_t victim;
} udp_world;

static void take_errors(udp_world *udp, int32_t count) {
  for (int32_t i = 0; i < count && udp->error_count < MAX_HEARD; i++)
    memcpy(udp->errors[udp->error_count++], udp->memory.errors + i * IO_UDP_ERROR_ROW_INTS, sizeof udp->errors[0]);
}

static void on_received(void *data, int32_t count) {
  udp_world *udp = data;
  assert_int_equal(udp->released, 0);
  udp->batches++;
  for (int32_t i = 0; i < count && udp->heard_count < MAX_HEARD; i++) {
    const int32_t *row = udp->memory.rows + i * IO_UDP_RECEIVE_ROW_INTS;
    heard *one = &udp->heard[udp->heard_count++];
    const uint8_t *bytes = udp->memory.arena + row[1];
    assert_true(row[1] >= 0 && (size_t)row[1] + (size_t)row[2] <= IO_UDP_ARENA_BYTES);
    *one = (heard){.socket = row[0], .local = row[5], .length = (size_t)row[2], .from_bytes = (size_t)row[4]};
    if (row[2] > 0) {
      one->first = bytes[0];
      one->last = bytes[row[2] - 1];
    }
    memcpy(one->from, udp->memory.addresses + row[3], one->from_bytes);
  }
  if (udp->then != NULL) udp->then(udp);
}

static void on_errors(void *data, int32_t count) {
  udp_world *udp = data;
  assert_int_equal(udp->released, 0);
  take_errors(udp, count);
}

static void on_released(void *data) {
  udp_world *udp = data;
  udp->released++;
}

static const io_udp_callbacks callbacks = {on_received, on_errors, on_released};

static int set_up(void **state) {
  udp_world *udp = calloc(1, sizeof *udp);
  world_begin(&udp->world, NULL);
  // Of the exact sizes, so that a sanitizer detects access beyond them.
  udp->memory = (io_udp_memory){malloc(IO_UDP_ARENA_BYTES),
                                malloc(IO_UDP_RECEIVE_ROWS * IO_UDP_RECEIVE_ROW_INTS * sizeof(int32_t)),
                                malloc(IO_UDP_ADDRESSES_BYTES),
                                malloc(IO_UDP_ERROR_ROWS * IO_UDP_ERROR_ROW_INTS * sizeof(int32_t))};
  assert_int_equal(io_udp_setup(udp->world.io, &udp->memory, &callbacks, udp), 0);
  *state = udp;
  return 0;
}

static int tear_down(void **state) {
  udp_world *udp = *state;
  world_finish(&udp->world);
  assert_int_equal(udp->released, 1);
  free(udp->memory.arena);
  free(udp->memory.rows);
  free(udp->memory.addresses);
  free(udp->memory.errors);
  free(udp);
  return 0;
}

static int32_t open_socket(udp_world *udp, bool tells_locals) {
  address any = loopback(0);
  if (tells_locals) memset(any.bytes + 1, 0, 4);
  io_udp_options options = {.address = any.bytes,
                            .address_bytes = sizeof any.bytes,
                            .tells_locals = tells_locals,
                            .receive_bytes = 1 << 20,
                            .send_bytes = 1 << 20};
  int32_t socket = io_udp_open(udp->world.io, &options);
  assert_true(socket >= 0);
  assert_true(io_udp_port(udp->world.io, socket) > 0);
  return socket;
}

// Sends `count` datagrams of the given sizes, filled with their number from 1, each after `header_bytes` of 0xee.
static int64_t send_sizes(udp_world *udp, int32_t from, address to, const size_t *sizes, int32_t count, int32_t header_bytes) {
  size_t total = 0;
  for (int32_t i = 0; i < count; i++) total += sizes[i];
  uint8_t *data = malloc(total + 1), headers[16];
  int32_t *rows = malloc((size_t)count * IO_UDP_SEND_ROW_INTS * sizeof *rows);
  memset(headers, 0xee, sizeof headers);
  size_t at = 0;
  for (int32_t i = 0; i < count; i++) {
    memset(data + at, i + 1, sizes[i]);
    memcpy(rows + i * IO_UDP_SEND_ROW_INTS,
           ((int32_t[]){from, 0, header_bytes, (int32_t)at, (int32_t)sizes[i], 0, 0}),
           IO_UDP_SEND_ROW_INTS * sizeof *rows);
    at += sizes[i];
  }
  io_udp_batch batch = {rows, count, data, total, headers, sizeof headers, to.bytes, sizeof to.bytes};
  int64_t dropped = io_udp_send(udp->world.io, &batch);
  free(data);
  free(rows);
  return dropped;
}

static void a_run_and_other_sizes_arrive_whole_and_in_order_and_are_answered(void **state) {
  udp_world *udp = *state;
  int32_t a = open_socket(udp, false), b = open_socket(udp, false);
  size_t sizes[72];
  // A run that leaves as one segmented send if the system supports that, with a shorter last datagram; then a mixture.
  for (int i = 0; i < 40; i++) sizes[i] = 1200;
  sizes[40] = 700;
  for (int i = 41; i < 72; i++) sizes[i] = i % 3 == 0 ? 0 : i % 7 == 0 ? 9000 : (size_t)(i * 10);
  sizes[70] = 65507;
  assert_int_equal(send_sizes(udp, a, loopback(io_udp_port(udp->world.io, b)), sizes, 72, 0), 0);
  RUN_UNTIL(&udp->world, udp->heard_count >= 72);
  for (int i = 0; i < 72; i++) {
    const heard *one = &udp->heard[i];
    assert_int_equal(one->socket, b);
    assert_int_equal(one->length, sizes[i]);
    if (sizes[i] > 0) assert_true(one->first == i + 1 && one->last == i + 1);
    address source = loopback(io_udp_port(udp->world.io, a));
    assert_int_equal(one->from_bytes, sizeof source.bytes);
    assert_memory_equal(one->from, source.bytes, sizeof source.bytes);
  }
  size_t answer = 5;
  address back;
  memcpy(back.bytes, udp->heard[0].from, sizeof back.bytes);
  assert_int_equal(send_sizes(udp, b, back, &answer, 1, 0), 0);
  RUN_UNTIL(&udp->world, udp->heard_count >= 73);
  assert_int_equal(udp->heard[72].socket, a);
  assert_int_equal(udp->heard[72].length, 5);
}

static void each_datagram_leaves_behind_its_header(void **state) {
  udp_world *udp = *state;
  int32_t a = open_socket(udp, false), b = open_socket(udp, false);
  size_t sizes[] = {100, 100, 100, 30};
  assert_int_equal(send_sizes(udp, a, loopback(io_udp_port(udp->world.io, b)), sizes, 4, 6), 0);
  RUN_UNTIL(&udp->world, udp->heard_count >= 4);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(udp->heard[i].length, sizes[i] + 6);
    assert_int_equal(udp->heard[i].first, 0xee);
    assert_int_equal(udp->heard[i].last, i + 1);
  }
}

static void a_socket_on_any_address_numbers_those_that_it_was_spoken_to_at_and_answers_from_them(void **state) {
#ifndef __linux__
  (void)state;
  skip();
#else
  udp_world *udp = *state;
  int32_t server = open_socket(udp, true), client = open_socket(udp, false);
  int port = io_udp_port(udp->world.io, server);
  size_t size = 1;
  for (uint8_t last = 2; last <= 4; last++) {
    address to = loopback(port);
    // 127.0.0.4 is 127.0.0.2 again.
    to.bytes[4] = last == 4 ? 2 : last;
    assert_int_equal(send_sizes(udp, client, to, &size, 1, 0), 0);
    RUN_UNTIL(&udp->world, udp->heard_count == last - 1);
  }
  assert_int_equal(udp->heard[0].local, 1);
  assert_int_equal(udp->heard[1].local, 2);
  assert_int_equal(udp->heard[2].local, 1);
  uint8_t byte = 7;
  address to = loopback(io_udp_port(udp->world.io, client));
  int32_t row[IO_UDP_SEND_ROW_INTS] = {server, 0, 0, 0, 1, 0, 2};
  io_udp_batch batch = {row, 1, &byte, 1, NULL, 0, to.bytes, sizeof to.bytes};
  assert_int_equal(io_udp_send(udp->world.io, &batch), 0);
  RUN_UNTIL(&udp->world, udp->heard_count == 4);
  assert_int_equal(udp->heard[3].from[4], 3);
#endif
}

static void a_port_that_refuses_is_reported_and_the_next_datagram_arrives(void **state) {
  udp_world *udp = *state;
  int32_t gone = open_socket(udp, false), a = open_socket(udp, false), b = open_socket(udp, false);
  address nobody = loopback(io_udp_port(udp->world.io, gone));
  io_udp_close(udp->world.io, gone);
  int told = io_udp_tell_errors(udp->world.io, a);
  size_t size = 10;
  assert_int_equal(send_sizes(udp, a, nobody, &size, 1, 0), 0);
  if (told == 0) {
    RUN_UNTIL(&udp->world, udp->error_count >= 1);
    assert_int_equal(udp->errors[0][0], a);
    assert_int_equal(udp->errors[0][1], IO_UDP_UNREACHABLE_PORT);
    assert_int_equal(udp->errors[0][3], sizeof nobody.bytes);
    assert_memory_equal(udp->errors[0] + 4, nobody.bytes, sizeof nobody.bytes);
  } else {
    assert_int_equal(told, UV_ENOTSUP);
  }
  assert_int_equal(send_sizes(udp, a, loopback(io_udp_port(udp->world.io, b)), &size, 1, 0), 0);
  RUN_UNTIL(&udp->world, udp->heard_count == 1);
  double counts[IO_UDP_COUNTS];
  io_udp_counts(udp->world.io, counts);
  if (told == 0) assert_int_equal((int)counts[IO_UDP_COUNT_REFUSED], 1);
}

static void an_error_of_a_socket_that_has_closed_names_no_socket(void **state) {
  udp_world *udp = *state;
  int32_t a = open_socket(udp, false);
  if (io_udp_tell_errors(udp->world.io, a) != 0) skip();
  // Without permission, sending there fails at once.
  address broadcast = loopback(9);
  memset(broadcast.bytes + 2, 255, 3);
  size_t size = 10;
  assert_int_equal(send_sizes(udp, a, broadcast, &size, 1, 0), 1);
  io_udp_close(udp->world.io, a);
  take_errors(udp, io_udp_errors(udp->world.io));
  assert_int_equal(udp->error_count, 1);
  assert_int_equal(udp->errors[0][0], -1);
  assert_int_equal(udp->errors[0][1], IO_UDP_UNREACHABLE_PROHIBITED);
  assert_int_equal(io_udp_errors(udp->world.io), 0);
}

static void what_is_too_long_and_rows_that_lie_are_dropped_and_counted(void **state) {
  udp_world *udp = *state;
  int32_t a = open_socket(udp, false), b = open_socket(udp, false);
  address to = loopback(io_udp_port(udp->world.io, b));
  size_t sizes[] = {65520, 11};
  assert_int_equal(send_sizes(udp, a, to, sizes, 2, 0), 1);
  uint8_t data[64] = {0};
  const int32_t bad[][IO_UDP_SEND_ROW_INTS] = {
      {a, 0, 0, 0, 65, 0, 0},  {a, 0, 0, -1, 1, 0, 0}, {a, 0, 0, 0, -1, 0, 0},        {a, 0, 1, 0, 1, 0, 0}, {a, 0, 0, 0, 1, 7, 0},
      {a, 0, 0, 0, 1, -1, 0}, {99, 0, 0, 0, 1, 0, 0}, {-1, 0, 0, 0, 1, 0, 0}, {a, 0, 0, 2147483647, 1, 0, 0}, {a, 0, 0, 0, 1, 3, 0},
  };
  int32_t count = sizeof bad / sizeof bad[0];
  io_udp_batch batch = {bad[0], count, data, sizeof data, NULL, 0, to.bytes, sizeof to.bytes};
  assert_int_equal(io_udp_send(udp->world.io, &batch), count);
  batch.count = IO_UDP_MAX_SEND_ROWS + 1;
  assert_int_equal(io_udp_send(udp->world.io, &batch), UV_EINVAL);
  batch.count = -1;
  assert_int_equal(io_udp_send(udp->world.io, &batch), UV_EINVAL);
  double counts[IO_UDP_COUNTS];
  io_udp_counts(udp->world.io, counts);
  assert_int_equal((int)counts[IO_UDP_COUNT_TOO_LONG], 1);
  assert_int_equal((int)counts[IO_UDP_COUNT_FAILED], count);
  RUN_UNTIL(&udp->world, udp->heard_count == 1);
  assert_int_equal(udp->heard[0].length, 11);
}

static void close_victim(udp_world *udp) {
  io_udp_close(udp->world.io, udp->victim);
  io_udp_close(udp->world.io, udp->victim);
}

static void a_socket_that_closes_within_the_call_is_heard_no_more(void **state) {
  udp_world *udp = *state;
  int32_t a = open_socket(udp, false), b = open_socket(udp, false);
  address to = loopback(io_udp_port(udp->world.io, b));
  size_t sizes[100];
  for (int i = 0; i < 100; i++) sizes[i] = (size_t)(1 + i);
  udp->then = close_victim;
  udp->victim = b;
  // More than one call accepts.
  assert_int_equal(send_sizes(udp, a, to, sizes, 100, 0), 0);
  RUN_UNTIL(&udp->world, udp->batches == 1);
  world_settle(&udp->world);
  assert_int_equal(udp->batches, 1);
  assert_int_equal(io_udp_port(udp->world.io, b), 0);
}

static void end_context(udp_world *udp) {
  world_end_context(&udp->world);
  // The memory belongs to the caller again.
  assert_int_equal(udp->released, 1);
  memset(udp->memory.rows, 0xff, 64);
  io_udp_options options = {0};
  assert_int_equal(io_udp_open(udp->world.io, &options), UV_ECANCELED);
  assert_int_equal(io_udp_setup(udp->world.io, &udp->memory, &callbacks, udp), UV_ECANCELED);
}

static void the_context_may_end_within_the_call(void **state) {
  udp_world *udp = *state;
  int32_t a = open_socket(udp, false), b = open_socket(udp, false);
  size_t sizes[100];
  for (int i = 0; i < 100; i++) sizes[i] = (size_t)(1 + i);
  udp->then = end_context;
  assert_int_equal(send_sizes(udp, a, loopback(io_udp_port(udp->world.io, b)), sizes, 100, 0), 0);
  RUN_UNTIL(&udp->world, udp->world.ended == 1);
  assert_int_equal(udp->batches, 1);
}

static void a_number_is_given_out_again_only_in_a_later_turn(void **state) {
  udp_world *udp = *state;
  int32_t a = open_socket(udp, false);
  io_udp_close(udp->world.io, a);
  int32_t b = open_socket(udp, false);
  assert_int_not_equal(a, b);
  world_settle(&udp->world);
  assert_int_equal(open_socket(udp, false), a);
}

static void each_latency_class_delivers_everything_and_closes_while_held(void **state) {
  udp_world *udp = *state;
  int32_t a = open_socket(udp, false), b = open_socket(udp, false);
  address to = loopback(io_udp_port(udp->world.io, b));
  size_t size = 1;
  for (int i = 0; i < 60; i++) {
    int error = io_udp_latency(udp->world.io, b, i % 3);
    assert_true(error == 0 || error == UV_ENOTSUP);
    assert_int_equal(send_sizes(udp, a, to, &size, 1, 0), 0);
    RUN_UNTIL(&udp->world, udp->heard_count == i + 1);
  }
  io_udp_latency(udp->world.io, b, IO_LATENCY_BULK);
  assert_int_equal(send_sizes(udp, a, to, &size, 1, 0), 0);
  RUN_UNTIL(&udp->world, udp->heard_count == 61);
  io_udp_close(udp->world.io, b);
}

static void datagrams_arrive_after_conditions_that_nothing_explains(void **state) {
  udp_world *udp = *state;
  int32_t a = open_socket(udp, false), b = open_socket(udp, false);
  address to = loopback(io_udp_port(udp->world.io, b));
  size_t size = 1;
  for (int i = 0; i < 60; i++) {
    // A bulk socket may be held: the loop then watches the timer that resumes it.
    io_udp_latency(udp->world.io, b, i % 3);
    report_conditions(&udp->world);
    assert_int_equal(send_sizes(udp, a, to, &size, 1, 0), 0);
    RUN_UNTIL(&udp->world, udp->heard_count == i + 1);
  }
}

static void setting_up_twice_or_opening_nonsense_is_refused(void **state) {
  udp_world *udp = *state;
  assert_int_equal(io_udp_setup(udp->world.io, &udp->memory, &callbacks, udp), UV_EALREADY);
  uint8_t nonsense[7] = {9};
  io_udp_options options = {.address = nonsense, .address_bytes = sizeof nonsense};
  assert_int_equal(io_udp_open(udp->world.io, &options), UV_EINVAL);
  options.address = NULL;
  assert_int_equal(io_udp_open(udp->world.io, &options), UV_EINVAL);
  int32_t a = open_socket(udp, false);
  address taken = loopback(io_udp_port(udp->world.io, a));
  options = (io_udp_options){.address = taken.bytes, .address_bytes = sizeof taken.bytes};
  assert_int_equal(io_udp_open(udp->world.io, &options), UV_EADDRINUSE);
  assert_int_equal(io_udp_restrict(udp->world.io, a, "", 0), 0);
  assert_true(io_udp_restrict(udp->world.io, a, "nothing0", 0) < 0);
  assert_int_equal(io_udp_restrict(udp->world.io, 77, "", 0), UV_EINVAL);
  assert_int_equal(io_udp_dscp(udp->world.io, a, 46), 0);
  assert_int_equal(io_udp_dscp(udp->world.io, -1, 46), UV_EINVAL);
  assert_true(io_udp_receive_buffer(udp->world.io, a) > 0);
}

int udp_tests(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_run_and_other_sizes_arrive_whole_and_in_order_and_are_answered, set_up, tear_down),
      cmocka_unit_test_setup_teardown(each_datagram_leaves_behind_its_header, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_socket_on_any_address_numbers_those_that_it_was_spoken_to_at_and_answers_from_them, set_up,
                                      tear_down),
      cmocka_unit_test_setup_teardown(a_port_that_refuses_is_reported_and_the_next_datagram_arrives, set_up, tear_down),
      cmocka_unit_test_setup_teardown(an_error_of_a_socket_that_has_closed_names_no_socket, set_up, tear_down),
      cmocka_unit_test_setup_teardown(what_is_too_long_and_rows_that_lie_are_dropped_and_counted, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_socket_that_closes_within_the_call_is_heard_no_more, set_up, tear_down),
      cmocka_unit_test_setup_teardown(the_context_may_end_within_the_call, set_up, tear_down),
      cmocka_unit_test_setup_teardown(a_number_is_given_out_again_only_in_a_later_turn, set_up, tear_down),
      cmocka_unit_test_setup_teardown(each_latency_class_delivers_everything_and_closes_while_held, set_up, tear_down),
      cmocka_unit_test_setup_teardown(datagrams_arrive_after_conditions_that_nothing_explains, set_up, tear_down),
      cmocka_unit_test_setup_teardown(setting_up_twice_or_opening_nonsense_is_refused, set_up, tear_down),
  };
  return cmocka_run_group_tests_name("UDP", tests, NULL, NULL);
}
