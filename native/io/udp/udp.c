// Opens, watches, configures and closes the sockets.
#include "../tcp.h"
#include "../udp.h"

#include <stdlib.h>
#include <string.h>

#include "../shortcut/table.h"
#include "udp-state.h"

udp_socket *io_udp_socket_of(io_loop *loop, int32_t id) {
  udp *udp = loop->udp;
  return udp != NULL && id >= 0 && id < udp->used_ids ? udp->sockets[id] : NULL;
}

void io_udp_watch(udp_socket *socket) {
  int events = (socket->held.link == NULL ? UV_READABLE : 0) | (socket->first_pending != NULL ? UV_WRITABLE : 0);
  if (events == 0) uv_poll_stop(&socket->poll);
  else uv_poll_start(&socket->poll, events, io_udp_on_ready);
}

void io_udp_on_ready(uv_poll_t *poll, int status, int events) {
  udp_socket *socket = poll->data;
  if (status < 0) {
    // libuv has stopped watching.
    if (io_udp_system_read_errors(socket)) io_udp_watch(socket);
    events = UV_READABLE;
  }
  if (events & UV_WRITABLE) io_udp_send_pending(socket);
  if (!(events & UV_READABLE)) return;
  io_udp_read_all(socket);
  if (!socket->is_closing && socket->held.link != NULL) io_udp_watch(socket);
}

static void on_check(uv_check_t *check) {
  udp *udp = check->data;
  io_udp_deliver(udp);
  int32_t count = udp->error_count;
  udp->error_count = 0;
  if (count > 0) udp->callbacks->errors(udp->user_data, count);
}

static void udp_handle_closed(udp *udp) {
  io_loop *loop = udp->loop;
  if (--udp->open_handles == 0) {
    io_udp_system_end(udp);
    free(udp->sockets);
    free(udp->free_ids);
    free(udp);
  }
  io_loop_handle_closed(loop);
}

int io_udp_setup(io_loop *loop, const io_udp_memory *memory, const io_udp_callbacks *callbacks, void *user_data) {
  if (loop->is_ending) return UV_ECANCELED;
  if (loop->udp != NULL) return UV_EALREADY;
  udp *udp = calloc(1, sizeof *udp);
  if (udp == NULL) return UV_ENOMEM;
  udp->loop = loop;
  udp->memory = *memory;
  udp->callbacks = callbacks;
  udp->user_data = user_data;
  int error = io_udp_system_begin(udp);
  if (error != 0) {
    free(udp);
    return error;
  }
  uv_check_init(loop->uv, &udp->check);
  udp->check.data = udp;
  uv_check_start(&udp->check, on_check);
  uv_unref((uv_handle_t *)&udp->check);
  loop->open_handles++;
  udp->open_handles++;
  loop->udp = udp;
  return 0;
}

static bool reserve_id(udp *udp) {
  if (udp->free_count > 0 || udp->used_ids < udp->socket_capacity) return true;
  int32_t capacity = udp->socket_capacity == 0 ? 64 : udp->socket_capacity * 2;
  udp_socket **sockets = realloc(udp->sockets, (size_t)capacity * sizeof *sockets);
  if (sockets == NULL) return false;
  udp->sockets = sockets;
  int32_t *free_ids = realloc(udp->free_ids, (size_t)capacity * sizeof *free_ids);
  if (free_ids == NULL) return false;
  udp->free_ids = free_ids;
  udp->socket_capacity = capacity;
  return true;
}

static int bind_socket(uv_os_sock_t fd, const struct sockaddr_storage *address, socklen_t length, bool reuse_port) {
  int error = address->ss_family == AF_INET6 ? io_socket_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) : 0;
#ifdef SO_REUSEPORT
  if (error == 0 && reuse_port) error = io_socket_set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
#else
  if (reuse_port) error = UV_ENOTSUP;
#endif
  if (error == 0 && bind(fd, (const struct sockaddr *)address, length) != 0) error = io_socket_error();
  return error;
}

// Watches a bound socket. Returns its number, or a system error, and then leaves the socket alone.
static int32_t add_socket(io_loop *loop, uv_os_sock_t fd, const struct sockaddr_storage *address,
                          const io_udp_options *options) {
  udp *udp = loop->udp;
  udp_socket *socket = calloc(1, sizeof *socket);
  if (socket == NULL || !reserve_id(udp)) {
    free(socket);
    return UV_ENOMEM;
  }
  int error = uv_poll_init_socket(loop->uv, &socket->poll, fd);
  if (error != 0) {
    free(socket);
    return error;
  }
  loop->open_handles++;
  udp->open_handles++;
  socket->udp = udp;
  socket->fd = fd;
  socket->family = address->ss_family;
  io_udp_system_set_buffer(fd, true, options->receive_bytes);
  io_udp_system_set_buffer(fd, false, options->send_bytes);
  io_udp_system_opened(socket);
  if (socket->family == AF_INET6) socket->scope_id = ((const struct sockaddr_in6 *)address)->sin6_scope_id;
  if (options->tells_locals) io_udp_system_tell_locals(socket);
  socket->first_row = socket->last_row = NONE;
  socket->latency = IO_LATENCY_BALANCED;
  socket->held.resume = io_udp_resume;
  socket->poll.data = socket;
  socket->id = udp->free_count > 0 ? udp->free_ids[--udp->free_count] : udp->used_ids++;
  udp->sockets[socket->id] = socket;
  io_udp_watch(socket);
  return socket->id;
}

