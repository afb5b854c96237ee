// Linux: many messages per call (recvmmsg, sendmmsg), coalesced and segmented ones (UDP_GRO, UDP_SEGMENT), the error queue.
#ifdef __linux__

#include <errno.h>
// For linux/errqueue.h, which does not include it.
#include <time.h>

#include <linux/errqueue.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "packet-info.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

// Limit of errors that are read from one socket per turn; the rest waits.
#define ERROR_READS 64

struct system_messages {
  struct mmsghdr received[IO_UDP_SLOTS];
  struct iovec received_parts[IO_UDP_SLOTS];
  struct sockaddr_storage received_from[IO_UDP_SLOTS];
  control_buffer received_control[IO_UDP_SLOTS];
  struct mmsghdr sent[SEND_MESSAGES];
  control_buffer sent_control[SEND_MESSAGES];
  struct iovec sent_parts[SEND_PARTS];
};

// The system has changed these fields of slots that contain a message.
static void prepare_slot(struct system_messages *system, int32_t slot) {
  struct msghdr *header = &system->received[slot].msg_hdr;
  header->msg_namelen = sizeof system->received_from[slot];
  header->msg_controllen = sizeof system->received_control[slot];
  header->msg_flags = 0;
}

int io_udp_system_begin(udp *udp) {
  struct system_messages *system = calloc(1, sizeof *system);
  if (system == NULL) return UV_ENOMEM;
  for (int i = 0; i < IO_UDP_SLOTS; i++) {
    system->received_parts[i].iov_base = udp->memory.arena + (size_t)i * IO_UDP_SLOT_STRIDE;
    system->received_parts[i].iov_len = IO_UDP_SLOT_BYTES;
    struct msghdr *header = &system->received[i].msg_hdr;
    header->msg_name = &system->received_from[i];
    header->msg_iov = &system->received_parts[i];
    header->msg_iovlen = 1;
    header->msg_control = &system->received_control[i];
    prepare_slot(system, i);
  }
  udp->system = system;
  return 0;
}

void io_udp_system_end(udp *udp) {
  free(udp->system);
}

void io_udp_system_opened(udp_socket *socket) {
  // If the system does not support coalescing, datagrams arrive singly.
  io_socket_set(socket->fd, IPPROTO_UDP, UDP_GRO, 1);
  int segment = 0;
  socklen_t length = sizeof segment;
  if (getsockopt(socket->fd, IPPROTO_UDP, UDP_SEGMENT, &segment, &length) == 0) socket->segment_limit = MAX_PAYLOAD;
}

// With SO_…BUFFORCE if permitted.
void io_udp_system_set_buffer(uv_os_sock_t socket, bool is_receive, int bytes) {
  if (io_socket_set(socket, SOL_SOCKET, is_receive ? SO_RCVBUFFORCE : SO_SNDBUFFORCE, bytes) != 0)
    io_socket_set(socket, SOL_SOCKET, is_receive ? SO_RCVBUF : SO_SNDBUF, bytes);
}

// NONE for other errors.
static int kind_of_icmp(const struct sock_extended_err *error) {
  if (error->ee_origin == SO_EE_ORIGIN_LOCAL) return error->ee_errno == EMSGSIZE ? IO_UDP_UNREACHABLE_TOO_BIG : NONE;
  if (error->ee_origin == SO_EE_ORIGIN_ICMP && error->ee_type == ICMP_DEST_UNREACH) {
    switch (error->ee_code) {
      case ICMP_PORT_UNREACH:
      case ICMP_PROT_UNREACH:
        return IO_UDP_UNREACHABLE_PORT;
      case ICMP_FRAG_NEEDED:
        return IO_UDP_UNREACHABLE_TOO_BIG;
      case ICMP_NET_ANO:
      case ICMP_HOST_ANO:
      case ICMP_PKT_FILTERED:
        return IO_UDP_UNREACHABLE_PROHIBITED;
      default:
        return IO_UDP_UNREACHABLE_HOST;
    }
  }
  if (error->ee_origin == SO_EE_ORIGIN_ICMP6 && error->ee_type == ICMP6_PACKET_TOO_BIG) return IO_UDP_UNREACHABLE_TOO_BIG;
  if (error->ee_origin == SO_EE_ORIGIN_ICMP6 && error->ee_type == ICMP6_DST_UNREACH) {
    switch (error->ee_code) {
      case ICMP6_DST_UNREACH_NOPORT:
        return IO_UDP_UNREACHABLE_PORT;
      case ICMP6_DST_UNREACH_ADMIN:
      // RFC 4443: source address failed policy, and reject route.
      case 5:
      case 6:
        return IO_UDP_UNREACHABLE_PROHIBITED;
      default:
        return IO_UDP_UNREACHABLE_HOST;
    }
  }
  return NONE;
}

// Reads the error queue. While it is not empty, the socket keeps becoming ready.
bool io_udp_system_read_errors(udp_socket *socket) {
  for (int i = 0; i < ERROR_READS; i++) {
    struct sockaddr_storage to;
    union {
      struct cmsghdr align;
      char bytes[512];
    } control;
    struct msghdr header = {
        .msg_name = &to, .msg_namelen = sizeof to, .msg_control = &control, .msg_controllen = sizeof control};
    to.ss_family = AF_UNSPEC;
    if (recvmsg(socket->fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
      if (errno == EINTR) continue;
      break;
    }
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header); cmsg != NULL; cmsg = CMSG_NXTHDR(&header, cmsg)) {
      bool is_error = (cmsg->cmsg_level == IPPROTO_IP && cmsg->cmsg_type == IP_RECVERR) ||
                      (cmsg->cmsg_level == IPPROTO_IPV6 && cmsg->cmsg_type == IPV6_RECVERR);
      struct sock_extended_err error;
      if (!is_error || cmsg->cmsg_len < CMSG_LEN(sizeof error)) continue;
      memcpy(&error, CMSG_DATA(cmsg), sizeof error);
      // The failed send has already counted a local error.
      if (error.ee_origin != SO_EE_ORIGIN_LOCAL) socket->udp->counts[IO_UDP_COUNT_REFUSED]++;
      if (header.msg_namelen > 0) io_udp_add_error(socket, &to, kind_of_icmp(&error), error.ee_info);
    }
  }
  return true;
}

