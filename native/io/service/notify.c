#include "../service.h"

#include <uv.h>

#ifdef __linux__
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

// Returns the length of the address, or UV_EINVAL.
static int address_of(const char *socket, struct sockaddr_un *address) {
  size_t length = strlen(socket);
  if (length < 2 || length >= sizeof address->sun_path || (socket[0] != '/' && socket[0] != '@')) return UV_EINVAL;
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  memcpy(address->sun_path, socket, length);
  if (socket[0] == '@') address->sun_path[0] = 0;
  // An abstract name extends to the end of the address.
  return (int)(offsetof(struct sockaddr_un, sun_path) + length + (socket[0] == '@' ? 0 : 1));
}

int io_service_notify(const char *socket_name, const char *message, const int *descriptors, size_t count,
                      int timeout_ms) {
  struct sockaddr_un address;
  int length = address_of(socket_name, &address);
  if (length < 0) return length;
  if (count > IO_SERVICE_MAX_DESCRIPTORS) return UV_EINVAL;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  struct timeval timeout = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(IO_SERVICE_MAX_DESCRIPTORS * sizeof(int))];
  } control;
  memset(&control, 0, sizeof control);
  struct iovec text = {.iov_base = (void *)message, .iov_len = strlen(message)};
  struct msghdr header = {
      .msg_name = &address, .msg_namelen = (socklen_t)length, .msg_iov = &text, .msg_iovlen = 1};
  if (count > 0) {
    header.msg_control = &control;
    header.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(rights), descriptors, count * sizeof(int));
  }
  ssize_t sent;
  do sent = sendmsg(fd, &header, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  int error = sent < 0 ? -errno : 0;
  close(fd);
  return error == UV_EAGAIN ? UV_ETIMEDOUT : error;
}

// The manager closes the other end of a pipe when it reaches this message.
int io_service_barrier(const char *socket, int timeout_ms) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -errno;
  int error = io_service_notify(socket, "BARRIER=1", &ends[1], 1, timeout_ms);
  close(ends[1]);
  struct pollfd closed = {.fd = ends[0]};
  int ready = 0;
  if (error == 0) {
    do ready = poll(&closed, 1, timeout_ms);
    while (ready < 0 && errno == EINTR);
    if (ready <= 0) error = ready == 0 ? UV_ETIMEDOUT : -errno;
  }
  close(ends[0]);
  return error;
}

#else

int io_service_notify(const char *socket, const char *message, const int *descriptors, size_t count, int timeout_ms) {
  (void)socket, (void)message, (void)descriptors, (void)count, (void)timeout_ms;
  return UV_ENOTSUP;
}

int io_service_barrier(const char *socket, int timeout_ms) {
  (void)socket, (void)timeout_ms;
  return UV_ENOTSUP;
}

#endif
