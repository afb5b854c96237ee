#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#ifdef __linux__
#include <linux/net_tstamp.h>
#endif
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../native/io/stream.h"
#include "../../native/io/tcp.h"
#include "../../native/io/tcp/stream-state.h"
#include "world.h"

#define MUCH (8 << 20)

// One end of a connection, and what it has read.
typedef struct end {
  struct stream_world *world;
  int descriptor;
  size_t received;
  // The last result that was not a count: 1 if none.
  ssize_t result;
  int reads, writable, released;
  uint64_t sum;
  void (*then)(struct end *end, ssize_t count);
} end;

typedef struct stream_world {
  world world;
  uint8_t buffer[65536];
  end client, server;
  int listener;
} stream_world;

static void on_read(void *data, ssize_t count) {
  end *end = data;
  assert_int_equal(end->released, 0);
  end->reads++;
  if (count <= 0) end->result = count;
  for (ssize_t i = 0; i < count; i++) end->sum += end->world->buffer[i];
  if (count > 0) end->received += (size_t)count;
  if (end->then != NULL) end->then(end, count);
}

static void on_writable(void *data) {
  end *end = data;
  assert_int_equal(end->released, 0);
  end->writable++;
}

static void on_released(void *data) {
  end *end = data;
  end->released++;
}

static const io_stream_callbacks callbacks = {on_read, on_writable, on_released};

static void open_end(stream_world *world, end *end, int descriptor) {
  end->world = world;
  end->descriptor = descriptor;
  end->result = 1;
  assert_int_equal(
      io_stream_open(world->world.io, descriptor, world->buffer, sizeof world->buffer, &callbacks, end), 0);
}

static void on_accepted(void *data, int descriptor) {
  stream_world *world = data;
  open_end(world, &world->server, descriptor);
}

static void on_done(void *data, int result) {
  stream_world *world = data;
  assert_true(result >= 0);
  open_end(world, &world->client, result);
}

static const io_listener_callbacks listener_callbacks = {on_accepted, NULL};
static const io_connect_callbacks connect_callbacks = {on_done, NULL};

// A TCP connection between both ends, through a listener that remains open.
static int set_up(void **state) {
  stream_world *world = calloc(1, sizeof *world);
  world_begin(&world->world, NULL);
  address any = loopback(0);
  world->listener =
      io_tcp_listen(world->world.io, any.bytes, sizeof any.bytes, false, 16, &listener_callbacks, world);
  assert_true(world->listener >= 0);
  address to = loopback(port_of(world->listener));
  int attempt = io_tcp_connect(world->world.io, to.bytes, sizeof to.bytes, "", 0, &connect_callbacks, world);
  assert_true(attempt >= 0);
  RUN_UNTIL(&world->world, world->client.world != NULL && world->server.world != NULL);
  *state = world;
  return 0;
}

static int tear_down(void **state) {
  stream_world *world = *state;
  world_finish(&world->world);
  assert_int_equal(world->client.released, 1);
  assert_int_equal(world->server.released, 1);
  free(world);
  return 0;
}

static void write_text(end *end, const char *text) {
  ssize_t length = (ssize_t)strlen(text);
  assert_int_equal(
      io_stream_write(end->world->world.io, end->descriptor, (const uint8_t *)text, (size_t)length, false), length);
}

static void each_side_ends_by_itself_and_still_hears_the_other(void **state) {
  stream_world *world = *state;
  write_text(&world->client, "question");
  io_stream_end(world->world.io, world->client.descriptor);
  RUN_UNTIL(&world->world, world->server.result == 0);
  assert_int_equal(world->server.received, 8);
  world_settle(&world->world);
  // The end is reported once.
  assert_int_equal(world->server.result, 0);
  int reads = world->server.reads;
  write_text(&world->server, "the answer");
  RUN_UNTIL(&world->world, world->client.received == 10);
  assert_int_equal(world->client.result, 1);
  io_stream_end(world->world.io, world->server.descriptor);
  RUN_UNTIL(&world->world, world->client.result == 0);
  assert_int_equal(world->server.reads, reads);
}

