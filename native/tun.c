// TUN devices, and descriptors that carry IP packets in the same way. The packets that a device has in one turn of the loop go
// to JavaScript in one call, as offsets and lengths over one arena; packets to write come the same way. Addresses, MTU and
// routes are set by ioctl and netlink, without other programs.
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "module.h"

#ifdef _WIN32

void tun_init(napi_env env, napi_value exports) {}
void tun_end(environment *environment) {}

#else

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/route.h>
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#endif

#ifdef __APPLE__
#include <net/if_utun.h>
#include <sys/kern_control.h>
#include <sys/sys_domain.h>
#endif

// Room for a virtio-net header or a family, and the largest packet.
#define SLOT_BYTES 65600
#define ALIGNMENT 16
#define FAMILY_BYTES 4
#define VIRTIO_HEADER_BYTES 10
// Packets that may wait in a device while the loop is busy; the system's default is 500, 3 ms of a flood.
#define QUEUE_PACKETS 4096

typedef struct tun {
  watcher watcher;
  struct tun *next;
  // True if each packet is preceded by its family, in 4 bytes.
  bool has_family;
  uint8_t *arena;
  size_t arena_bytes;
  int32_t *offsets;
  int32_t *lengths;
  size_t capacity;
  int latency;
  // While it is held in bulk.
  held held;
} tun;

// References of a device: its three arrays, and its function.
enum { ON_PACKETS = 3, TUN_REFERENCES };

static tun *tun_of(environment *environment, int fd) {
  tun *found = environment->tuns;
  while (found != NULL && found->watcher.fd != fd) found = found->next;
  return found;
}

static void on_readable(uv_poll_t *poll, int status, int events);

// Reads what the device has, unless there is an error already. In bulk, a device that had something, but not more than can be
// read at once, is then held.
static void read_all(tun *tun, int status) {
  uv_poll_t *poll = &tun->watcher.poll;
  size_t header = tun->has_family ? FAMILY_BYTES : 0;
  size_t at = 0, count = 0;
  int error = status;
  while (error == 0 && count < tun->capacity && at + SLOT_BYTES <= tun->arena_bytes) {
    ssize_t length = read(tun->watcher.fd, tun->arena + at, SLOT_BYTES);
    if (length < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) break;
      error = -errno;
      break;
    }
    if (length == 0) {
      error = UV_EOF;
      break;
    }
    if ((size_t)length <= header) continue;
    tun->offsets[count] = (int32_t)(at + header);
    tun->lengths[count] = (int32_t)((size_t)length - header);
    count++;
    at += ((size_t)length + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
  }
  // The device is gone, or down for good; reported once, after its last packets.
  if (error != 0) uv_poll_stop(poll);
  else if (count > 0 && tun->latency == LATENCY_INTERACTIVE) latency_spin(tun->watcher.environment);
  else if (count > 0 && count < tun->capacity && tun->latency == LATENCY_BULK &&
           latency_hold(tun->watcher.environment, &tun->held, count)) {
    uv_poll_stop(poll);
  }
  if (count > 0) watcher_call(&tun->watcher, ON_PACKETS, 1, (int64_t)count);
  if (error != 0 && tun->watcher.fd >= 0) watcher_call(&tun->watcher, ON_PACKETS, 1, error);
}

static void on_readable(uv_poll_t *poll, int status, int events) {
  read_all(poll->data, status);
}

// The device's hold is over. It is watched again in any case, as reading may close it; one that is held again stops that.
static void resume(held *held) {
  tun *tun = (struct tun *)((char *)held - offsetof(struct tun, held));
  uv_poll_start(&tun->watcher.poll, UV_READABLE, on_readable);
  read_all(tun, 0);
}

