// A device for tun2socks: consecutive IP packets on standard input and output. Not on Windows.
#ifndef PIPE_H
#define PIPE_H

#include <stdbool.h>

#include "underpass.h"

// Writes packets on a thread of its own, because the pipe may be full. Waiting packets are bounded; further ones are dropped.
void pipe_packets(void *user_data, const underpass_packet *packets, size_t count);

// Starts the threads. One of them calls `ended` when standard input has ended, or contains something other than packets.
bool pipe_start(underpass_tun2socks *tun2socks, void (*ended)(void *data, const char *problem), void *data);

#endif
