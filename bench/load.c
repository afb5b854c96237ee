/*
 * Generates load for UDP tunnels: a sink that counts and checks, an echo, a flood, and a ping. Datagrams move in batches
 * (sendmmsg, recvmmsg, segments), so that one core generates more than any tunnel carries. Prints one line of JSON for
 * each result.
 *
 *   load sink  SECONDS [ADDRESS]               "port", then at each SIGUSR1 and at the end what arrived since; one-way
 *                                              delays in microseconds
 *   load echo  SECONDS [ADDRESS]               the same, and sends everything back; both default to 127.0.0.1
 *   load flood PORT SIZE SOCKETS SECONDS RATE BURST
 *                                              RATE 0: as fast as the system accepts it, otherwise what is due after
 *                                              each sleep; up to BURST datagrams of one socket leave in one segmented
 *                                              send, 1: each separately, by sendmmsg
 *   load open  PORT SIZE SECONDS RATE BURST    one socket at a fixed rate, and what comes back; round trips in
 *                                              microseconds
 *   load ping  PORT SIZE COUNT                 one outstanding; microseconds
 *   load hold  PORT SIZE SOCKETS RATE          one datagram from each socket, then keeps the sockets until SIGTERM; RATE 0:
 *                                              the next one as soon as fewer than 64 are unanswered; microseconds to
 *                                              each answer
 *   load with-parent COMMAND ...               runs a command that is killed when its parent ends
 *
 * PORT may be ADDRESS:PORT, and for flood and open ADDRESS:PORT@SOCKS: through a SOCKS5 server on that port of 127.0.0.1.
 *
 * Uncounted trailers follow a flood, because some tunnels keep their last datagrams until more arrive.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "load-payload.h"

#define BATCH 64
#define MAX_SIZE 65507
#define TRAILERS 64
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

static volatile sig_atomic_t stopped, report_wanted;
static void on_signal(int signal_number) {
  if (signal_number == SIGUSR1) report_wanted = 1;
  else stopped = 1;
}

/* The target, and the address of the sender; with a SOCKS5 server, the header of its datagrams (RFC 1928 section 7). */
static struct sockaddr_in target;
static in_addr_t own_address;
static uint16_t socks_port;
#define SOCKS_HEADER 10
static uint8_t prefix[SOCKS_HEADER];
static size_t prefix_size;

static int udp_socket(uint16_t port, uint16_t *bound) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0) die("socket");
  /* Debian's udptunnel also binds its target's port, at any address; this socket is the closer match. */
  int on = 1;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) die("SO_REUSEADDR");
  int size = 8 << 20;
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = own_address;
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
  socklen_t length = sizeof address;
  getsockname(fd, (struct sockaddr *)&address, &length);
  if (bound) *bound = ntohs(address.sin_port);
  return fd;
}

static struct mmsghdr messages[BATCH];
static struct iovec vectors[BATCH];
static struct sockaddr_in names[BATCH];
static uint8_t *buffers;

static void prepare(size_t slot) {
  buffers = calloc(BATCH, slot);
  if (!buffers) die("calloc");
  for (int i = 0; i < BATCH; i++) {
    vectors[i].iov_base = buffers + (size_t)i * slot;
    vectors[i].iov_len = slot;
    messages[i].msg_hdr.msg_iov = &vectors[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
}

static union {
  struct cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(int))];
} controls[BATCH];

/* The size of the datagrams of a coalesced message; the whole size of a single one. */
static size_t segment_size(struct msghdr *header, size_t size) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
    int value;
    if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO) continue;
    memcpy(&value, CMSG_DATA(c), sizeof value);
    if (value > 0) return (size_t)value;
  }
  return size;
}

static void check_message(struct msghdr *header, size_t left, uint64_t now) {
  const uint8_t *data = header->msg_iov->iov_base;
  /* Answers through SOCKS5 come singly, because these sockets do not request coalescing. */
  if (left < prefix_size) return;
  data += prefix_size;
  left -= prefix_size;
  size_t each = segment_size(header, left);
  do {
    size_t size = each < left ? each : left;
    check(data, size, now);
    data += size;
    left -= size;
  } while (left > 0);
}