// tunWatch(descriptor, hasFamily, arena, offsets, lengths, onPackets(count, or a negative system error at the end))
static napi_value tun_watch(napi_env env, napi_callback_info info) {
  napi_value values[6];
  if (!get_arguments(env, info, 6, values)) return NULL;
  environment *environment = environment_of(env);
  bytes_view arena = get_bytes(env, values[2]), offsets = get_bytes(env, values[3]), lengths = get_bytes(env, values[4]);
  if (arena.bytes < SLOT_BYTES || arena.bytes > INT32_MAX || offsets.bytes < sizeof(int32_t) ||
      offsets.bytes != lengths.bytes)
    return throw_system_error(env, UV_EINVAL, "tunWatch");
  tun *tun = calloc(1, sizeof *tun);
  if (tun == NULL) return throw_system_error(env, UV_ENOMEM, "tunWatch");
  napi_get_value_bool(env, values[1], &tun->has_family);
  tun->arena = arena.data;
  tun->arena_bytes = arena.bytes;
  tun->offsets = (int32_t *)(void *)offsets.data;
  tun->lengths = (int32_t *)(void *)lengths.data;
  tun->capacity = offsets.bytes / sizeof(int32_t);
  tun->latency = LATENCY_BALANCED;
  tun->held.resume = resume;
  int error = watcher_begin(&tun->watcher, environment, get_int(env, values[0]), UV_READABLE, on_readable,
                            "underpass:tun", values + 2, TUN_REFERENCES);
  if (error != 0) {
    free(tun);
    return throw_system_error(env, error, "tunWatch");
  }
  tun->next = environment->tuns;
  environment->tuns = tun;
  return NULL;
}

// Returns 0, or a negative system error.
static int write_packet(const tun *tun, const uint8_t *packet, size_t length) {
  uint8_t family[FAMILY_BYTES] = {0};
  struct iovec parts[2] = {{family, sizeof family}, {(void *)packet, length}};
  bool is_ipv6 = length > 0 && packet[0] >> 4 == 6;
#ifdef __linux__
  // The Ethernet protocol of struct tun_pi.
  family[2] = is_ipv6 ? 0x86 : 0x08;
  family[3] = is_ipv6 ? 0xdd : 0x00;
#else
  family[3] = is_ipv6 ? AF_INET6 : AF_INET;
#endif
  ssize_t written;
  do written = tun->has_family ? writev(tun->watcher.fd, parts, 2) : write(tun->watcher.fd, packet, length);
  while (written < 0 && errno == EINTR);
  return written < 0 ? -errno : 0;
}

// tunWrite(descriptor, input, arena, isInput, offsets, lengths, count): number of packets dropped. Packet i is in `input` if
// isInput[i] is 1, else in `arena`.
static napi_value tun_write(napi_env env, napi_callback_info info) {
  napi_value values[7];
  if (!get_arguments(env, info, 7, values)) return NULL;
  tun *tun = tun_of(environment_of(env), get_int(env, values[0]));
  bytes_view memory[2] = {get_bytes(env, values[2]), get_bytes(env, values[1])};
  bytes_view is_input = get_bytes(env, values[3]), offsets = get_bytes(env, values[4]), lengths = get_bytes(env, values[5]);
  int32_t count = get_int(env, values[6]);
  if (count <= 0) return make_int(env, 0);
  size_t rows = (size_t)count;
  if (tun == NULL || is_input.bytes < rows || offsets.bytes < rows * sizeof(int32_t) ||
      lengths.bytes < rows * sizeof(int32_t))
    return make_int(env, count);
  int64_t dropped = 0;
  for (size_t i = 0; i < rows; i++) {
    bytes_view from = memory[is_input.data[i] == 1];
    int32_t offset = ((const int32_t *)(const void *)offsets.data)[i];
    int32_t length = ((const int32_t *)(const void *)lengths.data)[i];
    bool is_within = offset >= 0 && length >= 0 && (size_t)offset + (size_t)length <= from.bytes;
    if (!is_within || write_packet(tun, from.data + offset, (size_t)length) != 0) dropped++;
  }
  // The answer comes soon.
  if (tun->latency == LATENCY_INTERACTIVE) latency_spin(tun->watcher.environment);
  return make_int(env, dropped);
}

