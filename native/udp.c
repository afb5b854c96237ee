// The UDP sockets of one environment. What arrives on any of them in one turn of the loop goes to JavaScript in one call, as
// rows over one arena. Datagrams to send come as rows over one buffer, and leave in as few system calls as there are sockets:
// runs of equal size to one destination as one segmented send, the rest by sendmmsg.
#ifdef __APPLE__
// For IPV6_RECVPKTINFO.
#define __APPLE_USE_RFC_3542
#endif
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "module.h"

#ifdef _WIN32
#include <mswsock.h>
typedef SOCKET descriptor;
#define CLOSED_DESCRIPTOR INVALID_SOCKET
#else
#include <fcntl.h>
#include <netinet/udp.h>
#include <sys/uio.h>
#include <unistd.h>
typedef int descriptor;
#define CLOSED_DESCRIPTOR (-1)
#endif

#ifdef __linux__
#include <linux/errqueue.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif
#endif

// Defined if a socket can report the local address that a datagram arrived at, and answer from it.
#if defined(__linux__) || defined(__APPLE__)
#define HAS_PACKET_INFO
#endif

// Memory for one received message, a whole coalesced run of datagrams. The stride is not a power of two, so that slots do not
// all begin on the same cache lines.
#define SLOT_BYTES 65536
#define SLOT_STRIDE (SLOT_BYTES + 21 * 64)
#define SLOTS 64
// Most datagrams in one coalesced message.
#define MAX_SEGMENTS 128
#define RECEIVE_ROWS (SLOTS * MAX_SEGMENTS)
#define RECEIVE_ROW_INTS 6
#define SEND_ROW_INTS 7
#define MAX_SEND_ROWS 4096
#define SEND_MESSAGES 64
#define SEND_PARTS 1024
// Most segments of one send; older kernels refuse more.
#define SEND_SEGMENTS 64
// Over IPv6; for IPv4 the system refuses the last 20 bytes.
#define MAX_PAYLOAD 65527
// All segments of one send together.
#define MAX_SEGMENTED 65487
#define MAX_PENDING_BYTES 1048576
// Local addresses that one socket distinguishes.
#define MAX_LOCALS 255
// A socket under load yields to the others after this many reads.
#define READ_ROUNDS 4
// Errors that are reported per turn; and errors that are read from one socket per turn, while the rest wait.
#define ERROR_ROWS 128
#define ERROR_ROW_INTS 9
#define ERROR_READS 64
// A failed call may only have reported earlier datagrams: this many times it is repeated.
#define NEWS_TRIES 2
#define NONE (-1)

enum {
  COUNT_REFUSED,     // an ICMP error that an earlier datagram brought
  COUNT_TOO_LONG,    // longer than the path allows
  COUNT_NO_BUFFERS,  // the system had no memory for it
  COUNT_OVERFLOW,    // too much waited for the socket already
  COUNT_FAILED,      // any other reason
  COUNT_UNTOLD,      // errors, not datagrams, that were too many to report
  COUNTS
};

// A local address.
typedef struct local_address {
  // IPv4 uses the first 4 bytes.
  uint8_t bytes[16];
  // Interface of a link-local address, else 0.
  uint32_t interface_index;
  // Sending from it failed, and nothing has arrived at it since.
  bool is_gone;
} local_address;

// Numbers start at 1; 0 stands for the address that routing chooses.
typedef struct local_table {
  int32_t count;
  // Number of the address seen last.
  int32_t last;
  local_address addresses[MAX_LOCALS];
} local_table;

#ifndef _WIN32
// Control data of a message, either way: the length of its segments, and the local address.
typedef union control_buffer {
  struct cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct in6_pktinfo))];
} control_buffer;
#endif
// Why a datagram did not get through, as reported.
enum { UNREACHABLE_PORT, UNREACHABLE_HOST, UNREACHABLE_PROHIBITED, UNREACHABLE_TOO_BIG };

// A message that the system did not accept at once.
typedef struct pending {
  struct pending *next;
  struct sockaddr_storage to;
  socklen_t to_length;
  int32_t local;
  uint16_t segment_bytes;
  uint32_t segments;
  size_t length;
  uint8_t data[];
} pending;

typedef struct udp_socket {
  uv_poll_t poll;
  struct udp_io *io;
  int32_t id;
  descriptor fd;
  int family;
  int latency;
  // While it is held in bulk.
  held held;
  bool is_closing;
  // True if errors for its datagrams are reported. Calls then fail with them too.
  bool tells_errors;
  // Largest datagram that is sent as a segment of a longer send; 0 if the system does not support that.
  size_t segment_limit;
  // Rows of the batch that is being sent.
  int32_t first_row, last_row;
  pending *first_pending, *last_pending;
  size_t pending_bytes;
  // NULL for a socket that does not distinguish them.
  local_table *locals;
  // The interface for link-local addresses; 0 if the socket itself or a local address determines it.
  uint32_t scope_id;
} udp_socket;

typedef struct udp_io {
  environment *environment;
  napi_ref on_batch;
  napi_ref on_errors;
  napi_async_context context;
  napi_ref memory[4];
  uint8_t *arena;
  int32_t *rows;
  uint8_t *addresses;
  int32_t row_count;
  int32_t slot_count;
  // Rows of socket, kind, MTU, address bytes, and the address.
  int32_t *errors;
  int32_t error_count;
  uv_check_t check;
  udp_socket **sockets;
  int32_t socket_capacity;
  int32_t *free_ids;
  int32_t free_count;
  int32_t used_ids;
  // Sockets and the check handle; the memory is freed with the last of them.
  int32_t open_handles;
  double counts[COUNTS];
  // Datagrams that were kept, failed later, and are not reported yet.
  size_t late_drops;
  int32_t next_row[MAX_SEND_ROWS];
#ifdef __linux__
  struct mmsghdr received[SLOTS];
  struct iovec received_parts[SLOTS];
  struct sockaddr_storage received_from[SLOTS];
  control_buffer received_control[SLOTS];
  struct mmsghdr sent[SEND_MESSAGES];
  control_buffer sent_control[SEND_MESSAGES];
#endif
} udp_io;

// One send of one or more datagrams to one destination.
typedef struct message {
  struct sockaddr_storage to;
  socklen_t to_length;
  int32_t address_offset;
  int32_t local;
  size_t first_part, part_count;
  size_t segments, segment_bytes, last_bytes, bytes;
} message;

typedef struct {
  const uint8_t *data;
  size_t length;
} part;

static void deliver(udp_io *io) {
  if (io->row_count == 0) return;
  napi_env env = io->environment->env;
  napi_handle_scope scope;
  napi_open_handle_scope(env, &scope);
  napi_value count = make_int(env, io->row_count);
  call_function(io->environment, io->on_batch, io->context, 1, &count);
  napi_close_handle_scope(env, scope);
  io->row_count = 0;
  io->slot_count = 0;
}

