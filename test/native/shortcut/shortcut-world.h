// The world of the tests of shortcuts: a UDP socket and a stream of one context, and the programs at their other ends.
#ifndef SHORTCUT_WORLD_H
#define SHORTCUT_WORLD_H

#include "../../../native/io/shortcut.h"
#include "../../../native/io/stream.h"
#include "../../../native/io/udp.h"
#include "../world.h"

#define MAX_HEARD 512
#define STREAM_BYTES 65536
// Length of a SOCKS5 header with an IPv4 address.
#define HEADER_BYTES 10
extern const uint8_t HEADER[HEADER_BYTES];

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

extern const io_stream_callbacks STREAM_CALLBACKS;

int bound(int type);
// A TCP connection with small buffers.
void connect_pair(int *one, int *other);
io_shortcut_flow flow_in_world(const shortcut_world *world, int32_t context, size_t header_bytes);
int32_t give_out(shortcut_world *world, int32_t context, size_t header_bytes);
int32_t give_in(shortcut_world *world, int32_t context, size_t header_bytes);
// A datagram of the program: a header, if any, and this many bytes of one value.
void send_from(shortcut_world *world, int descriptor, size_t header_bytes, uint8_t value, size_t bytes);
void send_app(shortcut_world *world, uint8_t value, size_t bytes);
// The datagram that the program has received: its length, and the value of its last byte; -1 for none.
ssize_t app_receives(shortcut_world *world, uint8_t *data, size_t capacity);
// A DATAGRAM capsule. Returns its length.
size_t put_capsule(uint8_t *to, uint32_t context, uint8_t value, size_t bytes);
void send_peer(shortcut_world *world, const uint8_t *bytes, size_t count);
// Takes the bytes that the peer has received. Returns how many.
size_t peer_receives(shortcut_world *world, uint8_t *to, size_t capacity);
void expect_capsule(shortcut_world *world, uint32_t context, uint8_t value, size_t bytes);
int32_t counts(shortcut_world *world, double rows[][IO_SHORTCUT_COUNT_NUMBERS], int32_t capacity);
// Fills the stream through shortcuts until datagrams go to the caller. Returns how many went to the stream.
size_t fill(shortcut_world *world);
// Takes the capsules that arrive at the peer until it has this many, and checks that they are complete and in order. `extra`: bytes after
// them.
void drain(shortcut_world *world, size_t capsules, uint32_t context, const uint8_t *extra, size_t extra_bytes);

int shortcut_set_up(void **state);
int shortcut_tear_down(void **state);
#define SHORTCUT_TEST(name) cmocka_unit_test_setup_teardown(name, shortcut_set_up, shortcut_tear_down)

#endif
