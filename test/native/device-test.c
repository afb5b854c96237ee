// Devices, represented by one end of a pair of sockets that preserve packet boundaries.
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../native/io/tun.h"
#include "world.h"

#define PACKETS 8

typedef struct device_world {
  world world;
  io_tun_memory memory;
  int device, other;
  int packets, calls, result, released;
  uint8_t first[64];
  int32_t lengths[64];
  void (*then)(struct device_world *world);
} device_world;

static void on_packets(void *data, int count) {
  device_world *world = data;
  assert_int_equal(world->released, 0);
  world->calls++;
  if (count < 0) world->result = count;
  for (int i = 0; i < count; i++) {
    int32_t offset = world->memory.offsets[i], length = world->memory.lengths[i];
    assert_true(offset >= 0 && length > 0 && (size_t)(offset + length) <= world->memory.arena_bytes);
    world->first[world->packets] = world->memory.arena[offset];
    world->lengths[world->packets++] = length;
  }
  if (world->then != NULL) world->then(world);
}

static void on_released(void *data) {
  device_world *world = data;
  world->released++;
}

static const io_tun_callbacks callbacks = {on_packets, on_released};

static int set_up_as(void **state, bool has_family) {
  int pair[2];
  device_world *world = calloc(1, sizeof *world);
  world_begin(&world->world, NULL);
  assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
  for (int i = 0; i < 2; i++) fcntl(pair[i], F_SETFL, O_NONBLOCK);
  world->device = pair[0];
  world->other = pair[1];
  world->memory = (io_tun_memory){malloc(1 << 18), 1 << 18, malloc(PACKETS * sizeof(int32_t)),
                                  malloc(PACKETS * sizeof(int32_t)), PACKETS};
  assert_int_equal(io_tun_watch(world->world.io, pair[0], has_family, &world->memory, &callbacks, world), 0);
  *state = world;
  return 0;
}

static int set_up(void **state) {
  return set_up_as(state, false);
}

static int set_up_with_families(void **state) {
  return set_up_as(state, true);
}

static int tear_down(void **state) {
  device_world *world = *state;
  if (world->other >= 0) close(world->other);
  world_finish(&world->world);
  assert_int_equal(world->released, 1);
  free(world->memory.arena);
  free(world->memory.offsets);
  free(world->memory.lengths);
  free(world);
  return 0;
}

static void packets_arrive_in_order_and_no_more_a_call_than_there_is_room_for(void **state) {
  device_world *world = *state;
  for (int i = 0; i < 20; i++) {
    uint8_t packet[100] = {(uint8_t)(0x45 + i)};
    assert_int_equal(send(world->other, packet, (size_t)(20 + i), 0), 20 + i);
  }
  RUN_UNTIL(&world->world, world->packets == 20);
  assert_true(world->calls >= 3);
  for (int i = 0; i < 20; i++) {
    assert_int_equal(world->first[i], 0x45 + i);
    assert_int_equal(world->lengths[i], 20 + i);
  }
}

static int64_t write_packets(device_world *world) {
  static const uint8_t arena[40] = {0x45}, input[60] = {0x60};
  static const uint8_t is_input[] = {1, 0, 1, 0, 0};
  static const int32_t offsets[] = {0, 0, 20, -1, 30}, lengths[] = {60, 40, 50, 10, 11};
  io_tun_batch batch = {{arena, input}, {sizeof arena, sizeof input}, is_input, offsets, lengths, 5};
  return (int64_t)io_tun_write(world->world.io, world->device, &batch);
}

static void packets_of_either_memory_are_written_and_rows_that_lie_are_dropped(void **state) {
  device_world *world = *state;
  uint8_t packet[100];
  assert_int_equal(write_packets(world), 3);
  assert_int_equal(recv(world->other, packet, sizeof packet, 0), 60);
  assert_int_equal(packet[0], 0x60);
  assert_int_equal(recv(world->other, packet, sizeof packet, 0), 40);
  assert_int_equal(packet[0], 0x45);
}

static void a_family_precedes_each_packet_both_ways(void **state) {
  device_world *world = *state;
  uint8_t packet[100] = {0, 0, 8, 0, 0x45};
  // A packet with nothing but the family does not count.
  assert_int_equal(send(world->other, packet, 4, 0), 4);
  assert_int_equal(send(world->other, packet, 24, 0), 24);
  RUN_UNTIL(&world->world, world->packets == 1);
  assert_int_equal(world->first[0], 0x45);
  assert_int_equal(world->lengths[0], 20);
  write_packets(world);
  assert_int_equal(recv(world->other, packet, sizeof packet, 0), 64);
  assert_int_equal(packet[4], 0x60);
}

