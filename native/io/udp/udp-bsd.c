// macOS and the BSDs: recvmsg and sendmsg.
#ifdef __APPLE__
// Required for IPV6_RECVPKTINFO.
#define __APPLE_USE_RFC_3542
#endif

#if !defined(__linux__) && !defined(_WIN32)

#include <errno.h>
#include <sys/uio.h>

#include "packet-info.h"

void io_udp_system_opened(udp_socket *socket) {
  (void)socket;
}

bool io_udp_system_receive(udp_socket *socket) {
  udp *udp = socket->udp;
  int32_t address_offset = NONE;
  for (int32_t i = udp->slot_count; i < IO_UDP_SLOTS; i++) {
    struct sockaddr_storage from;
    control_buffer control;
    struct iovec vector = {udp->memory.arena + (size_t)i * IO_UDP_SLOT_STRIDE, IO_UDP_SLOT_BYTES};
    struct msghdr header = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &vector, .msg_iovlen = 1};
    if (socket->locals != NULL) {
      header.msg_control = &control;
      header.msg_controllen = sizeof control;
    }
    ssize_t length;
    do length = recvmsg(socket->fd, &header, 0);
    while (length < 0 && errno == EINTR);
    if (length < 0) {
      if (errno != EAGAIN && errno != EWOULDBLOCK) udp->counts[IO_UDP_COUNT_REFUSED]++;
      return false;
    }
    int32_t local = 0;
    if (socket->locals != NULL) {
      for (struct cmsghdr *each = CMSG_FIRSTHDR(&header); each != NULL && local == 0; each = CMSG_NXTHDR(&header, each))
        local = io_udp_local_of_control(socket->locals, each);
    }
    udp->slot_count = i + 1;
    io_udp_add_message(socket, i, (size_t)length, 0, &from, local, &address_offset);
  }
  return true;
}

int io_udp_system_send_once(udp_socket *socket, const struct sockaddr_storage *to, socklen_t to_length, const part *parts,
                            size_t part_count, size_t segment_bytes, const local_address *local) {
  struct iovec vectors[2];
  for (size_t i = 0; i < part_count; i++) vectors[i] = (struct iovec){(void *)parts[i].data, parts[i].length};
  struct msghdr header = {
      .msg_name = (void *)to, .msg_namelen = to_length, .msg_iov = vectors, .msg_iovlen = (int)part_count};
  control_buffer control;
  io_udp_set_control(&header, &control, socket->family, segment_bytes, local);
  ssize_t sent;
  do sent = sendmsg(socket->fd, &header, 0);
  while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : 0;
}

#else
typedef int nothing_on_other_systems;
#endif
