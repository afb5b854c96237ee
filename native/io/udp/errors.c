// Datagrams that did not get through: reports to the caller, and counts.
#include <errno.h>
#include <string.h>

#include "udp-state.h"

void io_udp_add_error(udp_socket *socket, const struct sockaddr_storage *to, int kind, uint32_t mtu) {
  udp *udp = socket->udp;
  int32_t row[IO_UDP_ERROR_ROW_INTS] = {socket->id, kind, mtu < UINT16_MAX ? (int32_t)mtu : UINT16_MAX};
  if (kind == NONE || !socket->tells_errors) return;
  row[3] = (int32_t)io_address_from_sockaddr(to, (uint8_t *)(row + 4));
  if (row[3] == 0) return;
  int32_t *end = udp->memory.errors + (size_t)udp->error_count * IO_UDP_ERROR_ROW_INTS;
  if (udp->error_count > 0 && memcmp(end - IO_UDP_ERROR_ROW_INTS, row, sizeof row) == 0) return;
  if (udp->error_count == IO_UDP_ERROR_ROWS) {
    udp->counts[IO_UDP_COUNT_UNTOLD]++;
    return;
  }
  memcpy(end, row, sizeof row);
  udp->error_count++;
}

int io_udp_kind_of_error(int error) {
  switch (error) {
    case UV_EHOSTUNREACH:
    case UV_ENETUNREACH:
    case UV_EADDRNOTAVAIL:
      return IO_UDP_UNREACHABLE_HOST;
    case UV_EACCES:
    case UV_EPERM:
      return IO_UDP_UNREACHABLE_PROHIBITED;
    default:
      return NONE;
  }
}

bool io_udp_is_news(const udp_socket *socket, int error) {
  switch (error) {
    case UV_ECONNREFUSED:
    case UV_EHOSTUNREACH:
    case UV_ENETUNREACH:
      return true;
    case UV_EMSGSIZE:
    case UV_EACCES:
    case UV_EPROTO:
#ifndef _WIN32
    case -ENOPROTOOPT:
    case -EHOSTDOWN:
    case -EOPNOTSUPP:
#endif
#ifdef __linux__
    case -ENONET:
#endif
      return socket->tells_errors;
    default:
      return false;
  }
}

void io_udp_count_failure(udp_socket *socket, const struct sockaddr_storage *to, int error, size_t datagrams) {
  int reason = error == UV_EMSGSIZE                        ? IO_UDP_COUNT_TOO_LONG
               : error == UV_ENOBUFS || error == UV_ENOMEM ? IO_UDP_COUNT_NO_BUFFERS
               : error == UV_ECONNREFUSED                  ? IO_UDP_COUNT_REFUSED
                                                           : IO_UDP_COUNT_FAILED;
  socket->udp->counts[reason] += (double)datagrams;
  io_udp_add_error(socket, to, io_udp_kind_of_error(error), 0);
}

int32_t io_udp_errors(io_loop *loop) {
  udp *udp = loop->udp;
  if (udp == NULL) return 0;
  int32_t count = udp->error_count;
  udp->error_count = 0;
  return count;
}

void io_udp_counts(io_loop *loop, double counts[IO_UDP_COUNTS]) {
  if (loop->udp != NULL) memcpy(counts, loop->udp->counts, sizeof loop->udp->counts);
  else memset(counts, 0, IO_UDP_COUNTS * sizeof *counts);
}
