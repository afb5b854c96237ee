/*
 * TCP streams that send as much as they may, beside the datagrams of traffic.c. Prints one line of JSON for each result.
 *
 *   streams pour ADDRESS CONGESTION      prints {"port":N}; sends to each connection as much as it accepts
 *   streams drink TO COUNT WARM_UP SECONDS
 *                                        reads COUNT connections: {"mbits":N} of what arrived after the warm-up
 *   streams drain ADDRESS WARM_UP SECONDS
 *                                        prints {"port":N}; reads each connection: {"mbits":N}, as above
 *   streams fill TO COUNT                sends to COUNT connections as much as they accept
 *
 * TO is ADDRESS:PORT, or ADDRESS:PORT@SOCKS for a SOCKS5 server on that port of 127.0.0.1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "address.h"

#define MAX_STREAMS 64
#define NS_PER_S 1000000000

static uint8_t bytes[1 << 18];

static void die(const char *what) {
  perror(what);
  exit(1);
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

/* @param congestion  of what connections send, which inherit it; NULL for the system's own */
static int listener_at(const char *address, const char *congestion) {
  struct sockaddr_in own = address_of("streams", address);
  socklen_t length = sizeof own;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, (struct sockaddr *)&own, length) < 0 || listen(listener, MAX_STREAMS) < 0)
    die("listen");
  if (congestion && setsockopt(listener, IPPROTO_TCP, TCP_CONGESTION, congestion, (socklen_t)strlen(congestion)) < 0)
    die(congestion);
  getsockname(listener, (struct sockaddr *)&own, &length);
  printf("{\"port\":%u}\n", ntohs(own.sin_port));
  fflush(stdout);
  return listener;
}

static void exchange(int fd, const void *request, size_t size, uint8_t *answer, size_t wanted) {
  if (send(fd, request, size, MSG_NOSIGNAL) != (ssize_t)size) die("SOCKS5");
  if (recv(fd, answer, wanted, MSG_WAITALL) != (ssize_t)wanted) die("SOCKS5");
}

/* Opens a connection, through a SOCKS5 server (RFC 1928) if one is given. */
static int connection_to(const char *text) {
  struct sockaddr_in to = address_of("streams", text), first = to;
  const char *at = strchr(text, '@');
  if (at) {
    first.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    first.sin_port = htons((uint16_t)atoi(at + 1));
  }
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&first, sizeof first) < 0) die("connect");
  if (!at) return fd;
  uint8_t answer[10], request[10] = {5, 1, 0, 1};
  memcpy(request + 4, &to.sin_addr, 4);
  memcpy(request + 8, &to.sin_port, 2);
  exchange(fd, "\5\1\0", 3, answer, 2);
  exchange(fd, request, sizeof request, answer, sizeof answer);
  if (answer[1] == 0 && answer[3] == 1) return fd;
  fprintf(stderr, "streams: SOCKS5 refused\n");
  exit(1);
}

static void watch(int poller, int fd) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll");
}

/* Sends, in a process of its own, which ends with the process group. */
static void start_sending(int fd) {
  pid_t child = fork();
  if (child < 0) die("fork");
  if (child > 0) {
    close(fd);
    return;
  }
  while (send(fd, bytes, 65536, MSG_NOSIGNAL) > 0) {}
  exit(0);
}

/* Reads all connections, and prints what came. @param listener  for more of them; -1 for none */
static int count_arrivals(int poller, int listener, double warm_up, double seconds) {
  int64_t begins = now_ns() + (int64_t)(warm_up * NS_PER_S), ends = begins + (int64_t)(seconds * NS_PER_S);
  uint64_t counted = 0;
  for (int64_t now; (now = now_ns()) < ends;) {
    struct epoll_event ready;
    if (epoll_wait(poller, &ready, 1, (int)((ends - now) / 1000000) + 1) <= 0) continue;
    if (ready.data.fd == listener) {
      int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
      if (fd < 0) die("accept");
      watch(poller, fd);
      continue;
    }
    ssize_t got = recv(ready.data.fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN)) die("a stream has ended");
    if (got > 0 && now >= begins) counted += (uint64_t)got;
  }
  printf("{\"mbits\":%.3f}\n", (double)counted * 8 / seconds / 1e6);
  return 0;
}

static _Noreturn void pour(const char *address, const char *congestion) {
  int listener = listener_at(address, congestion);
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) die("accept");
    start_sending(fd);
  }
}

static int drink(const char *from, int count, double warm_up, double seconds) {
  int poller = epoll_create1(EPOLL_CLOEXEC);
  for (int i = 0; i < count; i++) watch(poller, connection_to(from));
  return count_arrivals(poller, -1, warm_up, seconds);
}

static int drain(const char *address, double warm_up, double seconds) {
  int poller = epoll_create1(EPOLL_CLOEXEC), listener = listener_at(address, NULL);
  watch(poller, listener);
  return count_arrivals(poller, listener, warm_up, seconds);
}

static _Noreturn void fill(const char *to, int count) {
  for (int i = 0; i < count; i++) start_sending(connection_to(to));
  for (;;) pause();
}

int main(int argc, char **argv) {
  /* This is an instrument that computes little; programs that share its core wait less for it than it would for them. */
  struct sched_param priority = {.sched_priority = 1};
  if (sched_setscheduler(0, SCHED_FIFO, &priority) < 0) perror("streams: SCHED_FIFO");
  if (argc == 4 && strcmp(argv[1], "pour") == 0) pour(argv[2], argv[3]);
  if (argc == 6 && strcmp(argv[1], "drink") == 0) return drink(argv[2], atoi(argv[3]), atof(argv[4]), atof(argv[5]));
  if (argc == 5 && strcmp(argv[1], "drain") == 0) return drain(argv[2], atof(argv[3]), atof(argv[4]));
  if (argc == 4 && strcmp(argv[1], "fill") == 0) fill(argv[2], atoi(argv[3]));
  fprintf(stderr, "streams pour ADDRESS CONGESTION | streams drink TO COUNT WARM_UP SECONDS |\n"
                  "streams drain ADDRESS WARM_UP SECONDS | streams fill TO COUNT\n");
  return 2;
}
