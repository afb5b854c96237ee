#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../address.h"
#include "../loop/watcher.h"
#include "../socket/socket.h"
#include "../tcp.h"

#ifndef _WIN32
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

// Connections accepted in one turn of the loop.
#define ACCEPT_ROUND 64
// A listener fails after this many error conditions in a row that nothing explains: they would keep the loop busy.
#define MAX_CONDITIONS 64

typedef struct listener {
  watcher watcher;
  struct listener *next;
  const io_listener_callbacks *callbacks;
  // Closed for a moment to turn a connection away when the process has no descriptor left.
  int reserve;
  // The path of a Unix socket, otherwise NULL.
  char *path;
  int conditions;
} listener;

static uv_os_sock_t accept_one(uv_os_sock_t from) {
#ifdef __linux__
  return accept4(from, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
  uv_os_sock_t accepted = accept(from, NULL, NULL);
  if (accepted != IO_NO_SOCKET) io_socket_adopt(accepted);
  return accepted;
#endif
}

#ifdef _WIN32
static int open_reserve(void) {
  return -1;
}

static void close_reserve(listener *listener) {
  (void)listener;
}

static bool is_shut_down(const listener *listener) {
  (void)listener;
  return false;
}
#else
#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif

static int open_reserve(void) {
  return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void close_reserve(listener *listener) {
  if (listener->reserve >= 0) close(listener->reserve);
}

// Whether somebody who shares the socket has shut it down. A Unix socket is then readable for ever, and never has anything to accept.
static bool is_shut_down(const listener *listener) {
  struct pollfd socket = {.fd = listener->watcher.fd, .events = POLLRDHUP};
  return poll(&socket, 1, 0) > 0 && (socket.revents & (POLLHUP | POLLRDHUP)) != 0;
}
#endif

static void turn_away(listener *listener) {
  close_reserve(listener);
  uv_os_sock_t accepted = accept_one((uv_os_sock_t)listener->watcher.fd);
  if (accepted != IO_NO_SOCKET) io_socket_close(accepted);
  listener->reserve = open_reserve();
}

// Errors after which a socket is no listener any more; others concern single connections, or pass.
static bool is_final(int error) {
  return error == UV_EINVAL || error == UV_EBADF || error == UV_ENOTSOCK;
}

// Accepts what waits. Returns 0, or a final error. The callee may close the listener.
static int accept_round(listener *listener) {
  for (int i = 0; i < ACCEPT_ROUND && listener->watcher.fd >= 0; i++) {
    uv_os_sock_t accepted = accept_one((uv_os_sock_t)listener->watcher.fd);
    if (accepted == IO_NO_SOCKET) {
      int error = io_socket_error();
      if (error == UV_EINTR || error == UV_ECONNABORTED) continue;
      if (error == UV_EMFILE || error == UV_ENFILE) turn_away(listener);
      if (error == UV_EAGAIN && i == 0 && is_shut_down(listener)) return UV_EINVAL;
      return is_final(error) ? error : 0;
    }
    listener->conditions = 0;
    listener->callbacks->accepted(listener->watcher.user_data, (int)accepted);
  }
  return 0;
}

static void on_connections(uv_poll_t *poll, int status, int events) {
  (void)events;
  listener *listener = poll->data;
  if (status < 0) listener->conditions++;
  int error = accept_round(listener);
  if (listener->watcher.fd < 0 || (status >= 0 && error == 0)) return;
  if (error == 0 && listener->conditions > MAX_CONDITIONS) error = status;
  if (error == 0) {
    // libuv has stopped watching.
    uv_poll_start(poll, UV_READABLE, on_connections);
    return;
  }
  // It would be reported again and again.
  uv_poll_stop(poll);
  listener->callbacks->accepted(listener->watcher.user_data, error);
}

// Listens on a bound socket. Closes it if that fails. The listener frees `path`.
static int begin(io_loop *loop, uv_os_sock_t bound, char *path, int backlog, const io_listener_callbacks *callbacks,
                 void *user_data) {
  int error = listen(bound, backlog) == 0 ? 0 : io_socket_error();
  listener *listener = error == 0 ? calloc(1, sizeof *listener) : NULL;
  if (error == 0 && listener == NULL) error = UV_ENOMEM;
  if (error == 0) {
    error = io_watcher_begin(&listener->watcher, loop, (int)bound, UV_READABLE, on_connections, callbacks->released,
                             user_data);
  }
  if (error != 0) {
    free(listener);
    io_socket_close(bound);
    return error;
  }
  listener->callbacks = callbacks;
  listener->path = path;
  listener->reserve = open_reserve();
  listener->next = loop->listeners;
  loop->listeners = listener;
  return (int)bound;
}

int io_tcp_listen(io_loop *loop, const uint8_t *address, size_t address_bytes, bool reuse_port, int backlog,
                  const io_listener_callbacks *callbacks, void *user_data) {
  struct sockaddr_storage name;
  socklen_t length = address == NULL ? 0 : io_scoped_address_to_sockaddr(address, address_bytes, &name);
  if (length == 0) return UV_EINVAL;
#ifndef SO_REUSEPORT
  if (reuse_port) return UV_ENOTSUP;
#endif
  uv_os_sock_t bound;
  int error = io_socket_new(loop, name.ss_family, SOCK_STREAM, &bound);
  if (error != 0) return error;
#ifdef _WIN32
  error = io_socket_set(bound, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, 1);
#else
  error = io_socket_set(bound, SOL_SOCKET, SO_REUSEADDR, 1);
#endif
  if (error == 0 && name.ss_family == AF_INET6) error = io_socket_set(bound, IPPROTO_IPV6, IPV6_V6ONLY, 1);
#ifdef SO_REUSEPORT
  if (error == 0 && reuse_port) error = io_socket_set(bound, SOL_SOCKET, SO_REUSEPORT, 1);
#endif
  if (error == 0 && bind(bound, (const struct sockaddr *)&name, length) != 0) error = io_socket_error();
  if (error != 0) {
    io_socket_close(bound);
    return error;
  }
  return begin(loop, bound, NULL, backlog, callbacks, user_data);
}

int io_listen_on(io_loop *loop, int descriptor, int backlog, const io_listener_callbacks *callbacks, void *user_data) {
  int type = 0;
  socklen_t length = sizeof type;
  uv_os_sock_t given = (uv_os_sock_t)descriptor;
  if (getsockopt(given, SOL_SOCKET, SO_TYPE, (void *)&type, &length) != 0 || type != SOCK_STREAM) return UV_ENOTSOCK;
  io_socket_adopt(given);
  return begin(loop, given, NULL, backlog, callbacks, user_data);
}

#ifdef _WIN32

int io_unix_listen(io_loop *loop, const char *path, int mode, int backlog, const io_listener_callbacks *callbacks,
                   void *user_data) {
  (void)loop, (void)path, (void)mode, (void)backlog, (void)callbacks, (void)user_data;
  return UV_ENOTSUP;
}

static void remove_path(listener *listener) {
  (void)listener;
}

#else

// True if there is a socket at the path that no process has open.
static bool is_stale(io_loop *loop, const struct sockaddr_un *name) {
  struct stat found;
  uv_os_sock_t probe;
  if (lstat(name->sun_path, &found) != 0 || !S_ISSOCK(found.st_mode)) return false;
  if (io_socket_new(loop, AF_UNIX, SOCK_STREAM, &probe) != 0) return false;
  bool is_refused = connect(probe, (const struct sockaddr *)name, sizeof *name) != 0 && errno == ECONNREFUSED;
  io_socket_close(probe);
  return is_refused;
}

int io_unix_listen(io_loop *loop, const char *path, int mode, int backlog, const io_listener_callbacks *callbacks,
                   void *user_data) {
  struct sockaddr_un name;
  int error = io_unix_address(path, &name);
  if (error != 0) return error;
  uv_os_sock_t bound;
  error = io_socket_new(loop, AF_UNIX, SOCK_STREAM, &bound);
  if (error != 0) return error;
  if (bind(bound, (const struct sockaddr *)&name, sizeof name) != 0) error = -errno;
  if (error == UV_EADDRINUSE && is_stale(loop, &name) && unlink(path) == 0)
    error = bind(bound, (const struct sockaddr *)&name, sizeof name) == 0 ? 0 : -errno;
  if (error != 0) {
    io_socket_close(bound);
    return error;
  }
  // Nobody can connect before listen().
  char *own_path = strdup(path);
  error = own_path == NULL ? UV_ENOMEM : chmod(path, (mode_t)mode) == 0 ? 0 : -errno;
  if (error != 0) io_socket_close(bound);
  int result = error != 0 ? error : begin(loop, bound, own_path, backlog, callbacks, user_data);
  if (result < 0) {
    unlink(path);
    free(own_path);
  }
  return result;
}

static void remove_path(listener *listener) {
  if (listener->path != NULL) unlink(listener->path);
  free(listener->path);
}

#endif

static void close_listener(listener *listener) {
  uv_os_sock_t bound = (uv_os_sock_t)listener->watcher.fd;
  remove_path(listener);
  close_reserve(listener);
  io_watcher_stop(&listener->watcher);
  io_socket_close(bound);
  io_watcher_release(&listener->watcher);
}

void io_unlisten(io_loop *loop, int number) {
  for (listener **at = &loop->listeners; *at != NULL; at = &(*at)->next) {
    listener *found = *at;
    if (found->watcher.fd != number) continue;
    *at = found->next;
    close_listener(found);
    return;
  }
}

void io_listeners_end(io_loop *loop) {
  while (loop->listeners != NULL) {
    listener *listener = loop->listeners;
    loop->listeners = listener->next;
    close_listener(listener);
  }
}