static int sink(int seconds, int is_echo) {
  uint16_t bound;
  int fd = udp_socket(0, &bound);
  int on = 1;
  /* An echo answers each datagram separately. */
  if (!is_echo) setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on);
  prepare(MAX_SIZE + 1);
  prepare_checks();
  printf("{\"port\":%u}\n", bound);
  fflush(stdout);
  uint64_t first = 0, last = 0;
  uint64_t end = now_ns() + (uint64_t)seconds * 1000000000u;
  struct pollfd poller = {.fd = fd, .events = POLLIN};
  while (!stopped && now_ns() < end) {
    if (report_wanted) {
      report_wanted = 0;
      print_checked(first, last);
      printf("}\n");
      reset_checks();
      first = last = 0;
      fflush(stdout);
    }
    if (poll(&poller, 1, 100) <= 0) continue;
    for (int i = 0; i < BATCH; i++) {
      vectors[i].iov_len = MAX_SIZE + 1;
      messages[i].msg_hdr.msg_name = &names[i];
      messages[i].msg_hdr.msg_namelen = sizeof names[i];
      messages[i].msg_hdr.msg_control = &controls[i];
      messages[i].msg_hdr.msg_controllen = sizeof controls[i];
    }
    int got = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    if (got <= 0) continue;
    uint64_t now = now_ns(), counted = count;
    for (int i = 0; i < got; i++) check_message(&messages[i].msg_hdr, messages[i].msg_len, now);
    if (count > counted) {
      last = now;
      if (!first) first = now;
    }
    if (is_echo) {
      for (int i = 0; i < got; i++) {
        vectors[i].iov_len = messages[i].msg_len;
        messages[i].msg_hdr.msg_control = NULL;
        messages[i].msg_hdr.msg_controllen = 0;
      }
      for (int sent = 0; sent < got;) {
        int n = sendmmsg(fd, messages + sent, (unsigned)(got - sent), 0);
        sent += n > 0 ? n : 1;
      }
    }
  }
  print_checked(first, last);
  printf("}\n");
  return 0;
}

/* Reads the answers, after waiting for them for a limited time. */
static struct mmsghdr answers[BATCH];
static struct iovec answer_vectors[BATCH];
static void take_answers(int fd, uint64_t wait_ns) {
  struct pollfd poller = {.fd = fd, .events = POLLIN};
  struct timespec pause = {(time_t)(wait_ns / 1000000000u), (long)(wait_ns % 1000000000u)};
  if (ppoll(&poller, 1, &pause, NULL) <= 0) return;
  int got = recvmmsg(fd, answers, BATCH, MSG_DONTWAIT, NULL);
  uint64_t now = now_ns();
  for (int i = 0; i < got; i++) check_message(&answers[i].msg_hdr, answers[i].msg_len, now);
}

static void prepare_answers(size_t size) {
  uint8_t *bytes = calloc(BATCH, size + 1);
  if (!bytes) die("calloc");
  for (int i = 0; i < BATCH; i++) {
    answer_vectors[i] = (struct iovec){.iov_base = bytes + (size_t)i * (size + 1), .iov_len = size + 1};
    answers[i].msg_hdr.msg_iov = &answer_vectors[i];
    answers[i].msg_hdr.msg_iovlen = 1;
  }
}

static void exchange(int fd, const void *request, size_t size, uint8_t *answer, size_t wanted) {
  if (send(fd, request, size, 0) != (ssize_t)size) die("SOCKS5");
  if (recv(fd, answer, wanted, MSG_WAITALL) != (ssize_t)wanted) die("SOCKS5");
}

/* Opens a UDP association (RFC 1928), and returns the address for its datagrams. The connection stays open. */
static struct sockaddr_in associate(void) {
  struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(socks_port)};
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof server) < 0) die("SOCKS5");
  uint8_t answer[10];
  exchange(fd, "\5\1\0", 3, answer, 2);
  exchange(fd, "\5\3\0\1\0\0\0\0\0\0", 10, answer, 10);
  if (answer[1] != 0 || answer[3] != 1) {
    fprintf(stderr, "SOCKS5: refused\n");
    exit(1);
  }
  memcpy(&server.sin_addr, answer + 4, 4);
  memcpy(&server.sin_port, answer + 8, 2);
  return server;
}

