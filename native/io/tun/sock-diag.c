// Ends TCP connections of this network namespace by their local address, through the kernel's sock_diag(7): those left over from a
// TUN device that is gone. Nothing else would end the wait of an application that only receives.
#include "../interfaces.h"

#ifndef __linux__

bool io_address_is_local(const uint8_t *address, size_t address_bytes) {
  (void)address, (void)address_bytes;
  return false;
}

int64_t io_tcp_destroy_from(const uint8_t *address, size_t address_bytes) {
  (void)address, (void)address_bytes;
  return UV_ENOTSUP;
}

#else

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

// More than a namespace can have from one address to one target, because there are not more ports.
#define MAX_CONNECTIONS 65536
// The kernel answers such requests within the call; this limits the wait for one that does not.
#define ANSWER_TIMEOUT_MS 500
#define DEADLINE_NS 2000000000ull
#define BUFFER_BYTES 32768
// A handshake continues through the current device, and TIME-WAIT has no application.
#define STATES                                                                                                   \
  (1u << TCP_ESTABLISHED | 1u << TCP_FIN_WAIT1 | 1u << TCP_FIN_WAIT2 | 1u << TCP_CLOSE_WAIT | 1u << TCP_LAST_ACK | \
   1u << TCP_CLOSING)

// struct inet_diag_hostcond with room for an address of either family.
typedef struct {
  uint8_t family, prefix_length;
  int32_t port;
  uint8_t address[16];
} host_condition;

typedef struct {
  struct nlmsghdr header;
  struct inet_diag_req_v2 request;
  // Only for a dump.
  struct nlattr attribute;
  struct inet_diag_bc_op operation;
  host_condition condition;
} diag_request;

typedef struct {
  int fd;
  uint64_t deadline;
  uint32_t sequence;
  struct inet_diag_req_v2 *found;
  size_t count;
  size_t capacity;
} diag;

static int ask(diag *diag, diag_request *message, uint16_t type, uint16_t flags, size_t bytes) {
  message->header = (struct nlmsghdr){.nlmsg_len = (uint32_t)bytes,
                                      .nlmsg_type = type,
                                      .nlmsg_flags = NLM_F_REQUEST | flags,
                                      .nlmsg_seq = ++diag->sequence};
  struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
  ssize_t sent = sendto(diag->fd, message, bytes, 0, (struct sockaddr *)&kernel, sizeof kernel);
  return sent < 0 ? -errno : 0;
}

static int keep(diag *diag, const struct inet_diag_msg *message) {
  if (diag->count == MAX_CONNECTIONS) return 0;
  if (diag->count == diag->capacity) {
    size_t capacity = diag->capacity == 0 ? 64 : diag->capacity * 2;
    struct inet_diag_req_v2 *more = realloc(diag->found, capacity * sizeof *more);
    if (more == NULL) return UV_ENOMEM;
    diag->found = more;
    diag->capacity = capacity;
  }
  diag->found[diag->count++] = (struct inet_diag_req_v2){.sdiag_family = message->idiag_family,
                                                         .sdiag_protocol = IPPROTO_TCP,
                                                         .idiag_states = STATES,
                                                         .id = message->id};
  return 0;
}

// Reads the kernel's answer to the last request to its end. Returns 0, or a negative system error: the kernel's own or
// UV_ETIMEDOUT.
static int read_answer(diag *diag) {
  _Alignas(struct nlmsghdr) uint8_t buffer[BUFFER_BYTES];
  while (uv_hrtime() < diag->deadline) {
    struct sockaddr_nl from;
    socklen_t from_bytes = sizeof from;
    ssize_t length = recvfrom(diag->fd, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &from_bytes);
    if (length < 0) {
      if (errno == EINTR) continue;
      return errno == EAGAIN || errno == EWOULDBLOCK ? UV_ETIMEDOUT : -errno;
    }
    if (from_bytes != sizeof from || from.nl_pid != 0) continue;
    size_t at = 0;
    while ((size_t)length - at >= sizeof(struct nlmsghdr)) {
      const struct nlmsghdr *header = (const struct nlmsghdr *)(const void *)(buffer + at);
      size_t bytes = header->nlmsg_len;
      if (bytes < sizeof *header || bytes > (size_t)length - at) return UV_EPROTO;
      const void *body = buffer + at + sizeof *header;
      size_t body_bytes = bytes - sizeof *header;
      at += NLMSG_ALIGN(bytes) < (size_t)length - at ? NLMSG_ALIGN(bytes) : (size_t)length - at;
      if (header->nlmsg_seq != diag->sequence) continue;
      if (header->nlmsg_type == NLMSG_DONE) return 0;
      if (header->nlmsg_type == NLMSG_ERROR) {
        return body_bytes < sizeof(struct nlmsgerr) ? UV_EPROTO : ((const struct nlmsgerr *)body)->error;
      }
      if (header->nlmsg_type != SOCK_DIAG_BY_FAMILY || body_bytes < sizeof(struct inet_diag_msg)) continue;
      int error = keep(diag, body);
      if (error != 0) return error;
    }
  }
  return UV_ETIMEDOUT;
}

