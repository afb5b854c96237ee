// The code that macOS, the BSDs and Windows share: one message per call, and no error reports.
#ifndef __linux__

#include "udp-state.h"

int io_udp_system_begin(udp *udp) {
  (void)udp;
  return 0;
}

void io_udp_system_end(udp *udp) {
  (void)udp;
}

void io_udp_system_set_buffer(uv_os_sock_t socket, bool is_receive, int bytes) {
  io_socket_set(socket, SOL_SOCKET, is_receive ? SO_RCVBUF : SO_SNDBUF, bytes);
}

bool io_udp_system_read_errors(udp_socket *socket) {
  (void)socket;
  return false;
}

void io_udp_system_prepare(udp_socket *socket, size_t count) {
  (void)socket, (void)count;
}

int io_udp_system_send(udp_socket *socket, size_t first, size_t count) {
  (void)count;
  const message *message = &socket->udp->messages[first];
  int error = io_udp_send_from(socket, &message->to, message->to_length, socket->udp->parts + message->first_part,
                               message->part_count, 0, message->local);
  return error == 0 ? 1 : error;
}

int io_udp_tell_errors(io_loop *loop, int32_t id) {
  (void)loop, (void)id;
  return UV_ENOTSUP;
}

int io_udp_forbid_fragments(io_loop *loop, int32_t id) {
  (void)loop, (void)id;
  return UV_ENOTSUP;
}

int io_udp_latency(io_loop *loop, int32_t id, int latency) {
  (void)loop, (void)id, (void)latency;
  return UV_ENOTSUP;
}

#else
typedef int nothing_on_linux;
#endif