static void on_check(uv_check_t *check) {
  udp_io *io = check->data;
  deliver(io);
  if (io->error_count == 0) return;
  napi_env env = io->environment->env;
  napi_handle_scope scope;
  napi_open_handle_scope(env, &scope);
  napi_value count = make_int(env, io->error_count);
  io->error_count = 0;
  call_function(io->environment, io->on_errors, io->context, 1, &count);
  napi_close_handle_scope(env, scope);
}

#ifdef HAS_PACKET_INFO
// The number of a local address, assigned when it is first seen; 0 when there are too many.
static int32_t number_local(local_table *locals, const uint8_t *bytes, size_t length, uint32_t interface_index) {
  local_address met = {.interface_index = interface_index};
  memcpy(met.bytes, bytes, length);
  int32_t number = locals->last;
  for (int32_t tried = 0; tried <= locals->count; tried++) {
    // The latest first, then all.
    if (tried > 0) number = tried;
    if (number == 0) continue;
    local_address *known = &locals->addresses[number - 1];
    if (known->interface_index != interface_index || memcmp(known->bytes, met.bytes, sizeof met.bytes) != 0) continue;
    known->is_gone = false;
    locals->last = number;
    return number;
  }
  if (locals->count == MAX_LOCALS) return 0;
  locals->addresses[locals->count++] = met;
  locals->last = locals->count;
  return locals->count;
}

// The number of the address that a message arrived at, if the control message contains it; else 0.
static int32_t local_of_control(local_table *locals, const struct cmsghdr *control) {
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
    return number_local(locals, (const uint8_t *)&address, sizeof address, 0);
  }
  if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
    struct in6_pktinfo info;
    memcpy(&info, CMSG_DATA(control), sizeof info);
    if (IN6_IS_ADDR_MULTICAST(&info.ipi6_addr) || IN6_IS_ADDR_UNSPECIFIED(&info.ipi6_addr)) return 0;
    uint32_t index = IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr) ? (uint32_t)info.ipi6_ifindex : 0;
    return number_local(locals, (const uint8_t *)&info.ipi6_addr, sizeof info.ipi6_addr, index);
  }
  return 0;
}
#endif

// The address to send from; NULL to let routing choose.
static local_address *local_of(const udp_socket *socket, int32_t number) {
  local_table *locals = socket->locals;
  if (locals == NULL || number <= 0 || number > locals->count) return NULL;
  local_address *local = &locals->addresses[number - 1];
  return local->is_gone ? NULL : local;
}

// Reports that a datagram did not reach `to`; repetitions in a row are reported once.
static void add_error(udp_socket *socket, const struct sockaddr_storage *to, int kind, uint32_t mtu) {
  udp_io *io = socket->io;
  int32_t row[ERROR_ROW_INTS] = {socket->id, kind, mtu < UINT16_MAX ? (int32_t)mtu : UINT16_MAX};
  if (kind == NONE || !socket->tells_errors) return;
  row[3] = (int32_t)address_from_sockaddr(to, (uint8_t *)(row + 4));
  if (row[3] == 0) return;
  int32_t *end = io->errors + (size_t)io->error_count * ERROR_ROW_INTS;
  if (io->error_count > 0 && memcmp(end - ERROR_ROW_INTS, row, sizeof row) == 0) return;
  if (io->error_count == ERROR_ROWS) {
    io->counts[COUNT_UNTOLD]++;
    return;
  }
  memcpy(end, row, sizeof row);
  io->error_count++;
}

// Errors of a send that concern its own datagram; others do not interest its sender.
static int kind_of_error(int error) {
  switch (error) {
    case UV_EHOSTUNREACH:
    case UV_ENETUNREACH:
    case UV_EADDRNOTAVAIL:
      return UNREACHABLE_HOST;
    case UV_EACCES:
    case UV_EPERM:
      return UNREACHABLE_PROHIBITED;
    default:
      return NONE;
  }
}

// True if a call on this socket may have failed because of earlier datagrams.
static bool is_news(const udp_socket *socket, int error) {
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

#ifdef __linux__
// NONE for other errors.
static int kind_of_icmp(const struct sock_extended_err *error) {
  if (error->ee_origin == SO_EE_ORIGIN_LOCAL) return error->ee_errno == EMSGSIZE ? UNREACHABLE_TOO_BIG : NONE;
  if (error->ee_origin == SO_EE_ORIGIN_ICMP && error->ee_type == ICMP_DEST_UNREACH) {
    switch (error->ee_code) {
      case ICMP_PORT_UNREACH:
      case ICMP_PROT_UNREACH:
        return UNREACHABLE_PORT;
      case ICMP_FRAG_NEEDED:
        return UNREACHABLE_TOO_BIG;
      case ICMP_NET_ANO:
      case ICMP_HOST_ANO:
      case ICMP_PKT_FILTERED:
        return UNREACHABLE_PROHIBITED;
      default:
        return UNREACHABLE_HOST;
    }
  }
  if (error->ee_origin == SO_EE_ORIGIN_ICMP6 && error->ee_type == ICMP6_PACKET_TOO_BIG) return UNREACHABLE_TOO_BIG;
  if (error->ee_origin == SO_EE_ORIGIN_ICMP6 && error->ee_type == ICMP6_DST_UNREACH) {
    switch (error->ee_code) {
      case ICMP6_DST_UNREACH_NOPORT:
        return UNREACHABLE_PORT;
      case ICMP6_DST_UNREACH_ADMIN:
      // RFC 4443: source address failed policy, and reject route.
      case 5:
      case 6:
        return UNREACHABLE_PROHIBITED;
      default:
        return UNREACHABLE_HOST;
    }
  }
  return NONE;
}

// Reads the error queue. While it is not empty, the socket keeps becoming ready.
static void read_errors(udp_socket *socket) {
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
      return;
    }
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header); cmsg != NULL; cmsg = CMSG_NXTHDR(&header, cmsg)) {
      bool is_error = (cmsg->cmsg_level == IPPROTO_IP && cmsg->cmsg_type == IP_RECVERR) ||
                      (cmsg->cmsg_level == IPPROTO_IPV6 && cmsg->cmsg_type == IPV6_RECVERR);
      struct sock_extended_err error;
      if (!is_error || cmsg->cmsg_len < CMSG_LEN(sizeof error)) continue;
      memcpy(&error, CMSG_DATA(cmsg), sizeof error);
      // The send that failed has counted a local error.
      if (error.ee_origin != SO_EE_ORIGIN_LOCAL) socket->io->counts[COUNT_REFUSED]++;
      if (header.msg_namelen > 0) add_error(socket, &to, kind_of_icmp(&error), error.ee_info);
    }
  }
}
#endif

