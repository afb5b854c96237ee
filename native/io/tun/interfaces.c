#include "../interfaces.h"

#ifndef __linux__

int io_interface_address(const char *name, const uint8_t *address, size_t address_bytes, int prefix_length) {
  (void)name, (void)address, (void)address_bytes, (void)prefix_length;
  return UV_ENOTSUP;
}

int io_interface_route(const char *name, const uint8_t *address, size_t address_bytes, int prefix_length) {
  (void)name, (void)address, (void)address_bytes, (void)prefix_length;
  return UV_ENOTSUP;
}

int io_interface_ipv4(const char *name, uint8_t address[4]) {
  (void)name, (void)address;
  return UV_ENOTSUP;
}

int io_interface_up(const char *name, int mtu) {
  (void)name, (void)mtu;
  return UV_ENOTSUP;
}

#else

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

// Packets that may wait in a device while the loop is busy; the system's default is 500, 3 ms of a flood.
#define QUEUE_PACKETS 4096

// As in linux/ipv6_route.h, which conflicts with netinet/in.h of some C libraries.
struct ipv6_route {
  struct in6_addr destination, source, gateway;
  uint32_t type;
  uint16_t destination_length, source_length;
  uint32_t metric;
  unsigned long info;
  uint32_t flags;
  int index;
};

static void set_ipv4(struct sockaddr *to, const uint8_t *address) {
  struct sockaddr_in *in = (struct sockaddr_in *)to;
  memset(in, 0, sizeof *in);
  in->sin_family = AF_INET;
  memcpy(&in->sin_addr, address, 4);
}

static void set_mask(struct sockaddr *to, int prefix_length) {
  uint32_t mask = htonl(prefix_length == 0 ? 0 : UINT32_MAX << (32 - prefix_length));
  set_ipv4(to, (const uint8_t *)&mask);
}

static int control(unsigned long request, int family, void *argument) {
  int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  int error = ioctl(fd, request, argument) == 0 ? 0 : -errno;
  close(fd);
  return error;
}

// By netlink, because only there can duplicate address detection be turned off: until it has finished, nothing can listen on the
// address, even on a device without neighbours.
static int add_ipv6_address(const char *name, const uint8_t *address, int prefix_length) {
  struct {
    struct nlmsghdr header;
    struct ifaddrmsg wanted;
    struct rtattr attribute;
    uint8_t address[16];
  } request = {{.nlmsg_len = sizeof request,
                .nlmsg_type = RTM_NEWADDR,
                .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL},
               {.ifa_family = AF_INET6,
                .ifa_prefixlen = (uint8_t)prefix_length,
                .ifa_flags = IFA_F_NODAD,
                .ifa_index = if_nametoindex(name)},
               {.rta_len = sizeof request.attribute + sizeof request.address, .rta_type = IFA_LOCAL},
               {0}};
  memcpy(request.address, address, sizeof request.address);
  struct {
    struct nlmsghdr header;
    struct nlmsgerr result;
    uint8_t rest[512];
  } answer;
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) return -errno;
  // The answer has arrived when send() returns.
  bool is_sent = send(fd, &request, sizeof request, 0) == (ssize_t)sizeof request;
  ssize_t length = is_sent ? recv(fd, &answer, sizeof answer, MSG_DONTWAIT) : -1;
  int error = length < 0 ? -errno : 0;
  close(fd);
  if (error != 0) return error;
  bool is_answer = (size_t)length >= offsetof(__typeof__(answer), rest) && answer.header.nlmsg_type == NLMSG_ERROR;
  return is_answer ? answer.result.error : UV_EPROTO;
}

// A request about an interface. UV_EINVAL if the name cannot be one.
static int begin(struct ifreq *request, const char *name) {
  size_t length = strlen(name);
  memset(request, 0, sizeof *request);
  if (length >= IFNAMSIZ) return UV_EINVAL;
  memcpy(request->ifr_name, name, length);
  return 0;
}

static bool is_network(size_t address_bytes, int prefix_length) {
  return (address_bytes == 4 || address_bytes == 16) && prefix_length >= 0 && prefix_length <= (int)address_bytes * 8;
}

int io_interface_address(const char *name, const uint8_t *address, size_t address_bytes, int prefix_length) {
  struct ifreq request;
  if (!is_network(address_bytes, prefix_length)) return UV_EINVAL;
  int error = begin(&request, name);
  if (error != 0) return error;
  if (address_bytes == 4) {
    set_ipv4(&request.ifr_addr, address);
    error = control(SIOCSIFADDR, AF_INET, &request);
    set_mask(&request.ifr_netmask, prefix_length);
    if (error == 0) error = control(SIOCSIFNETMASK, AF_INET, &request);
  } else {
    error = add_ipv6_address(name, address, prefix_length);
  }
  return error == UV_EEXIST ? 0 : error;
}

int io_interface_route(const char *name, const uint8_t *address, size_t address_bytes, int prefix_length) {
  struct ifreq request;
  if (!is_network(address_bytes, prefix_length)) return UV_EINVAL;
  int error = begin(&request, name);
  if (error != 0) return error;
  if (address_bytes == 4) {
    struct rtentry route;
    memset(&route, 0, sizeof route);
    set_ipv4(&route.rt_dst, address);
    set_mask(&route.rt_genmask, prefix_length);
    route.rt_flags = (unsigned short)(RTF_UP | (prefix_length == 32 ? RTF_HOST : 0));
    route.rt_dev = request.ifr_name;
    return control(SIOCADDRT, AF_INET, &route);
  }
  struct ipv6_route route = {.destination_length = (uint16_t)prefix_length,
                             .metric = 1,
                             .flags = RTF_UP | (prefix_length == 128 ? RTF_HOST : 0),
                             .index = (int)if_nametoindex(name)};
  memcpy(&route.destination, address, 16);
  return control(SIOCADDRT, AF_INET6, &route);
}

int io_interface_ipv4(const char *name, uint8_t address[4]) {
  struct ifreq request;
  int error = begin(&request, name);
  if (error == 0) error = control(SIOCGIFADDR, AF_INET, &request);
  if (error == 0) memcpy(address, &((struct sockaddr_in *)&request.ifr_addr)->sin_addr, 4);
  return error;
}

int io_interface_up(const char *name, int mtu) {
  struct ifreq request;
  int error = begin(&request, name);
  request.ifr_mtu = mtu;
  if (error == 0) error = control(SIOCSIFMTU, AF_INET, &request);
  request.ifr_qlen = QUEUE_PACKETS;
  if (error == 0) error = control(SIOCSIFTXQLEN, AF_INET, &request);
  if (error == 0) error = control(SIOCGIFFLAGS, AF_INET, &request);
  request.ifr_flags |= IFF_UP;
  return error != 0 ? error : control(SIOCSIFFLAGS, AF_INET, &request);
}

#endif
