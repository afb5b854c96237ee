#include "../address.h"
#include "../socket/socket.h"
#include "../tcp.h"

#ifndef _WIN32
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#endif

void io_tcp_within_host(int descriptor) {
#ifdef __linux__
  static const char reno[] = "reno";
  char own[IO_IP_TEXT_BYTES], peer[IO_IP_TEXT_BYTES];
  if (io_socket_name(descriptor, false, own) < 0 || io_socket_name(descriptor, true, peer) < 0) return;
  if (strcmp(own, peer) == 0) setsockopt(descriptor, IPPROTO_TCP, TCP_CONGESTION, reno, sizeof reno - 1);
#else
  (void)descriptor;
#endif
}

static void set_common(uv_os_sock_t socket) {
  io_socket_set(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  io_socket_set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
}

int io_tcp_tune(int descriptor, int not_sent_low_water_bytes, int user_timeout_ms) {
  uv_os_sock_t socket = (uv_os_sock_t)descriptor;
  int error = 0;
  set_common(socket);
#ifdef TCP_NOTSENT_LOWAT
  if (io_socket_set(socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT, not_sent_low_water_bytes) != 0) error = UV_ENOTSUP;
#else
  (void)not_sent_low_water_bytes;
  error = UV_ENOTSUP;
#endif
#ifdef TCP_USER_TIMEOUT
  if (io_socket_set(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, user_timeout_ms) != 0) error = UV_ENOTSUP;
#else
  (void)user_timeout_ms;
  error = UV_ENOTSUP;
#endif
  return error;
}

void io_tcp_keep_alive(int descriptor, int idle_seconds) {
  uv_os_sock_t socket = (uv_os_sock_t)descriptor;
  set_common(socket);
  if (idle_seconds <= 0) return;
#if defined(TCP_KEEPIDLE)
  io_socket_set(socket, IPPROTO_TCP, TCP_KEEPIDLE, idle_seconds);
#elif defined(TCP_KEEPALIVE)
  io_socket_set(socket, IPPROTO_TCP, TCP_KEEPALIVE, idle_seconds);
#endif
#ifdef TCP_KEEPINTVL
  io_socket_set(socket, IPPROTO_TCP, TCP_KEEPINTVL, 1);
#endif
#ifdef TCP_KEEPCNT
  io_socket_set(socket, IPPROTO_TCP, TCP_KEEPCNT, 10);
#endif
}

int io_descriptor_duplicate(int descriptor) {
#ifdef _WIN32
  (void)descriptor;
  return UV_ENOTSUP;
#else
  int copy = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  return copy < 0 ? -errno : copy;
#endif
}

void io_descriptor_close(int descriptor) {
  io_socket_close((uv_os_sock_t)descriptor);
}
