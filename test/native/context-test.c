#include <stdlib.h>
#include <string.h>

#include "../../native/io/interfaces.h"
#include "../../native/io/tcp.h"
#include "../../native/io/udp.h"
#include "world.h"

#define CONTEXTS 200
#define THREADS 4

static void ignore_count(void *data, int32_t count) {
  (void)data, (void)count;
}

static void ignore_descriptor(void *data, int descriptor) {
  (void)data;
  if (descriptor >= 0) io_descriptor_close(descriptor);
}

static void count_release(void *data) {
  int *released = data;
  ++*released;
}

static const io_udp_callbacks udp_callbacks = {ignore_count, ignore_count, count_release};
static const io_listener_callbacks listener_callbacks = {ignore_descriptor, count_release};

typedef struct context {
  io_loop *io;
  io_udp_memory memory;
  int released, ended;
} context;

static void on_ended(void *data) {
  context *context = data;
  context->ended++;
}

static bool has_ended(const context *contexts) {
  for (int i = 0; i < CONTEXTS; i++) {
    if (contexts[i].ended == 0) return false;
  }
  return true;
}

static void two_hundred_contexts_share_a_loop_and_nothing_else(void **state) {
  (void)state;
  world world;
  world_begin(&world, NULL);
  context *contexts = calloc(CONTEXTS, sizeof *contexts);
  // Nothing is received, so all may lend the same memory.
  io_udp_memory memory = {malloc(IO_UDP_ARENA_BYTES), malloc(IO_UDP_RECEIVE_ROWS * IO_UDP_RECEIVE_ROW_INTS * sizeof(int32_t)),
                          malloc(IO_UDP_ADDRESSES_BYTES), malloc(IO_UDP_ERROR_ROWS * IO_UDP_ERROR_ROW_INTS * sizeof(int32_t))};
  address any = loopback(0);
  for (int i = 0; i < CONTEXTS; i++) {
    context *each = &contexts[i];
    assert_int_equal(io_loop_create(&world.loop, NULL, &each->io), 0);
    assert_int_equal(io_udp_setup(each->io, &memory, &udp_callbacks, &each->released), 0);
    io_udp_options options = {.address = any.bytes, .address_bytes = sizeof any.bytes};
    // Each context has its own numbers.
    assert_int_equal(io_udp_open(each->io, &options), 0);
    assert_true(io_tcp_listen(each->io, any.bytes, sizeof any.bytes, false, 4, &listener_callbacks, &each->released) >= 0);
  }
  for (int i = 0; i < CONTEXTS; i++) io_loop_end(contexts[i].io, on_ended, &contexts[i]);
  RUN_UNTIL(&world, has_ended(contexts));
  for (int i = 0; i < CONTEXTS; i++) {
    assert_int_equal(contexts[i].released, 2);
    assert_int_equal(contexts[i].ended, 1);
  }
  free(contexts);
  free(memory.arena);
  free(memory.rows);
  free(memory.addresses);
  free(memory.errors);
  world_finish(&world);
}

static void a_context_without_handles_ends(void **state) {
  (void)state;
  world world;
  world_begin(&world, NULL);
  // Nothing keeps the loop alive.
  assert_int_equal(uv_run(&world.loop, UV_RUN_DEFAULT), 0);
  world_finish(&world);
}

static void a_thousand_contexts_leave_no_descriptor(void **state) {
  (void)state;
  address any = loopback(0);
  for (int i = 0; i < 1000; i++) {
    int released = 0;
    world world;
    world_begin(&world, NULL);
    assert_true(io_tcp_listen(world.io, any.bytes, sizeof any.bytes, false, 4, &listener_callbacks, &released) >= 0);
    world_finish(&world);
    assert_int_equal(released, 1);
  }
}

// A thread with a loop, a context and a connection to itself. Asserts would not end it, so it returns what it observed.
typedef struct thread_work {
  uv_thread_t thread;
  io_loop *io;
  int accepted, connected, released;
  bool has_ended;
} thread_work;

static void end_when_both(thread_work *work);

static void on_thread_ended(void *data) {
  thread_work *work = data;
  work->has_ended = true;
}

static void end_when_both(thread_work *work) {
  if (work->accepted == 20 && work->connected == 20) io_loop_end(work->io, on_thread_ended, work);
}

