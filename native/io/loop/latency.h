// The effect of a latency class on a descriptor. After traffic of an interactive one, the loop polls for a moment instead of
// sleeping, because waking a thread takes longer than everything else that a datagram needs. A bulk one is not read for up to a
// millisecond after a read, so that the next read finds a batch, and everything after it is called once a batch.
#ifndef UNDERPASS_IO_LATENCY_H
#define UNDERPASS_IO_LATENCY_H

#include "loop-state.h"

// A descriptor that is not read for a moment, so that more datagrams gather. The loop does not watch it meanwhile.
typedef struct held {
  struct held *next;
  // NULL unless it is held.
  struct held **link;
  // The moment is over: reads, then watches the descriptor again or holds it again.
  void (*resume)(struct held *held);
} held;

// Makes the loop poll for some tens of microseconds before it sleeps.
void io_latency_spin(io_loop *loop);
// Returns false if the system does not support this. `messages`: how many were just read, which determines the duration.
bool io_latency_hold(io_loop *loop, held *held, size_t messages);
// Releases the descriptor, if it is held.
void io_latency_release(held *held);

#endif