static void what_the_system_does_not_take_is_written_when_it_reports_room(void **state) {
  stream_world *world = *state;
  uint8_t *bytes = malloc(MUCH);
  uint64_t sum = 0;
  for (size_t i = 0; i < MUCH; i++) sum += bytes[i] = (uint8_t)(i * 7 + i / 251);
  size_t written = 0;
  int waits = 0;
  while (written < MUCH) {
    ssize_t count = io_stream_write(world->world.io, world->client.descriptor, bytes + written, MUCH - written, true);
    assert_true(count >= 0);
    written += (size_t)count;
    if (written == MUCH) break;
    waits++;
    int before = world->client.writable;
    RUN_UNTIL(&world->world, world->client.writable > before);
  }
  assert_true(waits > 0);
  RUN_UNTIL(&world->world, world->server.received == MUCH);
  assert_int_equal(world->server.sum, sum);
  free(bytes);
}

static void a_stream_that_is_paused_reads_nothing_until_it_goes_on(void **state) {
  stream_world *world = *state;
  io_stream_pause(world->world.io, world->server.descriptor, true);
  write_text(&world->client, "later");
  io_stream_end(world->world.io, world->client.descriptor);
  world_settle(&world->world);
  write_text(&world->server, "now");
  RUN_UNTIL(&world->world, world->client.received == 3);
  assert_int_equal(world->server.reads, 0);
  io_stream_pause(world->world.io, world->server.descriptor, false);
  RUN_UNTIL(&world->world, world->server.result == 0);
  assert_int_equal(world->server.received, 5);
}

static void pause_within(end *end, ssize_t count) {
  (void)count;
  io_stream_pause(end->world->world.io, end->descriptor, true);
}

static void pausing_within_the_call_ends_its_reads(void **state) {
  stream_world *world = *state;
  uint8_t *bytes = calloc(1, 1 << 18);
  world->server.then = pause_within;
  assert_true(io_stream_write(world->world.io, world->client.descriptor, bytes, 1 << 18, false) > 65536);
  free(bytes);
  RUN_UNTIL(&world->world, world->server.reads == 1);
  world_settle(&world->world);
  assert_int_equal(world->server.reads, 1);
  io_stream_pause(world->world.io, world->server.descriptor, false);
  RUN_UNTIL(&world->world, world->server.reads == 2);
}

static void a_reset_is_an_error_for_the_peer(void **state) {
  stream_world *world = *state;
  io_stream_reset(world->world.io, world->client.descriptor);
  assert_int_equal(world->client.released, 1);
  RUN_UNTIL(&world->world, world->server.result < 0);
  assert_int_equal(world->server.result, UV_ECONNRESET);
  assert_int_equal(world->server.reads, 1);
}

static void a_reset_while_paused_is_reported_to_who_waits_to_write(void **state) {
  stream_world *world = *state;
  uint8_t *bytes = calloc(1, MUCH);
  io_stream_pause(world->world.io, world->server.descriptor, true);
  io_stream_pause(world->world.io, world->client.descriptor, true);
  while (io_stream_write(world->world.io, world->server.descriptor, bytes, MUCH, false) == MUCH) continue;
  free(bytes);
  io_stream_reset(world->world.io, world->client.descriptor);
  RUN_UNTIL(&world->world, world->server.result < 0);
  assert_int_equal(world->server.result, UV_ECONNRESET);
}

#ifdef __linux__
static void a_reset_while_paused_is_reported_to_who_waits_for_nothing(void **state) {
  stream_world *world = *state;
  io_stream_pause(world->world.io, world->server.descriptor, true);
  io_stream_reset(world->world.io, world->client.descriptor);
  RUN_UNTIL(&world->world, world->server.result < 0);
  assert_int_equal(world->server.result, UV_ECONNRESET);
}

