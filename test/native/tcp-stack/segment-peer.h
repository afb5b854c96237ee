// A TCP stack of native/io with one peer that sends the test's segments and reads the answers.
#ifndef UNDERPASS_TEST_SEGMENT_PEER_H
#define UNDERPASS_TEST_SEGMENT_PEER_H

#include "../../../native/io/tcp-stack.h"
#include "../world.h"

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32 };

#define PEER_PACKETS 2048
#define PEER_PACKET_BYTES (1 << 20)
#define PEER_RECEIVED_BYTES (1 << 20)
#define PEER_EVENTS 64

// A segment that the stack has sent.
typedef struct seen_segment {
  uint8_t flags;
  uint32_t sequence, acknowledgment;
  uint32_t window;
  size_t length;
  // Options: 0 or -1 for none.
  int mss, scale, sack_permitted, sacks;
  uint32_t sack[8];
  uint8_t data[65536];
} seen_segment;

typedef struct segment_peer {
  io_tcp_stack *stack;
  io_tcp_stack_memory memory;
  bool is_ipv6, has_virtio;
  double now;
  // The connection that the helpers below use.
  uint32_t flow;
  uint16_t port, target_port;
  // Its next number, and the next number that it expects from the stack.
  uint32_t sequence, acknowledgment;
  uint16_t window;
  // The scale of the stack's window, from its SYN.
  int scale;
  // Segments that have not been examined.
  seen_segment seen[64];
  int seen_count, seen_next;
  // Events of the flow.
  int accepted, ended, writable, closed, error;
  size_t received;
  uint64_t sum;
  // Rows about other flows.
  int others;
} segment_peer;

typedef struct peer_options {
  int mtu;
  bool is_ipv6, has_virtio;
  size_t memory_bytes;
} peer_options;

segment_peer *peer_new(const peer_options *options);
void peer_free(segment_peer *peer);

// Sends one segment, with `options_bytes` of options, a multiple of 4; then collects segments and events.
void peer_send(segment_peer *peer, uint8_t flags, uint32_t sequence, const uint8_t *data, size_t length);
void peer_send_options(segment_peer *peer, uint8_t flags, uint32_t sequence, const uint8_t *options, size_t options_bytes,
                       const uint8_t *data, size_t length);
// Writes the packet that the next call would send, and returns its length. The TCP header's offset goes into `transport`.
size_t peer_build(const segment_peer *peer, uint8_t *packet, uint8_t flags, uint32_t sequence, const uint8_t *options,
                  size_t options_bytes, const uint8_t *data, size_t length, size_t *transport);
void peer_give(segment_peer *peer, uint8_t *packet, size_t length, size_t transport);

// Collects the stack's output.
void peer_collect(segment_peer *peer);
// Lets time pass, and handles timers when they are due.
void peer_pass(segment_peer *peer, double ms);

// Returns the next segment that the stack has sent; fails if there is none.
#define peer_next(peer) peer_next_at(peer, __FILE__, __LINE__)
const seen_segment *peer_next_at(segment_peer *peer, const char *file, int line);
// The last one.
const seen_segment *peer_last(segment_peer *peer);
#define peer_expect_nothing(peer) assert_int_equal((peer)->seen_next, (peer)->seen_count)

// Acknowledges a segment that the stack has sent, and those before it, with the next segment that the test sends.
void peer_acknowledge(segment_peer *peer, const seen_segment *seen);

// A whole handshake with MSS 1460, window scale 0 and SACK; the flow is not paused afterwards.
void peer_connect(segment_peer *peer);

// What tests send if the bytes do not matter.
extern const uint8_t ZEROS[65536];

// A test of one peer, over IPv4 and over IPv6.
int peer_setup(void **state);
int peer_setup_ipv6(void **state);
int peer_teardown(void **state);
#define PEER_TESTS(test) cmocka_unit_test_setup_teardown(test, peer_setup, peer_teardown), \
  {#test " (IPv6)", test, peer_setup_ipv6, peer_teardown, NULL}

#endif
