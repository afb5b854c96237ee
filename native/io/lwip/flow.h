// The connections of a stack, and their lists.
#ifndef UNDERPASS_STACK_FLOW_H
#define UNDERPASS_STACK_FLOW_H

#ifdef UNDERPASS_LWIP

#include "stack-state.h"

// NULL if there is none of that number.
flow *flow_of(const io_tcp_stack *stack, uint32_t number);
// NULL without memory.
flow *flow_new(io_tcp_stack *stack, uint32_t number);
// Forgets it; lwIP has forgotten it before.
void flow_free(io_tcp_stack *stack, flow *flow);

// Bytes that came and that nobody will read.
void flow_discard(io_tcp_stack *stack, flow *flow);

// Between these two lwIP sees this connection alone. The second finds out what became of it, and which timer it waits for.
void flow_select(io_tcp_stack *stack, flow *flow);
void flow_deselect(io_tcp_stack *stack);

// There is something to tell.
void flow_ready(io_tcp_stack *stack, flow *flow);
flow *flow_next_ready(io_tcp_stack *stack);
// It found no room for a segment.
flow *flow_next_blocked(io_tcp_stack *stack);

// Delayed acknowledgments that are due: NULL if none is.
flow *flow_next_acknowledging(io_tcp_stack *stack);

// Has lwIP tell the flow what happens.
void flow_listen(flow *flow);

// Counts bytes as consumed, so that the peer may send as many again. While it is selected.
void flow_consumed(flow *flow, size_t bytes);

#endif

#endif