static void what_came_before_a_reset_while_paused_is_read_first(void **state) {
  stream_world *world = *state;
  io_stream_pause(world->world.io, world->server.descriptor, true);
  write_text(&world->client, "last words");
  world_settle(&world->world);
  io_stream_reset(world->world.io, world->client.descriptor);
  world_settle(&world->world);
  assert_int_equal(world->server.reads, 0);
  io_stream_pause(world->world.io, world->server.descriptor, false);
  RUN_UNTIL(&world->world, world->server.result < 0);
  assert_int_equal(world->server.received, 10);
  assert_int_equal(world->server.result, UV_ECONNRESET);
}

static void a_reset_behind_the_end_is_reported(void **state) {
  stream_world *world = *state;
  io_stream_end(world->world.io, world->client.descriptor);
  RUN_UNTIL(&world->world, world->server.result == 0);
  io_stream_reset(world->world.io, world->client.descriptor);
  RUN_UNTIL(&world->world, world->server.result < 0);
  assert_int_equal(world->server.result, UV_EPIPE);
}
#endif

static void count_turn(uv_prepare_t *prepare) {
  int *turns = prepare->data;
  ++*turns;
}

static void on_time(uv_timer_t *timer) {
  bool *is_over = timer->data;
  *is_over = true;
}

// The number of turns of the loop in a tenth of a second without anything to do.
static int idle_turns(stream_world *world) {
  int turns = 0;
  bool is_over = false;
  uv_prepare_t prepare;
  uv_timer_t timer;
  uv_prepare_init(&world->world.loop, &prepare);
  uv_timer_init(&world->world.loop, &timer);
  prepare.data = &turns;
  timer.data = &is_over;
  uv_prepare_start(&prepare, count_turn);
  uv_timer_start(&timer, on_time, 100, 0);
  RUN_UNTIL(&world->world, is_over);
  uv_close((uv_handle_t *)&prepare, NULL);
  uv_close((uv_handle_t *)&timer, NULL);
  world_settle(&world->world);
  return turns;
}

static void the_loop_sleeps_while_a_stream_is_paused_or_both_sides_have_ended(void **state) {
  stream_world *world = *state;
  io_stream_pause(world->world.io, world->server.descriptor, true);
  write_text(&world->client, "waits");
  assert_true(idle_turns(world) < 20);
  io_stream_end(world->world.io, world->client.descriptor);
  assert_true(idle_turns(world) < 20);
  io_stream_pause(world->world.io, world->server.descriptor, false);
  RUN_UNTIL(&world->world, world->server.result == 0);
  io_stream_end(world->world.io, world->server.descriptor);
  RUN_UNTIL(&world->world, world->client.result == 0);
  assert_true(idle_turns(world) < 20);
  io_stream_pause(world->world.io, world->server.descriptor, true);
  io_stream_pause(world->world.io, world->client.descriptor, true);
  assert_true(idle_turns(world) < 20);
}

#ifdef __linux__
#define EACH_SEND (SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_SOFTWARE)

static void an_error_condition_does_not_end_who_is_paused_and_waits_to_write(void **state) {
  stream_world *world = *state;
  io_loop *io = world->world.io;
  end *server = &world->server;
  uint8_t *bytes = calloc(1, MUCH);
  io_stream_pause(io, server->descriptor, true);
  io_stream_pause(io, world->client.descriptor, true);
  set_timestamps(server->descriptor, EACH_SEND);
  write_text(server, "noted");
  size_t written = (size_t)io_stream_write(io, server->descriptor, bytes, MUCH, false);
  assert_true(written > 0 && written < MUCH);
  assert_true(has_error_condition(server->descriptor));
  assert_true(idle_turns(world) < 20);
  assert_false(has_error_condition(server->descriptor));
  assert_int_equal(server->result, 1);
  io_stream_pause(io, world->client.descriptor, false);
  while (written < MUCH) {
    ssize_t count = io_stream_write(io, server->descriptor, bytes + written, MUCH - written, false);
    assert_true(count >= 0);
    written += (size_t)count;
    int before = server->writable;
    if (written < MUCH) RUN_UNTIL(&world->world, server->writable > before);
  }
  free(bytes);
  RUN_UNTIL(&world->world, world->client.received == MUCH + 5);
  assert_int_equal(server->result, 1);
}

