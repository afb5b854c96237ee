// Control data of messages, on systems that have recvmsg(2): the local address that a datagram arrived at or is sent from, and the
// length of segments.
#ifndef UNDERPASS_IO_PACKET_INFO_H
#define UNDERPASS_IO_PACKET_INFO_H

#include "udp-state.h"

typedef union control_buffer {
  struct cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct in6_pktinfo))];
} control_buffer;

// The number of the address that a message arrived at, if the control message contains it; otherwise 0.
int32_t io_udp_local_of_control(local_table *locals, const struct cmsghdr *control);

// Makes a message leave in segments, unless their size is 0, and from a local address, unless it is NULL.
void io_udp_set_control(struct msghdr *header, control_buffer *control, int family, size_t segment_bytes,
                        const local_address *local);

#endif
