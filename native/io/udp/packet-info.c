#ifdef __APPLE__
// Required for IPV6_RECVPKTINFO.
#define __APPLE_USE_RFC_3542
#endif

#ifndef _WIN32

#include "packet-info.h"

#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>

#if defined(__linux__) && !defined(UDP_SEGMENT)
#define UDP_SEGMENT 103
#endif

static char *put_control(char *at, int level, int type, const void *value, size_t bytes) {
  struct cmsghdr *cmsg = (struct cmsghdr *)(void *)at;
  cmsg->cmsg_level = level;
  cmsg->cmsg_type = type;
  cmsg->cmsg_len = CMSG_LEN(bytes);
  memcpy(CMSG_DATA(cmsg), value, bytes);
  return at + CMSG_SPACE(bytes);
}

#if defined(__linux__) || defined(__APPLE__)

int32_t io_udp_local_of_control(local_table *locals, const struct cmsghdr *control) {
  if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
    struct in_pktinfo info;
    memcpy(&info, CMSG_DATA(control), sizeof info);
#ifdef __linux__
    // For a broadcast this differs from the destination.
    struct in_addr address = info.ipi_spec_dst;
#else
    struct in_addr address = info.ipi_addr;
#endif
    uint32_t host_order = ntohl(address.s_addr);
    if (host_order == INADDR_ANY || IN_MULTICAST(host_order)) return 0;
    return io_udp_number_local(locals, (const uint8_t *)&address, sizeof address, 0);
  }
  if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
    struct in6_pktinfo info;
    memcpy(&info, CMSG_DATA(control), sizeof info);
    if (IN6_IS_ADDR_MULTICAST(&info.ipi6_addr) || IN6_IS_ADDR_UNSPECIFIED(&info.ipi6_addr)) return 0;
    uint32_t index = IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr) ? (uint32_t)info.ipi6_ifindex : 0;
    return io_udp_number_local(locals, (const uint8_t *)&info.ipi6_addr, sizeof info.ipi6_addr, index);
  }
  return 0;
}

static char *put_local(char *at, int family, const local_address *local) {
  if (family == AF_INET) {
    struct in_pktinfo info = {0};
    memcpy(&info.ipi_spec_dst, local->bytes, sizeof info.ipi_spec_dst);
    return put_control(at, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
  }
  struct in6_pktinfo info = {.ipi6_ifindex = local->interface_index};
  memcpy(&info.ipi6_addr, local->bytes, sizeof info.ipi6_addr);
  return put_control(at, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
}

void io_udp_system_tell_locals(udp_socket *socket) {
  bool is_ipv6 = socket->family == AF_INET6;
  int level = is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP;
  int option = is_ipv6 ? IPV6_RECVPKTINFO : IP_PKTINFO;
  if (io_socket_set(socket->fd, level, option, 1) == 0) socket->locals = calloc(1, sizeof *socket->locals);
}

#else

int32_t io_udp_local_of_control(local_table *locals, const struct cmsghdr *control) {
  (void)locals, (void)control;
  return 0;
}

static char *put_local(char *at, int family, const local_address *local) {
  (void)family, (void)local, (void)put_control;
  return at;
}

void io_udp_system_tell_locals(udp_socket *socket) {
  (void)socket;
}

#endif

void io_udp_set_control(struct msghdr *header, control_buffer *control, int family, size_t segment_bytes,
                        const local_address *local) {
  if (segment_bytes == 0 && local == NULL) return;
  memset(control, 0, sizeof *control);
  char *at = control->bytes;
#ifdef __linux__
  uint16_t segment = (uint16_t)segment_bytes;
  if (segment_bytes > 0) at = put_control(at, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment);
#endif
  if (local != NULL) at = put_local(at, family, local);
  header->msg_control = control;
  header->msg_controllen = (size_t)(at - control->bytes);
}

#else
typedef int nothing_on_windows;
#endif
