#include "shortcut-world.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../../native/io/shortcut/capsule.h"

const uint8_t HEADER[HEADER_BYTES] = {0, 0, 0, 1, 192, 0, 2, 1, 0, 53};

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

const io_stream_callbacks STREAM_CALLBACKS = {on_read, on_writable, NULL};

static address address_of(int descriptor) { return loopback(port_of(descriptor)); }

static struct sockaddr_storage sockaddr_of(address address) {
  struct sockaddr_storage result;
  assert_true(io_address_to_sockaddr(address.bytes, sizeof address.bytes, &result) > 0);
  return result;
}

int bound(int type) {
  int descriptor = socket(AF_INET, type, 0);
  struct sockaddr_storage any = sockaddr_of(loopback(0));
  assert_int_equal(bind(descriptor, (struct sockaddr *)&any, sizeof(struct sockaddr_in)), 0);
  assert_int_equal(fcntl(descriptor, F_SETFL, O_NONBLOCK), 0);
  return descriptor;
}

void connect_pair(int *one, int *other) {
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

int shortcut_set_up(void **state) {
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

int shortcut_tear_down(void **state) {
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

io_shortcut_flow flow_in_world(const shortcut_world *world, int32_t context, size_t header_bytes) {
  return (io_shortcut_flow){.socket = world->socket,
                            .address = world->app_address.bytes,
                            .address_bytes = sizeof world->app_address.bytes,
                            .header = HEADER,
                            .header_bytes = header_bytes,
                            .stream = world->stream,
                            .context = context};
}

int32_t give_out(shortcut_world *world, int32_t context, size_t header_bytes) {
  io_shortcut_flow flow = flow_in_world(world, context, header_bytes);
  return io_shortcut_out(world->world.io, &flow);
}

int32_t give_in(shortcut_world *world, int32_t context, size_t header_bytes) {
  io_shortcut_flow flow = flow_in_world(world, context, header_bytes);
  return io_shortcut_in(world->world.io, &flow);
}

void send_from(shortcut_world *world, int descriptor, size_t header_bytes, uint8_t value, size_t bytes) {
  uint8_t data[65536];
  struct sockaddr_storage to = sockaddr_of(loopback(io_udp_port(world->world.io, world->socket)));
  memcpy(data, HEADER, header_bytes);
  memset(data + header_bytes, value, bytes);
  assert_int_equal(
      sendto(descriptor, data, header_bytes + bytes, 0, (struct sockaddr *)&to, sizeof(struct sockaddr_in)),
      header_bytes + bytes);
}

void send_app(shortcut_world *world, uint8_t value, size_t bytes) { send_from(world, world->app, 0, value, bytes); }

ssize_t app_receives(shortcut_world *world, uint8_t *data, size_t capacity) {
  ssize_t count = recv(world->app, data, capacity, 0);
  if (count < 0) assert_int_equal(errno, EAGAIN);
  return count;
}

size_t put_capsule(uint8_t *to, uint32_t context, uint8_t value, size_t bytes) {
  uint8_t *payload = capsule_write_header(to, context, bytes);
  memset(payload, value, bytes);
  return (size_t)(payload - to) + bytes;
}

void send_peer(shortcut_world *world, const uint8_t *bytes, size_t count) {
  assert_int_equal(send(world->peer, bytes, count, 0), count);
}

size_t peer_receives(shortcut_world *world, uint8_t *to, size_t capacity) {
  size_t total = 0;
  for (;;) {
    ssize_t count = recv(world->peer, to + total, capacity - total, 0);
    if (count <= 0) return total;
    total += (size_t)count;
  }
}

void expect_capsule(shortcut_world *world, uint32_t context, uint8_t value, size_t bytes) {
  uint8_t expected[4096], got[4096];
  size_t length = put_capsule(expected, context, value, bytes), received = 0;
  while (received < length) {
    world_settle(&world->world);
    received += peer_receives(world, got + received, sizeof got - received);
  }
  assert_int_equal(received, length);
  assert_memory_equal(got, expected, length);
}

int32_t counts(shortcut_world *world, double rows[][IO_SHORTCUT_COUNT_NUMBERS], int32_t capacity) {
  return io_shortcut_counts(world->world.io, &rows[0][0], capacity);
}

size_t fill(shortcut_world *world) {
  size_t sent = 0;
  world->heard = 0;
  while (world->heard == 0) {
    assert_true(sent < 10000);
    send_app(world, (uint8_t)sent++, 1000);
    world_settle(&world->world);
  }
  return sent - 1;
}

void drain(shortcut_world *world, size_t capsules, uint32_t context, const uint8_t *extra, size_t extra_bytes) {
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