// Finds the connections from an address among the sockets of a family; IPv4 ones may be mapped into IPv6 sockets.
static int find(diag *diag, uint8_t socket_family, const uint8_t *address, size_t address_bytes) {
  diag_request message;
  memset(&message, 0, sizeof message);
  size_t operation_bytes =
      sizeof message.operation + offsetof(host_condition, address) + address_bytes;
  message.request = (struct inet_diag_req_v2){
      .sdiag_family = socket_family, .sdiag_protocol = IPPROTO_TCP, .idiag_states = STATES};
  message.attribute = (struct nlattr){.nla_len = (uint16_t)(sizeof message.attribute + operation_bytes),
                                      .nla_type = INET_DIAG_REQ_BYTECODE};
  // A jump past the end of the code means no.
  message.operation = (struct inet_diag_bc_op){.code = INET_DIAG_BC_S_COND,
                                               .yes = (unsigned char)operation_bytes,
                                               .no = (unsigned short)(operation_bytes + 4)};
  message.condition.family = address_bytes == 4 ? AF_INET : AF_INET6;
  message.condition.prefix_length = (uint8_t)(address_bytes * 8);
  message.condition.port = -1;
  memcpy(message.condition.address, address, address_bytes);
  size_t bytes = offsetof(diag_request, attribute) + message.attribute.nla_len;
  int error = ask(diag, &message, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, bytes);
  return error == 0 ? read_answer(diag) : error;
}

int64_t io_tcp_destroy_from(const uint8_t *address, size_t address_bytes) {
  if (address_bytes != 4 && address_bytes != 16) return UV_EINVAL;
  diag diag = {.fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG),
               .deadline = uv_hrtime() + DEADLINE_NS};
  if (diag.fd < 0) return -errno;
  struct timeval timeout = {.tv_usec = ANSWER_TIMEOUT_MS * 1000};
  int error = setsockopt(diag.fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0 ? 0 : -errno;
  if (error == 0 && address_bytes == 4) error = find(&diag, AF_INET, address, address_bytes);
  if (error == 0) error = find(&diag, AF_INET6, address, address_bytes);
  int64_t ended = 0;
  for (size_t i = 0; i < diag.count && error == 0; i++) {
    diag_request message;
    memset(&message, 0, sizeof message);
    message.request = diag.found[i];
    error = ask(&diag, &message, SOCK_DESTROY, NLM_F_ACK, offsetof(diag_request, attribute));
    if (error == 0) error = read_answer(&diag);
    if (error == 0) ended++;
    // It has ended by itself in the meantime.
    if (error == UV_ENOENT) error = 0;
  }
  close(diag.fd);
  free(diag.found);
  return error == 0 ? ended : error;
}

bool io_address_is_local(const uint8_t *address, size_t address_bytes) {
  if (address_bytes != 4 && address_bytes != 16) return false;
  union {
    struct sockaddr any;
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
  } name;
  memset(&name, 0, sizeof name);
  bool is_ipv4 = address_bytes == 4;
  name.any.sa_family = is_ipv4 ? AF_INET : AF_INET6;
  memcpy(is_ipv4 ? (void *)&name.ipv4.sin_addr : (void *)&name.ipv6.sin6_addr, address, address_bytes);
  int fd = socket(name.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool is_local = fd >= 0 && bind(fd, &name.any, is_ipv4 ? sizeof name.ipv4 : sizeof name.ipv6) == 0;
  if (fd >= 0) close(fd);
  return is_local;
}

#endif