// Fills a paused stream, whose peer reads nothing, until it waits to write. Returns how much it took.
static size_t fill(stream_world *world, end *end) {
  io_loop *io = world->world.io;
  uint8_t *bytes = calloc(1, MUCH);
  io_stream_pause(io, world->client.descriptor, true);
  size_t written = (size_t)io_stream_write(io, end->descriptor, bytes, MUCH, false);
  assert_true(written > 0 && written < MUCH);
  free(bytes);
  return written;
}

static void an_unreachable_host_does_not_end_who_is_paused_and_outlives_it(void **state) {
  stream_world *world = *state;
  end *server = &world->server;
  io_stream_pause(world->world.io, server->descriptor, true);
  set_timestamps(server->descriptor, EACH_SEND);
  write_text(server, "noted");
  size_t written = fill(world, server);
  if (!report_unreachable(server->descriptor)) skip();
  assert_true(has_error_condition(server->descriptor));
  assert_true(idle_turns(world) < 20);
  assert_int_equal(server->result, 1);
  io_stream_pause(world->world.io, world->client.descriptor, false);
  RUN_UNTIL(&world->world, world->client.received == written + 5);
  assert_int_equal(server->result, 1);
}

// The kernel then reports such an error at once, by the next call, although the connection goes on.
static bool report_at_once(end *end) {
  int on = 1;
  assert_int_equal(setsockopt(end->descriptor, IPPROTO_IP, IP_RECVERR, &on, sizeof on), 0);
  return report_unreachable(end->descriptor);
}

static void an_unreachable_host_that_the_kernel_reports_at_once_ends_neither_reading_nor_writing(void **state) {
  stream_world *world = *state;
  end *server = &world->server;
  if (!report_at_once(server)) skip();
  assert_true(has_error_condition(server->descriptor));
  write_text(server, "written");
  RUN_UNTIL(&world->world, world->client.received == 7);
  report_at_once(server);
  assert_true(idle_turns(world) < 20);
  write_text(&world->client, "read");
  RUN_UNTIL(&world->world, server->received == 4);
  io_stream_pause(world->world.io, server->descriptor, true);
  report_at_once(server);
  assert_true(idle_turns(world) < 20);
  assert_int_equal(server->result, 1);
  size_t written = fill(world, server);
  report_at_once(server);
  assert_true(idle_turns(world) < 20);
  assert_int_equal(server->result, 1);
  io_stream_pause(world->world.io, world->client.descriptor, false);
  RUN_UNTIL(&world->world, world->client.received == written + 7);
}

static void an_error_condition_does_not_hide_a_later_reset_from_who_is_paused(void **state) {
  stream_world *world = *state;
  io_stream_pause(world->world.io, world->server.descriptor, true);
  set_timestamps(world->server.descriptor, EACH_SEND);
  write_text(&world->server, "noted");
  assert_true(has_error_condition(world->server.descriptor));
  RUN_UNTIL(&world->world, world->client.received == 5);
  assert_true(idle_turns(world) < 20);
  assert_int_equal(world->server.result, 1);
  io_stream_reset(world->world.io, world->client.descriptor);
  RUN_UNTIL(&world->world, world->server.result < 0);
  assert_int_equal(world->server.result, UV_ECONNRESET);
}

static void the_loop_sleeps_after_an_error_condition_that_the_connection_outlives(void **state) {
  stream_world *world = *state;
  set_timestamps(world->server.descriptor, EACH_SEND);
  write_text(&world->server, "noted");
  assert_true(has_error_condition(world->server.descriptor));
  assert_true(idle_turns(world) < 20);
  write_text(&world->client, "goes on");
  RUN_UNTIL(&world->world, world->server.received == 7);
  assert_int_equal(world->server.result, 1);
}
#endif