// Adds a received message as rows, one per datagram. Delivers first if they do not fit.
static void add_message(udp_socket *socket, int32_t slot, size_t length, size_t segment_bytes,
                        const struct sockaddr_storage *from, int32_t local, int32_t *address_offset) {
  udp_io *io = socket->io;
  uint8_t *address = io->addresses + (size_t)slot * ADDRESS_MAX_BYTES;
  size_t address_bytes = address_from_sockaddr(from, address);
  if (address_bytes == 0) return;
  // Rows with the same source and local address as the row before share its offset, so that the receiver only compares
  // numbers.
  bool is_equal = *address_offset != NONE && io->rows[(size_t)io->row_count * RECEIVE_ROW_INTS - 1] == local &&
                  memcmp(io->addresses + *address_offset, address, address_bytes) == 0;
  if (!is_equal) *address_offset = slot * ADDRESS_MAX_BYTES;
  size_t at = 0;
  do {
    size_t left = length - at;
    size_t bytes = segment_bytes > 0 && segment_bytes < left ? segment_bytes : left;
    if (io->row_count == RECEIVE_ROWS) return;
    int32_t *row = io->rows + (size_t)io->row_count++ * RECEIVE_ROW_INTS;
    row[0] = socket->id;
    row[1] = (int32_t)((size_t)slot * SLOT_STRIDE + at);
    row[2] = (int32_t)bytes;
    row[3] = *address_offset;
    row[4] = (int32_t)address_bytes;
    row[5] = local;
    at += bytes;
  } while (at < length);
}

#ifdef __linux__
// The system has changed these fields of slots that hold a message.
static void prepare_slot(udp_io *io, int32_t slot) {
  struct msghdr *header = &io->received[slot].msg_hdr;
  header->msg_namelen = sizeof io->received_from[slot];
  header->msg_controllen = sizeof io->received_control[slot];
  header->msg_flags = 0;
}
#endif

// Reads once. Returns true if more may be waiting.
static bool receive(udp_socket *socket) {
  udp_io *io = socket->io;
  if (io->slot_count == SLOTS) {
    deliver(io);
    if (socket->is_closing) return false;
  }
  int32_t first = io->slot_count;
  int32_t address_offset = NONE;
#ifdef __linux__
  int32_t asked = SLOTS - first;
  int count, tries = 0;
  do count = recvmmsg(socket->fd, io->received + first, (unsigned)asked, MSG_DONTWAIT, NULL);
  while (count < 0 && (errno == EINTR || (socket->tells_errors && is_news(socket, -errno) && tries++ < NEWS_TRIES)));
  if (count < 0) {
    // An ICMP error for an earlier datagram appears here once, and is harmless. If errors are reported, the error queue has it
    // too, and it is counted there.
    if (errno == EAGAIN || errno == EWOULDBLOCK || socket->tells_errors) return false;
    io->counts[COUNT_REFUSED]++;
    return false;
  }
  io->slot_count = first + count;
  for (int32_t i = first; i < first + count; i++) {
    struct msghdr *header = &io->received[i].msg_hdr;
    size_t segment_bytes = 0;
    int32_t local = 0;
    if (header->msg_controllen > 0) {
      for (struct cmsghdr *control = CMSG_FIRSTHDR(header); control != NULL; control = CMSG_NXTHDR(header, control)) {
        if (control->cmsg_level != IPPROTO_UDP || control->cmsg_type != UDP_GRO) {
          if (socket->locals != NULL && local == 0) local = local_of_control(socket->locals, control);
          continue;
        }
        int value;
        memcpy(&value, CMSG_DATA(control), sizeof value);
        if (value > 0) segment_bytes = (size_t)value;
      }
    }
    add_message(socket, i, io->received[i].msg_len, segment_bytes, &io->received_from[i], local, &address_offset);
    prepare_slot(io, i);
  }
  return count == asked;
#else
  for (int32_t i = first; i < SLOTS; i++) {
    struct sockaddr_storage from;
    int32_t local = 0;
    uint8_t *slot = io->arena + (size_t)i * SLOT_STRIDE;
#ifdef _WIN32
    WSABUF buffer = {SLOT_BYTES, (char *)slot};
    DWORD length = 0, flags = 0;
    INT from_length = sizeof from;
    if (WSARecvFrom(socket->fd, &buffer, 1, &length, &flags, (struct sockaddr *)&from, &from_length, NULL, NULL) != 0) {
      if (WSAGetLastError() != WSAEWOULDBLOCK) io->counts[COUNT_REFUSED]++;
      return false;
    }
#else
    struct iovec vector = {slot, SLOT_BYTES};
    struct msghdr header = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &vector, .msg_iovlen = 1};
#ifdef HAS_PACKET_INFO
    control_buffer control;
    if (socket->locals != NULL) {
      header.msg_control = &control;
      header.msg_controllen = sizeof control;
    }
#endif
    ssize_t length;
    do length = recvmsg(socket->fd, &header, 0);
    while (length < 0 && errno == EINTR);
    if (length < 0) {
      if (errno != EAGAIN && errno != EWOULDBLOCK) io->counts[COUNT_REFUSED]++;
      return false;
    }
#ifdef HAS_PACKET_INFO
    if (socket->locals != NULL) {
      for (struct cmsghdr *each = CMSG_FIRSTHDR(&header); each != NULL && local == 0; each = CMSG_NXTHDR(&header, each))
        local = local_of_control(socket->locals, each);
    }
#endif
#endif
    io->slot_count = i + 1;
    add_message(socket, i, (size_t)length, 0, &from, local, &address_offset);
  }
  return true;
#endif
}

#ifndef _WIN32
static char *put_control(char *at, int level, int type, const void *value, size_t bytes) {
  struct cmsghdr *cmsg = (struct cmsghdr *)(void *)at;
  cmsg->cmsg_level = level;
  cmsg->cmsg_type = type;
  cmsg->cmsg_len = CMSG_LEN(bytes);
  memcpy(CMSG_DATA(cmsg), value, bytes);
  return at + CMSG_SPACE(bytes);
}

