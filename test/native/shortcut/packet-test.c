// Shortcuts of devices, represented by one end of a pair of sockets that preserve packet boundaries.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../../native/io/loop/loop-state.h"
#include "../../../native/io/shortcut.h"
#include "../../../native/io/shortcut/capsule.h"
#include "../../../native/io/shortcut/packet.h"
#include "../../../native/io/shortcut/table.h"
#include "../../../native/io/stream.h"
#include "../../../native/io/tun.h"
#include "../world.h"

#define PACKETS 64
#define STREAM_BYTES 65536
#define MTU 1500
#define CONTEXT 70
#define TCP_PROTOCOL 6

static const uint8_t SOURCE4[] = {1, 198, 18, 0, 1, 0x12, 0x34}, REMOTE4[] = {1, 203, 0, 113, 5, 0, 53};
static const uint8_t SOURCE6[] = {4, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x12, 0x34};
static const uint8_t REMOTE6[] = {4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 53};

typedef struct packet_world {
  world world;
  io_tun_memory memory;
  // The context's end of each pair, and the program's.
  int device, other, stream, peer;
  bool has_virtio;
  uint8_t buffer[STREAM_BYTES];
  // What the caller received: packets, by their last byte; bytes.
  uint8_t packets[256];
  int packet_count;
  size_t read_bytes;
  bool resumes;
} packet_world;

static void on_packets(void *data, int count) {
  packet_world *world = data;
  for (int i = 0; i < count && world->packet_count < 256; i++) {
    int32_t end = world->memory.offsets[i] + world->memory.lengths[i];
    world->packets[world->packet_count++] = world->memory.arena[end - 1];
  }
}

static void on_read(void *data, ssize_t count) {
  packet_world *world = data;
  if (count <= 0) return;
  world->read_bytes += (size_t)count;
  if (world->resumes) io_shortcut_resume(world->world.io, world->stream);
}

static void on_writable(void *data) { (void)data; }

static const io_tun_callbacks TUN_CALLBACKS = {on_packets, NULL};
static const io_stream_callbacks STREAM_CALLBACKS = {on_read, on_writable, NULL};

static void pair(int type, int *one, int *other) {
  int ends[2];
  assert_int_equal(socketpair(AF_UNIX, type, 0, ends), 0);
  for (int i = 0; i < 2; i++) fcntl(ends[i], F_SETFL, O_NONBLOCK);
  *one = ends[0];
  *other = ends[1];
}

static int set_up_as(void **state, bool has_virtio) {
  packet_world *world = calloc(1, sizeof *world);
  world_begin(&world->world, NULL);
  pair(SOCK_SEQPACKET, &world->device, &world->other);
  pair(SOCK_STREAM, &world->stream, &world->peer);
  world->memory = (io_tun_memory){malloc(1 << 18), 1 << 18, malloc(PACKETS * sizeof(int32_t)),
                                  malloc(PACKETS * sizeof(int32_t)), PACKETS};
  io_loop *io = world->world.io;
  assert_int_equal(io_tun_watch(io, world->device, false, &world->memory, &TUN_CALLBACKS, world), 0);
  assert_int_equal(io_stream_open(io, world->stream, world->buffer, STREAM_BYTES, &STREAM_CALLBACKS, world), 0);
  const io_tun_format format = {MTU, has_virtio, has_virtio};
  assert_int_equal(io_tun_shortcuts(io, world->device, &format), 0);
  world->has_virtio = has_virtio;
  *state = world;
  return 0;
}

static int set_up(void **state) { return set_up_as(state, false); }
static int set_up_virtio(void **state) { return set_up_as(state, true); }

static int tear_down(void **state) {
  packet_world *world = *state;
  close(world->other);
  close(world->peer);
  world_finish(&world->world);
  free(world->memory.arena);
  free(world->memory.offsets);
  free(world->memory.lengths);
  free(world);
  return 0;
}

static io_shortcut_packets flow_of(const packet_world *world, bool is_ipv4) {
  return (io_shortcut_packets){.device = world->device,
                               .source = is_ipv4 ? SOURCE4 : SOURCE6,
                               .remote = is_ipv4 ? REMOTE4 : REMOTE6,
                               .address_bytes = is_ipv4 ? sizeof SOURCE4 : sizeof SOURCE6,
                               .stream = world->stream,
                               .context = CONTEXT};
}