static void a_device_that_is_gone_is_reported_once(void **state) {
  device_world *world = *state;
  uint8_t packet[20] = {0x45};
  assert_int_equal(send(world->other, packet, sizeof packet, 0), 20);
  close(world->other);
  world->other = -1;
  RUN_UNTIL(&world->world, world->result < 0);
  assert_int_equal(world->packets, 1);
  int calls = world->calls;
  world_settle(&world->world);
  assert_int_equal(world->calls, calls);
}

static void a_device_that_fails_is_reported_with_its_own_error(void **state) {
  device_world *world = *state;
  int previous = world->device;
  int released = world->released;
  io_tun_close(world->world.io, previous);
  world->released = released;
  // A UDP socket whose peer refuses has an error condition, too.
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof to;
  int closed = socket(AF_INET, SOCK_DGRAM, 0);
  assert_int_equal(bind(closed, (struct sockaddr *)&to, sizeof to), 0);
  assert_int_equal(getsockname(closed, (struct sockaddr *)&to, &length), 0);
  close(closed);
  world->device = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  assert_int_equal(connect(world->device, (struct sockaddr *)&to, sizeof to), 0);
  assert_int_equal(io_tun_watch(world->world.io, world->device, false, &world->memory, &callbacks, world), 0);
  assert_int_equal(send(world->device, "", 1, 0), 1);
  RUN_UNTIL(&world->world, world->result < 0);
  assert_int_equal(world->result, UV_ECONNREFUSED);
}

static void close_device(device_world *world) {
  io_tun_close(world->world.io, world->device);
  assert_int_equal(world->released, 1);
  io_tun_close(world->world.io, world->device);
}

static void a_device_may_close_within_its_call(void **state) {
  device_world *world = *state;
  uint8_t packet[20] = {0x45};
  world->then = close_device;
  for (int i = 0; i < 20; i++) send(world->other, packet, sizeof packet, 0);
  close(world->other);
  world->other = -1;
  RUN_UNTIL(&world->world, world->released == 1);
  world_settle(&world->world);
  assert_int_equal(world->calls, 1);
  assert_int_equal(write_packets(world), 5);
}

static void end_context(device_world *world) {
  world_end_context(&world->world);
}

static void the_context_may_end_within_the_call_of_a_device_of_each_class(void **state) {
  device_world *world = *state;
  uint8_t packet[20] = {0x45};
  for (int latency = 2; latency >= 0; latency--) {
    int error = io_tun_latency(world->world.io, world->device, latency);
    assert_true(error == 0 || error == UV_ENOTSUP);
    int packets = world->packets;
    send(world->other, packet, sizeof packet, 0);
    RUN_UNTIL(&world->world, world->packets == packets + 1);
  }
  io_tun_latency(world->world.io, world->device, IO_LATENCY_BULK);
  world->then = end_context;
  send(world->other, packet, sizeof packet, 0);
  RUN_UNTIL(&world->world, world->world.ended == 1);
  assert_int_equal(world->packets, 4);
}

static void memory_that_is_too_small_is_refused(void **state) {
  device_world *world = *state;
  io_tun_memory less = world->memory;
  less.arena_bytes = IO_TUN_SLOT_BYTES - 1;
  assert_int_equal(io_tun_watch(world->world.io, world->other, false, &less, &callbacks, NULL), UV_EINVAL);
  less = world->memory;
  less.capacity = 0;
  assert_int_equal(io_tun_watch(world->world.io, world->other, false, &less, &callbacks, NULL), UV_EINVAL);
  assert_true(io_tun_watch(world->world.io, -1, false, &world->memory, &callbacks, NULL) < 0);
  io_tun_device device;
  assert_true(io_tun_open("a name that is longer than any", false, &device) < 0);
}

int device_tests(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(packets_arrive_in_order_and_no_more_a_call_than_there_is_room_for),
      TEST(packets_of_either_memory_are_written_and_rows_that_lie_are_dropped),
      cmocka_unit_test_setup_teardown(a_family_precedes_each_packet_both_ways, set_up_with_families, tear_down),
      TEST(a_device_that_is_gone_is_reported_once),
      TEST(a_device_that_fails_is_reported_with_its_own_error),
      TEST(a_device_may_close_within_its_call),
      TEST(the_context_may_end_within_the_call_of_a_device_of_each_class),
      TEST(memory_that_is_too_small_is_refused),
  };
  return cmocka_run_group_tests_name("devices", tests, NULL, NULL);
}
