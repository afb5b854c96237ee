/*
 * Emulates a link between two network namespaces in user space: a TUN device in each, and link-model.h between them, for
 * each direction separately. It needs neither qdisc nor netem. As root on Linux:
 *
 *   link run NEAR FAR DEVICE WORD...     makes DEVICE in both namespaces and forwards until its input ends; prints
 *                                        {"ready":true} when the devices exist, which the caller then sets up
 *   link replay WORD...                  the same model in virtual time: reads "TIME_US SIZE" lines of packets going up,
 *                                        prints for each, in the order in which its fate is known, "INDEX TIME_US" if
 *                                        it arrived, or "INDEX gone"
 *
 * A WORD is seed=N, moderation=US or DIRECTION.NAME=VALUE. The link wakes at most once in US microseconds (0), as network cards
 * moderate their interrupts: otherwise a link of 100 Mbit/s takes a core. DIRECTION is up (near to far), down or both, NAME one of
 *
 *   rate Mbit/s of IP packets, 0 is no limit     delay ms       jitter ms, at most this much more, in order
 *   loss share         burst packets, mean       reorder share, held back by   hold ms
 *   queue ms at the rate of this moment, or bytes   its bound in bytes; it keeps its bytes when the rate changes
 *
 * Input lines of both modes:
 *
 *   set WORD...              now
 *   after SECONDS WORD...    later
 *   port N rate MBITS        TCP and UDP of port N pass a throttle of their own first, each way, which holds a second's
 *                            worth (at least ten packets); 0 drops everything
 *   port N free
 *   report                   prints the counts since the last report
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include "link-model.h"

#define MAX_PACKET 65536
#define MAX_EVENTS 256
#define MAX_LINE 1024
#define MAX_THROTTLES 64
#define READ_BATCH 128
#define MS 1e6
/* A delivery that is late by more than this is counted. */
#define LATE_NS 1000000

enum { UP, DOWN, DIRECTIONS };
static const char *const names[] = {"up", "down"};
static struct link links[DIRECTIONS];

struct throttle {
  int port;
  struct link links[DIRECTIONS];
};
static struct throttle throttles[MAX_THROTTLES];
static int throttle_count;

static struct event {
  int64_t time;
  char line[MAX_LINE];
} events[MAX_EVENTS];
static int event_count;

static int devices[DIRECTIONS]; /* where the packets of a direction come from */
static uint64_t seed = 1, late, failed_writes;
static int64_t latest;
static struct timespec moderation;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static void usage(const char *what) {
  fprintf(stderr, "link: %s\n", what);
  exit(2);
}

/* One DIRECTION.NAME=VALUE; a queue in ms is put into bytes by `settle`. */
static double queue_ms[DIRECTIONS];
static void set_word(const char *word) {
  char direction[8], name[16];
  double value;
  unsigned long long number;
  if (sscanf(word, "seed=%llu", &number) == 1) {
    seed = number;
    return;
  }
  if (sscanf(word, "moderation=%llu", &number) == 1) {
    moderation = (struct timespec){(time_t)(number / 1000000), (long)(number % 1000000) * 1000};
    return;
  }
  if (sscanf(word, "%7[a-z].%15[a-z]=%lf", direction, name, &value) != 3 || !(value >= 0)) usage(word);
  int is_known = 0;
  for (int way = 0; way < DIRECTIONS; way++) {
    if (strcmp(direction, "both") != 0 && strcmp(direction, names[way]) != 0) continue;
    struct link_settings *s = &links[way].settings;
    struct {
      const char *name;
      double *field, unit;
    } fields[] = {{"rate", &s->rate, 1e6},       {"delay", &s->delay, MS},     {"jitter", &s->jitter, MS},
                  {"loss", &s->loss, 1},         {"burst", &s->burst, 1},      {"bytes", &s->queue, 1},
                  {"reorder", &s->reorder, 1},   {"hold", &s->reorder_hold, MS}, {"queue", &queue_ms[way], 1}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
      if (strcmp(name, fields[i].name) != 0) continue;
      *fields[i].field = value * fields[i].unit;
      is_known = 1;
    }
  }
  if (!is_known) usage(word);
}

