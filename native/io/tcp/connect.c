#include <errno.h>
#include <stdlib.h>

#include "../address.h"
#include "../loop/watcher.h"
#include "../socket/socket.h"
#include "../tcp.h"

typedef struct attempt {
  watcher watcher;
  struct attempt *next;
  const io_connect_callbacks *callbacks;
} attempt;

// Removes the attempt from the list and stops watching its descriptor, which the caller then hands out or closes.
static void end_attempt(attempt *ended) {
  for (attempt **at = &ended->watcher.loop->attempts; *at != NULL; at = &(*at)->next) {
    if (*at != ended) continue;
    *at = ended->next;
    break;
  }
  io_watcher_stop(&ended->watcher);
}

static void give_up(attempt *attempt) {
  uv_os_sock_t socket = (uv_os_sock_t)attempt->watcher.fd;
  end_attempt(attempt);
  io_socket_close(socket);
  io_watcher_release(&attempt->watcher);
}

// Why an attempt has failed; 0 if it has not. The status of a poll says only that there is an error condition, and SO_ERROR may be an
// ICMP error that a TCP connection has outlived, or one of a Unix socket that has failed since.
static int error_of(uv_os_sock_t socket) {
  struct sockaddr_storage peer;
  int code = 0;
  socklen_t code_bytes = sizeof code, peer_bytes = sizeof peer;
  if (getsockopt(socket, SOL_SOCKET, SO_ERROR, (void *)&code, &code_bytes) != 0) return io_socket_error();
  bool has_peer = getpeername(socket, (struct sockaddr *)&peer, &peer_bytes) == 0;
  bool is_ip = has_peer && (peer.ss_family == AF_INET || peer.ss_family == AF_INET6);
  if (code != 0) return is_ip ? 0 : uv_translate_sys_error(code);
  // Without an error, somebody else has taken it: what connect() itself says then.
  return has_peer ? 0 : UV_ECONNABORTED;
}

static void on_connected(uv_poll_t *poll, int status, int events) {
  // Any status ends the attempt.
  (void)status, (void)events;
  attempt *attempt = poll->data;
  watcher *watcher = &attempt->watcher;
  int fd = watcher->fd;
  int error = error_of((uv_os_sock_t)fd);
  end_attempt(attempt);
  if (error != 0) io_socket_close((uv_os_sock_t)fd);
  attempt->callbacks->done(watcher->user_data, error == 0 ? fd : error);
  io_watcher_release(watcher);
}

// Connects a socket. Closes it if that fails.
static int begin(io_loop *loop, uv_os_sock_t socket, const struct sockaddr *to, socklen_t length,
                 const io_connect_callbacks *callbacks, void *user_data) {
  int error = connect(socket, to, length) == 0 ? 0 : io_socket_error();
#ifdef _WIN32
  if (error == UV_EAGAIN) error = 0;
#else
  if (error == -EINPROGRESS || error == UV_EINTR) error = 0;
#endif
  attempt *attempt = error == 0 ? calloc(1, sizeof *attempt) : NULL;
  if (error == 0 && attempt == NULL) error = UV_ENOMEM;
  if (error == 0) {
    error = io_watcher_begin(&attempt->watcher, loop, (int)socket, UV_WRITABLE, on_connected, callbacks->released,
                             user_data);
  }
  if (error != 0) {
    free(attempt);
    io_socket_close(socket);
    return error;
  }
  attempt->callbacks = callbacks;
  attempt->next = loop->attempts;
  loop->attempts = attempt;
  return (int)socket;
}

int io_tcp_connect(io_loop *loop, const uint8_t *address, size_t address_bytes, const char *interface_name, uint32_t mark,
                   const io_connect_callbacks *callbacks, void *user_data) {
  struct sockaddr_storage to;
  socklen_t length = address == NULL ? 0 : io_scoped_address_to_sockaddr(address, address_bytes, &to);
  if (length == 0) return UV_EINVAL;
  uv_os_sock_t socket;
  int error = io_socket_new(loop, to.ss_family, SOCK_STREAM, &socket);
  if (error != 0) return error;
  error = io_socket_restrict(socket, to.ss_family, interface_name, mark);
  if (error != 0) {
    io_socket_close(socket);
    return error;
  }
  return begin(loop, socket, (const struct sockaddr *)&to, length, callbacks, user_data);
}

int io_unix_connect(io_loop *loop, const char *path, const io_connect_callbacks *callbacks, void *user_data) {
#ifdef _WIN32
  (void)loop, (void)path, (void)callbacks, (void)user_data;
  return UV_ENOTSUP;
#else
  struct sockaddr_un to;
  uv_os_sock_t socket;
  int error = io_unix_address(path, &to);
  if (error == 0) error = io_socket_new(loop, AF_UNIX, SOCK_STREAM, &socket);
  return error != 0 ? error : begin(loop, socket, (const struct sockaddr *)&to, sizeof to, callbacks, user_data);
#endif
}

void io_connect_cancel(io_loop *loop, int number) {
  for (attempt *at = loop->attempts; at != NULL; at = at->next) {
    if (at->watcher.fd != number) continue;
    give_up(at);
    return;
  }
}

void io_attempts_end(io_loop *loop) {
  while (loop->attempts != NULL) give_up(loop->attempts);
}