#ifdef __linux__
// tunLatency(descriptor, class)
static napi_value tun_latency(napi_env env, napi_callback_info info) {
  napi_value values[2];
  if (!get_arguments(env, info, 2, values)) return NULL;
  tun *tun = tun_of(environment_of(env), get_int(env, values[0]));
  if (tun != NULL) tun->latency = get_int(env, values[1]);
  return NULL;
}
#endif

static void close_tun(tun *tun) {
  latency_release(&tun->held);
  int fd = tun->watcher.fd;
  watcher_end(&tun->watcher);
  close(fd);
}

// tunClose(descriptor): stops watching it and closes it
static napi_value tun_close(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  int fd = get_int(env, value);
  for (tun **at = &environment_of(env)->tuns; *at != NULL; at = &(*at)->next) {
    tun *found = *at;
    if (found->watcher.fd != fd) continue;
    *at = found->next;
    close_tun(found);
    return NULL;
  }
  return NULL;
}

void tun_end(environment *environment) {
  while (environment->tuns != NULL) {
    tun *tun = environment->tuns;
    environment->tuns = tun->next;
    close_tun(tun);
  }
}

// Reads the name of an interface; false, with an exception pending, if it is invalid.
static bool get_name(napi_env env, napi_value value, char name[IFNAMSIZ]) {
  size_t length = 0;
  char text[IFNAMSIZ + 1];
  if (napi_get_value_string_utf8(env, value, text, sizeof text, &length) != napi_ok || length >= IFNAMSIZ) {
    throw_system_error(env, UV_EINVAL, "name of the interface");
    return false;
  }
  memset(name, 0, IFNAMSIZ);
  memcpy(name, text, length);
  return true;
}

// [descriptor, name, packets are preceded by their family, packets have virtio-net headers, USO is accepted]
static napi_value opened(napi_env env, int fd, const char *name, bool has_family, bool has_virtio, bool has_uso) {
  napi_value result, text;
  napi_create_array_with_length(env, 5, &result);
  napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &text);
  napi_set_element(env, result, 0, make_int(env, fd));
  napi_set_element(env, result, 1, text);
  const bool flags[] = {has_family, has_virtio, has_uso};
  for (uint32_t i = 0; i < 3; i++) {
    napi_value flag;
    napi_get_boolean(env, flags[i], &flag);
    napi_set_element(env, result, 2 + i, flag);
  }
  return result;
}

#if defined(__linux__)

static int open_tun(char name[IFNAMSIZ], bool has_offload, bool *has_uso) {
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return -errno;
  struct ifreq request;
  memset(&request, 0, sizeof request);
  memcpy(request.ifr_name, name, IFNAMSIZ);
  request.ifr_flags = (short)(IFF_TUN | IFF_NO_PI | (has_offload ? IFF_VNET_HDR : 0));
  bool is_good = ioctl(fd, TUNSETIFF, &request) == 0;
  if (is_good && has_offload) {
    int header_bytes = VIRTIO_HEADER_BYTES, little_endian = 1;
    is_good = ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) == 0 && ioctl(fd, TUNSETVNETLE, &little_endian) == 0;
    unsigned long offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    // Kernels before 6.2 know no USO.
    *has_uso = is_good && ioctl(fd, TUNSETOFFLOAD, offloads | TUN_F_USO4 | TUN_F_USO6) == 0;
    if (is_good && !*has_uso) is_good = ioctl(fd, TUNSETOFFLOAD, offloads) == 0;
  } else if (is_good) ioctl(fd, TUNSETOFFLOAD, 0UL);
  if (!is_good) {
    int error = -errno;
    close(fd);
    return error;
  }
  memcpy(name, request.ifr_name, IFNAMSIZ);
  return fd;
}