static void settle(void) {
  for (int way = 0; way < DIRECTIONS; way++) {
    if (queue_ms[way] > 0) links[way].settings.queue = queue_ms[way] / 1e3 * links[way].settings.rate / 8;
    queue_ms[way] = 0;
  }
}

static void set_words(char *words) {
  for (char *word = strtok(words, " "); word; word = strtok(NULL, " ")) set_word(word);
  settle();
}

static void seed_all(void) {
  for (int way = 0; way < DIRECTIONS; way++) link_seed(&links[way], seed * DIRECTIONS + (uint64_t)way);
}

static void report(void) {
  printf("{");
  for (int way = 0; way < DIRECTIONS; way++) {
    struct link_counts *c = &links[way].counts;
    printf("\"%s\":{\"packets\":%llu,\"bytes\":%llu,\"dropped\":%llu,\"lost\":%llu,\"reordered\":%llu,"
           "\"delivered\":%llu,\"deliveredBytes\":%llu,\"longestWaitMs\":%.3f},",
           names[way], (unsigned long long)c->packets, (unsigned long long)c->bytes, (unsigned long long)c->dropped,
           (unsigned long long)c->lost, (unsigned long long)c->reordered, (unsigned long long)c->delivered,
           (unsigned long long)c->delivered_bytes, (double)c->longest_wait / MS);
    memset(c, 0, sizeof *c);
  }
  printf("\"late\":%llu,\"latestMs\":%.3f,\"failedWrites\":%llu}\n", (unsigned long long)late, (double)latest / MS,
         (unsigned long long)failed_writes);
  fflush(stdout);
  late = failed_writes = 0;
  latest = 0;
}

static struct throttle *throttle_of(int port) {
  for (int i = 0; i < throttle_count; i++)
    if (throttles[i].port == port) return &throttles[i];
  return NULL;
}

static void set_throttle(int port, double mbits) {
  struct throttle *t = throttle_of(port);
  if (!t) {
    if (throttle_count == MAX_THROTTLES) usage("too many ports");
    t = &throttles[throttle_count++];
    memset(t, 0, sizeof *t);
    t->port = port;
  }
  for (int way = 0; way < DIRECTIONS; way++) {
    t->links[way].settings.rate = mbits * 1e6;
    double second = mbits * 1e6 / 8;
    t->links[way].settings.queue = second > 15000 ? second : 15000;
  }
}

/* What waits in it stays until it has passed: immediately, without a limit of its rate. */
static void free_throttle(int port) {
  struct throttle *t = throttle_of(port);
  if (!t) return;
  t->port = -1;
  for (int way = 0; way < DIRECTIONS; way++) t->links[way].settings.rate = 0;
}

static void obey(char *line, int64_t now);

static void add_event(int64_t time, const char *line) {
  if (event_count == MAX_EVENTS) usage("too many events");
  int i = event_count++;
  for (; i > 0 && events[i - 1].time > time; i--) events[i] = events[i - 1];
  events[i].time = time;
  snprintf(events[i].line, MAX_LINE, "%s", line);
}

static void obey(char *line, int64_t now) {
  int port, used = 0;
  double number;
  if (strncmp(line, "set ", 4) == 0) set_words(line + 4);
  else if (sscanf(line, "after %lf %n", &number, &used) == 1 && used > 0) {
    char later[MAX_LINE];
    int is_port = strncmp(line + used, "port ", 5) == 0;
    snprintf(later, sizeof later, "%s%s", is_port ? "" : "set ", line + used);
    add_event(now + (int64_t)(number * 1e9), later);
  } else if (sscanf(line, "port %d rate %lf", &port, &number) == 2) set_throttle(port, number);
  else if (sscanf(line, "port %d %n", &port, &used) == 1 && strcmp(line + used, "free") == 0) free_throttle(port);
  else if (strcmp(line, "report") == 0) report();
  else usage(line);
}