// Makes a message leave in segments, unless that is 0, and from a local address, unless that is NULL.
static void set_control(struct msghdr *header, control_buffer *control, int family, size_t segment_bytes,
                        const local_address *local) {
  if (segment_bytes == 0 && local == NULL) return;
  memset(control, 0, sizeof *control);
  char *at = control->bytes;
#ifdef __linux__
  uint16_t segment = (uint16_t)segment_bytes;
  if (segment_bytes > 0) at = put_control(at, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment);
#endif
#ifdef HAS_PACKET_INFO
  if (local != NULL && family == AF_INET) {
    struct in_pktinfo info = {0};
    memcpy(&info.ipi_spec_dst, local->bytes, sizeof info.ipi_spec_dst);
    at = put_control(at, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
  } else if (local != NULL) {
    struct in6_pktinfo info = {.ipi6_ifindex = local->interface_index};
    memcpy(&info.ipi6_addr, local->bytes, sizeof info.ipi6_addr);
    at = put_control(at, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
  }
#endif
  header->msg_control = control;
  header->msg_controllen = (size_t)(at - control->bytes);
}
#endif

// Sends one message unchanged. Returns 0, or a negative system error.
static int send_once(udp_socket *socket, const struct sockaddr_storage *to, socklen_t to_length, const part *parts,
                     size_t part_count, size_t segment_bytes, const local_address *local) {
#ifdef _WIN32
  WSABUF buffers[2];
  for (size_t i = 0; i < part_count; i++) {
    buffers[i].buf = (char *)parts[i].data;
    buffers[i].len = (ULONG)parts[i].length;
  }
  DWORD sent;
  if (WSASendTo(socket->fd, buffers, (DWORD)part_count, &sent, 0, (const struct sockaddr *)to, to_length, NULL, NULL) ==
      0)
    return 0;
  return uv_translate_sys_error(WSAGetLastError());
#else
  struct iovec vectors[2 * SEND_SEGMENTS];
  for (size_t i = 0; i < part_count; i++) {
    vectors[i].iov_base = (void *)parts[i].data;
    vectors[i].iov_len = parts[i].length;
  }
  struct msghdr header = {
      .msg_name = (void *)to, .msg_namelen = to_length, .msg_iov = vectors, .msg_iovlen = part_count};
  control_buffer control;
  set_control(&header, &control, socket->family, segment_bytes, local);
  ssize_t sent;
  int tries = 0;
  do sent = sendmsg(socket->fd, &header, 0);
  while (sent < 0 && (errno == EINTR || (socket->tells_errors && is_news(socket, -errno) && tries++ < NEWS_TRIES)));
  return sent < 0 ? -errno : 0;
#endif
}

static bool is_full(int error) {
  return error == UV_EAGAIN;
}

// Errors of sending from an address that the machine does not have, or on an unknown interface.
static bool may_be_gone(int error) {
  return error == UV_EINVAL || error == UV_EADDRNOTAVAIL || error == UV_ENETUNREACH || error == UV_ENODEV;
}

// Sends one message from the address with that number, or from any if the machine no longer has it. Returns as send_once().
static int send_from(udp_socket *socket, const struct sockaddr_storage *to, socklen_t to_length, const part *parts,
                     size_t part_count, size_t segment_bytes, int32_t number) {
  local_address *local = local_of(socket, number);
  int error = send_once(socket, to, to_length, parts, part_count, segment_bytes, local);
  if (local == NULL || !may_be_gone(error)) return error;
  // May be the error of an earlier datagram.
  error = send_once(socket, to, to_length, parts, part_count, segment_bytes, local);
  if (!may_be_gone(error)) return error;
  int other_error = send_once(socket, to, to_length, parts, part_count, segment_bytes, NULL);
  if (other_error != 0 && !is_full(other_error)) return error;
  local->is_gone = true;
  return other_error;
}

// Counts datagrams whose send has failed for good.
static void count_failure(udp_socket *socket, const struct sockaddr_storage *to, int error, size_t datagrams) {
  int reason = error == UV_EMSGSIZE                          ? COUNT_TOO_LONG
               : error == UV_ENOBUFS || error == UV_ENOMEM   ? COUNT_NO_BUFFERS
               : error == UV_ECONNREFUSED                    ? COUNT_REFUSED
                                                             : COUNT_FAILED;
  socket->io->counts[reason] += (double)datagrams;
  add_error(socket, to, kind_of_error(error), 0);
}

static void on_ready(uv_poll_t *poll, int status, int events);

static void watch(udp_socket *socket) {
  int events = (socket->held.link == NULL ? UV_READABLE : 0) | (socket->first_pending != NULL ? UV_WRITABLE : 0);
  if (events == 0) uv_poll_stop(&socket->poll);
  else uv_poll_start(&socket->poll, events, on_ready);
}

// Keeps a copy of a message until the socket accepts it. Returns how many datagrams were dropped instead.
static size_t keep(udp_socket *socket, const message *message, const part *parts) {
  udp_io *io = socket->io;
  if (socket->pending_bytes + message->bytes > MAX_PENDING_BYTES) {
    io->counts[COUNT_OVERFLOW] += (double)message->segments;
    return message->segments;
  }
  pending *entry = malloc(sizeof *entry + message->bytes);
  if (entry == NULL) {
    io->counts[COUNT_NO_BUFFERS] += (double)message->segments;
    return message->segments;
  }
  entry->next = NULL;
  entry->to = message->to;
  entry->to_length = message->to_length;
  entry->local = message->local;
  entry->segments = (uint32_t)message->segments;
  entry->segment_bytes = message->segments > 1 ? (uint16_t)message->segment_bytes : 0;
  entry->length = message->bytes;
  size_t at = 0;
  for (size_t i = 0; i < message->part_count; i++) {
    if (parts[i].length > 0) memcpy(entry->data + at, parts[i].data, parts[i].length);
    at += parts[i].length;
  }
  bool was_empty = socket->first_pending == NULL;
  if (was_empty) socket->first_pending = entry;
  else socket->last_pending->next = entry;
  socket->last_pending = entry;
  socket->pending_bytes += entry->length;
  if (was_empty) watch(socket);
  return 0;
}

static void drop_first_pending(udp_socket *socket) {
  pending *entry = socket->first_pending;
  socket->first_pending = entry->next;
  if (entry->next == NULL) socket->last_pending = NULL;
  socket->pending_bytes -= entry->length;
  free(entry);
}

static void send_pending(udp_socket *socket) {
  while (socket->first_pending != NULL) {
    pending *entry = socket->first_pending;
    part whole = {entry->data, entry->length};
    int error = send_from(socket, &entry->to, entry->to_length, &whole, 1, entry->segment_bytes, entry->local);
    if (is_full(error)) return;
    if (error != 0) {
      count_failure(socket, &entry->to, error, entry->segments);
      socket->io->late_drops += entry->segments;
    }
    drop_first_pending(socket);
  }
  watch(socket);
}

// Reads what has arrived. In bulk, a socket that had something, but not more than can be read at once, is then held.
static void read_all(udp_socket *socket) {
  udp_io *io = socket->io;
  bool is_more = true;
  size_t messages = 0;
  // If several datagrams came at once, more arrive while they are handled, and reading again is cheaper than waiting. A single
  // one is delivered at the end of the turn, together with those of other sockets.
  for (int round = 0; round < READ_ROUNDS && is_more; round++) {
    int32_t rows_before = io->row_count, slots_before = io->slot_count == SLOTS ? 0 : io->slot_count;
    is_more = receive(socket);
    if (socket->is_closing) return;
    messages += (size_t)(io->slot_count - slots_before);
    if (socket->latency != LATENCY_BULK) is_more = is_more || io->row_count - rows_before >= 2;
    if (is_more && round + 1 < READ_ROUNDS) deliver(io);
    if (socket->is_closing) return;
  }
  if (messages == 0) return;
  if (socket->latency == LATENCY_INTERACTIVE) latency_spin(io->environment);
  if (socket->latency == LATENCY_BULK && !is_more) latency_hold(io->environment, &socket->held, messages);
}

// The socket's hold is over.
static void resume(held *held) {
  udp_socket *socket = (udp_socket *)((char *)held - offsetof(udp_socket, held));
  read_all(socket);
  if (!socket->is_closing && held->link == NULL) watch(socket);
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  udp_socket *socket = poll->data;
#ifdef __linux__
  if (status < 0) {
    // Errors are waiting, and libuv has stopped watching.
    read_errors(socket);
    watch(socket);
  }
#endif
  if (status < 0) events = UV_READABLE;
  if (events & UV_WRITABLE) send_pending(socket);
  if (!(events & UV_READABLE)) return;
  read_all(socket);
  if (!socket->is_closing && socket->held.link != NULL) watch(socket);
}

// Sends the datagrams of a segmented message one by one. Returns how many were dropped.
static size_t send_singly(udp_socket *socket, const message *whole, const part *parts) {
  size_t dropped = 0, at = 0;
  size_t parts_each = whole->part_count / whole->segments;
  for (size_t i = 0; i < whole->segments; i++) {
    message single = *whole;
    single.segments = 1;
    single.part_count = parts_each;
    single.bytes = i + 1 < whole->segments ? whole->segment_bytes : whole->last_bytes;
    const part *own = parts + at;
    at += parts_each;
    int error = socket->first_pending != NULL
                    ? UV_EAGAIN
                    : send_from(socket, &single.to, single.to_length, own, parts_each, 0, single.local);
    if (is_full(error)) dropped += keep(socket, &single, own);
    else if (error != 0) {
      count_failure(socket, &single.to, error, 1);
      dropped++;
    }
  }
  return dropped;
}

// Handles a message that the system refused. Returns how many datagrams were dropped.
static size_t refused(udp_socket *socket, const message *message, const part *parts, int error) {
  if (is_news(socket, error) || (may_be_gone(error) && local_of(socket, message->local) != NULL)) {
    // May be the error of an earlier datagram, or about the address to send from: after one more try it is this one's.
    error = send_from(socket, &message->to, message->to_length, parts, message->part_count,
                      message->segments > 1 ? message->segment_bytes : 0, message->local);
    if (error == 0) return 0;
    if (is_full(error)) return keep(socket, message, parts);
  }
  // Without a route, single datagrams would fail as well.
  if (message->segments > 1 && kind_of_error(error) == NONE) {
    // The MTU is smaller than a segment, or the device does not support it: such sizes are sent singly from now on.
    if (error == UV_EMSGSIZE || error == UV_EINVAL) socket->segment_limit = message->segment_bytes - 1;
    else if (error == UV_EIO || error == UV_ENOTSUP) socket->segment_limit = 0;
    return send_singly(socket, message, parts);
  }
  count_failure(socket, &message->to, error, message->segments);
  return message->segments;
}

static size_t send_messages(udp_socket *socket, const message *messages, size_t count, const part *parts) {
  size_t dropped = 0;
  size_t done = 0;
#ifdef __linux__
  udp_io *io = socket->io;
  static _Thread_local struct iovec vectors[SEND_PARTS];
  for (size_t i = 0; i < count; i++) {
    const message *message = &messages[i];
    for (size_t j = 0; j < message->part_count; j++) {
      vectors[message->first_part + j].iov_base = (void *)parts[message->first_part + j].data;
      vectors[message->first_part + j].iov_len = parts[message->first_part + j].length;
    }
    struct msghdr *header = &io->sent[i].msg_hdr;
    memset(header, 0, sizeof *header);
    header->msg_name = (void *)&message->to;
    header->msg_namelen = message->to_length;
    header->msg_iov = vectors + message->first_part;
    header->msg_iovlen = message->part_count;
    set_control(header, &io->sent_control[i], socket->family, message->segments > 1 ? message->segment_bytes : 0,
                local_of(socket, message->local));
  }
  while (done < count && socket->first_pending == NULL) {
    int sent = sendmmsg(socket->fd, io->sent + done, (unsigned)(count - done), MSG_DONTWAIT);
    if (sent > 0) {
      done += (size_t)sent;
      continue;
    }
    if (errno == EINTR) continue;
    if (is_full(-errno)) break;
    dropped += refused(socket, &messages[done], parts + messages[done].first_part, -errno);
    done++;
  }
#else
  for (; done < count && socket->first_pending == NULL; done++) {
    const message *message = &messages[done];
    const part *own = parts + message->first_part;
    int error =
        send_from(socket, &message->to, message->to_length, own, message->part_count, 0, message->local);
    if (is_full(error)) break;
    if (error != 0) dropped += refused(socket, message, own, error);
  }
#endif
  for (; done < count; done++) dropped += keep(socket, &messages[done], parts + messages[done].first_part);
  return dropped;
}

typedef struct {
  const uint8_t *data, *headers, *addresses;
  size_t data_bytes, header_bytes, address_bytes;
  const int32_t *rows;
} send_batch;

static void add_scope(const udp_socket *socket, struct sockaddr_storage *to) {
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)to;
  if (socket->scope_id != 0 && to->ss_family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr))
    in6->sin6_scope_id = socket->scope_id;
}

