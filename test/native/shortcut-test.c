#include <errno.h>
#include <fcntl.h>
#ifdef __linux__
#include <linux/net_tstamp.h>
#endif
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../native/io/loop/loop-state.h"
#include "../../native/io/shortcut.h"
#include "../../native/io/shortcut/capsule.h"
#include "../../native/io/shortcut/table.h"
#include "../../native/io/stream.h"
#include "../../native/io/udp.h"
#include "world.h"

#define MAX_HEARD 512
#define STREAM_BYTES 65536
// Length of a SOCKS5 header with an IPv4 address.
static const uint8_t HEADER[10] = {0, 0, 0, 1, 192, 0, 2, 1, 0, 53};

// A context with a UDP socket and a stream, and the programs at their other ends.
typedef struct shortcut_world {
  world world;
  io_udp_memory memory;
  int32_t socket;
  // The program that sends to `socket`, and its address.
  int app;
  address app_address;
  // Both ends of a TCP connection: the context's, and the peer's.
  int stream, peer;
  uint8_t buffer[STREAM_BYTES];
  // What the caller received: rows, by the first and last byte of their data; bytes of the stream.
  uint8_t heard_first[MAX_HEARD], heard_last[MAX_HEARD];
  int heard;
  uint8_t *read;
  size_t read_bytes;
  int reads, writable;
  ssize_t result;
  bool resumes;
  void (*then)(struct shortcut_world *world);
} shortcut_world;

static void on_received(void *data, int32_t count) {
  shortcut_world *world = data;
  for (int32_t i = 0; i < count && world->heard < MAX_HEARD; i++) {
    const int32_t *row = world->memory.rows + i * IO_UDP_RECEIVE_ROW_INTS;
    const uint8_t *bytes = world->memory.arena + row[1];
    world->heard_first[world->heard] = row[2] > 0 ? bytes[0] : 0;
    world->heard_last[world->heard++] = row[2] > 0 ? bytes[row[2] - 1] : 0;
  }
  if (world->then != NULL) world->then(world);
}

static void on_errors(void *data, int32_t count) { (void)data, (void)count; }

static const io_udp_callbacks UDP_CALLBACKS = {on_received, on_errors, NULL};

static void on_read(void *data, ssize_t count) {
  shortcut_world *world = data;
  world->reads++;
  if (count <= 0) {
    world->result = count;
    return;
  }
  world->read = realloc(world->read, world->read_bytes + (size_t)count);
  memcpy(world->read + world->read_bytes, world->buffer, (size_t)count);
  world->read_bytes += (size_t)count;
  if (world->resumes) io_shortcut_resume(world->world.io, world->stream);
  if (world->then != NULL) world->then(world);
}

static void on_writable(void *data) {
  shortcut_world *world = data;
  world->writable++;
}

static const io_stream_callbacks STREAM_CALLBACKS = {on_read, on_writable, NULL};

static address address_of(int descriptor) { return loopback(port_of(descriptor)); }

static struct sockaddr_storage sockaddr_of(address address) {
  struct sockaddr_storage result;
  assert_true(io_address_to_sockaddr(address.bytes, sizeof address.bytes, &result) > 0);
  return result;
}

static int bound(int type) {
  int descriptor = socket(AF_INET, type, 0);
  struct sockaddr_storage any = sockaddr_of(loopback(0));
  assert_int_equal(bind(descriptor, (struct sockaddr *)&any, sizeof(struct sockaddr_in)), 0);
  assert_int_equal(fcntl(descriptor, F_SETFL, O_NONBLOCK), 0);
  return descriptor;
}