static int32_t give_out(packet_world *world, bool is_ipv4) {
  io_shortcut_packets flow = flow_of(world, is_ipv4);
  return io_shortcut_packets_out(world->world.io, &flow);
}

static int32_t give_in(packet_world *world, bool is_ipv4) {
  io_shortcut_packets flow = flow_of(world, is_ipv4);
  return io_shortcut_packets_in(world->world.io, &flow);
}

// A packet of the application with this many bytes of one value. Returns its length. `segment`: bytes of each datagram, with virtio.
static size_t packet(const packet_world *world, uint8_t *to, bool is_ipv4, uint8_t value, size_t bytes, size_t segment) {
  const uint8_t *from = is_ipv4 ? SOURCE4 : SOURCE6, *target = is_ipv4 ? REMOTE4 : REMOTE6;
  size_t head = packet_write_headers(to, target, from, world->has_virtio, bytes, segment);
  memset(to + head, value, bytes);
  if (!world->has_virtio) packet_write_checksum(to, is_ipv4, to + head, bytes);
  return head + bytes;
}

static void send_bytes(packet_world *world, const uint8_t *bytes, size_t count) {
  assert_int_equal(send(world->other, bytes, count, 0), count);
}

static void send_packet(packet_world *world, bool is_ipv4, uint8_t value, size_t bytes) {
  uint8_t data[2048];
  send_bytes(world, data, packet(world, data, is_ipv4, value, bytes, bytes));
}

// Expects that the peer has received capsules with these payloads: pairs of a value and a length, up to a length of 0.
static void expect_capsules(packet_world *world, const size_t payloads[][2]) {
  static uint8_t expected[1 << 18], got[1 << 18];
  size_t length = 0, received = 0;
  for (; (*payloads)[1] > 0; payloads++) {
    uint8_t *to = capsule_write_header(expected + length, CONTEXT, (*payloads)[1]);
    memset(to, (int)(*payloads)[0], (*payloads)[1]);
    length = (size_t)(to - expected) + (*payloads)[1];
  }
  for (int i = 0; i < 20; i++) {
    world_settle(&world->world);
    ssize_t count = recv(world->peer, got + received, sizeof got - received, 0);
    if (count > 0) received += (size_t)count;
  }
  assert_int_equal(received, length);
  assert_memory_equal(got, expected, length);
}

static void send_capsules(packet_world *world, const size_t payloads[][2]) {
  static uint8_t bytes[1 << 16];
  size_t length = 0;
  for (; (*payloads)[1] > 0; payloads++) {
    uint8_t *to = capsule_write_header(bytes + length, CONTEXT, (*payloads)[1]);
    memset(to, (int)(*payloads)[0], (*payloads)[1]);
    length = (size_t)(to - bytes) + (*payloads)[1];
  }
  assert_int_equal(send(world->peer, bytes, length, 0), length);
}

// Expects a packet in the device: from the remote, with a correct checksum and these bytes.
static void expect_packet(packet_world *world, bool is_ipv4, uint8_t value, size_t bytes) {
  uint8_t expected[2048], got[2048];
  const uint8_t *source = is_ipv4 ? SOURCE4 : SOURCE6, *remote = is_ipv4 ? REMOTE4 : REMOTE6;
  size_t head = packet_write_headers(expected, source, remote, world->has_virtio, bytes, bytes);
  memset(expected + head, value, bytes);
  if (!world->has_virtio) packet_write_checksum(expected, is_ipv4, expected + head, bytes);
  world_settle(&world->world);
  assert_int_equal(recv(world->other, got, sizeof got, 0), head + bytes);
  assert_memory_equal(got, expected, head + bytes);
  udp_packet read;
  if (!world->has_virtio) assert_int_equal(packet_read(got, head + bytes, false, &read), PACKET_UDP);
}

static void counts_are(packet_world *world, double datagrams, double bytes, double packets) {
  double row[IO_SHORTCUT_COUNT_NUMBERS];
  assert_int_equal(io_shortcut_counts(world->world.io, row, 1), 1);
  assert_true(row[1] == datagrams && row[2] == bytes && row[6] == packets);
}

