// lwIP itself: its TCP and the parts that it needs, as one unit, so a build adds only two folders and a definition.
#ifdef UNDERPASS_LWIP

#if defined(__GNUC__)
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Waddress"
#pragma GCC diagnostic ignored "-Wtype-limits"
#endif

#include "core/def.c"
#include "core/mem.c"
#include "core/memp.c"
#include "core/pbuf.c"
#include "core/ipv4/ip4_addr.c"
#include "core/ipv6/ip6_addr.c"
#include "core/tcp.c"
#include "core/tcp_out.c"
// Last, because it names its variables like parameters of the others.
#include "core/tcp_in.c"

#include "lwip-state.h"

// The only timer is that of native/io/lwip/stack.c.
void tcp_timer_needed(void) {}

void lwip_tick(struct tcp_pcb *pcb, u32_t ticks) {
  // Leaves out one that appears to be done already.
  pcb->last_timer = tcp_timer_ctr;
  // It counts up itself.
  tcp_ticks = ticks - 1;
  tcp_slowtmr();
}

#else

typedef int underpass_has_no_lwip;

#endif