// A TCP connection with small buffers.
static void connect_pair(int *one, int *other) {
  int listener = bound(SOCK_STREAM), small = 4096;
  setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  assert_int_equal(listen(listener, 1), 0);
  struct sockaddr_storage to = sockaddr_of(address_of(listener));
  *one = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(*one, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  assert_int_equal(connect(*one, (struct sockaddr *)&to, sizeof(struct sockaddr_in)), 0);
  assert_int_equal(fcntl(*one, F_SETFL, O_NONBLOCK), 0);
  fcntl(listener, F_SETFL, 0);
  *other = accept(listener, NULL, NULL);
  assert_true(*other >= 0);
  assert_int_equal(fcntl(*other, F_SETFL, O_NONBLOCK), 0);
  close(listener);
}

static int set_up(void **state) {
  shortcut_world *world = calloc(1, sizeof *world);
  world_begin(&world->world, NULL);
  // Of the exact sizes, so that a sanitizer detects access beyond them.
  world->memory = (io_udp_memory){malloc(IO_UDP_ARENA_BYTES),
                                  malloc(IO_UDP_RECEIVE_ROWS * IO_UDP_RECEIVE_ROW_INTS * sizeof(int32_t)),
                                  malloc(IO_UDP_ADDRESSES_BYTES),
                                  malloc(IO_UDP_ERROR_ROWS * IO_UDP_ERROR_ROW_INTS * sizeof(int32_t))};
  assert_int_equal(io_udp_setup(world->world.io, &world->memory, &UDP_CALLBACKS, world), 0);
  address any = loopback(0);
  io_udp_options options = {
      .address = any.bytes, .address_bytes = sizeof any.bytes, .receive_bytes = 1 << 20, .send_bytes = 1 << 20};
  world->socket = io_udp_open(world->world.io, &options);
  assert_true(world->socket >= 0);
  world->app = bound(SOCK_DGRAM);
  world->app_address = address_of(world->app);
  connect_pair(&world->stream, &world->peer);
  assert_int_equal(
      io_stream_open(world->world.io, world->stream, world->buffer, STREAM_BYTES, &STREAM_CALLBACKS, world), 0);
  world->result = 1;
  *state = world;
  return 0;
}

static int tear_down(void **state) {
  shortcut_world *world = *state;
  close(world->app);
  if (world->peer >= 0) close(world->peer);
  world_finish(&world->world);
  free(world->memory.arena);
  free(world->memory.rows);
  free(world->memory.addresses);
  free(world->memory.errors);
  free(world->read);
  free(world);
  return 0;
}

static io_shortcut_flow flow_of(const shortcut_world *world, int32_t context, size_t header_bytes) {
  return (io_shortcut_flow){.socket = world->socket,
                            .address = world->app_address.bytes,
                            .address_bytes = sizeof world->app_address.bytes,
                            .header = HEADER,
                            .header_bytes = header_bytes,
                            .stream = world->stream,
                            .context = context};
}

static int32_t give_out(shortcut_world *world, int32_t context, size_t header_bytes) {
  io_shortcut_flow flow = flow_of(world, context, header_bytes);
  return io_shortcut_out(world->world.io, &flow);
}

static int32_t give_in(shortcut_world *world, int32_t context, size_t header_bytes) {
  io_shortcut_flow flow = flow_of(world, context, header_bytes);
  return io_shortcut_in(world->world.io, &flow);
}

// A datagram of the program: a header, if any, and this many bytes of one value.
static void send_from(shortcut_world *world, int descriptor, size_t header_bytes, uint8_t value, size_t bytes) {
  uint8_t data[65536];
  struct sockaddr_storage to = sockaddr_of(loopback(io_udp_port(world->world.io, world->socket)));
  memcpy(data, HEADER, header_bytes);
  memset(data + header_bytes, value, bytes);
  assert_int_equal(
      sendto(descriptor, data, header_bytes + bytes, 0, (struct sockaddr *)&to, sizeof(struct sockaddr_in)),
      header_bytes + bytes);
}

static void send_app(shortcut_world *world, uint8_t value, size_t bytes) { send_from(world, world->app, 0, value, bytes); }

// The datagram that the program has received: its length, and the value of its last byte; -1 for none.
static ssize_t app_receives(shortcut_world *world, uint8_t *data, size_t capacity) {
  ssize_t count = recv(world->app, data, capacity, 0);
  if (count < 0) assert_int_equal(errno, EAGAIN);
  return count;
}

// A DATAGRAM capsule. Returns its length.
static size_t put_capsule(uint8_t *to, uint32_t context, uint8_t value, size_t bytes) {
  uint8_t *payload = capsule_write_header(to, context, bytes);
  memset(payload, value, bytes);
  return (size_t)(payload - to) + bytes;
}

static void send_peer(shortcut_world *world, const uint8_t *bytes, size_t count) {
  assert_int_equal(send(world->peer, bytes, count, 0), count);
}

// Takes the bytes that the peer has received. Returns how many.
static size_t peer_receives(shortcut_world *world, uint8_t *to, size_t capacity) {
  size_t total = 0;
  for (;;) {
    ssize_t count = recv(world->peer, to + total, capacity - total, 0);
    if (count <= 0) return total;
    total += (size_t)count;
  }
}

static void expect_capsule(shortcut_world *world, uint32_t context, uint8_t value, size_t bytes) {
  uint8_t expected[4096], got[4096];
  size_t length = put_capsule(expected, context, value, bytes), received = 0;
  while (received < length) {
    world_settle(&world->world);
    received += peer_receives(world, got + received, sizeof got - received);
  }
  assert_int_equal(received, length);
  assert_memory_equal(got, expected, length);
}

static int32_t counts(shortcut_world *world, double rows[][IO_SHORTCUT_COUNT_NUMBERS], int32_t capacity) {
  return io_shortcut_counts(world->world.io, &rows[0][0], capacity);
}

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
  io_shortcut_flow elsewhere = flow_of(world, 9, sizeof HEADER);
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

// Fills the stream through shortcuts until datagrams go to the caller. Returns how many went to the stream.
static size_t fill(shortcut_world *world) {
  size_t sent = 0;
  world->heard = 0;
  while (world->heard == 0) {
    assert_true(sent < 10000);
    send_app(world, (uint8_t)sent++, 1000);
    world_settle(&world->world);
  }
  return sent - 1;
}

// Takes the capsules that arrive at the peer until it has this many, and checks that they are complete and in order. `extra`: bytes after
// them.
static void drain(shortcut_world *world, size_t capsules, uint32_t context, const uint8_t *extra, size_t extra_bytes) {
  uint8_t *got = malloc(4 << 20), expected[1100];
  size_t received = 0, at = 0, length = put_capsule(expected, context, 0, 1000), total = capsules * length + extra_bytes;
  world_start_clock(&world->world);
  while (received < total) {
    received += peer_receives(world, got + received, (4 << 20) - received);
    uv_run(&world->world.loop, UV_RUN_NOWAIT);
    assert_false(world->world.is_late);
  }
  assert_int_equal(received, total);
  for (size_t i = 0; i < capsules; i++, at += length) {
    put_capsule(expected, context, (uint8_t)i, 1000);
    assert_memory_equal(got + at, expected, length);
  }
  if (extra_bytes > 0) assert_memory_equal(got + at, extra, extra_bytes);
  free(got);
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
  io_shortcut_flow good = flow_of(world, 1, 0), bad[9];
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
  io_shortcut_flow flow = flow_of(world, 5, 0);
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

static uint32_t next_random(uint32_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 17;
  *state ^= *state << 5;
  return *state;
}

#define CONTEXTS 4

// The caller of a random run: reads its bytes as a reader of capsules does, and usually resumes at their ends.
typedef struct reader {
  uint32_t random;
  size_t at;
  uint8_t next[CONTEXTS];
} reader;

static reader caller;

// Datagrams that went to the program.
static void app_reads(shortcut_world *world, uint8_t context) {
  uint8_t got[8192];
  for (ssize_t count; (count = app_receives(world, got, sizeof got)) > 0;)
    assert_int_equal(got[count - 1], caller.next[context]++);
}

static void read_capsules(shortcut_world *world) {
  // Earlier bytes went there.
  app_reads(world, 1);
  while (caller.at < world->read_bytes) {
    const uint8_t *bytes = world->read;
    size_t stop = world->read_bytes;
    // All have lengths of one or two bytes, and a context (or, for other types, a value) of one byte.
    if (caller.at + 1 >= stop || caller.at + 1 + varint_length_from(bytes[caller.at + 1]) >= stop) return;
    size_t value = caller.at + 1 + varint_length_from(bytes[caller.at + 1]);
    size_t end = value + (size_t)read_varint(bytes + caller.at + 1);
    if (end > stop) return;
    if (bytes[caller.at] == CAPSULE_DATAGRAM) {
      uint8_t context = bytes[value];
      assert_true(context < CONTEXTS);
      assert_int_equal(bytes[end - 1], caller.next[context]++);
    }
    caller.at = end;
  }
  if (next_random(&caller.random) % 8 != 0) io_shortcut_resume(world->world.io, world->stream);
}

// Capsules of one context with a shortcut and of others, and of another type, in pieces of any size: each context's datagrams
// arrive completely and in order, at the program or at the caller.
static void capsules_in_random_pieces_all_arrive_in_order(void **state) {
  shortcut_world *world = *state;
  static uint8_t bytes[1 << 22];
  uint32_t random = 20260101;
  size_t length = 0;
  uint8_t sent[CONTEXTS] = {0};
  for (int i = 0; i < 3000; i++) {
    uint32_t kind = next_random(&random) % 64;
    size_t size = 1 + next_random(&random) % (next_random(&random) % 16 == 0 ? 5000 : 200);
    uint8_t context = kind < 56 ? 1 : kind % CONTEXTS;
    if (kind == 63) {
      bytes[length++] = 0x11;
      bytes[length++] = 1;
      bytes[length++] = 0;
    } else {
      length += put_capsule(bytes + length, context, sent[context]++, size);
    }
  }
  memset(&caller, 0, sizeof caller);
  caller.random = 77;
  world->then = read_capsules;
  assert_true(give_in(world, 1, 0) >= 0);
  io_shortcut_resume(world->world.io, world->stream);
  uint8_t end[CONTEXTS];
  for (size_t at = 0; at < length;) {
    size_t piece = 1 + next_random(&random) % (next_random(&random) % 4 == 0 ? 6000 : 300);
    if (piece > length - at) piece = length - at;
    ssize_t count = send(world->peer, bytes + at, piece, 0);
    if (count > 0) at += (size_t)count;
    world_settle(&world->world);
    app_reads(world, 1);
    if (next_random(&random) % 50 == 0) io_shortcut_end(world->world.io, world->stream);
    if (next_random(&random) % 20 == 0 && give_in(world, 1, 0) < 0) {
      double rows[64][IO_SHORTCUT_COUNT_NUMBERS];
      while (counts(world, rows, 64) > 0) continue;
    }
  }
  memcpy(end, sent, sizeof end);
  world_start_clock(&world->world);
  while (memcmp(caller.next, end, sizeof end) != 0) {
    uv_run(&world->world.loop, UV_RUN_NOWAIT);
    app_reads(world, 1);
    assert_false(world->world.is_late);
  }
  assert_true(world->read_bytes > 0 && world->read_bytes < length);
}

// The caller queues the datagrams that it receives and writes them when it can, while shortcuts write by themselves. The stream has to
// consist of complete capsules, and each way has to be in order.
static void what_two_writers_write_to_a_stream_that_is_often_full_is_whole(void **state) {
  shortcut_world *world = *state;
  static uint8_t got[1 << 22], unwritten[1 << 20];
  size_t unwritten_bytes = 0, received = 0;
  uint32_t random = 4711;
  int sent = 0, handed = 0;
  assert_true(give_out(world, 1, 0) >= 0);
  world_start_clock(&world->world);
  for (int step = 0; sent < 3000 || unwritten_bytes > 0 || step < 4000; step++) {
    if (sent < 3000) send_app(world, (uint8_t)sent++, 1 + next_random(&random) % 900);
    uv_run(&world->world.loop, UV_RUN_NOWAIT);
    uv_run(&world->world.loop, UV_RUN_NOWAIT);
    for (; handed < world->heard; handed++)
      unwritten_bytes += put_capsule(unwritten + unwritten_bytes, 2, world->heard_last[handed], 300);
    if (world->heard > MAX_HEARD / 2) handed = world->heard = 0;
    if (unwritten_bytes > 0) {
      ssize_t count = io_stream_write(world->world.io, world->stream, unwritten, unwritten_bytes, false);
      assert_true(count >= 0);
      unwritten_bytes -= (size_t)count;
      memmove(unwritten, unwritten + count, unwritten_bytes);
    }
    size_t most = next_random(&random) % 700;
    ssize_t count = recv(world->peer, got + received, most, 0);
    if (count > 0) received += (size_t)count;
    assert_true(step < 100000);
  }
  int seen = 0;
  int ways[3] = {0};
  bool has[256] = {false};
  for (size_t at = 0; seen < 3000;) {
    while (at + 4096 > received) {
      ssize_t count = recv(world->peer, got + received, sizeof got - received, 0);
      if (count > 0) received += (size_t)count;
      else if (at < received) break;
      uv_run(&world->world.loop, UV_RUN_NOWAIT);
      assert_false(world->world.is_late);
    }
    datagram_capsule capsule = {0};
    if (capsule_read(got, at, received, &capsule) == CAPSULE_CUT) continue;
    assert_int_equal(capsule_read(got, at, received, &capsule), CAPSULE_WHOLE);
    assert_true(capsule.context == 1 || capsule.context == 2);
    // All bytes of a payload are equal.
    for (size_t i = capsule.payload; i < capsule.end; i++) assert_int_equal(got[i], got[capsule.payload]);
    ways[capsule.context]++;
    has[got[capsule.payload]] = true;
    at = capsule.end;
    seen++;
  }
  for (int i = 0; i < 256; i++) assert_true(has[i]);
  assert_true(ways[1] > 0 && ways[2] > 0);
}

int shortcut_tests(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(a_datagram_of_a_shortcut_goes_to_the_stream_without_its_prefix_and_the_caller_is_not_called),
      TEST(what_is_of_another_source_prefix_or_local_address_is_the_caller_s_in_order),
      TEST(the_longest_prefix_counts_and_a_second_one_for_the_same_datagrams_replaces_the_first),
      TEST(a_capsule_leaves_on_the_socket_behind_its_header_once_the_caller_resumes),
      TEST(from_the_first_byte_of_anything_else_on_all_is_the_caller_s),
      TEST(a_capsule_may_come_in_any_pieces),
      TEST(what_is_too_long_to_keep_or_of_no_shortcut_comes_to_the_caller_cut),
      TEST(what_is_kept_comes_before_the_end_and_before_what_follows_the_end_of_the_shortcuts),
      TEST(the_rest_of_a_write_comes_before_what_the_caller_writes),
      TEST(no_shortcut_writes_while_more_of_the_caller_comes),
      TEST(the_end_comes_behind_the_rest_of_a_write),
#ifdef __linux__
      TEST(an_error_condition_that_the_connection_outlives_cuts_no_capsule),
#endif
      TEST(a_reset_behind_a_write_that_was_accepted_in_part_is_reported),
      TEST(what_a_stream_that_has_failed_does_not_take_is_the_caller_s),
      TEST(closing_a_socket_or_a_stream_ends_its_shortcuts),
      TEST(both_may_be_closed_within_a_call),
      TEST(the_context_may_end_within_a_call_while_a_rest_waits),
      TEST(they_may_end_within_a_call),
      TEST(pausing_ends_them),
      TEST(the_table_holds_4096_and_has_room_again_when_those_that_ended_have_been_counted),
      TEST(one_that_has_carried_nothing_for_10_seconds_ends_when_they_are_counted),
      TEST(in_a_crowded_table_those_idle_for_a_second_end),
      TEST(what_is_not_valid_gets_no_shortcut),
      TEST(what_could_not_be_sent_is_reported_with_the_caller_s_next_datagrams),
      TEST(capsules_in_random_pieces_all_arrive_in_order),
      TEST(what_two_writers_write_to_a_stream_that_is_often_full_is_whole),
  };
  return cmocka_run_group_tests_name("shortcuts", tests, NULL, NULL);
}