static bool fits(int32_t offset, int32_t length, size_t bytes) {
  return offset >= 0 && length >= 0 && (size_t)offset + (size_t)length <= bytes;
}

static bool is_row_good(const send_batch *batch, const int32_t *row) {
  return fits(row[1], row[2], batch->header_bytes) && fits(row[3], row[4], batch->data_bytes) && row[5] >= 0 &&
         (size_t)row[5] < batch->address_bytes && (size_t)row[2] + (size_t)row[4] <= MAX_PAYLOAD;
}

static bool extends(const udp_socket *socket, const message *message, const int32_t *row, size_t bytes) {
  return message->address_offset == row[5] && message->local == row[6] && bytes > 0 && bytes <= message->segment_bytes &&
         message->segment_bytes <= socket->segment_limit && message->last_bytes == message->segment_bytes &&
         message->segments < SEND_SEGMENTS && message->bytes + bytes <= MAX_SEGMENTED &&
         // Each datagram of a message has as many parts as the others.
         (row[2] > 0) == (message->part_count > message->segments);
}

static size_t send_socket(udp_socket *socket, const send_batch *batch) {
  static _Thread_local message messages[SEND_MESSAGES];
  static _Thread_local part parts[SEND_PARTS];
  size_t message_count = 0, part_count = 0, dropped = 0;
  for (int32_t index = socket->first_row; index != NONE; index = socket->io->next_row[index]) {
    const int32_t *row = batch->rows + (size_t)index * SEND_ROW_INTS;
    size_t bytes = (size_t)row[2] + (size_t)row[4];
    message *last = message_count > 0 ? &messages[message_count - 1] : NULL;
    bool is_extension = last != NULL && extends(socket, last, row, bytes);
    if (part_count + 2 > SEND_PARTS || (!is_extension && message_count == SEND_MESSAGES)) {
      dropped += send_messages(socket, messages, message_count, parts);
      message_count = part_count = 0;
      is_extension = false;
    }
    if (!is_extension) {
      last = &messages[message_count];
      last->to_length = address_to_sockaddr(batch->addresses + row[5], batch->address_bytes - (size_t)row[5], &last->to);
      if (last->to_length == 0 || last->to.ss_family != socket->family) {
        socket->io->counts[COUNT_FAILED]++;
        dropped++;
        continue;
      }
      add_scope(socket, &last->to);
      message_count++;
      last->address_offset = row[5];
      last->local = row[6];
      last->first_part = part_count;
      last->part_count = last->segments = last->bytes = 0;
      last->segment_bytes = bytes;
    }
    if (row[2] > 0) parts[part_count++] = (part){batch->headers + row[1], (size_t)row[2]};
    parts[part_count++] = (part){batch->data + row[3], (size_t)row[4]};
    last->part_count = part_count - last->first_part;
    last->segments++;
    last->last_bytes = bytes;
    last->bytes += bytes;
  }
  if (message_count > 0) dropped += send_messages(socket, messages, message_count, parts);
  return dropped;
}

