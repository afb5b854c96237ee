#include <uv.h>

#include "../service.h"

#ifdef __linux__
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int io_sealed_memory(const uint8_t *bytes, size_t count) {
  int fd = memfd_create("underpass", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -errno;
  int error = 0;
  for (size_t at = 0; at < count && error == 0;) {
    ssize_t written = write(fd, bytes + at, count - at);
    if (written > 0) at += (size_t)written;
    else if (written == 0 || errno != EINTR) error = written == 0 ? UV_EIO : -errno;
  }
  if (error == 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) error = -errno;
  if (error == 0) return fd;
  close(fd);
  return error;
}

#else

int io_sealed_memory(const uint8_t *bytes, size_t count) {
  (void)bytes, (void)count;
  return UV_ENOTSUP;
}

#endif