static int *connected_sockets(int sockets) {
  int *fds = calloc((size_t)sockets, sizeof *fds);
  if (!fds) die("calloc");
  for (int i = 0; i < sockets; i++) {
    fds[i] = udp_socket(0, NULL);
    struct sockaddr_in to = socks_port ? associate() : target;
    if (connect(fds[i], (struct sockaddr *)&to, sizeof to) < 0) die("connect");
  }
  return fds;
}

/* After a generator was kept from running, it makes up for this much and not for the rest, which would be a flood. */
#define MAX_DEBT_NS 2000000u

static int flood(size_t size, int sockets, double seconds, double rate, int burst, int has_answers) {
  int *fds = connected_sockets(sockets);
  size_t whole = prefix_size + size;
  uint64_t *sequences = calloc((size_t)sockets, sizeof *sequences);
  /* The datagrams of a burst are consecutive in memory, so that one segmented send takes them. */
  buffers = calloc(BATCH, whole);
  if (!sequences || !buffers) die("calloc");
  if (has_answers) {
    prepare_checks();
    prepare_answers(whole);
  }
  if (burst > BATCH) burst = BATCH;
  if ((size_t)burst * whole > MAX_SIZE) burst = (int)(MAX_SIZE / whole);
  int is_segmented = burst > 1 && whole <= 1472;
  for (int i = 0; i < sockets && is_segmented; i++) {
    int segment = (int)whole;
    is_segmented = setsockopt(fds[i], IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment) == 0;
  }
  /* With one socket, one call sends many singles. */
  if (burst == 1 && sockets == 1) burst = BATCH;
  for (int i = 0; i < BATCH; i++) {
    vectors[i].iov_base = buffers + (size_t)i * whole;
    vectors[i].iov_len = whole;
    memcpy(vectors[i].iov_base, prefix, prefix_size);
    messages[i].msg_hdr.msg_iov = &vectors[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  prctl(PR_SET_TIMERSLACK, 1);
  uint64_t begin = now_ns(), end = begin + (uint64_t)(seconds * 1e9), sent = 0, failed = 0;
  double each = rate > 0 ? 1e9 / rate : 0, due = (double)begin;
  /* No later flood repeats a number, so that stragglers are distinguished from duplicates. */
  for (int i = 0; i < sockets; i++) sequences[i] = begin;
  for (int turn = 0; !stopped; turn = (turn + 1) % sockets) {
    uint64_t now = now_ns();
    if (now >= end) break;
    int size_of_burst = burst;
    if (rate > 0) {
      if (due > (double)now) {
        uint64_t wait = (uint64_t)(due - (double)now);
        struct timespec pause = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
        if (has_answers) take_answers(fds[0], wait);
        else nanosleep(&pause, NULL);
        turn = (turn + sockets - 1) % sockets;
        continue;
      }
      if (due + MAX_DEBT_NS < (double)now) due = (double)now - MAX_DEBT_NS;
      double behind = 1 + ((double)now - due) / each;
      if (behind < burst) size_of_burst = (int)behind;
    }
    for (int i = 0; i < size_of_burst; i++)
      fill((uint8_t *)vectors[i].iov_base + prefix_size, size, (uint32_t)turn, sequences[turn] + (uint64_t)i);
    int done;
    if (is_segmented) done = send(fds[turn], buffers, whole * (size_t)size_of_burst, 0) > 0 ? size_of_burst : 0;
    else done = sendmmsg(fds[turn], messages, (unsigned)size_of_burst, 0);
    if (done < 0) done = 0;
    sequences[turn] += (uint64_t)done;
    sent += (uint64_t)done;
    due += each * size_of_burst;
    if (done < size_of_burst) failed++;
    if (has_answers) take_answers(fds[0], 0);
  }
  uint64_t stop = now_ns();
  double took = (double)(stop - begin) / 1e9;
  if (has_answers) {
    for (uint64_t now = stop; now < stop + 300000000u && count < sent; now = now_ns()) take_answers(fds[0], 50000000u);
    print_checked(begin, stop);
    printf(",\"sent\":%llu}\n", (unsigned long long)sent);
    return 0;
  }
  uint8_t *trailer = calloc(1, whole);
  if (!trailer) die("calloc");
  uint32_t magic = TRAILER_MAGIC;
  memcpy(trailer, prefix, prefix_size);
  memcpy(trailer + prefix_size, &magic, 4);
  struct timespec pause = {0, 50000000};
  for (int i = 0; i < TRAILERS && !stopped; i++) {
    nanosleep(&pause, NULL);
    pause.tv_nsec = 1000000;
    if (send(fds[0], trailer, whole, 0) < 0) failed++;
  }
  printf("{\"sent\":%llu,\"failed\":%llu,\"seconds\":%.6f}\n", (unsigned long long)sent,
         (unsigned long long)failed, took);
  return 0;
}

/* What has no answer after a second is lost. */
static void send_as_answered(int *fds, uint8_t *bytes, size_t size, int sockets) {
  struct epoll_event events[BATCH];
  int poller = epoll_create1(0), sent = 0;
  uint64_t lost = 0;
  for (int i = 0; i < sockets; i++) {
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = fds[i]};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fds[i], &wanted) < 0) die("epoll_ctl");
  }
  while (!stopped && (sent < sockets || count + lost < (uint64_t)sent)) {
    for (; sent < sockets && (uint64_t)sent < count + lost + BATCH; sent++) {
      fill(bytes, size, (uint32_t)sent, 0);
      if (send(fds[sent], bytes, size, 0) < 0) perror("send");
    }
    int ready = epoll_wait(poller, events, BATCH, 1000);
    for (int i = 0; i < ready; i++) take_answers(events[i].data.fd, 0);
    if (ready == 0) lost = (uint64_t)sent - count;
  }
  close(poller);
}