static void packets_of_a_flow_go_to_the_stream_as_capsules_and_the_caller_is_not_called(void **state) {
  packet_world *world = *state;
  for (int is_ipv4 = 0; is_ipv4 < 2; is_ipv4++) {
    assert_true(give_out(world, is_ipv4) >= 0);
    send_packet(world, is_ipv4, 1, 100);
    send_packet(world, is_ipv4, 2, 1);
    expect_capsules(world, (const size_t[][2]){{1, 100}, {2, 1}, {0, 0}});
    counts_are(world, 2, 101, 2);
  }
  assert_int_equal(world->packet_count, 0);
}

static void a_packet_of_many_datagrams_goes_as_that_many_capsules(void **state) {
  packet_world *world = *state;
  uint8_t data[8192];
  assert_true(give_out(world, true) >= 0);
  send_bytes(world, data, packet(world, data, true, 7, 3100, 1000));
  expect_capsules(world, (const size_t[][2]){{7, 1000}, {7, 1000}, {7, 1000}, {7, 100}, {0, 0}});
  counts_are(world, 4, 3100, 1);
  // More than the kernel produces.
  send_bytes(world, data, packet(world, data, true, 7, 129, 1));
  RUN_UNTIL(&world->world, world->packet_count == 1);
}

static void a_packet_of_another_flow_is_the_caller_s_and_what_follows_of_the_flow_is_carried(void **state) {
  packet_world *world = *state;
  uint8_t tcp[40] = {0x45, [9] = TCP_PROTOCOL, [39] = 9}, other[256];
  assert_true(give_out(world, true) >= 0);
  send_bytes(world, tcp, sizeof tcp);
  send_packet(world, false, 1, 10);
  send_packet(world, true, 2, 20);
  size_t length = packet(world, other, true, 3, 10, 10);
  other[PACKET_IPV4_BYTES + 1]++;
  other[PACKET_IPV4_BYTES + 7]--;
  send_bytes(world, other, length);
  send_packet(world, true, 4, 20);
  RUN_UNTIL(&world->world, world->packet_count == 3);
  assert_memory_equal(world->packets, ((uint8_t[]){9, 1, 3}), 3);
  expect_capsules(world, (const size_t[][2]){{2, 20}, {4, 20}, {0, 0}});
}

// Changes a packet of one flow into one that has to go to the caller.
typedef void change(uint8_t *packet, size_t *length);
static void is_fragment(uint8_t *packet, size_t *length) { (void)length, packet[6] = 0x20, packet[10] += 0x20; }
static void has_dscp(uint8_t *packet, size_t *length) { (void)length, packet[1] = 0xb8, packet[11] -= 0xb8; }
static void has_last_hop(uint8_t *packet, size_t *length) { (void)length, packet[8] = 1, packet[10] += 63; }
static void has_bad_sum(uint8_t *packet, size_t *length) { packet[*length - 1] ^= 1; }
static void has_no_sum(uint8_t *packet, size_t *length) { (void)length, memset(packet + 26, 0, 2); }
static void has_bad_header_sum(uint8_t *packet, size_t *length) { (void)length, packet[11] ^= 1; }
static void has_options(uint8_t *packet, size_t *length) { (void)length, packet[0] = 0x46; }
static void is_cut(uint8_t *packet, size_t *length) { (void)packet, (*length)--; }
static void is_longer(uint8_t *packet, size_t *length) { packet[(*length)++] = 0; }
static void has_short_udp(uint8_t *packet, size_t *length) { (void)length, packet[25]--; }
static void is_of_another_protocol(uint8_t *packet, size_t *length) { (void)length, packet[9] = 132; }

static void behind_a_packet_that_may_be_of_the_flow_all_is_the_caller_s(void **state) {
  packet_world *world = *state;
  change *changes[] = {is_fragment,        has_dscp,    has_last_hop, has_bad_sum, has_no_sum,    has_bad_header_sum,
                       has_options,        is_cut,      is_longer,    has_short_udp, is_of_another_protocol};
  assert_true(give_out(world, true) >= 0);
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
    uint8_t data[256];
    size_t length = packet(world, data, true, 2, 50, 50);
    changes[i](data, &length);
    world->packet_count = 0;
    send_packet(world, true, 1, 50);
    send_bytes(world, data, length);
    send_packet(world, true, 3, 50);
    RUN_UNTIL(&world->world, world->packet_count == 2);
    assert_int_equal(world->packets[1], 3);
    send_packet(world, true, 4, 50);
    expect_capsules(world, (const size_t[][2]){{1, 50}, {4, 50}, {0, 0}});
    assert_int_equal(world->packet_count, 2);
  }
}

