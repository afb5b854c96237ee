// What tests of a whole tunnel share: a server on loopback, and targets.
#ifndef TUNNEL_H
#define TUNNEL_H

#include <netinet/in.h>

#include "recorder.h"

#define TUNNEL_KEY "sixteen bytes!!!"

// A server on loopback that lets its clients reach loopback. Waits until it listens.
underpass_server *tunnel_server(recorder *recorder, const char *config);
// A socket that waits at most ten seconds.
int tunnel_socket(struct sockaddr_in *address);
int open_descriptors(void);
// In use by malloc.
size_t allocated_bytes(void);

#endif