// A poller in the place of libuv's, which reports an error condition again and again. Returns how often until the stream fails.
static int conditions_until_it_fails(stream_world *world, end *end, int most) {
  stream *stream = io_stream_of(world->world.io, end->descriptor);
  uv_poll_cb on_ready = stream->watcher.poll.poll_cb;
  uint8_t more = 0;
  for (int i = 1; i <= most; i++) {
    // Who had to wait writes again when it may.
    if (stream->is_paused) io_stream_write(world->world.io, end->descriptor, &more, 1, false);
    on_ready(&stream->watcher.poll, UV_EBADF, 0);
    if (end->result < 0) return i;
  }
  return 0;
}

static void an_error_condition_that_nothing_explains_does_not_keep_the_loop_busy(void **state) {
  stream_world *world = *state;
  end *client = &world->client, *server = &world->server;
  stream *stream = io_stream_of(world->world.io, client->descriptor);
  // Each event of another kind shows that the connection goes on.
  for (int i = 0; i < 10; i++) {
    assert_int_equal(conditions_until_it_fails(world, client, 50), 0);
    stream->watcher.poll.poll_cb(&stream->watcher.poll, 0, UV_READABLE);
  }
  assert_true(conditions_until_it_fails(world, client, 100) > 0);
  assert_int_equal(client->result, UV_EIO);
  uint8_t *bytes = calloc(1, MUCH);
  io_stream_pause(world->world.io, server->descriptor, true);
  assert_true(io_stream_write(world->world.io, server->descriptor, bytes, MUCH, false) < MUCH);
  free(bytes);
  assert_true(conditions_until_it_fails(world, server, 100) > 0);
  assert_int_equal(server->result, UV_EIO);
}

static void close_within(end *end, ssize_t count) {
  (void)count;
  io_stream_close(end->world->world.io, end->descriptor);
  // `released` is called within the call, once.
  assert_int_equal(end->released, 1);
  io_stream_close(end->world->world.io, end->descriptor);
}

static void a_stream_may_close_within_its_call(void **state) {
  stream_world *world = *state;
  uint8_t *bytes = calloc(1, 1 << 18);
  world->server.then = close_within;
  io_stream_write(world->world.io, world->client.descriptor, bytes, 1 << 18, false);
  free(bytes);
  RUN_UNTIL(&world->world, world->server.released == 1);
  RUN_UNTIL(&world->world, world->client.result <= 0);
  assert_int_equal(world->server.reads, 1);
}

static void release_within(end *end, ssize_t count) {
  (void)count;
  io_stream_release(end->world->world.io, end->descriptor);
}

static void a_released_descriptor_is_open_and_the_caller_s(void **state) {
  stream_world *world = *state;
  world->server.then = release_within;
  write_text(&world->client, "x");
  RUN_UNTIL(&world->world, world->server.released == 1);
  int descriptor = world->server.descriptor;
  assert_int_equal(send(descriptor, "raw", 3, 0), 3);
  RUN_UNTIL(&world->world, world->client.received == 3);
  // The descriptor may become a stream again.
  world->server.then = NULL;
  world->server.released = 0;
  open_end(world, &world->server, descriptor);
  write_text(&world->client, "again");
  RUN_UNTIL(&world->world, world->server.received == 6);
}

static void end_within(end *end, ssize_t count) {
  (void)count;
  world_end_context(&end->world->world);
  assert_int_equal(end->released, 1);
}

static void the_context_may_end_within_the_call(void **state) {
  stream_world *world = *state;
  world->server.then = end_within;
  write_text(&world->client, "x");
  RUN_UNTIL(&world->world, world->world.ended == 1);
  assert_int_equal(world->client.released, 1);
}

static void calls_with_what_is_no_stream_do_nothing(void **state) {
  stream_world *world = *state;
  io_loop *io = world->world.io;
  assert_int_equal(io_stream_open(io, world->client.descriptor, world->buffer, 1, &callbacks, NULL), UV_EINVAL);
  assert_int_equal(io_stream_open(io, -1, world->buffer, 1, &callbacks, NULL), UV_EBADF);
  assert_int_equal(io_stream_open(io, world->listener, world->buffer, 0, &callbacks, NULL), UV_EINVAL);
  const int none[] = {-1, 1 << 20, world->listener};
  for (int i = 0; i < 3; i++) {
    assert_int_equal(io_stream_write(io, none[i], world->buffer, 1, false), UV_EINVAL);
    io_stream_end(io, none[i]);
    io_stream_pause(io, none[i], true);
    io_stream_reset(io, none[i]);
    io_stream_release(io, none[i]);
    io_stream_close(io, none[i]);
  }
  write_text(&world->client, "works");
  RUN_UNTIL(&world->world, world->server.received == 5);
}

