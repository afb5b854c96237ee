/*
 * Load for UDP tunnels: a sink that counts and checks, an echo, a flood, and a ping. Datagrams move in batches
 * (sendmmsg, recvmmsg), so that one core makes more than any tunnel takes. One JSON object on a line for each result.
 *
 *   load sink  SECONDS [PORT]                  "port", then at the end what came within the window
 *   load echo  SECONDS [PORT]                  sends everything back
 *   load flood PORT SIZE SOCKETS SECONDS RATE BURST
 *                                              RATE 0: as fast as the system takes it; BURST datagrams of one socket
 *                                              leave in one segmented send, 1: each by itself, by sendmmsg
 *   load ping  PORT SIZE COUNT                 one outstanding; microseconds
 *
 * Payload: magic 4, flow 4, sequence 8, send time 8 (ns), checksum 8, then a pattern from the sequence.
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
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define MAX_SIZE 65507
#define MAX_FLOWS 65536
#define MAGIC 0x55504c44u
#define HEADER 32
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

static volatile sig_atomic_t stopped;
static void on_signal(int signal_number) {
  (void)signal_number;
  stopped = 1;
}

static int udp_socket(uint16_t port, uint16_t *bound) {
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  if (fd < 0) die("socket");
  /* Debian's udptunnel binds its target's port too, at any address; ours is the nearer match. */
  int on = 1;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) die("SO_REUSEADDR");
  int size = 8 << 20;
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
  socklen_t length = sizeof address;
  getsockname(fd, (struct sockaddr *)&address, &length);
  if (bound) *bound = ntohs(address.sin_port);
  return fd;
}

/* Cheap, and different for each sequence and flow, so that a datagram put together wrongly is seen. */
static uint64_t checksum(const uint8_t *bytes, size_t size) {
  uint64_t sum = 0x9e3779b97f4a7c15u ^ size;
  size_t i = HEADER;
  for (; i + 8 <= size; i += 8) {
    uint64_t word;
    memcpy(&word, bytes + i, 8);
    sum = (sum ^ word) * 0x100000001b3u;
  }
  for (; i < size; i++) sum = (sum ^ bytes[i]) * 0x100000001b3u;
  uint64_t head[2];
  memcpy(head, bytes, 16);
  return sum ^ head[0] ^ (head[1] * 31);
}

static void fill(uint8_t *bytes, size_t size, uint32_t flow, uint64_t sequence) {
  uint32_t magic = MAGIC;
  uint64_t time = now_ns();
  memcpy(bytes, &magic, 4);
  memcpy(bytes + 4, &flow, 4);
  memcpy(bytes + 8, &sequence, 8);
  memcpy(bytes + 16, &time, 8);
  if (size > HEADER) memset(bytes + HEADER, (int)(sequence & 0xff), size - HEADER);
  uint64_t sum = checksum(bytes, size);
  memcpy(bytes + 24, &sum, 8);
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

/* Size of the datagrams of a coalesced message; its whole size when it is a single one. */
static size_t segment_size(struct msghdr *header, size_t size) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
    int value;
    if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO) continue;
    memcpy(&value, CMSG_DATA(c), sizeof value);
    if (value > 0) return (size_t)value;
  }
  return size;
}

/* Highest sequence seen of each flow, and a window of 4,096 behind it, to tell late from duplicate. */
static uint64_t highest[MAX_FLOWS];
static uint64_t (*window)[64];

static uint64_t count, total_bytes, corrupt, duplicate, reordered;

static void check(const uint8_t *data, size_t size) {
  count++;
  total_bytes += size;
  uint32_t magic, flow;
  uint64_t sequence, sum;
  if (size < HEADER) {
    corrupt++;
    return;
  }
  memcpy(&magic, data, 4);
  memcpy(&flow, data + 4, 4);
  memcpy(&sequence, data + 8, 8);
  memcpy(&sum, data + 24, 8);
  if (magic != MAGIC || sum != checksum(data, size) || flow >= MAX_FLOWS) {
    corrupt++;
    return;
  }
  sequence++;
  uint64_t *bits = window[flow];
  if (sequence > highest[flow]) {
    for (uint64_t s = highest[flow] + 1; s < sequence && s < highest[flow] + 4097; s++)
      bits[(s / 64) % 64] &= ~(1ull << (s % 64));
    if (sequence - highest[flow] > 4096) memset(bits, 0, sizeof window[flow]);
    highest[flow] = sequence;
    bits[(sequence / 64) % 64] |= 1ull << (sequence % 64);
  } else if (highest[flow] - sequence < 4096) {
    uint64_t bit = 1ull << (sequence % 64);
    if (bits[(sequence / 64) % 64] & bit) duplicate++;
    else reordered++;
    bits[(sequence / 64) % 64] |= bit;
  } else reordered++;
}

