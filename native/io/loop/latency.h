// What a latency class does to a descriptor. An interactive one makes the loop poll on for a moment after its traffic instead of
// sleeping: waking a thread up takes longer than all else that a datagram needs. One in bulk is not read for up to a millisecond
// after a read, so that the next one finds a batch, and everything behind it is called once a batch.
#ifndef UNDERPASS_IO_LATENCY_H
#define UNDERPASS_IO_LATENCY_H

#include "loop-state.h"

// What is not read for a moment, so that more gathers. Belongs to a descriptor that is not watched meanwhile.
typedef struct held {
  struct held *next;
  // NULL while it is not held.
  struct held **link;
  // The moment is over: reads, then watches the descriptor again or holds it again.
  void (*resume)(struct held *held);
} held;

// Makes the loop poll for some tens of microseconds before it sleeps.
void io_latency_spin(io_loop *loop);
// Returns false if the system does not support that. `messages`: how many were just read, which decides how long it takes.
bool io_latency_hold(io_loop *loop, held *held, size_t messages);
// Forgets it, if it is held.
void io_latency_release(held *held);

#endif