static udp_socket *socket_of(udp_io *io, int32_t id) {
  return io != NULL && id >= 0 && id < io->used_ids ? io->sockets[id] : NULL;
}

// udpSend(data, rows, count, addresses, headers): datagrams that were dropped, now or since the last call
static napi_value udp_send(napi_env env, napi_callback_info info) {
  napi_value values[5];
  if (!get_arguments(env, info, 5, values)) return NULL;
  udp_io *io = environment_of(env)->udp;
  bytes_view data = get_bytes(env, values[0]), rows = get_bytes(env, values[1]);
  bytes_view addresses = get_bytes(env, values[3]), headers = get_bytes(env, values[4]);
  int32_t count = get_int(env, values[2]);
  if (io == NULL || count < 0 || count > MAX_SEND_ROWS ||
      (size_t)count * SEND_ROW_INTS * sizeof(int32_t) > rows.bytes) {
    napi_throw_range_error(env, "ERR_OUT_OF_RANGE", "udpSend: rows");
    return NULL;
  }
  send_batch batch = {data.data,  headers.data,  addresses.data,  data.bytes,
                      headers.bytes, addresses.bytes, (const int32_t *)(void *)rows.data};
  static _Thread_local int32_t order[MAX_SEND_ROWS];
  int32_t socket_count = 0;
  size_t dropped = io->late_drops;
  io->late_drops = 0;
  for (int32_t i = 0; i < count; i++) {
    const int32_t *row = batch.rows + (size_t)i * SEND_ROW_INTS;
    udp_socket *socket = socket_of(io, row[0]);
    if (socket == NULL || !is_row_good(&batch, row)) {
      io->counts[COUNT_FAILED]++;
      dropped++;
      continue;
    }
    io->next_row[i] = NONE;
    if (socket->first_row == NONE) {
      socket->first_row = i;
      order[socket_count++] = row[0];
    } else {
      io->next_row[socket->last_row] = i;
    }
    socket->last_row = i;
  }
  for (int32_t i = 0; i < socket_count; i++) {
    udp_socket *socket = io->sockets[order[i]];
    dropped += send_socket(socket, &batch);
    socket->first_row = socket->last_row = NONE;
    // The answer comes soon.
    if (socket->latency == LATENCY_INTERACTIVE) latency_spin(io->environment);
  }
  return make_int(env, (int64_t)dropped);
}

static void close_descriptor(descriptor fd) {
  if (fd == CLOSED_DESCRIPTOR) return;
#ifdef _WIN32
  closesocket(fd);
#else
  close(fd);
#endif
}

static int last_error(void) {
#ifdef _WIN32
  return uv_translate_sys_error(WSAGetLastError());
#else
  return -errno;
#endif
}

// Requests a buffer size, with SO_…BUFFORCE if permitted. Returns the size that the system reports.
static int set_buffer(descriptor fd, bool is_receive, int bytes) {
  int option = is_receive ? SO_RCVBUF : SO_SNDBUF;
#ifdef __linux__
  int forced = is_receive ? SO_RCVBUFFORCE : SO_SNDBUFFORCE;
  if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof bytes) != 0)
#endif
    setsockopt(fd, SOL_SOCKET, option, (const void *)&bytes, sizeof bytes);
  int granted = 0;
  socklen_t length = sizeof granted;
  getsockopt(fd, SOL_SOCKET, option, (void *)&granted, &length);
  return granted;
}

static int open_descriptor(int family, const struct sockaddr_storage *address, socklen_t length, bool reuse_port,
                           descriptor *result) {
#ifdef __linux__
  descriptor fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
#else
  descriptor fd = socket(family, SOCK_DGRAM, 0);
#endif
  if (fd == CLOSED_DESCRIPTOR) return last_error();
  int one = 1, error = 0;
#ifdef _WIN32
  u_long nonblocking = 1;
  ioctlsocket(fd, FIONBIO, &nonblocking);
  // Otherwise a refused datagram would make the next read fail.
  BOOL reset = FALSE;
  DWORD ignored;
  WSAIoctl(fd, SIO_UDP_CONNRESET, &reset, sizeof reset, NULL, 0, &ignored, NULL, NULL);
#elif !defined(__linux__)
  fcntl(fd, F_SETFL, O_NONBLOCK);
  fcntl(fd, F_SETFD, FD_CLOEXEC);
#endif
  if (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, (const void *)&one, sizeof one) != 0)
    error = last_error();
#ifdef SO_REUSEPORT
  if (error == 0 && reuse_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0) error = last_error();
#else
  if (reuse_port) error = UV_ENOTSUP;
#endif
  if (error == 0 && bind(fd, (const struct sockaddr *)address, length) != 0) error = last_error();
  if (error != 0) {
    close_descriptor(fd);
    return error;
  }
  *result = fd;
  return 0;
}

static bool reserve_id(udp_io *io) {
  if (io->free_count > 0 || io->used_ids < io->socket_capacity) return true;
  int32_t capacity = io->socket_capacity == 0 ? 64 : io->socket_capacity * 2;
  udp_socket **sockets = realloc(io->sockets, (size_t)capacity * sizeof *sockets);
  if (sockets == NULL) return false;
  io->sockets = sockets;
  int32_t *free_ids = realloc(io->free_ids, (size_t)capacity * sizeof *free_ids);
  if (free_ids == NULL) return false;
  io->free_ids = free_ids;
  io->socket_capacity = capacity;
  return true;
}

// Makes a socket receive the local address of each message. Without the table all numbers are 0.
static void tell_locals(udp_socket *socket) {
#ifdef HAS_PACKET_INFO
  int level = socket->family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;
  int option = socket->family == AF_INET6 ? IPV6_RECVPKTINFO : IP_PKTINFO;
  int one = 1;
  if (setsockopt(socket->fd, level, option, &one, sizeof one) == 0) socket->locals = calloc(1, sizeof *socket->locals);
#endif
}

