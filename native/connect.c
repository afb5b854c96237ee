// TCP connections through a given interface or with a given mark, which node:net does not offer: the options have to be
// set before connecting.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "module.h"

#ifdef _WIN32

void connect_init(napi_env env, napi_value exports) {}
void connect_end(environment *environment) {}

#else

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <unistd.h>

typedef struct connection {
  watcher watcher;
  struct connection *next;
} connection;

// References of a connection.
enum { ON_DONE, CONNECTION_REFERENCES };

int restrict_socket(int fd, int family, const char *interface_name, uint32_t mark) {
  size_t length = strlen(interface_name);
#if defined(__linux__)
  if (length > 0 && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface_name, (socklen_t)length) != 0) return -errno;
  if (mark != 0 && setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0) return -errno;
#elif defined(IP_BOUND_IF)
  if (mark != 0) return UV_ENOTSUP;
  unsigned index = length > 0 ? if_nametoindex(interface_name) : 0;
  if (length > 0 && index == 0) return UV_ENXIO;
  int level = family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;
  int option = family == AF_INET6 ? IPV6_BOUND_IF : IP_BOUND_IF;
  if (index != 0 && setsockopt(fd, level, option, &index, sizeof index) != 0) return -errno;
#else
  if (length > 0 || mark != 0) return UV_ENOTSUP;
#endif
  return 0;
}

bool get_restriction(napi_env env, napi_value name, napi_value mark_value, char interface_name[IFNAMSIZ],
                     uint32_t *mark) {
  size_t length = 0;
  char text[IFNAMSIZ + 1];
  *mark = (uint32_t)get_number(env, mark_value);
  if (napi_get_value_string_utf8(env, name, text, sizeof text, &length) != napi_ok || length >= IFNAMSIZ) {
    throw_system_error(env, UV_EINVAL, "name of the interface");
    return false;
  }
  memcpy(interface_name, text, length + 1);
  return true;
}

// Removes the attempt from the list and stops watching its descriptor, which the caller then hands out or closes.
static void end_attempt(connection *ended) {
  for (connection **at = &ended->watcher.environment->connections; *at != NULL; at = &(*at)->next) {
    if (*at != ended) continue;
    *at = ended->next;
    break;
  }
  watcher_stop(&ended->watcher);
}

static void give_up(connection *connection) {
  int fd = connection->watcher.fd;
  end_attempt(connection);
  watcher_release(&connection->watcher);
  close(fd);
}

static void on_connected(uv_poll_t *poll, int status, int events) {
  connection *connection = poll->data;
  watcher *watcher = &connection->watcher;
  environment *environment = watcher->environment;
  napi_env env = environment->env;
  int fd = watcher->fd, error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) error = errno;
  if (error == 0 && status < 0) error = -status;
  end_attempt(connection);
  if (error != 0) close(fd);
  napi_handle_scope scope;
  napi_open_handle_scope(env, &scope);
  napi_value result = make_int(env, error == 0 ? fd : -error);
  call_function(environment, watcher->references[ON_DONE], watcher->context, 1, &result);
  napi_close_handle_scope(env, scope);
  watcher_release(watcher);
}

// tcpConnect(address, interface or "", mark or 0, onDone(descriptor, or a system error)): number of the attempt, which is
// its descriptor
static napi_value tcp_connect(napi_env env, napi_callback_info info) {
  napi_value values[4];
  char interface_name[IFNAMSIZ];
  uint32_t mark;
  if (!get_arguments(env, info, 4, values) || !get_restriction(env, values[1], values[2], interface_name, &mark))
    return NULL;
  environment *environment = environment_of(env);
  bytes_view bytes = get_bytes(env, values[0]);
  struct sockaddr_storage address;
  socklen_t length = bytes.data == NULL ? 0 : scoped_address_to_sockaddr(bytes.data, bytes.bytes, &address);
  if (length == 0) return throw_system_error(env, UV_EINVAL, "connect");
  connection *connection = calloc(1, sizeof *connection);
  if (connection == NULL) return throw_system_error(env, UV_ENOMEM, "connect");
  int fd = socket(address.ss_family, SOCK_STREAM, 0);
  int error = fd < 0 ? -errno : 0;
  if (error == 0) {
    fcntl(fd, F_SETFL, O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    error = restrict_socket(fd, address.ss_family, interface_name, mark);
  }
  if (error == 0 && connect(fd, (struct sockaddr *)&address, length) != 0 && errno != EINPROGRESS && errno != EINTR)
    error = -errno;
  if (error == 0)
    error = watcher_begin(&connection->watcher, environment, fd, UV_WRITABLE, on_connected, "underpass:connect",
                          values + 3, CONNECTION_REFERENCES);
  if (error != 0) {
    if (fd >= 0) close(fd);
    free(connection);
    return throw_system_error(env, error, "connect");
  }
  connection->next = environment->connections;
  environment->connections = connection;
  return make_int(env, fd);
}

// tcpConnectCancel(number of an attempt): aborts it, unless it has ended
static napi_value tcp_connect_cancel(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  int fd = get_int(env, value);
  for (connection *at = environment_of(env)->connections; at != NULL; at = at->next) {
    if (at->watcher.fd != fd) continue;
    give_up(at);
    return NULL;
  }
  return NULL;
}

void connect_end(environment *environment) {
  while (environment->connections != NULL) give_up(environment->connections);
}

void connect_init(napi_env env, napi_value exports) {
  set_function(env, exports, "tcpConnect", tcp_connect);
  set_function(env, exports, "tcpConnectCancel", tcp_connect_cancel);
}

#endif