static int sink(int seconds, uint16_t port, int is_echo) {
  uint16_t bound;
  int fd = udp_socket(port, &bound);
  int on = 1;
  /* An echo answers each datagram by itself. */
  if (!is_echo) setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on);
  prepare(MAX_SIZE + 1);
  window = calloc(MAX_FLOWS, sizeof *window);
  if (!window) die("calloc");
  printf("{\"port\":%u}\n", bound);
  fflush(stdout);
  uint64_t first = 0, last = 0;
  uint64_t end = now_ns() + (uint64_t)seconds * 1000000000u;
  struct pollfd poller = {.fd = fd, .events = POLLIN};
  while (!stopped && now_ns() < end) {
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
    last = now_ns();
    if (!first) first = last;
    for (int i = 0; i < got; i++) {
      const uint8_t *data = vectors[i].iov_base;
      size_t left = messages[i].msg_len;
      size_t each = segment_size(&messages[i].msg_hdr, left);
      do {
        size_t size = each < left ? each : left;
        check(data, size);
        data += size;
        left -= size;
      } while (left > 0);
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
  uint64_t expected = 0;
  for (int i = 0; i < MAX_FLOWS; i++) expected += highest[i];
  printf("{\"count\":%llu,\"bytes\":%llu,\"seconds\":%.6f,\"corrupt\":%llu,\"duplicate\":%llu,"
         "\"reordered\":%llu,\"expected\":%llu}\n",
         (unsigned long long)count, (unsigned long long)total_bytes, (double)(last - first) / 1e9,
         (unsigned long long)corrupt, (unsigned long long)duplicate, (unsigned long long)reordered,
         (unsigned long long)expected);
  return 0;
}

static int flood(uint16_t port, size_t size, int sockets, double seconds, double rate, int burst) {
  struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(port)};
  target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int *fds = calloc((size_t)sockets, sizeof *fds);
  uint64_t *sequences = calloc((size_t)sockets, sizeof *sequences);
  if (!fds || !sequences) die("calloc");
  for (int i = 0; i < sockets; i++) {
    fds[i] = udp_socket(0, NULL);
    if (connect(fds[i], (struct sockaddr *)&target, sizeof target) < 0) die("connect");
  }
  /* The datagrams of a burst lie one behind the other, so that one segmented send takes them. */
  buffers = calloc(BATCH, size);
  if (!buffers) die("calloc");
  if (rate > 0 && burst > 8) burst = 8;
  if (burst > BATCH) burst = BATCH;
  if ((size_t)burst * size > MAX_SIZE) burst = (int)(MAX_SIZE / size);
  int is_segmented = burst > 1 && size <= 1472;
  for (int i = 0; i < sockets && is_segmented; i++) {
    int segment = (int)size;
    is_segmented = setsockopt(fds[i], IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment) == 0;
  }
  /* With one socket, singles leave many in a call. */
  if (burst == 1 && sockets == 1 && rate == 0) burst = BATCH;
  for (int i = 0; i < BATCH; i++) {
    vectors[i].iov_base = buffers + (size_t)i * size;
    vectors[i].iov_len = size;
    messages[i].msg_hdr.msg_iov = &vectors[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), sent = 0, failed = 0;
  for (int turn = 0; !stopped && now_ns() < end; turn = (turn + 1) % sockets) {
    if (rate > 0) {
      uint64_t due = start + (uint64_t)((double)sent / rate * 1e9), now = now_ns();
      if (due > now) {
        struct timespec pause = {0, (long)(due - now)};
        if (due - now > 60000) nanosleep(&pause, NULL);
        else while (now_ns() < due) {}
      }
    }
    for (int i = 0; i < burst; i++) fill(vectors[i].iov_base, size, (uint32_t)turn, sequences[turn] + (uint64_t)i);
    int done;
    if (is_segmented) done = send(fds[turn], buffers, size * (size_t)burst, 0) > 0 ? burst : 0;
    else done = sendmmsg(fds[turn], messages, (unsigned)burst, 0);
    if (done < 0) done = 0;
    sequences[turn] += (uint64_t)done;
    sent += (uint64_t)done;
    if (done < burst) failed++;
  }
  double took = (double)(now_ns() - start) / 1e9;
  printf("{\"sent\":%llu,\"failed\":%llu,\"seconds\":%.6f}\n", (unsigned long long)sent,
         (unsigned long long)failed, took);
  return 0;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static int ping(uint16_t port, size_t size, int count) {
  struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons(port)};
  target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
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
    if (lost > 20) break;
  }
  qsort(times, (size_t)done, sizeof *times, compare);
  printf("{\"samples\":%d,\"lost\":%d,\"min\":%.1f,\"p50\":%.1f,\"p99\":%.1f}\n", done, lost,
         done ? times[0] : 0, done ? times[done / 2] : 0, done ? times[done * 99 / 100] : 0);
  return 0;
}

int main(int argc, char **argv) {
  signal(SIGTERM, on_signal);
  signal(SIGINT, on_signal);
  if (argc >= 3 && strcmp(argv[1], "sink") == 0) return sink(atoi(argv[2]), argc > 3 ? (uint16_t)atoi(argv[3]) : 0, 0);
  if (argc >= 3 && strcmp(argv[1], "echo") == 0) return sink(atoi(argv[2]), argc > 3 ? (uint16_t)atoi(argv[3]) : 0, 1);
  if (argc == 8 && strcmp(argv[1], "flood") == 0 && atoi(argv[3]) >= HEADER && atoi(argv[4]) > 0 &&
      atoi(argv[4]) <= MAX_FLOWS && atoi(argv[7]) > 0)
    return flood((uint16_t)atoi(argv[2]), (size_t)atoi(argv[3]), atoi(argv[4]), atof(argv[5]), atof(argv[6]),
                 atoi(argv[7]));
  if (argc == 5 && strcmp(argv[1], "ping") == 0 && atoi(argv[3]) >= HEADER)
    return ping((uint16_t)atoi(argv[2]), (size_t)atoi(argv[3]), atoi(argv[4]));
  fprintf(stderr, "usage: load sink|echo SECONDS [PORT] | flood PORT SIZE SOCKETS SECONDS RATE BURST | ping PORT SIZE COUNT\n");
  return 2;
}
