#include "world.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/sockios.h>
#endif

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

static void report_condition(uv_handle_t *handle, void *argument) {
  (void)argument;
  uv_poll_t *poll = (uv_poll_t *)handle;
  if (handle->type != UV_POLL || !uv_is_active(handle)) return;
  uv_poll_stop(poll);
  poll->poll_cb(poll, UV_EBADF, 0);
}

void report_conditions(world *world) {
  uv_walk(&world->loop, report_condition, NULL);
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

// The number of the next byte that TCP sends.
static bool next_number(int descriptor, uint32_t *number) {
  int on = 1, off = -1, send_queue = 2, unsent = 0;
  socklen_t length = sizeof *number;
  if (setsockopt(descriptor, IPPROTO_TCP, TCP_REPAIR, &on, sizeof on) != 0) return false;
  assert_int_equal(setsockopt(descriptor, IPPROTO_TCP, TCP_REPAIR_QUEUE, &send_queue, sizeof send_queue), 0);
  assert_int_equal(getsockopt(descriptor, IPPROTO_TCP, TCP_QUEUE_SEQ, number, &length), 0);
  // Without a window probe.
  assert_int_equal(setsockopt(descriptor, IPPROTO_TCP, TCP_REPAIR, &off, sizeof off), 0);
  assert_int_equal(ioctl(descriptor, SIOCOUTQNSD, &unsent), 0);
  *number -= (uint32_t)unsent;
  return true;
}

bool report_unreachable(int descriptor) {
  struct sockaddr_in own, peer;
  socklen_t own_bytes = sizeof own, peer_bytes = sizeof peer;
  uint32_t number;
  int icmp = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
  if (icmp < 0) return false;
  if (!next_number(descriptor, &number)) {
    close(icmp);
    return false;
  }
  assert_int_equal(getsockname(descriptor, (struct sockaddr *)&own, &own_bytes), 0);
  assert_int_equal(getpeername(descriptor, (struct sockaddr *)&peer, &peer_bytes), 0);
  // Destination unreachable, host; the header of an IPv4 packet; ports and the sequence number.
  uint8_t message[8 + 20 + 8] = {3, 1, [8] = 0x45, [8 + 3] = 40, [8 + 8] = 64, [8 + 9] = IPPROTO_TCP};
  memcpy(message + 8 + 12, &own.sin_addr, 4);
  memcpy(message + 8 + 16, &peer.sin_addr, 4);
  memcpy(message + 28, &own.sin_port, 2);
  memcpy(message + 30, &peer.sin_port, 2);
  uint32_t wire = htonl(number);
  memcpy(message + 32, &wire, 4);
  uint32_t sum = 0;
  for (size_t i = 0; i < sizeof message; i += 2) sum += (uint32_t)(message[i] << 8 | message[i + 1]);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  message[2] = (uint8_t)(~sum >> 8);
  message[3] = (uint8_t)~sum;
  assert_int_equal(sendto(icmp, message, sizeof message, 0, (struct sockaddr *)&own, sizeof own), sizeof message);
  close(icmp);
  return true;
}
#endif
