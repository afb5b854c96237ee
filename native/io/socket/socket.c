#include "socket.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "../loop/loop-state.h"

#ifndef _WIN32
#include <fcntl.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <unistd.h>
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#endif

int io_socket_error(void) {
#ifdef _WIN32
  return uv_translate_sys_error(WSAGetLastError());
#else
  return -errno;
#endif
}

void io_socket_close(uv_os_sock_t socket) {
#ifdef _WIN32
  closesocket(socket);
#else
  close(socket);
#endif
}

void io_socket_adopt(uv_os_sock_t socket) {
#ifdef _WIN32
  u_long nonblocking = 1;
  ioctlsocket(socket, FIONBIO, &nonblocking);
  SetHandleInformation((HANDLE)socket, HANDLE_FLAG_INHERIT, 0);
#else
  fcntl(socket, F_SETFL, O_NONBLOCK);
  fcntl(socket, F_SETFD, FD_CLOEXEC);
#endif
}

int io_socket_new(io_loop *loop, int family, int type, uv_os_sock_t *result) {
  if (loop->is_ending) return UV_ECANCELED;
#ifdef __linux__
  uv_os_sock_t made = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
#else
  uv_os_sock_t made = socket(family, type, 0);
#endif
  if (made == IO_NO_SOCKET) return io_socket_error();
#ifndef __linux__
  io_socket_adopt(made);
#endif
  bool is_ip = family == AF_INET || family == AF_INET6;
  int error = is_ip && loop->options.protect != NULL ? loop->options.protect(loop->options.user_data, made) : 0;
#ifdef SO_NOSIGPIPE
  if (error == 0 && type == SOCK_STREAM) error = io_socket_set(made, SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
  if (error < 0) {
    io_socket_close(made);
    return error;
  }
  *result = made;
  return 0;
}

int io_socket_set(uv_os_sock_t socket, int level, int option, int value) {
  return setsockopt(socket, level, option, (const void *)&value, sizeof value) == 0 ? 0 : io_socket_error();
}

int io_socket_restrict(uv_os_sock_t socket, int family, const char *interface_name, uint32_t mark) {
  size_t length = interface_name == NULL ? 0 : strlen(interface_name);
#if defined(__linux__)
  (void)family;
  if (length > 0 && setsockopt(socket, SOL_SOCKET, SO_BINDTODEVICE, interface_name, (socklen_t)length) != 0) return -errno;
  if (mark != 0 && setsockopt(socket, SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0) return -errno;
#elif defined(IP_BOUND_IF)
  if (mark != 0) return UV_ENOTSUP;
  unsigned index = length > 0 ? if_nametoindex(interface_name) : 0;
  if (length > 0 && index == 0) return UV_ENXIO;
  int level = family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;
  int option = family == AF_INET6 ? IPV6_BOUND_IF : IP_BOUND_IF;
  if (index != 0 && setsockopt(socket, level, option, &index, sizeof index) != 0) return -errno;
#else
  (void)socket, (void)family;
  if (length > 0 || mark != 0) return UV_ENOTSUP;
#endif
  return 0;
}

#ifndef _WIN32
int io_unix_address(const char *path, struct sockaddr_un *result) {
  size_t length = path == NULL ? 0 : strlen(path);
  if (length == 0) return UV_EINVAL;
  if (length >= sizeof result->sun_path) return UV_ENAMETOOLONG;
  memset(result, 0, sizeof *result);
  result->sun_family = AF_UNIX;
  memcpy(result->sun_path, path, length);
  return 0;
}
#endif

#ifdef __linux__
int io_socket_tcp_state(int socket) {
  struct tcp_info info;
  socklen_t length = sizeof info;
  return getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 ? info.tcpi_state : -1;
}
#endif

bool io_socket_outlives(uv_os_sock_t socket, int error) {
#ifdef __linux__
  // Those of ICMP (ip(7), IP_RECVERR).
  switch (error) {
    case -EHOSTUNREACH:
    case -ENETUNREACH:
    case -EHOSTDOWN:
    case -ENONET:
    case -ECONNREFUSED:
    case -EPROTO:
    case -ENOPROTOOPT:
    case -EOPNOTSUPP:
    case -EMSGSIZE:
    case -EACCES: {
      int state = io_socket_tcp_state(socket);
      return state >= 0 && state != TCP_CLOSE;
    }
    default:
      return false;
  }
#else
  (void)socket, (void)error;
  return false;
#endif
}

#ifndef _WIN32
// Whether a call that has failed is to be repeated. An error that the connection outlives is taken by the call that reports it; one that
// comes again has another cause.
static bool goes_on(uv_os_sock_t socket, bool *is_again) {
  int error = errno;
  if (error == EINTR) return true;
  bool result = !*is_again && io_socket_outlives(socket, -error);
  *is_again = true;
  errno = error;
  return result;
}
#endif

ssize_t io_socket_read(uv_os_sock_t socket, uint8_t *to, size_t bytes) {
#ifdef _WIN32
  int count = recv(socket, (char *)to, bytes > INT_MAX ? INT_MAX : (int)bytes, 0);
  return count < 0 ? io_socket_error() : count;
#else
  ssize_t count;
  bool is_again = false;
  do count = recv(socket, to, bytes, MSG_DONTWAIT);
  while (count < 0 && goes_on(socket, &is_again));
  return count < 0 ? -errno : count;
#endif
}

ssize_t io_socket_write(uv_os_sock_t socket, const uint8_t *from, size_t bytes) {
#ifdef _WIN32
  int count = send(socket, (const char *)from, bytes > INT_MAX ? INT_MAX : (int)bytes, 0);
  return count < 0 ? io_socket_error() : count;
#else
  ssize_t count;
  bool is_again = false;
  do count = send(socket, from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (count < 0 && goes_on(socket, &is_again));
  return count < 0 ? -errno : count;
#endif
}
