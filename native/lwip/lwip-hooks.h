// Functions of native/io/lwip that lwIP's macros call.
#ifndef UNDERPASS_LWIP_HOOKS_H
#define UNDERPASS_LWIP_HOOKS_H

#include "lwip/ip_addr.h"

u32_t ip_layer_sequence_number(const ip_addr_t *local_ip, u16_t local_port, const ip_addr_t *remote_ip, u16_t remote_port);

#endif
