#include "world.h"

#include <dirent.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

int count_descriptors(void) {
  int count = 0;
  DIR *directory = opendir("/proc/self/fd");
  if (directory == NULL) return 0;
  while (readdir(directory) != NULL) count++;
  closedir(directory);
  return count;
}

static void on_late(uv_timer_t *timer) {
  world *world = timer->data;
  world->is_late = true;
}

void world_begin(world *world, const io_loop_options *options) {
  memset(world, 0, sizeof *world);
  world->descriptors_before = count_descriptors();
  assert_int_equal(uv_loop_init(&world->loop), 0);
  uv_timer_init(&world->loop, &world->deadline);
  world->deadline.data = world;
  assert_int_equal(io_loop_create(&world->loop, options, &world->io), 0);
  assert_ptr_equal(io_loop_uv(world->io), &world->loop);
}

void world_start_clock(world *world) {
  uv_update_time(&world->loop);
  uv_timer_start(&world->deadline, on_late, 10000, 0);
}

static void on_ended(void *data) {
  world *world = data;
  world->ended++;
}

void world_end_context(world *world) {
  io_loop_end(world->io, on_ended, world);
}

void world_finish(world *world) {
  if (world->ended == 0) {
    io_loop_end(world->io, on_ended, world);
    // It is never called within the call.
    assert_int_equal(world->ended, 0);
    io_loop_end(world->io, on_ended, world);
  }
  RUN_UNTIL(world, world->ended > 0);
  uv_close((uv_handle_t *)&world->deadline, NULL);
  uv_run(&world->loop, UV_RUN_DEFAULT);
  assert_int_equal(world->ended, 1);
  assert_int_equal(uv_loop_close(&world->loop), 0);
  assert_int_equal(count_descriptors(), world->descriptors_before);
}

void world_settle(world *world) {
  for (int i = 0; i < 20; i++) uv_run(&world->loop, UV_RUN_NOWAIT);
}

address loopback(int port) {
  return (address){{IO_ADDRESS_IPV4, 127, 0, 0, 1, (uint8_t)(port >> 8), (uint8_t)port}};
}

int port_of(int descriptor) {
  char ip[IO_IP_TEXT_BYTES];
  int port = io_socket_name(descriptor, false, ip);
  assert_true(port > 0);
  return port;
}

#ifdef __linux__
void set_timestamps(int descriptor, int flags) {
  assert_int_equal(setsockopt(descriptor, SOL_SOCKET, SO_TIMESTAMPING, &flags, sizeof flags), 0);
}

bool has_error_condition(int descriptor) {
  struct pollfd descriptors = {.fd = descriptor};
  return poll(&descriptors, 1, 0) == 1 && (descriptors.revents & POLLERR) != 0;
}
#endif