/* Runs everything up to a time, and makes changes at their own time. */
static void run_to(int64_t now) {
  while (event_count > 0 && events[0].time <= now) {
    struct event first = events[0];
    memmove(events, events + 1, (size_t)--event_count * sizeof *events);
    for (int way = 0; way < DIRECTIONS; way++) link_run(&links[way], first.time);
    obey(first.line, first.time);
  }
  for (int i = 0; i < throttle_count; i++) {
    for (int way = 0; way < DIRECTIONS; way++) {
      struct packet *p;
      while ((p = link_take(&throttles[i].links[way], now)) != NULL) link_offer(&links[way], now, p);
    }
  }
  for (int way = 0; way < DIRECTIONS; way++) link_run(&links[way], now);
}

static int64_t next_time(void) {
  int64_t next = event_count > 0 ? events[0].time : NEVER;
  for (int way = 0; way < DIRECTIONS; way++) {
    int64_t time = link_next(&links[way]);
    if (time < next) next = time;
    for (int i = 0; i < throttle_count; i++) {
      time = link_next(&throttles[i].links[way]);
      if (time < next) next = time;
    }
  }
  return next;
}

static struct throttle *throttle_for(const struct packet *p) {
  if (throttle_count == 0 || p->size < 20 || p->bytes[0] >> 4 != 4) return NULL;
  uint32_t header = (p->bytes[0] & 15u) * 4u;
  if ((p->bytes[9] != 6 && p->bytes[9] != 17) || p->size < header + 4) return NULL;
  const uint8_t *ports = p->bytes + header;
  struct throttle *t = throttle_of(ports[0] << 8 | ports[1]);
  return t ? t : throttle_of(ports[2] << 8 | ports[3]);
}

static void take_in(int way, int64_t now, struct packet *p) {
  struct throttle *t = throttle_for(p);
  if (!t) link_offer(&links[way], now, p);
  else if (t->links[way].settings.rate > 0) link_offer(&t->links[way], now, p);
  else {
    links[way].counts.packets++;
    links[way].counts.bytes += p->size;
    links[way].counts.dropped++;
    free(p);
  }
}

static int open_device(const char *host, const char *name) {
  char path[256];
  snprintf(path, sizeof path, "/var/run/netns/%s", host);
  int space = open(path, O_RDONLY | O_CLOEXEC);
  if (space < 0) die(path);
  if (setns(space, CLONE_NEWNET) < 0) die("setns");
  close(space);
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) die("/dev/net/tun");
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
  snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
  if (ioctl(fd, TUNSETIFF, &request) < 0) die("TUNSETIFF");
  return fd;
}

static int64_t origin;
static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec - origin;
}

/* Handles whole lines of the input; returns 0 at its end. */
static int take_commands(void) {
  static char input[4 * MAX_LINE];
  static size_t used;
  ssize_t got = read(STDIN_FILENO, input + used, sizeof input - used - 1);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 1;
  if (got <= 0) return 0;
  used += (size_t)got;
  input[used] = 0;
  char *line = input, *end;
  for (; (end = strchr(line, '\n')) != NULL; line = end + 1) {
    *end = 0;
    int64_t now = now_ns();
    run_to(now);
    obey(line, now);
  }
  used -= (size_t)(line - input);
  memmove(input, line, used);
  if (used == sizeof input - 1) usage("a line is too long");
  return 1;
}

static void take_packets(int way) {
  static uint8_t bytes[MAX_PACKET];
  for (int i = 0; i < READ_BATCH; i++) {
    ssize_t size = read(devices[way], bytes, sizeof bytes);
    if (size <= 0) return;
    struct packet *p = malloc(sizeof *p + (size_t)size);
    if (!p) abort();
    p->size = (uint32_t)size;
    memcpy(p->bytes, bytes, (size_t)size);
    int64_t now = now_ns();
    run_to(now);
    take_in(way, now, p);
  }
}