// tunOpen(name, offload): see opened()
static napi_value tun_open(napi_env env, napi_callback_info info) {
  napi_value values[2];
  char name[IFNAMSIZ];
  bool has_offload = false, has_uso = false;
  if (!get_arguments(env, info, 2, values) || !get_name(env, values[0], name)) return NULL;
  napi_get_value_bool(env, values[1], &has_offload);
  int fd = open_tun(name, has_offload, &has_uso);
  return fd < 0 ? throw_system_error(env, fd, "tun") : opened(env, fd, name, false, has_offload, has_uso);
}

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

// By netlink, since only there duplicate address detection can be turned off: until it has finished, nothing can listen on the
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

static int add_address(const char *name, bytes_view address, int prefix_length) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  memcpy(request.ifr_name, name, IFNAMSIZ);
  if (address.bytes == 4) {
    set_ipv4(&request.ifr_addr, address.data);
    int error = control(SIOCSIFADDR, AF_INET, &request);
    if (error != 0) return error;
    set_mask(&request.ifr_netmask, prefix_length);
    return control(SIOCSIFNETMASK, AF_INET, &request);
  }
  return add_ipv6_address(name, address.data, prefix_length);
}

static int add_route(const char *name, bytes_view address, int prefix_length) {
  if (address.bytes == 4) {
    char device[IFNAMSIZ];
    memcpy(device, name, IFNAMSIZ);
    struct rtentry route;
    memset(&route, 0, sizeof route);
    set_ipv4(&route.rt_dst, address.data);
    set_mask(&route.rt_genmask, prefix_length);
    route.rt_flags = (unsigned short)(RTF_UP | (prefix_length == 32 ? RTF_HOST : 0));
    route.rt_dev = device;
    return control(SIOCADDRT, AF_INET, &route);
  }
  struct ipv6_route route = {.destination_length = (uint16_t)prefix_length,
                             .metric = 1,
                             .flags = RTF_UP | (prefix_length == 128 ? RTF_HOST : 0),
                             .index = (int)if_nametoindex(name)};
  memcpy(&route.destination, address.data, 16);
  return control(SIOCADDRT, AF_INET6, &route);
}

static napi_value add(napi_env env, napi_callback_info info, int (*how)(const char *, bytes_view, int), const char *what,
                      bool may_exist) {
  napi_value values[3];
  char name[IFNAMSIZ];
  if (!get_arguments(env, info, 3, values) || !get_name(env, values[0], name)) return NULL;
  bytes_view address = get_bytes(env, values[1]);
  int prefix_length = get_int(env, values[2]);
  bool is_good = (address.bytes == 4 || address.bytes == 16) && prefix_length >= 0 &&
                 prefix_length <= (int)address.bytes * 8;
  int error = is_good ? how(name, address, prefix_length) : UV_EINVAL;
  if (error == 0 || (may_exist && error == UV_EEXIST)) return NULL;
  return throw_system_error(env, error, what);
}

// interfaceAddress(name, 4 or 16 bytes, prefix length); an address that it already has is not an error
static napi_value interface_address(napi_env env, napi_callback_info info) {
  return add(env, info, add_address, "address", true);
}

// interfaceRoute(name, 4 or 16 bytes, prefix length): routes a network to the interface
static napi_value interface_route(napi_env env, napi_callback_info info) {
  return add(env, info, add_route, "route", false);
}

// interfaceIpv4(name): its first address, 4 bytes, or undefined
static napi_value interface_ipv4(napi_env env, napi_callback_info info) {
  napi_value value, buffer, result;
  struct ifreq request;
  memset(&request, 0, sizeof request);
  if (!get_arguments(env, info, 1, &value) || !get_name(env, value, request.ifr_name)) return NULL;
  napi_get_undefined(env, &result);
  if (control(SIOCGIFADDR, AF_INET, &request) != 0) return result;
  void *bytes;
  napi_create_arraybuffer(env, 4, &bytes, &buffer);
  memcpy(bytes, &((struct sockaddr_in *)&request.ifr_addr)->sin_addr, 4);
  napi_create_typedarray(env, napi_uint8_array, 4, buffer, 0, &result);
  return result;
}