bool io_udp_system_receive(udp_socket *socket) {
  udp *udp = socket->udp;
  struct system_messages *system = udp->system;
  int32_t first = udp->slot_count;
  int32_t asked = IO_UDP_SLOTS - first;
  int32_t address_offset = NONE;
  int count, tries = 0;
  do count = recvmmsg(socket->fd, system->received + first, (unsigned)asked, MSG_DONTWAIT, NULL);
  while (count < 0 &&
         (errno == EINTR || (socket->tells_errors && io_udp_is_news(socket, -errno) && tries++ < NEWS_TRIES)));
  if (count < 0) {
    // An ICMP error for an earlier datagram appears here once, and is harmless. If errors are reported, the error queue also
    // contains it, and it is counted there.
    if (errno == EAGAIN || errno == EWOULDBLOCK || socket->tells_errors) return false;
    udp->counts[IO_UDP_COUNT_REFUSED]++;
    return false;
  }
  udp->slot_count = first + count;
  for (int32_t i = first; i < first + count; i++) {
    struct msghdr *header = &system->received[i].msg_hdr;
    size_t segment_bytes = 0;
    int32_t local = 0;
    if (header->msg_controllen > 0) {
      for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control != NULL; control = CMSG_NXTHDR(header, control)) {
        if (control->cmsg_level != IPPROTO_UDP || control->cmsg_type != UDP_GRO) {
          if (socket->locals != NULL && local == 0) local = io_udp_local_of_control(socket->locals, control);
          continue;
        }
        int value;
        memcpy(&value, CMSG_DATA(control), sizeof value);
        if (value > 0) segment_bytes = (size_t)value;
      }
    }
    io_udp_add_message(socket, i, system->received[i].msg_len, segment_bytes, &system->received_from[i], local,
                       &address_offset);
    prepare_slot(system, i);
  }
  return count == asked;
}

int io_udp_system_send_once(udp_socket *socket, const struct sockaddr_storage *to, socklen_t to_length, const part *parts,
                            size_t part_count, size_t segment_bytes, const local_address *local) {
  struct iovec vectors[2 * SEND_SEGMENTS];
  for (size_t i = 0; i < part_count; i++) vectors[i] = (struct iovec){(void *)parts[i].data, parts[i].length};
  struct msghdr header = {
      .msg_name = (void *)to, .msg_namelen = to_length, .msg_iov = vectors, .msg_iovlen = part_count};
  control_buffer control;
  io_udp_set_control(&header, &control, socket->family, segment_bytes, local);
  ssize_t sent;
  int tries = 0;
  do sent = sendmsg(socket->fd, &header, 0);
  while (sent < 0 &&
         (errno == EINTR || (socket->tells_errors && io_udp_is_news(socket, -errno) && tries++ < NEWS_TRIES)));
  return sent < 0 ? -errno : 0;
}

void io_udp_system_prepare(udp_socket *socket, size_t count) {
  udp *udp = socket->udp;
  struct system_messages *system = udp->system;
  for (size_t i = 0; i < count; i++) {
    const message *message = &udp->messages[i];
    const part *parts = udp->parts + message->first_part;
    struct iovec *vectors = system->sent_parts + message->first_part;
    for (size_t j = 0; j < message->part_count; j++)
      vectors[j] = (struct iovec){(void *)parts[j].data, parts[j].length};
    struct msghdr *header = &system->sent[i].msg_hdr;
    *header = (struct msghdr){.msg_name = (void *)&message->to,
                              .msg_namelen = message->to_length,
                              .msg_iov = vectors,
                              .msg_iovlen = message->part_count};
    io_udp_set_control(header, &system->sent_control[i], socket->family, message->segments > 1 ? message->segment_bytes : 0,
                       io_udp_local_of(socket, message->local));
  }
}

int io_udp_system_send(udp_socket *socket, size_t first, size_t count) {
  int sent;
  do sent = sendmmsg(socket->fd, socket->udp->system->sent + first, (unsigned)(count - first), MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : sent;
}

int io_udp_tell_errors(io_loop *loop, int32_t id) {
  udp_socket *socket = io_udp_socket_of(loop, id);
  if (socket == NULL) return UV_EINVAL;
  bool is_ipv6 = socket->family == AF_INET6;
  int error = io_socket_set(socket->fd, is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP, is_ipv6 ? IPV6_RECVERR : IP_RECVERR, 1);
  socket->tells_errors = error == 0;
  return error;
}

int io_udp_forbid_fragments(io_loop *loop, int32_t id) {
  udp_socket *socket = io_udp_socket_of(loop, id);
  if (socket == NULL) return UV_EINVAL;
  return socket->family == AF_INET6
             ? io_socket_set(socket->fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO)
             : io_socket_set(socket->fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
}

int io_udp_latency(io_loop *loop, int32_t id, int latency) {
  udp_socket *socket = io_udp_socket_of(loop, id);
  if (socket == NULL) return UV_EINVAL;
  // A hold in progress ends as planned, and is the last.
  socket->latency = latency;
  return 0;
}

#else
typedef int nothing_on_other_systems;
#endif