static int hold(size_t size, int sockets, double rate) {
  int *fds = connected_sockets(sockets);
  prepare_checks();
  prepare_answers(size);
  uint8_t *bytes = calloc(1, size);
  if (!bytes) die("calloc");
  uint64_t begin = now_ns();
  if (rate == 0) send_as_answered(fds, bytes, size, sockets);
  else {
    struct timespec pause = {0, (long)(1e9 / rate)};
    for (int i = 0; i < sockets && !stopped; i++) {
      fill(bytes, size, (uint32_t)i, 0);
      if (send(fds[i], bytes, size, 0) < 0) perror("send");
      nanosleep(&pause, NULL);
    }
    for (int i = 0; i < sockets && !stopped; i++) take_answers(fds[i], i == 0 ? 500000000u : 0);
  }
  print_checked(begin, now_ns());
  printf(",\"sent\":%d}\n", sockets);
  fflush(stdout);
  while (!stopped) poll(NULL, 0, 1000);
  return 0;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static int ping(size_t size, int count) {
  int fd = udp_socket(0, NULL);
  if (connect(fd, (struct sockaddr *)&target, sizeof target) < 0) die("connect");
  prepare(MAX_SIZE + 1);
  double *times = calloc((size_t)count, sizeof *times);
  uint8_t *answer = malloc(MAX_SIZE + 1);
  if (!times || !answer) die("calloc");
  int done = 0, lost = 0;
  struct pollfd poller = {.fd = fd, .events = POLLIN};
  for (int i = 0; i < count + 100 && !stopped; i++) {
    fill(vectors[0].iov_base, size, 0, (uint64_t)i);
    uint64_t start = now_ns();
    if (send(fd, vectors[0].iov_base, size, 0) < 0) continue;
    int is_back = 0;
    while (!is_back && poll(&poller, 1, 1000) > 0) {
      ssize_t got = recv(fd, answer, MAX_SIZE + 1, 0);
      is_back = got == (ssize_t)size && memcmp(answer, vectors[0].iov_base, size) == 0;
    }
    if (!is_back) lost++;
    else if (i >= 100) times[done++] = (double)(now_ns() - start) / 1e3;
    if (lost > 20 || (lost > 2 && lost == i + 1)) break;
  }
  qsort(times, (size_t)done, sizeof *times, compare);
  printf("{\"samples\":%d,\"lost\":%d,\"min\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f}\n", done, lost,
         done ? times[0] : 0, done ? times[done / 2] : 0, done ? times[done * 9 / 10] : 0,
         done ? times[done * 99 / 100] : 0);
  return 0;
}

static int with_parent(char **command) {
  /* Everything that it starts gets one group, in the session of the run, because a session of its own would be scheduled
   * separately. */
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() == 1) return 1;
  execvp(command[0], command);
  die(command[0]);
  return 1;
}