static void capsules_become_packets_up_to_the_mtu_once_the_caller_resumes(void **state) {
  packet_world *world = *state;
  world->resumes = true;
  for (int is_ipv4 = 0; is_ipv4 < 2; is_ipv4++) {
    size_t most = MTU - PACKET_UDP_BYTES - (is_ipv4 ? PACKET_IPV4_BYTES : PACKET_IPV6_BYTES);
    assert_true(give_in(world, is_ipv4) >= 0);
    if (is_ipv4 == 0) io_shortcut_resume(world->world.io, world->stream);
    send_capsules(world, (const size_t[][2]){{1, 33}, {2, most}, {0, 0}});
    expect_packet(world, is_ipv4, 1, 33);
    expect_packet(world, is_ipv4, 2, most);
    double row[IO_SHORTCUT_COUNT_NUMBERS];
    while (io_shortcut_counts(world->world.io, row, 1) > 0 && row[5] != 0) continue;
    assert_true(row[1] == 2 && row[6] == 2);
    assert_int_equal(world->read_bytes, 0);
    send_capsules(world, (const size_t[][2]){{3, most + 1}, {4, 10}, {0, 0}});
    RUN_UNTIL(&world->world, world->read_bytes > 0);
    assert_int_equal(world->read_bytes, capsule_bytes(CONTEXT, most + 1) + capsule_bytes(CONTEXT, 10));
    world->read_bytes = 0;
    send_capsules(world, (const size_t[][2]){{5, 10}, {0, 0}});
    expect_packet(world, is_ipv4, 5, 10);
    assert_int_equal(io_shortcut_counts(world->world.io, row, 1), 1);
  }
}

static void datagrams_of_one_size_become_one_packet_where_the_system_splits_it(void **state) {
  packet_world *world = *state;
  uint8_t got[65600];
  // With the lengths of the resulting packets.
  static const struct {
    size_t payloads[6][2];
    size_t packets[4];
  } cases[] = {{{{1, 100}, {2, 100}, {3, 50}, {4, 50}, {5, 60}}, {250, 50, 60}}, {{{1, 10}}, {10}}, {{{1, 10}, {2, 20}}, {10, 20}}};
  assert_true(give_in(world, true) >= 0);
  io_shortcut_resume(world->world.io, world->stream);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    send_capsules(world, cases[i].payloads);
    world_settle(&world->world);
    const uint8_t head = PACKET_VIRTIO_BYTES + PACKET_IPV4_BYTES + PACKET_UDP_BYTES;
    for (const size_t *length = cases[i].packets; *length > 0; length++) {
      assert_int_equal(recv(world->other, got, sizeof got, 0), head + *length);
      assert_int_equal(got[1], *length == 250 ? PACKET_GSO_UDP_L4 : PACKET_GSO_NONE);
      assert_int_equal(read_le16(got + 4), *length == 250 ? 100 : 0);
    }
    assert_int_equal(recv(world->other, got, sizeof got, 0), -1);
  }
  assert_int_equal(world->read_bytes, 0);
}

static void packets_that_the_device_does_not_take_are_reported_with_the_caller_s_next(void **state) {
  packet_world *world = *state;
  assert_true(give_in(world, true) >= 0);
  io_shortcut_resume(world->world.io, world->stream);
  shutdown(world->other, SHUT_RD);
  send_capsules(world, (const size_t[][2]){{1, 10}, {2, 10}, {0, 0}});
  world_settle(&world->world);
  const io_tun_batch none = {.count = 0};
  assert_int_equal(io_tun_write(world->world.io, world->device, &none), 2);
  assert_int_equal(io_tun_write(world->world.io, world->device, &none), 0);
}

static void closing_the_device_ends_its_shortcuts(void **state) {
  packet_world *world = *state;
  double rows[4][IO_SHORTCUT_COUNT_NUMBERS];
  assert_true(give_out(world, true) >= 0 && give_in(world, true) >= 0);
  io_tun_close(world->world.io, world->device);
  assert_int_equal(io_shortcut_counts(world->world.io, &rows[0][0], 4), 2);
  assert_true(rows[0][5] == 1 && rows[1][5] == 1);
  assert_int_equal(give_out(world, true), -1);
}

