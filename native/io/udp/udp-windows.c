#ifdef _WIN32

#include "udp-state.h"

// After the headers that it depends on.
#include <mswsock.h>

void io_udp_system_opened(udp_socket *socket) {
  // Otherwise a refused datagram would make the next read fail.
  BOOL reset = FALSE;
  DWORD ignored;
  WSAIoctl(socket->fd, SIO_UDP_CONNRESET, &reset, sizeof reset, NULL, 0, &ignored, NULL, NULL);
}

void io_udp_system_tell_locals(udp_socket *socket) {
  (void)socket;
}

bool io_udp_system_receive(udp_socket *socket) {
  udp *udp = socket->udp;
  int32_t address_offset = NONE;
  for (int32_t i = udp->slot_count; i < IO_UDP_SLOTS; i++) {
    struct sockaddr_storage from;
    WSABUF buffer = {IO_UDP_SLOT_BYTES, (char *)udp->memory.arena + (size_t)i * IO_UDP_SLOT_STRIDE};
    DWORD length = 0, flags = 0;
    INT from_length = sizeof from;
    if (WSARecvFrom(socket->fd, &buffer, 1, &length, &flags, (struct sockaddr *)&from, &from_length, NULL, NULL) != 0) {
      if (WSAGetLastError() != WSAEWOULDBLOCK) udp->counts[IO_UDP_COUNT_REFUSED]++;
      return false;
    }
    udp->slot_count = i + 1;
    io_udp_add_message(socket, i, (size_t)length, 0, &from, 0, &address_offset);
  }
  return true;
}

int io_udp_system_send_once(udp_socket *socket, const struct sockaddr_storage *to, socklen_t to_length, const part *parts,
                            size_t part_count, size_t segment_bytes, const local_address *local) {
  (void)segment_bytes, (void)local;
  WSABUF buffers[2];
  for (size_t i = 0; i < part_count; i++) {
    buffers[i].buf = (char *)parts[i].data;
    buffers[i].len = (ULONG)parts[i].length;
  }
  DWORD sent;
  int result = WSASendTo(socket->fd, buffers, (DWORD)part_count, &sent, 0, (const struct sockaddr *)to, to_length, NULL, NULL);
  return result == 0 ? 0 : io_socket_error();
}

#else
typedef int nothing_on_other_systems;
#endif