static int read_address(const char *text, in_addr_t *address) {
  struct in_addr read;
  if (inet_pton(AF_INET, text, &read) != 1) return 0;
  *address = read.s_addr;
  return 1;
}

/* [ADDRESS:]PORT[@SOCKS] */
static int read_target(const char *text) {
  char address[INET_ADDRSTRLEN] = "127.0.0.1";
  const char *colon = strchr(text, ':'), *at = strchr(text, '@');
  if (colon) {
    size_t length = (size_t)(colon - text);
    if (length >= sizeof address) return 0;
    memcpy(address, text, length);
    address[length] = 0;
    text = colon + 1;
  }
  target.sin_family = AF_INET;
  target.sin_port = htons((uint16_t)atoi(text));
  if (!read_address(address, &target.sin_addr.s_addr)) return 0;
  if (at) {
    socks_port = (uint16_t)atoi(at + 1);
    prefix_size = SOCKS_HEADER;
    prefix[3] = 1;
    memcpy(prefix + 4, &target.sin_addr, 4);
    memcpy(prefix + 8, &target.sin_port, 2);
  } else if (target.sin_addr.s_addr != own_address) own_address = htonl(INADDR_ANY);
  return 1;
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  if (argc >= 3 && strcmp(mode, "with-parent") == 0) return with_parent(argv + 2);
  own_address = htonl(INADDR_LOOPBACK);
  signal(SIGTERM, on_signal);
  signal(SIGINT, on_signal);
  struct sigaction report = {.sa_handler = on_signal};
  sigaction(SIGUSR1, &report, NULL);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (argc == 3 || (argc == 4 && read_address(argv[3], &own_address))) {
    if (strcmp(mode, "sink") == 0) return sink(atoi(argv[2]), 0);
    if (strcmp(mode, "echo") == 0) return sink(atoi(argv[2]), 1);
  }
  if (argc >= 5 && read_target(argv[2]) && atoi(argv[3]) >= HEADER && atoi(argv[3]) <= MAX_SIZE) {
    size_t size = (size_t)atoi(argv[3]);
    int number = atoi(argv[4]);
    if (argc == 8 && strcmp(mode, "flood") == 0 && number > 0 && number <= MAX_FLOWS && atoi(argv[7]) > 0)
      return flood(size, number, atof(argv[5]), atof(argv[6]), atoi(argv[7]), 0);
    if (argc == 7 && strcmp(mode, "open") == 0 && atof(argv[5]) > 0 && atoi(argv[6]) > 0)
      return flood(size, 1, atof(argv[4]), atof(argv[5]), atoi(argv[6]), 1);
    if (argc == 5 && strcmp(mode, "ping") == 0 && number > 0 && !socks_port) return ping(size, number);
    if (argc == 6 && strcmp(mode, "hold") == 0 && !socks_port && number > 0 && number <= MAX_FLOWS && (atof(argv[5]) > 1 || strcmp(argv[5], "0") == 0))
      return hold(size, number, atof(argv[5]));
  }
  fprintf(stderr, "usage: load sink|echo SECONDS [ADDRESS] | flood PORT SIZE SOCKETS SECONDS RATE BURST |\n"
                  "  open PORT SIZE SECONDS RATE BURST | ping PORT SIZE COUNT | hold PORT SIZE SOCKETS RATE |\n"
                  "  with-parent COMMAND ...\n");
  return 2;
}