// udpOpen(address, reusePort, receiveBytes, sendBytes, tellLocals): id
static napi_value udp_open(napi_env env, napi_callback_info info) {
  napi_value values[5];
  if (!get_arguments(env, info, 5, values)) return NULL;
  environment *environment = environment_of(env);
  udp_io *io = environment->udp;
  bytes_view bytes = get_bytes(env, values[0]);
  struct sockaddr_storage address;
  socklen_t length = bytes.data == NULL ? 0 : scoped_address_to_sockaddr(bytes.data, bytes.bytes, &address);
  if (io == NULL || length == 0) return throw_system_error(env, UV_EINVAL, "udpOpen");
  bool reuse_port = false, is_telling = false;
  napi_get_value_bool(env, values[1], &reuse_port);
  napi_get_value_bool(env, values[4], &is_telling);
  udp_socket *socket = calloc(1, sizeof *socket);
  if (socket == NULL || !reserve_id(io)) {
    free(socket);
    return throw_system_error(env, UV_ENOMEM, "udpOpen");
  }
  int error = open_descriptor(address.ss_family, &address, length, reuse_port, &socket->fd);
  if (error == 0) {
    error = uv_poll_init_socket(environment->loop, &socket->poll, (uv_os_sock_t)socket->fd);
    if (error != 0) close_descriptor(socket->fd);
  }
  if (error != 0) {
    free(socket);
    return throw_system_error(env, error, "bind");
  }
  environment->open_handles++;
  io->open_handles++;
  set_buffer(socket->fd, true, get_int(env, values[2]));
  set_buffer(socket->fd, false, get_int(env, values[3]));
#ifdef __linux__
  int one = 1;
  // If the system does not support coalescing, datagrams arrive singly.
  setsockopt(socket->fd, IPPROTO_UDP, UDP_GRO, &one, sizeof one);
  int segment = 0;
  socklen_t segment_length = sizeof segment;
  if (getsockopt(socket->fd, IPPROTO_UDP, UDP_SEGMENT, &segment, &segment_length) == 0)
    socket->segment_limit = MAX_PAYLOAD;
#endif
  socket->io = io;
  socket->family = address.ss_family;
  if (socket->family == AF_INET6) socket->scope_id = ((struct sockaddr_in6 *)&address)->sin6_scope_id;
  if (is_telling) tell_locals(socket);
  socket->first_row = socket->last_row = NONE;
  socket->latency = LATENCY_BALANCED;
  socket->held.resume = resume;
  socket->poll.data = socket;
  socket->id = io->free_count > 0 ? io->free_ids[--io->free_count] : io->used_ids++;
  io->sockets[socket->id] = socket;
  watch(socket);
  return make_int(env, socket->id);
}

static void io_handle_closed(udp_io *io) {
  environment *environment = io->environment;
  if (--io->open_handles == 0) {
    free(io->sockets);
    free(io->free_ids);
    free(io);
  }
  environment_handle_closed(environment);
}

static void on_socket_closed(uv_handle_t *handle) {
  udp_socket *socket = handle->data;
  udp_io *io = socket->io;
  // Not earlier, as rows of this turn may still refer to it.
  io->free_ids[io->free_count++] = socket->id;
  while (socket->first_pending != NULL) drop_first_pending(socket);
  free(socket->locals);
  free(socket);
  io_handle_closed(io);
}

static void close_socket(udp_socket *socket) {
  udp_io *io = socket->io;
  socket->is_closing = true;
  io->sockets[socket->id] = NULL;
  // Its number may belong to another socket by the time they are reported.
  for (int32_t i = 0; i < io->error_count; i++) {
    int32_t *row = io->errors + (size_t)i * ERROR_ROW_INTS;
    if (row[0] == socket->id) row[0] = NONE;
  }
  latency_release(&socket->held);
  uv_poll_stop(&socket->poll);
  uv_close((uv_handle_t *)&socket->poll, on_socket_closed);
  close_descriptor(socket->fd);
  socket->fd = CLOSED_DESCRIPTOR;
}

// udpClose(id)
static napi_value udp_close(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  udp_socket *socket = socket_of(environment_of(env)->udp, get_int(env, value));
  if (socket != NULL) close_socket(socket);
  return NULL;
}

#ifdef __linux__
// udpTellErrors(id): enables reports of ICMP errors for its datagrams
static napi_value udp_tell_errors(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  udp_socket *socket = socket_of(environment_of(env)->udp, get_int(env, value));
  if (socket == NULL) return NULL;
  int one = 1;
  bool is_ipv6 = socket->family == AF_INET6;
  socket->tells_errors = setsockopt(socket->fd, is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP,
                                    is_ipv6 ? IPV6_RECVERR : IP_RECVERR, &one, sizeof one) == 0;
  return NULL;
}

// udpForbidFragments(id): a datagram that would have to be fragmented is dropped, here or on its way
static napi_value udp_forbid_fragments(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  udp_socket *socket = socket_of(environment_of(env)->udp, get_int(env, value));
  if (socket == NULL) return NULL;
  int ipv4 = IP_PMTUDISC_DO, ipv6 = IPV6_PMTUDISC_DO;
  if (socket->family == AF_INET6) setsockopt(socket->fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &ipv6, sizeof ipv6);
  else setsockopt(socket->fd, IPPROTO_IP, IP_MTU_DISCOVER, &ipv4, sizeof ipv4);
  return NULL;
}
#endif

#ifdef __linux__
// udpLatency(id, class)
static napi_value udp_latency(napi_env env, napi_callback_info info) {
  napi_value values[2];
  if (!get_arguments(env, info, 2, values)) return NULL;
  udp_socket *socket = socket_of(environment_of(env)->udp, get_int(env, values[0]));
  if (socket == NULL) return NULL;
  // A hold ends when it was going to, and is the last.
  socket->latency = get_int(env, values[1]);
  return NULL;
}
#endif

#ifndef _WIN32
// udpDscp(id, dscp): of what it sends from now on, with ECN 0
static napi_value udp_dscp(napi_env env, napi_callback_info info) {
  napi_value values[2];
  if (!get_arguments(env, info, 2, values)) return NULL;
  udp_socket *socket = socket_of(environment_of(env)->udp, get_int(env, values[0]));
  if (socket == NULL) return NULL;
  int octet = get_int(env, values[1]) << 2;
  if (socket->family == AF_INET6) setsockopt(socket->fd, IPPROTO_IPV6, IPV6_TCLASS, &octet, sizeof octet);
  else setsockopt(socket->fd, IPPROTO_IP, IP_TOS, &octet, sizeof octet);
  return NULL;
}
#endif

// udpErrors(): number of rows of errors that have not been reported, which the caller then does
static napi_value udp_errors(napi_env env, napi_callback_info info) {
  (void)info;
  udp_io *io = environment_of(env)->udp;
  if (io == NULL) return make_int(env, 0);
  int32_t count = io->error_count;
  io->error_count = 0;
  return make_int(env, count);
}

