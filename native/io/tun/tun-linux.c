#ifdef __linux__

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../tun.h"

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#define VIRTIO_HEADER_BYTES 10

int io_tun_open(const char *name, bool offload, io_tun_device *result) {
  struct ifreq request;
  size_t length = strlen(name);
  if (length >= IFNAMSIZ) return UV_EINVAL;
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return -errno;
  memset(&request, 0, sizeof request);
  memcpy(request.ifr_name, name, length);
  request.ifr_flags = (short)(IFF_TUN | IFF_NO_PI | (offload ? IFF_VNET_HDR : 0));
  bool is_good = ioctl(fd, TUNSETIFF, &request) == 0, has_uso = false;
  if (is_good && offload) {
    int header_bytes = VIRTIO_HEADER_BYTES, little_endian = 1;
    is_good = ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) == 0 && ioctl(fd, TUNSETVNETLE, &little_endian) == 0;
    unsigned long offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
    // Kernels before 6.2 do not support USO.
    has_uso = is_good && ioctl(fd, TUNSETOFFLOAD, offloads | TUN_F_USO4 | TUN_F_USO6) == 0;
    if (is_good && !has_uso) is_good = ioctl(fd, TUNSETOFFLOAD, offloads) == 0;
  } else if (is_good) ioctl(fd, TUNSETOFFLOAD, 0UL);
  if (!is_good) {
    int error = -errno;
    close(fd);
    return error;
  }
  *result = (io_tun_device){.descriptor = fd, .has_virtio = offload, .has_uso = has_uso};
  memcpy(result->name, request.ifr_name, IFNAMSIZ);
  return 0;
}

#else
typedef int nothing_on_other_systems;
#endif
