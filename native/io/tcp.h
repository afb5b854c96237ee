// TCP and Unix stream sockets until they are connected: listeners that share a port and hand out descriptors, connection attempts,
// options. For threads, callbacks and `released` see loop.h. On Windows, a descriptor is a SOCKET, which fits an int; Unix sockets
// are UV_ENOTSUP there.
#ifndef UNDERPASS_IO_TCP_H
#define UNDERPASS_IO_TCP_H

#include "loop.h"

typedef struct io_listener_callbacks {
  // A new connection: non-blocking, close-on-exec. The callee closes it. Or a system error: the listener has failed, accepts nothing more,
  // and is still to be closed.
  void (*accepted)(void *user_data, int result);
  void (*released)(void *user_data);
} io_listener_callbacks;

// Returns the listener's descriptor, or a system error. IPv6 sockets do not accept IPv4. `reuse_port`: others listen on the same
// port; UV_ENOTSUP on Windows.
int io_tcp_listen(io_loop *loop, const uint8_t *address, size_t address_bytes, bool reuse_port, int backlog,
                  const io_listener_callbacks *callbacks, void *user_data);

// Listens on a Unix socket with the given permissions (0660). Replaces a socket at that path on which nothing answers. Closing the
// listener removes the path.
int io_unix_listen(io_loop *loop, const char *path, int mode, int backlog, const io_listener_callbacks *callbacks,
                   void *user_data);

// Accepts on a listening stream socket that the process was given, and then owns it. If the descriptor is not one, returns
// UV_ENOTSOCK and leaves it alone.
int io_listen_on(io_loop *loop, int descriptor, int backlog, const io_listener_callbacks *callbacks, void *user_data);

// Closes a listener.
void io_unlisten(io_loop *loop, int listener);

typedef struct io_connect_callbacks {
  // The attempt has ended: a connected descriptor (non-blocking, close-on-exec), which the callee closes, or a system error.
  // `released` follows. Not called after io_connect_cancel or io_loop_end.
  void (*done)(void *user_data, int result);
  void (*released)(void *user_data);
} io_connect_callbacks;

// Connects through an interface or with a mark; "" or NULL and 0 for none. Returns the number of the attempt, or a system error.
int io_tcp_connect(io_loop *loop, const uint8_t *address, size_t address_bytes, const char *interface_name, uint32_t mark,
                   const io_connect_callbacks *callbacks, void *user_data);

int io_unix_connect(io_loop *loop, const char *path, const io_connect_callbacks *callbacks, void *user_data);

// Aborts an attempt, unless it has ended, and closes its descriptor.
void io_connect_cancel(io_loop *loop, int attempt);

// Sets the two given values, TCP_NODELAY and keepalive. Returns UV_ENOTSUP if the system lacks one of the two, otherwise 0.
int io_tcp_tune(int descriptor, int not_sent_low_water_bytes, int user_timeout_ms);

// Sets TCP_NODELAY and keepalive. Unless `idle_seconds` is 0, the system probes after that many seconds, ten times, once a second.
// Does nothing on a Unix socket.
void io_tcp_keep_alive(int descriptor, int idle_seconds);

// On Linux, makes a connection within the host use Reno's congestion control (RFC 5681), which holds nothing back where nothing is lost.
// Within a host, only processes that wait for the processor delay packets. BBR takes that for a slower path, and paces data that the
// other end would take at once.
void io_tcp_within_host(int descriptor);

// Another descriptor of the same connection, which outlives the first. Not on Windows: UV_ENOTSUP.
int io_descriptor_duplicate(int descriptor);
void io_descriptor_close(int descriptor);

#endif
