// What node:net lacks for TCP: listeners that share a port and hand over descriptors, and options of a connection's
// descriptor.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "module.h"

#ifdef _WIN32

void tcp_init(napi_env env, napi_value exports) {}
void tcp_end(environment *environment) {}

#else

#include <fcntl.h>
#include <netinet/tcp.h>
#include <unistd.h>

// Connections accepted in one turn of the loop.
#define ACCEPT_ROUND 64

typedef struct listener {
  watcher watcher;
  struct listener *next;
  // Given up for a moment to turn a connection away when the process has no descriptor left.
  int reserve;
} listener;

// References of a listener.
enum { ON_ACCEPT, LISTENER_REFERENCES };

static int accept_one(int fd) {
#ifdef __linux__
  return accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
#else
  int accepted = accept(fd, NULL, NULL);
  if (accepted >= 0) {
    fcntl(accepted, F_SETFL, O_NONBLOCK);
    fcntl(accepted, F_SETFD, FD_CLOEXEC);
  }
  return accepted;
#endif
}

static void turn_away(listener *listener) {
  if (listener->reserve >= 0) close(listener->reserve);
  int accepted = accept_one(listener->watcher.fd);
  if (accepted >= 0) close(accepted);
  listener->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_connections(uv_poll_t *poll, int status, int events) {
  listener *listener = poll->data;
  for (int i = 0; i < ACCEPT_ROUND && listener->watcher.fd >= 0; i++) {
    int fd = accept_one(listener->watcher.fd);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno == EMFILE || errno == ENFILE) turn_away(listener);
      return;
    }
    watcher_call(&listener->watcher, ON_ACCEPT, 1, fd);
  }
}

static int listen_on(const struct sockaddr_storage *address, socklen_t length, bool reuse_port, int backlog, int *result) {
  int fd = socket(address->ss_family, SOCK_STREAM, 0);
  if (fd < 0) return -errno;
  fcntl(fd, F_SETFL, O_NONBLOCK);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  int one = 1;
  bool is_good = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0;
  if (address->ss_family == AF_INET6)
    is_good = is_good && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) == 0;
  if (reuse_port) is_good = is_good && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) == 0;
  is_good = is_good && bind(fd, (const struct sockaddr *)address, length) == 0 && listen(fd, backlog) == 0;
  if (!is_good) {
    int error = -errno;
    close(fd);
    return error;
  }
  *result = fd;
  return 0;
}

// tcpListen(address, reusePort, backlog, onAccept(descriptor)): descriptor of the listener
static napi_value tcp_listen(napi_env env, napi_callback_info info) {
  napi_value values[4];
  if (!get_arguments(env, info, 4, values)) return NULL;
  environment *environment = environment_of(env);
  bytes_view bytes = get_bytes(env, values[0]);
  struct sockaddr_storage address;
  socklen_t length = bytes.data == NULL ? 0 : scoped_address_to_sockaddr(bytes.data, bytes.bytes, &address);
  if (length == 0) return throw_system_error(env, UV_EINVAL, "listen");
  bool reuse_port = false;
  napi_get_value_bool(env, values[1], &reuse_port);
  listener *listener = calloc(1, sizeof *listener);
  if (listener == NULL) return throw_system_error(env, UV_ENOMEM, "listen");
  int fd = -1;
  int error = listen_on(&address, length, reuse_port, get_int(env, values[2]), &fd);
  if (error == 0) {
    error = watcher_begin(&listener->watcher, environment, fd, UV_READABLE, on_connections, "underpass:listener",
                          values + 3, LISTENER_REFERENCES);
    if (error != 0) close(fd);
  }
  if (error != 0) {
    free(listener);
    return throw_system_error(env, error, "listen");
  }
  listener->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
  listener->next = environment->listeners;
  environment->listeners = listener;
  return make_int(env, fd);
}

static void close_listener(listener *listener) {
  int fd = listener->watcher.fd;
  watcher_end(&listener->watcher);
  close(fd);
  if (listener->reserve >= 0) close(listener->reserve);
}

// tcpUnlisten(descriptor of a listener)
static napi_value tcp_unlisten(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  int fd = get_int(env, value);
  for (listener **at = &environment_of(env)->listeners; *at != NULL; at = &(*at)->next) {
    listener *found = *at;
    if (found->watcher.fd != fd) continue;
    *at = found->next;
    close_listener(found);
    return NULL;
  }
  return NULL;
}

// socketAddress(descriptor): the local address in bytes; undefined unless it is an IP socket
static napi_value socket_address(napi_env env, napi_callback_info info) {
  napi_value value, result;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  struct sockaddr_storage address;
  socklen_t length = sizeof address;
  uint8_t bytes[ADDRESS_MAX_BYTES];
  size_t count = 0;
  if (getsockname(get_int(env, value), (struct sockaddr *)&address, &length) == 0)
    count = address_from_sockaddr(&address, bytes);
  if (count == 0) return NULL;
  void *data;
  napi_value buffer;
  napi_create_arraybuffer(env, count, &data, &buffer);
  memcpy(data, bytes, count);
  napi_create_typedarray(env, napi_uint8_array, count, buffer, 0, &result);
  return result;
}

// tcpTune(descriptor, not-sent low-water mark in bytes, user timeout in ms): sets these two, TCP_NODELAY and keepalive; false
// if the system lacks one of the two
static napi_value tcp_tune(napi_env env, napi_callback_info info) {
  napi_value values[3], result;
  if (!get_arguments(env, info, 3, values)) return NULL;
  int fd = get_int(env, values[0]);
  bool is_good = true;
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
#ifdef TCP_NOTSENT_LOWAT
  int low_water = get_int(env, values[1]);
  is_good = setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &low_water, sizeof low_water) == 0 && is_good;
#else
  is_good = false;
#endif
#ifdef TCP_USER_TIMEOUT
  unsigned timeout = (unsigned)get_int(env, values[2]);
  is_good = setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout) == 0 && is_good;
#else
  is_good = false;
#endif
  napi_get_boolean(env, is_good, &result);
  return result;
}

// descriptorDuplicate(descriptor): another one for the same connection, which outlives the first
static napi_value descriptor_duplicate(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  int fd = fcntl(get_int(env, value), F_DUPFD_CLOEXEC, 0);
  return fd < 0 ? throw_system_error(env, -errno, "dup") : make_int(env, fd);
}

static napi_value descriptor_close(napi_env env, napi_callback_info info) {
  napi_value value;
  if (get_arguments(env, info, 1, &value)) close(get_int(env, value));
  return NULL;
}

void tcp_end(environment *environment) {
  while (environment->listeners != NULL) {
    listener *listener = environment->listeners;
    environment->listeners = listener->next;
    close_listener(listener);
  }
}

void tcp_init(napi_env env, napi_value exports) {
  set_function(env, exports, "tcpListen", tcp_listen);
  set_function(env, exports, "tcpUnlisten", tcp_unlisten);
  set_function(env, exports, "socketAddress", socket_address);
  set_function(env, exports, "tcpTune", tcp_tune);
  set_function(env, exports, "descriptorDuplicate", descriptor_duplicate);
  set_function(env, exports, "descriptorClose", descriptor_close);
}

#endif