static void a_duplicate_outlives_the_first_and_options_can_be_set(void **state) {
  stream_world *world = *state;
  int copy = io_descriptor_duplicate(world->client.descriptor);
  assert_true(copy >= 0);
  int tuned = io_tcp_tune(world->client.descriptor, 65536, 5000);
  assert_true(tuned == 0 || tuned == UV_ENOTSUP);
  io_tcp_keep_alive(world->client.descriptor, 30);
  io_stream_close(world->world.io, world->client.descriptor);
  assert_int_equal(send(copy, "still", 5, 0), 5);
  RUN_UNTIL(&world->world, world->server.received == 5);
  io_descriptor_close(copy);
  RUN_UNTIL(&world->world, world->server.result == 0);
  assert_int_equal(io_descriptor_duplicate(-1), UV_EBADF);
}

static void both_ends_know_their_addresses(void **state) {
  stream_world *world = *state;
  char own[IO_IP_TEXT_BYTES], peer[IO_IP_TEXT_BYTES];
  int port = io_socket_name(world->client.descriptor, false, own);
  assert_int_equal(io_socket_name(world->server.descriptor, true, peer), port);
  assert_string_equal(own, "127.0.0.1");
  assert_string_equal(peer, "127.0.0.1");
  uint8_t bytes[IO_ADDRESS_MAX_BYTES];
  address expected = loopback(port);
  assert_int_equal(io_socket_address(world->client.descriptor, bytes), sizeof expected.bytes);
  assert_memory_equal(bytes, expected.bytes, sizeof expected.bytes);
  assert_int_equal(io_socket_address(-1, bytes), 0);
  assert_int_equal(io_socket_name(-1, false, own), UV_EBADF);
}

int stream_tests(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(each_side_ends_by_itself_and_still_hears_the_other),
      TEST(what_the_system_does_not_take_is_written_when_it_reports_room),
      TEST(a_stream_that_is_paused_reads_nothing_until_it_goes_on),
      TEST(pausing_within_the_call_ends_its_reads),
      TEST(a_reset_is_an_error_for_the_peer),
      TEST(a_reset_while_paused_is_reported_to_who_waits_to_write),
#ifdef __linux__
      TEST(a_reset_while_paused_is_reported_to_who_waits_for_nothing),
      TEST(what_came_before_a_reset_while_paused_is_read_first),
      TEST(a_reset_behind_the_end_is_reported),
#endif
      TEST(the_loop_sleeps_while_a_stream_is_paused_or_both_sides_have_ended),
#ifdef __linux__
      TEST(an_error_condition_does_not_end_who_is_paused_and_waits_to_write),
      TEST(an_unreachable_host_does_not_end_who_is_paused_and_outlives_it),
      TEST(an_unreachable_host_that_the_kernel_reports_at_once_ends_neither_reading_nor_writing),
      TEST(an_error_condition_does_not_hide_a_later_reset_from_who_is_paused),
      TEST(the_loop_sleeps_after_an_error_condition_that_the_connection_outlives),
#endif
      TEST(an_error_condition_that_nothing_explains_does_not_keep_the_loop_busy),
      TEST(a_stream_may_close_within_its_call),
      TEST(a_released_descriptor_is_open_and_the_caller_s),
      TEST(the_context_may_end_within_the_call),
      TEST(calls_with_what_is_no_stream_do_nothing),
      TEST(a_duplicate_outlives_the_first_and_options_can_be_set),
      TEST(both_ends_know_their_addresses),
  };
  return cmocka_run_group_tests_name("streams", tests, NULL, NULL);
}
