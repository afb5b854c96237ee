// The parts of a stack that its files share.
#ifndef UNDERPASS_STACK_STATE_H
#define UNDERPASS_STACK_STATE_H

#ifdef UNDERPASS_LWIP

#include "../tcp-stack.h"
#include "lwip-state.h"
#include "lwip/netif.h"

// Limit of packets of one connection that lwIP gets as one segment.
#define MERGED_SEGMENTS 64
// Sizes of memory pieces (heap.c), in eighths of powers of two, up to 128 KiB.
#define HEAP_OCTAVES 11
#define HEAP_SIZES (HEAP_OCTAVES * 16)

// Bytes that arrived while nothing was reading.
typedef struct held {
  struct held *next;
  size_t length, offset;
  uint8_t bytes[];
} held;

// The timer that a connection waits for.
typedef enum { LIST_NONE, LIST_TICKING, LIST_IDLE, LIST_TIME_WAIT, LISTS } flow_list;

typedef struct flow {
  uint32_t number;
  // NULL once lwIP has forgotten the connection.
  struct tcp_pcb *pcb;
  flow_list list;
  struct flow *previous, *next;
  // For LIST_TICKING: the last tick that it got.
  uint32_t ticked;
  // For the other lists.
  double due_ms;
  // Time of the delayed acknowledgment; 0 for none.
  double acknowledge_ms;
  struct flow *next_acknowledging;
  struct flow *next_ready;
  struct flow *next_blocked;
  bool is_acknowledging, is_ready, is_blocked;
  // Only its end is reported.
  bool is_detached;
  bool is_paused;
  // Events that have not been reported yet.
  bool was_accepted, is_writable, is_closed;
  // The last write was not accepted completely, or the next one may not be.
  bool wants_to_write;
  // The peer's FIN, and whether it was reported.
  bool has_ended, has_told_end;
  // True once it had a connection.
  bool has_begun;
  // Why it was closed.
  int error;
  // Bytes in `received` that have not been reported, and how many of them count as consumed.
  size_t gathered_at, gathered, consumed;
  held *first_held, *last_held;
  // The sequence number up to which a loss is being repaired.
  uint32_t recovery_end;
  // Bytes received since the last segment that acknowledged something.
  size_t unacknowledged;
  // Its rows in the batch that is being handled.
  int32_t first_row, last_row;
} flow;

// The packet that the next segment of the same connection may be joined to (only with virtio-net headers).
typedef struct joinable {
  const flow *flow;
  uint32_t next_sequence;
  size_t segment_bytes;
} joinable;

struct io_tcp_stack {
  io_tcp_stack_options options;
  io_tcp_stack_memory memory;
  struct netif netif;
  struct tcp_pcb_listen listener;
  double now_ms;
  uint32_t ticks;
  // When timers were last handled.
  uint32_t last_ticks;
  // By number.
  flow **flows;
  uint32_t flow_capacity;
  flow *heads[LISTS], *tails[LISTS];
  flow *first_acknowledging, *last_acknowledging;
  flow *first_ready, *last_ready;
  flow *first_blocked, *last_blocked;
  // The connection that lwIP sees now.
  flow *selected;
  // True after a segment found no room.
  bool is_full;
  int32_t packet_count, polled_packets;
  size_t packet_end;
  joinable joinable;
  size_t received_end;
  // Number of connections with bytes in `received` that have not been reported.
  size_t gathering;
  size_t used;
  // Free pieces, by size.
  union header *kept[HEAP_SIZES];
  size_t kept_bytes;
  double counts[IO_TCP_STACK_COUNTS];
  struct pbuf_custom inputs[MERGED_SEGMENTS];
  // How many of them lwIP holds.
  int inputs_used;
};

// The stack that holds the lock, between these two calls.
extern io_tcp_stack *stack_current;
// `now_ms`: a time that is not later than the last leaves the clock unchanged.
void stack_enter(io_tcp_stack *stack, double now_ms);
void stack_leave(void);

// Whether data may take that much more memory; only connections may take the last eighth.
bool heap_has_room(const io_tcp_stack *stack, size_t bytes);
// Memory that must be available, because it replaces memory that is about to be freed; also counted.
void *heap_take(size_t bytes);
// Frees the kept pieces.
void heap_close(io_tcp_stack *stack);

// ip-layer.c: prepares the interface that lwIP sees.
void ip_layer_open(io_tcp_stack *stack);
// Sets the addresses of the packet that lwIP is about to get.
void ip_layer_receive(io_tcp_stack *stack, const uint8_t *ip);

// checksum.c: the sum of RFC 1071, not folded, in the byte order of memory.
uint64_t checksum_add(uint64_t sum, const uint8_t *bytes, size_t length);
// The same for bytes that are copied.
uint64_t checksum_copy(uint64_t sum, uint8_t *to, const uint8_t *from, size_t length);
uint16_t checksum_fold(uint64_t sum);
// The sum of TCP's pseudo header, from the IP header.
uint64_t checksum_pseudo(const uint8_t *ip, size_t segment_bytes);

#endif

#endif