static void what_is_not_valid_gets_no_shortcut(void **state) {
  packet_world *world = *state;
  io_shortcut_packets flow = flow_of(world, true);
  io_loop *io = world->world.io;
  io_shortcut_packets wrong[6] = {flow, flow, flow, flow, flow, flow};
  wrong[0].device = world->stream;
  wrong[1].address_bytes = sizeof SOURCE6;
  wrong[2].dscp = 64;
  wrong[3].stream = world->device;
  wrong[4].context = -1;
  wrong[5].remote = REMOTE6;
  for (int i = 0; i < 6; i++) assert_int_equal(io_shortcut_packets_out(io, &wrong[i]), -1);
  const io_tun_format none = {0, false, false};
  assert_int_equal(io_tun_shortcuts(io, world->device, &none), UV_EINVAL);
  assert_int_equal(io_tun_shortcuts(io, world->stream, &(io_tun_format){MTU, false, false}), UV_EINVAL);
}

// In memory of the exact size, for a sanitizer.
static void packets_of_any_bytes_are_read_within_their_bounds(void **state) {
  packet_world *world = *state;
  unsigned seed = 7;
  int whole = 0;
  for (int i = 0; i < 200000; i++) {
    uint8_t data[256];
    bool is_ipv4 = i % 2 == 0;
    size_t length = packet(world, data, is_ipv4, (uint8_t)i, (size_t)(rand_r(&seed) % 120), (size_t)(1 + rand_r(&seed) % 120));
    for (int change = rand_r(&seed) % 4; change > 0; change--) data[(size_t)rand_r(&seed) % length] = (uint8_t)rand_r(&seed);
    if (rand_r(&seed) % 4 == 0) length = 1 + (size_t)rand_r(&seed) % length;
    uint8_t *exact = malloc(length);
    memcpy(exact, data, length);
    udp_packet read;
    if (packet_read(exact, length, world->has_virtio, &read) == PACKET_UDP) {
      whole++;
      assert_true(read.payload >= exact && read.payload + read.payload_bytes == exact + length);
    }
    free(exact);
  }
  assert_true(whole > 10000);
}

// An IPv6 packet may be longer than a DATAGRAM capsule.
static void a_datagram_that_no_capsule_may_contain_is_the_caller_s(void **state) {
  packet_world *world = *state;
  for (size_t bytes = 65507; bytes <= 65508; bytes++) {
    uint8_t *data = malloc(bytes + 128);
    udp_packet read;
    size_t length = packet(world, data, false, 1, bytes, bytes);
    assert_int_equal(packet_read(data, length, world->has_virtio, &read), bytes == 65507 ? PACKET_UDP : PACKET_UNCLEAR);
    free(data);
  }
}

int packet_shortcut_tests(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define VIRTIO(name) cmocka_unit_test_setup_teardown(name, set_up_virtio, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(packets_of_a_flow_go_to_the_stream_as_capsules_and_the_caller_is_not_called),
      VIRTIO(packets_of_a_flow_go_to_the_stream_as_capsules_and_the_caller_is_not_called),
      VIRTIO(a_packet_of_many_datagrams_goes_as_that_many_capsules),
      TEST(a_packet_of_another_flow_is_the_caller_s_and_what_follows_of_the_flow_is_carried),
      TEST(behind_a_packet_that_may_be_of_the_flow_all_is_the_caller_s),
      TEST(capsules_become_packets_up_to_the_mtu_once_the_caller_resumes),
      VIRTIO(datagrams_of_one_size_become_one_packet_where_the_system_splits_it),
      TEST(packets_that_the_device_does_not_take_are_reported_with_the_caller_s_next),
      TEST(closing_the_device_ends_its_shortcuts),
      TEST(what_is_not_valid_gets_no_shortcut),
      TEST(a_datagram_that_no_capsule_may_contain_is_the_caller_s),
      VIRTIO(a_datagram_that_no_capsule_may_contain_is_the_caller_s),
      TEST(packets_of_any_bytes_are_read_within_their_bounds),
      VIRTIO(packets_of_any_bytes_are_read_within_their_bounds),
  };
  return cmocka_run_group_tests_name("shortcuts of devices", tests, NULL, NULL);
}