// interfaceUp(name, MTU)
static napi_value interface_up(napi_env env, napi_callback_info info) {
  napi_value values[2];
  struct ifreq request;
  memset(&request, 0, sizeof request);
  char name[IFNAMSIZ];
  if (!get_arguments(env, info, 2, values) || !get_name(env, values[0], name)) return NULL;
  memcpy(request.ifr_name, name, IFNAMSIZ);
  request.ifr_mtu = get_int(env, values[1]);
  int error = control(SIOCSIFMTU, AF_INET, &request);
  request.ifr_qlen = QUEUE_PACKETS;
  if (error == 0) error = control(SIOCSIFTXQLEN, AF_INET, &request);
  if (error == 0) error = control(SIOCGIFFLAGS, AF_INET, &request);
  if (error == 0) {
    request.ifr_flags |= IFF_UP;
    error = control(SIOCSIFFLAGS, AF_INET, &request);
  }
  return error == 0 ? NULL : throw_system_error(env, error, "interface");
}

static void init_system(napi_env env, napi_value exports) {
  set_function(env, exports, "tunOpen", tun_open);
  set_function(env, exports, "interfaceAddress", interface_address);
  set_function(env, exports, "interfaceRoute", interface_route);
  set_function(env, exports, "interfaceIpv4", interface_ipv4);
  set_function(env, exports, "interfaceUp", interface_up);
}

#elif defined(__APPLE__)

// tunOpen("utun" or "utunN", offload): see opened()
static napi_value tun_open(napi_env env, napi_callback_info info) {
  napi_value values[2];
  char name[IFNAMSIZ];
  if (!get_arguments(env, info, 2, values) || !get_name(env, values[0], name)) return NULL;
  unsigned unit = 0;
  if (strncmp(name, "utun", 4) != 0) return throw_system_error(env, UV_EINVAL, "tun");
  if (name[4] != '\0') unit = (unsigned)strtoul(name + 4, NULL, 10) + 1;
  int fd = socket(PF_SYSTEM, SOCK_DGRAM, SYSPROTO_CONTROL);
  if (fd < 0) return throw_system_error(env, -errno, "tun");
  struct ctl_info control;
  memset(&control, 0, sizeof control);
  strncpy(control.ctl_name, UTUN_CONTROL_NAME, sizeof control.ctl_name - 1);
  struct sockaddr_ctl address;
  memset(&address, 0, sizeof address);
  bool is_good = ioctl(fd, CTLIOCGINFO, &control) == 0;
  address.sc_len = sizeof address;
  address.sc_family = AF_SYSTEM;
  address.ss_sysaddr = AF_SYS_CONTROL;
  address.sc_id = control.ctl_id;
  address.sc_unit = unit;
  socklen_t length = IFNAMSIZ;
  is_good = is_good && connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
            getsockopt(fd, SYSPROTO_CONTROL, UTUN_OPT_IFNAME, name, &length) == 0;
  if (!is_good) {
    int error = -errno;
    close(fd);
    return throw_system_error(env, error, "tun");
  }
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return opened(env, fd, name, true, false, false);
}

static void init_system(napi_env env, napi_value exports) {
  set_function(env, exports, "tunOpen", tun_open);
}

#else

static void init_system(napi_env env, napi_value exports) {}

#endif

void tun_init(napi_env env, napi_value exports) {
  init_system(env, exports);
  set_function(env, exports, "tunWatch", tun_watch);
  set_function(env, exports, "tunWrite", tun_write);
  set_function(env, exports, "tunClose", tun_close);
#ifdef __linux__
  set_function(env, exports, "tunLatency", tun_latency);
#endif
}

#endif