static void on_thread_accepted(void *data, int descriptor) {
  thread_work *work = data;
  io_descriptor_close(descriptor);
  work->accepted++;
  end_when_both(work);
}

static void on_thread_connected(void *data, int result) {
  thread_work *work = data;
  if (result >= 0) io_descriptor_close(result);
  work->connected += result >= 0;
  end_when_both(work);
}

static void on_thread_released(void *data) {
  thread_work *work = data;
  work->released++;
}

static void run_thread(void *data) {
  static const io_listener_callbacks accepting = {on_thread_accepted, on_thread_released};
  static const io_connect_callbacks connecting = {on_thread_connected, on_thread_released};
  thread_work *work = data;
  uv_loop_t loop;
  char ip[IO_IP_TEXT_BYTES];
  address any = loopback(0);
  if (uv_loop_init(&loop) != 0 || io_loop_create(&loop, NULL, &work->io) != 0) return;
  int listener = io_tcp_listen(work->io, any.bytes, sizeof any.bytes, false, 64, &accepting, work);
  address to = loopback(io_socket_name(listener, false, ip));
  for (int i = 0; i < 20; i++) io_tcp_connect(work->io, to.bytes, sizeof to.bytes, "", 0, &connecting, work);
  uv_run(&loop, UV_RUN_DEFAULT);
  if (uv_loop_close(&loop) != 0) work->has_ended = false;
}

static void threads_with_a_context_each_do_not_meet(void **state) {
  (void)state;
  thread_work work[THREADS];
  memset(work, 0, sizeof work);
  for (int i = 0; i < THREADS; i++) assert_int_equal(uv_thread_create(&work[i].thread, run_thread, &work[i]), 0);
  for (int i = 0; i < THREADS; i++) {
    uv_thread_join(&work[i].thread);
    assert_true(work[i].has_ended);
    assert_int_equal(work[i].released, 21);
  }
}

static void addresses_are_read_and_written(void **state) {
  (void)state;
  struct sockaddr_storage name;
  uint8_t bytes[IO_ADDRESS_MAX_BYTES];
  const uint8_t scoped[IO_SCOPED_IPV6_BYTES] = {IO_ADDRESS_IPV6, 0xfe, 0x80, [16] = 1, [17] = 0x12, [18] = 0x34, [22] = 5};
  assert_int_equal(io_scoped_address_to_sockaddr(scoped, sizeof scoped, &name), sizeof(struct sockaddr_in6));
  assert_int_equal(((struct sockaddr_in6 *)&name)->sin6_scope_id, 5);
  assert_int_equal(io_address_from_sockaddr(&name, bytes), IO_ADDRESS_IPV6_BYTES);
  assert_memory_equal(bytes, scoped, IO_ADDRESS_IPV6_BYTES);
  for (size_t length = 0; length < IO_ADDRESS_IPV6_BYTES; length++) {
    assert_int_equal(io_address_to_sockaddr(scoped, length, &name), 0);
  }
  assert_int_equal(io_zone_scope("no such interface"), UV_ENODEV);
  assert_int_equal(io_zone_scope(""), UV_ENODEV);
#ifdef __linux__
  assert_true(io_zone_scope("lo") > 0);
  const uint8_t here[4] = {127, 0, 0, 1}, documentation[4] = {192, 0, 2, 1};
  assert_true(io_address_is_local(here, 4));
  assert_false(io_address_is_local(documentation, 4));
  assert_int_equal(io_tcp_destroy_from(here, 5), UV_EINVAL);
  assert_int_equal(io_interface_address("lo", here, 4, 33), UV_EINVAL);
  assert_int_equal(io_interface_route("a name that is longer than any", here, 4, 8), UV_EINVAL);
  uint8_t address[4];
  assert_int_equal(io_interface_ipv4("lo", address), 0);
  assert_int_equal(address[0], 127);
#endif
}

int context_tests(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_context_without_handles_ends),
      cmocka_unit_test(two_hundred_contexts_share_a_loop_and_nothing_else),
      cmocka_unit_test(a_thousand_contexts_leave_no_descriptor),
      cmocka_unit_test(threads_with_a_context_each_do_not_meet),
      cmocka_unit_test(addresses_are_read_and_written),
  };
  return cmocka_run_group_tests_name("contexts", tests, NULL, NULL);
}
