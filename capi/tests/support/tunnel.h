// A server on loopback and targets, for tests of a whole tunnel.
#ifndef TUNNEL_H
#define TUNNEL_H

#include <netinet/in.h>

#include "recorder.h"

#define TUNNEL_KEY "sixteen bytes!!!"

// Starts a server on loopback that lets its clients reach loopback. Waits until it listens.
underpass_server *tunnel_server(recorder *recorder, const char *config);
// Opens a socket that waits at most ten seconds.
int tunnel_socket(struct sockaddr_in *address);
int open_descriptors(void);
// Bytes that malloc has in use.
size_t allocated_bytes(void);

#endif