static void deliver(void) {
  for (int way = 0; way < DIRECTIONS; way++) {
    int64_t now = now_ns();
    run_to(now);
    struct packet *p;
    while ((p = link_take(&links[way], now)) != NULL) {
      if (write(devices[1 - way], p->bytes, p->size) < 0) failed_writes++;
      if (now - p->due > LATE_NS) late++;
      if (now - p->due > latest) latest = now - p->due;
      free(p);
      now = now_ns();
    }
  }
}

static int forward(const char *near, const char *far, const char *device) {
  devices[UP] = open_device(near, device);
  devices[DOWN] = open_device(far, device);
  origin = 0;
  origin = now_ns();
  /* The link must not be late because others compute; it sleeps nearly all the time. */
  struct sched_param priority = {.sched_priority = 1};
  if (sched_setscheduler(0, SCHED_FIFO, &priority) < 0) perror("link: SCHED_FIFO");
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (timer < 0) die("timerfd");
  fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
  printf("{\"ready\":true}\n");
  fflush(stdout);
  struct pollfd pollers[] = {{.fd = devices[UP], .events = POLLIN},
                             {.fd = devices[DOWN], .events = POLLIN},
                             {.fd = STDIN_FILENO, .events = POLLIN},
                             {.fd = timer, .events = POLLIN}};
  for (;;) {
    if (moderation.tv_sec > 0 || moderation.tv_nsec > 0) nanosleep(&moderation, NULL);
    int64_t next = next_time();
    struct itimerspec when = {0};
    if (next != NEVER) {
      int64_t at = next + origin;
      when.it_value = (struct timespec){at / 1000000000, at % 1000000000};
    }
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
    if (poll(pollers, 4, -1) < 0 && errno != EINTR) die("poll");
    for (int way = 0; way < DIRECTIONS; way++)
      if (pollers[way].revents) take_packets(way);
    if (pollers[2].revents && !take_commands()) return 0;
    deliver();
  }
}

static int64_t number_of(const struct packet *p) {
  int64_t index;
  memcpy(&index, p->bytes, sizeof index);
  return index;
}

/* Everything that arrives up to a time, at its own time. */
static char *is_back;
static void replay_to(int64_t until) {
  for (int64_t next; (next = next_time()) <= until;) {
    run_to(next);
    struct packet *p;
    while ((p = link_take(&links[UP], next)) != NULL) {
      printf("%lld %.3f\n", (long long)number_of(p), (double)p->due / 1e3);
      is_back[number_of(p)] = 1;
      free(p);
    }
  }
  if (until != NEVER) run_to(until);
}

static int replay(void) {
  char line[MAX_LINE];
  int64_t count = 0, capacity = 0, now = 0;
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    double us;
    unsigned size;
    if (sscanf(line, "%lf %u", &us, &size) != 2) {
      obey(line, now);
      continue;
    }
    now = (int64_t)(us * 1e3);
    replay_to(now);
    if (count == capacity) {
      capacity = capacity ? 2 * capacity : 1024;
      is_back = realloc(is_back, (size_t)capacity);
      if (!is_back) abort();
    }
    is_back[count] = 0;
    struct packet *p = calloc(1, sizeof *p + sizeof count);
    if (!p) abort();
    p->size = size;
    memcpy(p->bytes, &count, sizeof count);
    count++;
    take_in(UP, now, p);
  }
  replay_to(NEVER - 1);
  for (int64_t i = 0; i < count; i++)
    if (!is_back[i]) printf("%lld gone\n", (long long)i);
  return 0;
}

int main(int argc, char **argv) {
  int is_run = argc >= 5 && strcmp(argv[1], "run") == 0;
  if (!is_run && (argc < 2 || strcmp(argv[1], "replay") != 0))
    usage("link run NEAR FAR DEVICE WORD... | link replay WORD...");
  for (int i = is_run ? 5 : 2; i < argc; i++) set_word(argv[i]);
  settle();
  seed_all();
  return is_run ? forward(argv[2], argv[3], argv[4]) : replay();
}
