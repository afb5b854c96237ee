// Socket functions that differ between systems.
#ifndef UNDERPASS_IO_SOCKET_H
#define UNDERPASS_IO_SOCKET_H

#include "../loop.h"

#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#endif

#define IO_NO_SOCKET ((uv_os_sock_t)-1)

// Makes a non-blocking, close-on-exec socket, and passes it to the context's `protect`. Returns 0, or a negative system error.
int io_socket_new(io_loop *loop, int family, int type, uv_os_sock_t *result);

// Makes a socket non-blocking and close-on-exec.
void io_socket_adopt(uv_os_sock_t socket);

void io_socket_close(uv_os_sock_t socket);

// The error of the socket call that just failed: negative.
int io_socket_error(void);

// Returns 0, or a negative system error.
int io_socket_set(uv_os_sock_t socket, int level, int option, int value);

// Restricts a socket to an interface or gives it a mark; "" or NULL and 0 for none. Returns 0, or a negative system error.
int io_socket_restrict(uv_os_sock_t socket, int family, const char *interface_name, uint32_t mark);

#ifndef _WIN32
// Returns 0, UV_EINVAL or UV_ENAMETOOLONG.
int io_unix_address(const char *path, struct sockaddr_un *result);
#endif

#ifdef __linux__
// The state of a TCP connection (TCP_… of netinet/tcp.h); -1 if it is none.
int io_socket_tcp_state(int socket);
#endif

// Whether a TCP connection goes on after an error that a call has reported and thereby taken: one of ICMP, on Linux with IP_RECVERR.
bool io_socket_outlives(uv_os_sock_t socket, int error);

// Reads or writes as much as possible at once. Returns the count, or the negative system error that has ended the connection, or UV_EAGAIN.
ssize_t io_socket_read(uv_os_sock_t socket, uint8_t *to, size_t bytes);
ssize_t io_socket_write(uv_os_sock_t socket, const uint8_t *from, size_t bytes);

#endif
