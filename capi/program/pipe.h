// Consecutive IP packets on standard input and output, as a device of tun2socks. Not on Windows.
#ifndef PIPE_H
#define PIPE_H

#include <stdbool.h>

#include "underpass.h"

// Writes packets in a thread of its own, as the pipe may be full. What waits is bounded; more is dropped.
void pipe_packets(void *user_data, const underpass_packet *packets, size_t count);

// Starts the threads. `ended` is called by one of them when standard input has ended, or has something else than packets.
bool pipe_start(underpass_tun2socks *tun2socks, void (*ended)(void *data, const char *problem), void *data);

#endif
