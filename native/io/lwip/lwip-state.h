// lwIP's own state, and how it is used. During each call, its lists contain one connection, or a listener if there is no connection
// yet. No list is searched, a timer visits only the connections that wait for it, and stacks share nothing. The process's lock
// protects all of it.
#ifndef UNDERPASS_LWIP_STATE_H
#define UNDERPASS_LWIP_STATE_H

#ifdef UNDERPASS_LWIP

#include "lwip/priv/tcp_priv.h"
#include "lwip/tcp.h"

// Milliseconds of a tick.
#define LWIP_TICK_MS TCP_SLOW_INTERVAL

// Runs the slow timer of the one connection in the lists.
void lwip_tick(struct tcp_pcb *pcb, u32_t ticks);

#endif

#endif
