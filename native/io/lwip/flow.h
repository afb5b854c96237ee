// The connections of a stack, and their lists.
#ifndef UNDERPASS_STACK_FLOW_H
#define UNDERPASS_STACK_FLOW_H

#ifdef UNDERPASS_LWIP

#include "stack-state.h"

// NULL if no flow has that number.
flow *flow_of(const io_tcp_stack *stack, uint32_t number);
// NULL if there is no memory.
flow *flow_new(io_tcp_stack *stack, uint32_t number);
// Frees a flow that lwIP has already forgotten.
void flow_free(io_tcp_stack *stack, flow *flow);

// Discards received bytes that nobody will read.
void flow_discard(io_tcp_stack *stack, flow *flow);

// Between these two calls, lwIP sees only this connection. The second call determines the connection's new state and the timer that it
// waits for.
void flow_select(io_tcp_stack *stack, flow *flow);
void flow_deselect(io_tcp_stack *stack);

// Marks a flow that has something to report.
void flow_ready(io_tcp_stack *stack, flow *flow);
flow *flow_next_ready(io_tcp_stack *stack);
// A flow that found no room for a segment.
flow *flow_next_blocked(io_tcp_stack *stack);

// A flow whose delayed acknowledgment is due; NULL if there is none.
flow *flow_next_acknowledging(io_tcp_stack *stack);

// Makes lwIP report events to the flow.
void flow_listen(flow *flow);

// Counts bytes as consumed, so that the peer may send as many again. The flow must be selected.
void flow_consumed(flow *flow, size_t bytes);

#endif

#endif
