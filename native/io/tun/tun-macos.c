#ifdef __APPLE__

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/if_utun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/kern_control.h>
#include <sys/socket.h>
#include <sys/sys_domain.h>
#include <unistd.h>

#include "../tun.h"

int io_tun_open(const char *name, bool offload, io_tun_device *result) {
  (void)offload;
  unsigned unit = 0;
  if (strncmp(name, "utun", 4) != 0 || strlen(name) >= IFNAMSIZ) return UV_EINVAL;
  if (name[4] != '\0') unit = (unsigned)strtoul(name + 4, NULL, 10) + 1;
  int fd = socket(PF_SYSTEM, SOCK_DGRAM, SYSPROTO_CONTROL);
  if (fd < 0) return -errno;
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
  *result = (io_tun_device){.descriptor = fd, .has_family = true};
  socklen_t length = sizeof result->name;
  is_good = is_good && connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
            getsockopt(fd, SYSPROTO_CONTROL, UTUN_OPT_IFNAME, result->name, &length) == 0;
  if (!is_good) {
    int error = -errno;
    close(fd);
    return error;
  }
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return 0;
}

#elif !defined(__linux__)

#include "../tun.h"

int io_tun_open(const char *name, bool offload, io_tun_device *result) {
  (void)name, (void)offload, (void)result;
  return UV_ENOTSUP;
}

#else
typedef int nothing_on_other_systems;
#endif
