#include "tunnel.h"

#include <dirent.h>
#include <malloc.h>
#include <sys/socket.h>
#include <sys/time.h>

underpass_server *tunnel_server(recorder *recorder, const char *config) {
  static const char *const listen[] = {"127.0.0.1:0"};
  underpass_server_options options = {.size = sizeof options,
                                      .listen = listen,
                                      .listen_count = 1,
                                      .psk = TUNNEL_KEY,
                                      .psk_bytes = sizeof TUNNEL_KEY - 1,
                                      .config = config};
  underpass_callbacks callbacks = recorder_callbacks();
  underpass_server *server;
  assert_int_equal(underpass_server_start(&options, &callbacks, recorder, &server), 0);
  recorder_wait(recorder, &recorder->ready, 1);
  return server;
}

int tunnel_socket(struct sockaddr_in *address) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  const struct timeval patience = {.tv_sec = 10};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof *address;
  assert_int_equal(bind(fd, (struct sockaddr *)address, length), 0);
  getsockname(fd, (struct sockaddr *)address, &length);
  return fd;
}

int open_descriptors(void) {
  DIR *folder = opendir("/proc/self/fd");
  int count = 0;
  while (readdir(folder) != NULL) count++;
  closedir(folder);
  return count;
}

size_t allocated_bytes(void) { return mallinfo2().uordblks; }
