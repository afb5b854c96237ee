// TCP connections that end here although no kernel receives their packets: lwIP, for packets from a pipe, a Unix socket or an
// application's callbacks. Packets arrive and leave in batches, bytes of connections are rows over one buffer, and time is an
// argument: a stack opens nothing, has no timer, and needs no io_loop.
//
// The caller knows each connection by a number, which it chooses with the first packet (0 to max_flows - 1) and finds for every
// later one; it also decides whether there may be another connection. Any address and port is accepted. The caller has checked IP
// headers and reassembled fragments; the stack checks TCP.
//
// Threads: one thread at a time uses a stack. lwIP has global variables, so each call holds one lock of the process, and stacks of
// several threads take turns.
//
// After each call that takes a stack, call io_tcp_stack_poll_events and io_tcp_stack_poll_packets until both return 0. Then set one
// timer for io_tcp_stack_next_timeout. Nothing calls back.
//
// Errors are libuv's numbers. If it is compiled without lwIP (UNDERPASS_LWIP is not defined), io_tcp_stack_create returns
// UV_ENOTSUP.
#ifndef UNDERPASS_IO_TCP_STACK_H
#define UNDERPASS_IO_TCP_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct io_tcp_stack io_tcp_stack;

// The largest MTU for which a stack fills packets.
#define IO_TCP_STACK_MAX_MTU 65000

typedef struct io_tcp_stack_options {
  // Of the device, at least 576; determines the MSS of both directions.
  int mtu;
  // Virtio-net headers of 10 bytes precede packets, both ways: longer packets arrive and leave with their offloads.
  bool has_virtio;
  uint32_t max_flows;
  // Limit for connections and all data that waits in either direction. Beyond it, segments are dropped, which their senders repeat,
  // and no bytes are accepted for sending.
  size_t memory_bytes;
  // Random bytes, for initial sequence numbers (RFC 6528).
  uint8_t secret[16];
} io_tcp_stack_options;

// Lent until io_tcp_stack_free.
typedef struct io_tcp_stack_memory {
  // Packets to send: at least 128 KiB, and the place of each packet.
  uint8_t *packets;
  size_t packet_bytes;
  int32_t *offsets, *lengths;
  size_t capacity;
  // Bytes that connections have received: at least 128 KiB.
  uint8_t *received;
  size_t received_bytes;
  // Events of IO_TCP_STACK_EVENT_INTS each, at least 8.
  int32_t *events;
  size_t event_capacity;
} io_tcp_stack_memory;

// A row of events: the flow, what happened, and two numbers.
#define IO_TCP_STACK_EVENT_INTS 4
enum {
  // The handshake is complete: the connection exists. It starts paused.
  IO_TCP_STACK_ACCEPTED,
  // Bytes arrived: offset in `received`, and length. They count as consumed, so the peer may send as many again.
  IO_TCP_STACK_BYTES,
  // The peer has ended, after all that it sent. Written bytes are still sent.
  IO_TCP_STACK_ENDED,
  // More can be written, after the flow was full.
  IO_TCP_STACK_WRITABLE,
  // The connection is gone; no event follows, and the number is free. 0 after an orderly end by both sides, or a system error:
  // UV_ECONNRESET, UV_ETIMEDOUT, UV_ENOMEM.
  IO_TCP_STACK_CLOSED
};

// True if it is compiled with lwIP, so stacks exist. May be called from any thread.
bool io_tcp_stack_is_there(void);

int io_tcp_stack_create(const io_tcp_stack_options *options, const io_tcp_stack_memory *memory, io_tcp_stack **result);

// Forgets all connections, silently.
void io_tcp_stack_free(io_tcp_stack *stack);

// Rows of segments to handle: flow, offset of the packet (or of its virtio-net header), offset of its TCP header, end.
#define IO_TCP_STACK_SEGMENT_INTS 4

// `now_ms`, here and below: the caller's clock, in milliseconds, which does not go back. Takes segments, and changes their memory,
// which is borrowed until the call returns. Rows that are not valid are dropped.
void io_tcp_stack_handle_segments(io_tcp_stack *stack, double now_ms, uint8_t *data, size_t data_bytes, const int32_t *rows,
                                  size_t count);

// Returns how many bytes were accepted, or UV_EPIPE when the connection is gone or this side has ended. The bytes are copied.
int64_t io_tcp_stack_write(io_tcp_stack *stack, double now_ms, uint32_t flow, const uint8_t *bytes, size_t length);

// True if the last write was not accepted completely, or the next one may not be; IO_TCP_STACK_WRITABLE follows.
bool io_tcp_stack_is_full(const io_tcp_stack *stack, uint32_t flow);

// Ends writing.
void io_tcp_stack_end(io_tcp_stack *stack, double now_ms, uint32_t flow);

// While paused, received bytes are not reported, and once the window is full the peer has to wait.
void io_tcp_stack_pause(io_tcp_stack *stack, uint32_t flow, bool is_paused);

// Ends both directions: accepted bytes are still sent; a peer that sends more gets a RST. Only IO_TCP_STACK_CLOSED follows, once
// the peer has acknowledged everything.
void io_tcp_stack_close(io_tcp_stack *stack, double now_ms, uint32_t flow);

// Forgets a connection at once, silently or with a RST to its peer. No event follows, and the number is free.
void io_tcp_stack_drop(io_tcp_stack *stack, uint32_t flow, bool has_reset);

void io_tcp_stack_handle_timeout(io_tcp_stack *stack, double now_ms);

// The time for the next io_tcp_stack_handle_timeout, on the same clock; infinite for never.
double io_tcp_stack_next_timeout(const io_tcp_stack *stack);

// The number of packets to send. They are valid until the next call of this function, which also sends what found no room before.
int32_t io_tcp_stack_poll_packets(io_tcp_stack *stack);

// The number of events. They and their bytes are valid until the next call of this function.
int32_t io_tcp_stack_poll_events(io_tcp_stack *stack);

enum {
  IO_TCP_STACK_COUNT_BAD_CHECKSUM,  // segments with a wrong checksum
  IO_TCP_STACK_COUNT_MALFORMED,     // segments whose header is not valid
  IO_TCP_STACK_COUNT_NO_MEMORY,     // segments beyond the bound of memory
  IO_TCP_STACK_COUNT_RESETS,        // RSTs sent
  IO_TCP_STACK_COUNT_PACKETS,       // packets sent
  IO_TCP_STACK_COUNTS
};

// Fills in the counts since the start.
void io_tcp_stack_counts(const io_tcp_stack *stack, double counts[IO_TCP_STACK_COUNTS]);

// Bytes that connections and their waiting data occupy now.
size_t io_tcp_stack_memory_used(const io_tcp_stack *stack);

#endif