int32_t io_udp_open(io_loop *loop, const io_udp_options *options) {
  struct sockaddr_storage address;
  socklen_t length =
      options->address == NULL ? 0 : io_scoped_address_to_sockaddr(options->address, options->address_bytes, &address);
  if (loop->is_ending) return UV_ECANCELED;
  if (loop->udp == NULL || length == 0) return UV_EINVAL;
  uv_os_sock_t fd;
  int32_t result = io_socket_new(loop, address.ss_family, SOCK_DGRAM, &fd);
  if (result != 0) return result;
  result = bind_socket(fd, &address, length, options->reuse_port);
  if (result == 0) result = add_socket(loop, fd, &address, options);
  if (result < 0) io_socket_close(fd);
  return result;
}

int32_t io_udp_adopt(io_loop *loop, int descriptor, const io_udp_options *options) {
#ifdef _WIN32
  (void)loop, (void)descriptor, (void)options;
  return UV_ENOTSUP;
#else
  struct sockaddr_storage address;
  socklen_t length = sizeof address;
  int type = 0;
  socklen_t type_bytes = sizeof type;
  if (loop->is_ending) return UV_ECANCELED;
  if (loop->udp == NULL) return UV_EINVAL;
  if (getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &type_bytes) != 0) return io_socket_error();
  if (getsockname(descriptor, (struct sockaddr *)&address, &length) != 0) return io_socket_error();
  bool is_ip = address.ss_family == AF_INET || address.ss_family == AF_INET6;
  if (type != SOCK_DGRAM || !is_ip) return UV_EINVAL;
  io_socket_adopt(descriptor);
  return add_socket(loop, descriptor, &address, options);
#endif
}

int io_udp_descriptor(io_loop *loop, int32_t id) {
  udp_socket *socket = io_udp_socket_of(loop, id);
  return socket == NULL ? UV_EINVAL : io_descriptor_duplicate((int)socket->fd);
}

static void on_socket_closed(uv_handle_t *handle) {
  udp_socket *socket = handle->data;
  udp *udp = socket->udp;
  // Not earlier, because rows of this turn may still refer to it.
  udp->free_ids[udp->free_count++] = socket->id;
  io_udp_drop_pending(socket);
  free(socket->locals);
  free(socket);
  udp_handle_closed(udp);
}

static void close_socket(udp_socket *socket) {
  udp *udp = socket->udp;
  socket->is_closing = true;
  io_shortcut_end_socket(udp->loop, socket);
  udp->sockets[socket->id] = NULL;
  // Its number may belong to another socket when they are reported.
  for (int32_t i = 0; i < udp->error_count; i++) {
    int32_t *row = udp->memory.errors + (size_t)i * IO_UDP_ERROR_ROW_INTS;
    if (row[0] == socket->id) row[0] = NONE;
  }
  io_latency_release(&socket->held);
  uv_poll_stop(&socket->poll);
  uv_close((uv_handle_t *)&socket->poll, on_socket_closed);
  io_socket_close(socket->fd);
  socket->fd = IO_NO_SOCKET;
}

void io_udp_close(io_loop *loop, int32_t id) {
  udp_socket *socket = io_udp_socket_of(loop, id);
  if (socket != NULL) close_socket(socket);
}

static void on_check_closed(uv_handle_t *handle) {
  udp_handle_closed(handle->data);
}

void io_udp_end(io_loop *loop) {
  udp *udp = loop->udp;
  if (udp == NULL) return;
  loop->udp = NULL;
  udp->row_count = 0;
  udp->error_count = 0;
  uv_check_stop(&udp->check);
  for (int32_t id = 0; id < udp->used_ids; id++) {
    if (udp->sockets[id] != NULL) close_socket(udp->sockets[id]);
  }
  uv_close((uv_handle_t *)&udp->check, on_check_closed);
  if (udp->callbacks->released != NULL) udp->callbacks->released(udp->user_data);
}

int io_udp_dscp(io_loop *loop, int32_t id, int dscp) {
#ifdef _WIN32
  (void)loop, (void)id, (void)dscp;
  return UV_ENOTSUP;
#else
  udp_socket *socket = io_udp_socket_of(loop, id);
  if (socket == NULL) return UV_EINVAL;
  bool is_ipv6 = socket->family == AF_INET6;
  return io_socket_set(socket->fd, is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, is_ipv6 ? IPV6_TCLASS : IP_TOS, dscp << 2);
#endif
}

int io_udp_restrict(io_loop *loop, int32_t id, const char *interface_name, uint32_t mark) {
  udp_socket *socket = io_udp_socket_of(loop, id);
  return socket == NULL ? UV_EINVAL : io_socket_restrict(socket->fd, socket->family, interface_name, mark);
}

int io_udp_port(io_loop *loop, int32_t id) {
  uint8_t address[IO_ADDRESS_MAX_BYTES];
  udp_socket *socket = io_udp_socket_of(loop, id);
  size_t bytes = socket == NULL ? 0 : io_socket_address(socket->fd, address);
  return bytes == 0 ? 0 : address[bytes - 2] * 256 + address[bytes - 1];
}

int io_udp_receive_buffer(io_loop *loop, int32_t id) {
  udp_socket *socket = io_udp_socket_of(loop, id);
  int granted = 0;
  socklen_t length = sizeof granted;
  if (socket != NULL) getsockopt(socket->fd, SOL_SOCKET, SO_RCVBUF, (void *)&granted, &length);
  return granted;
}
