// lwIP's own state, and how it is used: each call sees one connection in its lists, or a listener when there is none yet, so that no
// list is searched, a timer visits only who waits for it, and stacks share nothing. All under the lock of the process.
#ifndef UNDERPASS_LWIP_STATE_H
#define UNDERPASS_LWIP_STATE_H

#ifdef UNDERPASS_LWIP

#include "lwip/priv/tcp_priv.h"
#include "lwip/tcp.h"

// Milliseconds of a tick.
#define LWIP_TICK_MS TCP_SLOW_INTERVAL

// The slow timer of the one connection in the lists.
void lwip_tick(struct tcp_pcb *pcb, u32_t ticks);

#endif

#endif
