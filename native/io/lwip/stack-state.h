// What the parts of a stack share.
#ifndef UNDERPASS_STACK_STATE_H
#define UNDERPASS_STACK_STATE_H

#ifdef UNDERPASS_LWIP

#include "../tcp-stack.h"
#include "lwip-state.h"
#include "lwip/netif.h"

// Packets of one connection that lwIP gets as one segment.
#define MERGED_SEGMENTS 64
// Sizes of pieces of memory (heap.c), in eighths of powers of two, to 128 KiB.
#define HEAP_OCTAVES 11
#define HEAP_SIZES (HEAP_OCTAVES * 16)

// Bytes that came while nobody read.
typedef struct held {
  struct held *next;
  size_t length, offset;
  uint8_t bytes[];
} held;

// Which timer a connection waits for.
typedef enum { LIST_NONE, LIST_TICKING, LIST_IDLE, LIST_TIME_WAIT, LISTS } flow_list;

typedef struct flow {
  uint32_t number;
  // NULL once lwIP has forgotten it.
  struct tcp_pcb *pcb;
  flow_list list;
  struct flow *previous, *next;
  // Of LIST_TICKING: the tick that it has had.
  uint32_t ticked;
  // Of the others.
  double due_ms;
  // Delayed acknowledgment: 0 for none.
  double acknowledge_ms;
  struct flow *next_acknowledging;
  struct flow *next_ready;
  struct flow *next_blocked;
  bool is_acknowledging, is_ready, is_blocked;
  // Nothing is told of it but its end.
  bool is_detached;
  bool is_paused;
  // Events that have not been told.
  bool was_accepted, is_writable, is_closed;
  // A write was not accepted completely, or the next one may not be.
  bool wants_to_write;
  // The peer's FIN, and whether it was told.
  bool has_ended, has_told_end;
  // It has had a connection.
  bool has_begun;
  // Why it is closed.
  int error;
  // Bytes in `received` that have not been told, and how many of them count as consumed.
  size_t gathered_at, gathered, consumed;
  held *first_held, *last_held;
  // Up to which a loss is being repaired.
  uint32_t recovery_end;
  // Received since the last segment that acknowledged something.
  size_t unacknowledged;
  // Rows of it in the batch that is being handled.
  int32_t first_row, last_row;
} flow;

// The packet that a continuing segment of the same connection may join (virtio-net headers only).
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
  // When timers were handled last.
  uint32_t last_ticks;
  // By number.
  flow **flows;
  uint32_t flow_capacity;
  flow *heads[LISTS], *tails[LISTS];
  flow *first_acknowledging, *last_acknowledging;
  flow *first_ready, *last_ready;
  flow *first_blocked, *last_blocked;
  // The one that lwIP sees now.
  flow *selected;
  // A segment found no room.
  bool is_full;
  int32_t packet_count, polled_packets;
  size_t packet_end;
  joinable joinable;
  size_t received_end;
  // Connections with bytes there that have not been told.
  size_t gathering;
  size_t used;
  // Free pieces, by their size.
  union header *kept[HEAP_SIZES];
  size_t kept_bytes;
  double counts[IO_TCP_STACK_COUNTS];
  struct pbuf_custom inputs[MERGED_SEGMENTS];
  // Of them, those that lwIP has.
  int inputs_used;
};

// The stack that has the lock: between these two.
extern io_tcp_stack *stack_current;
// `now_ms`: not later than before leaves the clock alone.
void stack_enter(io_tcp_stack *stack, double now_ms);
void stack_leave(void);

// Whether data may take so much more memory; connections themselves may take the last eighth.
bool heap_has_room(const io_tcp_stack *stack, size_t bytes);
// Memory that must be there, as it takes the place of what is about to be freed; counted, too.
void *heap_take(size_t bytes);
// Frees what is kept.
void heap_close(io_tcp_stack *stack);

// ip-layer.c: prepares the interface that lwIP sees.
void ip_layer_open(io_tcp_stack *stack);
// The addresses of the packet that lwIP is about to get.
void ip_layer_receive(io_tcp_stack *stack, const uint8_t *ip);

// checksum.c: the sum of RFC 1071, not folded, in the byte order of memory.
uint64_t checksum_add(uint64_t sum, const uint8_t *bytes, size_t length);
// The same of bytes that are copied.
uint64_t checksum_copy(uint64_t sum, uint8_t *to, const uint8_t *from, size_t length);
uint16_t checksum_fold(uint64_t sum);
// That of the pseudo header of TCP, from the IP header.
uint64_t checksum_pseudo(const uint8_t *ip, size_t segment_bytes);

#endif

#endif