#ifndef _WIN32
// udpRestrict(id, interface or "", mark or 0): see restrict_socket()
static napi_value udp_restrict(napi_env env, napi_callback_info info) {
  napi_value values[3];
  char interface_name[IFNAMSIZ];
  uint32_t mark;
  if (!get_arguments(env, info, 3, values) || !get_restriction(env, values[1], values[2], interface_name, &mark))
    return NULL;
  udp_socket *socket = socket_of(environment_of(env)->udp, get_int(env, values[0]));
  int error = socket == NULL ? UV_EINVAL : restrict_socket(socket->fd, socket->family, interface_name, mark);
  return error == 0 ? NULL : throw_system_error(env, error, interface_name);
}
#endif

// udpPort(id): number; udpReceiveBuffer(id): bytes that the system granted
static napi_value udp_port(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  udp_socket *socket = socket_of(environment_of(env)->udp, get_int(env, value));
  struct sockaddr_storage address;
  socklen_t length = sizeof address;
  uint8_t bytes[ADDRESS_MAX_BYTES];
  size_t count = 0;
  if (socket != NULL && getsockname(socket->fd, (struct sockaddr *)&address, &length) == 0)
    count = address_from_sockaddr(&address, bytes);
  return make_int(env, count == 0 ? 0 : bytes[count - 2] * 256 + bytes[count - 1]);
}

static napi_value udp_receive_buffer(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  udp_socket *socket = socket_of(environment_of(env)->udp, get_int(env, value));
  int granted = 0;
  socklen_t length = sizeof granted;
  if (socket != NULL) getsockopt(socket->fd, SOL_SOCKET, SO_RCVBUF, (void *)&granted, &length);
  return make_int(env, granted);
}

// udpCounts(Float64Array): fills it with the counts by reason since the start
static napi_value udp_counts(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  udp_io *io = environment_of(env)->udp;
  bytes_view out = get_bytes(env, value);
  if (io == NULL || out.bytes < sizeof io->counts) return NULL;
  memcpy(out.data, io->counts, sizeof io->counts);
  return NULL;
}

// udpSetup(arena, rows, addresses, onBatch, errors, onErrors): once per environment; the arrays have the sizes that udpSizes
// returns
static napi_value udp_setup(napi_env env, napi_callback_info info) {
  napi_value values[6];
  if (!get_arguments(env, info, 6, values)) return NULL;
  environment *environment = environment_of(env);
  bytes_view arena = get_bytes(env, values[0]), rows = get_bytes(env, values[1]), addresses = get_bytes(env, values[2]);
  bytes_view errors = get_bytes(env, values[4]);
  if (environment->udp != NULL || errors.bytes < ERROR_ROWS * ERROR_ROW_INTS * sizeof(int32_t) || arena.bytes < (size_t)SLOTS * SLOT_STRIDE ||
      rows.bytes < (size_t)RECEIVE_ROWS * RECEIVE_ROW_INTS * sizeof(int32_t) ||
      addresses.bytes < (size_t)SLOTS * ADDRESS_MAX_BYTES) {
    return throw_system_error(env, UV_EINVAL, "udpSetup");
  }
  udp_io *io = calloc(1, sizeof *io);
  if (io == NULL) return throw_system_error(env, UV_ENOMEM, "udpSetup");
  io->environment = environment;
  io->arena = arena.data;
  io->rows = (int32_t *)(void *)rows.data;
  io->addresses = addresses.data;
  io->errors = (int32_t *)(void *)errors.data;
  for (int i = 0; i < 3; i++) napi_create_reference(env, values[i], 1, &io->memory[i]);
  napi_create_reference(env, values[4], 1, &io->memory[3]);
  napi_create_reference(env, values[3], 1, &io->on_batch);
  napi_create_reference(env, values[5], 1, &io->on_errors);
  io->context = make_context(env, "underpass:udp");
#ifdef __linux__
  for (int i = 0; i < SLOTS; i++) {
    io->received_parts[i].iov_base = io->arena + (size_t)i * SLOT_STRIDE;
    io->received_parts[i].iov_len = SLOT_BYTES;
    struct msghdr *header = &io->received[i].msg_hdr;
    header->msg_name = &io->received_from[i];
    header->msg_iov = &io->received_parts[i];
    header->msg_iovlen = 1;
    header->msg_control = &io->received_control[i];
    prepare_slot(io, i);
  }
#endif
  uv_check_init(environment->loop, &io->check);
  io->check.data = io;
  uv_check_start(&io->check, on_check);
  uv_unref((uv_handle_t *)&io->check);
  environment->open_handles++;
  io->open_handles++;
  environment->udp = io;
  return NULL;
}

// udpSizes(): [arena bytes, receive rows, address bytes, most rows of one udpSend, rows of errors]
static napi_value udp_sizes(napi_env env, napi_callback_info info) {
  const int64_t sizes[] = {(int64_t)SLOTS * SLOT_STRIDE, RECEIVE_ROWS, SLOTS * ADDRESS_MAX_BYTES, MAX_SEND_ROWS,
                           ERROR_ROWS};
  napi_value result;
  napi_create_array_with_length(env, 5, &result);
  for (uint32_t i = 0; i < 5; i++) napi_set_element(env, result, i, make_int(env, sizes[i]));
  return result;
}

static void on_check_closed(uv_handle_t *handle) {
  io_handle_closed(handle->data);
}

void udp_end(environment *environment) {
  udp_io *io = environment->udp;
  if (io == NULL) return;
  environment->udp = NULL;
  io->row_count = 0;
  io->error_count = 0;
  uv_check_stop(&io->check);
  for (int32_t id = 0; id < io->used_ids; id++) {
    if (io->sockets[id] != NULL) close_socket(io->sockets[id]);
  }
  napi_async_destroy(environment->env, io->context);
  napi_delete_reference(environment->env, io->on_batch);
  napi_delete_reference(environment->env, io->on_errors);
  for (int i = 0; i < 4; i++) napi_delete_reference(environment->env, io->memory[i]);
  uv_close((uv_handle_t *)&io->check, on_check_closed);
}

void udp_init(napi_env env, napi_value exports) {
  set_function(env, exports, "udpSizes", udp_sizes);
  set_function(env, exports, "udpSetup", udp_setup);
  set_function(env, exports, "udpOpen", udp_open);
  set_function(env, exports, "udpClose", udp_close);
  set_function(env, exports, "udpErrors", udp_errors);
#ifdef __linux__
  set_function(env, exports, "udpTellErrors", udp_tell_errors);
  set_function(env, exports, "udpForbidFragments", udp_forbid_fragments);
  set_function(env, exports, "udpLatency", udp_latency);
#endif
#ifndef _WIN32
  set_function(env, exports, "udpRestrict", udp_restrict);
  set_function(env, exports, "udpDscp", udp_dscp);
#endif
  set_function(env, exports, "udpPort", udp_port);
  set_function(env, exports, "udpReceiveBuffer", udp_receive_buffer);
  set_function(env, exports, "udpSend", udp_send);
  set_function(env, exports, "udpCounts", udp_counts);
}
