/*
 * Sends flows of datagrams like applications, and runs the target that answers them. Every datagram has a number and a
 * time. Arrival is the kernel's time of reception, and an answer contains how long the target held it, so that a busy
 * machine adds less to the results. Prints one line of JSON for each result.
 *
 *   traffic answer ADDRESS               prints {"port":N}; at each SIGUSR1 what arrived since, one entry for each flow
 *   traffic send TO WARM_UP SECONDS DRAIN SEED FLOW...
 *                                        TO is ADDRESS:PORT; datagrams of the warm-up are not counted, and answers are
 *                                        waited for until DRAIN seconds after the last
 *
 * A FLOW is NAME,KEY=VALUE,...:
 *
 *   every=MS      time between ticks               count=A-B   datagrams of a tick, drawn from the seed (1)
 *   size=N        bytes, at least 64               back=N      size of the answer; 0: none (the same)
 *   stream=MS:N   instead of answers, the target sends N bytes every MS by itself as long as datagrams arrive
 *   fresh=1       each datagram from a socket of its own, as resolvers do
 *   to=...        another target                   from=S, until=S   of the counted time (warm-up to TAIL_S after it)
 *   bin=MS        a series of results, one for each interval of this many ms
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
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

#include "address.h"

#define MAGIC 0x55504c54u
#define MAX_FLOWS 32
#define MAX_SIZE 9000
#define MAX_FRESH 16384
/* Lifetime of a fresh flow's socket after its datagram. */
#define FRESH_LIFE_NS 6000000000
/* The target's stream ends after this time without datagrams. */
#define STREAM_LIFE_NS 2000000000
/* A delay beyond this is not made up for, because that would be a burst. */
#define MAX_DEBT_NS 20000000
/* Ticks closer together than this are each moved at random within their interval. Otherwise flows in step with each other or with
 * the link would always be lost, or always spared. */
#define DITHERED_MS 5

/* Flows continue for this long after the counted time, because some tunnels keep their last datagrams until more arrive. */
#define TAIL_S 1

enum { COUNTED = 1, ANSWER = 2, FRESH = 4 };

struct header {
  uint32_t magic, check;
  uint16_t flow, flags;
  uint32_t sequence;
  uint32_t frame;
  uint16_t back;
  uint8_t frame_size, unused;
  uint32_t stream_us;
  uint16_t stream_size, bin_ms;
  uint32_t window_ms; /* of counting */
  int64_t origin;     /* when counting began; CLOCK_REALTIME in ns, as all times here */
  int64_t sent;
  int64_t held;       /* of an answer: how long the target had it */
};
_Static_assert(sizeof(struct header) <= 64, "the least size");

static void die(const char *what) {
  perror(what);
  exit(1);
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_REALTIME, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static volatile sig_atomic_t stopped, report_wanted;
static void on_signal(int number) {
  if (number == SIGUSR1) report_wanted = 1;
  else stopped = 1;
}

static void *grown(void *array, size_t *capacity, size_t wanted, size_t each) {
  if (wanted <= *capacity) return array;
  size_t more = *capacity ? *capacity : 256;
  while (more < wanted) more *= 2;
  array = realloc(array, more * each);
  if (!array) abort();
  memset((char *)array + *capacity * each, 0, (more - *capacity) * each);
  *capacity = more;
  return array;
}

struct list {
  uint32_t *values;
  size_t count, capacity;
};

static void add(struct list *l, uint32_t value) {
  l->values = grown(l->values, &l->capacity, l->count + 1, sizeof *l->values);
  l->values[l->count++] = value;
}

static int compare(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

/* Takes a sorted list; nearest rank. */
static uint32_t percentile(const struct list *l, double share) {
  if (l->count == 0) return 0;
  size_t rank = (size_t)(share * (double)l->count + 0.999999);
  return l->values[rank == 0 ? 0 : rank > l->count ? l->count - 1 : rank - 1];
}

static void print_times(const struct list *l) {
  printf("\"p50\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f", percentile(l, 0.5) / 1e3, percentile(l, 0.99) / 1e3,
         percentile(l, 0.999) / 1e3, percentile(l, 1) / 1e3);
}

struct frame {
  uint32_t got;
  int64_t first_sent, last_arrived;
};

/* The datagrams of a flow that arrived in one direction, or there and back. */
struct tally {
  uint64_t received, duplicate;
  uint64_t bytes; /* that arrived in the counted time, whenever they were sent */
  uint8_t *seen;
  size_t seen_capacity;
  uint32_t highest;
  int has_any, has_frames;
  struct list times, overtaken, frame_times;
  struct frame *frames;
  size_t frame_capacity;
  struct list *bins;
  size_t bin_capacity, bin_count;
  uint32_t bin_ms;
};

static void tally_add(struct tally *t, const struct header *h, size_t size, int64_t arrived) {
  t->seen = grown(t->seen, &t->seen_capacity, (size_t)h->sequence + 1, 1);
  if (t->seen[h->sequence]) {
    t->duplicate++;
    return;
  }
  t->seen[h->sequence] = 1;
  if (arrived >= h->origin && arrived < h->origin + (int64_t)h->window_ms * 1000000) t->bytes += size;
  if (t->has_any && h->sequence < t->highest && h->flags & COUNTED) add(&t->overtaken, t->highest - h->sequence);
  if (!t->has_any || h->sequence > t->highest) t->highest = h->sequence;
  t->has_any = 1;
  if (!(h->flags & COUNTED)) return;
  t->received++;
  int64_t time = arrived - h->sent - h->held;
  uint32_t us = time < 0 ? 0 : (uint32_t)(time / 1000);
  add(&t->times, us);
  if (h->bin_ms > 0 && h->sent >= h->origin) {
    size_t bin = (size_t)((h->sent - h->origin) / 1000000 / h->bin_ms);
    if (bin < 100000) {
      t->bins = grown(t->bins, &t->bin_capacity, bin + 1, sizeof *t->bins);
      if (bin >= t->bin_count) t->bin_count = bin + 1;
      add(&t->bins[bin], us);
      t->bin_ms = h->bin_ms;
    }
  }
  if (h->frame_size > 1) t->has_frames = 1;
  t->frames = grown(t->frames, &t->frame_capacity, (size_t)h->frame + 1, sizeof *t->frames);
  struct frame *f = &t->frames[h->frame];
  if (f->got == 0 || h->sent < f->first_sent) f->first_sent = h->sent;
  if (f->got == 0 || arrived - h->held > f->last_arrived) f->last_arrived = arrived - h->held;
  if (++f->got == h->frame_size) add(&t->frame_times, (uint32_t)((f->last_arrived - f->first_sent) / 1000));
}

static void tally_print(struct tally *t) {
  qsort(t->times.values, t->times.count, sizeof(uint32_t), compare);
  qsort(t->overtaken.values, t->overtaken.count, sizeof(uint32_t), compare);
  printf("{\"received\":%llu,\"bytes\":%llu,\"duplicate\":%llu,", (unsigned long long)t->received,
         (unsigned long long)t->bytes, (unsigned long long)t->duplicate);
  print_times(&t->times);
  printf(",\"overtaken\":%zu,\"overtakenP99\":%u,\"overtakenMax\":%u", t->overtaken.count,
         percentile(&t->overtaken, 0.99), percentile(&t->overtaken, 1));
  if (t->has_frames) {
    qsort(t->frame_times.values, t->frame_times.count, sizeof(uint32_t), compare);
    printf(",\"frames\":{\"complete\":%zu,", t->frame_times.count);
    print_times(&t->frame_times);
    printf("}");
  }
  if (t->bin_count > 0) {
    printf(",\"bins\":{\"ms\":%u,\"received\":[", t->bin_ms);
    for (size_t i = 0; i < t->bin_count; i++) printf("%s%zu", i ? "," : "", t->bins[i].count);
    for (int share = 50; share <= 99; share += 49) {
      printf("],\"p%d\":[", share);
      for (size_t i = 0; i < t->bin_count; i++) {
        qsort(t->bins[i].values, t->bins[i].count, sizeof(uint32_t), compare);
        printf("%s%.1f", i ? "," : "", percentile(&t->bins[i], share / 100.0) / 1e3);
      }
    }
    printf("]}");
  }
  printf("}");
}

static void tally_clear(struct tally *t) {
  for (size_t i = 0; i < t->bin_capacity; i++) free(t->bins[i].values);
  void *arrays[] = {t->seen, t->times.values, t->overtaken.values, t->frame_times.values, t->frames, t->bins};
  for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(arrays[i]);
  memset(t, 0, sizeof *t);
}

/* FNV-1a by words, which reveals a datagram that was put together wrongly. */
static uint32_t checksum(const uint8_t *bytes, size_t size) {
  uint64_t sum = 0xcbf29ce484222325u ^ size;
  for (size_t i = 0; i < size; i += 8) {
    uint64_t word = 0;
    memcpy(&word, bytes + i, size - i < 8 ? size - i : 8);
    /* Excludes the sum itself. */
    if (i == 0) word &= 0xffffffffu;
    sum = (sum ^ word) * 0x100000001b3u;
  }
  return (uint32_t)(sum ^ sum >> 32);
}

static uint8_t datagram[MAX_SIZE];
static int send_datagram(int fd, const struct sockaddr_in *to, struct header *h, size_t size) {
  h->magic = MAGIC;
  memset(datagram + sizeof *h, (int)(h->sequence & 0xff), size - sizeof *h);
  h->sent = h->flags & ANSWER ? h->sent : now_ns();
  memcpy(datagram, h, sizeof *h);
  h->check = checksum(datagram, size);
  memcpy(datagram, h, sizeof *h);
  return sendto(fd, datagram, size, 0, (const struct sockaddr *)to, to ? sizeof *to : 0) == (ssize_t)size;
}

static uint64_t corrupt;

/* Reads a datagram and the time at which the kernel received it. Returns 0 if there is none now, and -1 for one that does not
 * count. */
static ssize_t receive(int fd, struct header *h, struct sockaddr_in *from, int64_t *arrived) {
  static uint8_t bytes[MAX_SIZE + 1];
  char control[128];
  struct iovec vector = {bytes, sizeof bytes};
  struct msghdr message = {.msg_name = from, .msg_namelen = from ? sizeof *from : 0, .msg_iov = &vector,
                           .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  ssize_t size = recvmsg(fd, &message, MSG_DONTWAIT);
  if (size < 0) return errno == EAGAIN ? 0 : -1;
  *arrived = now_ns();
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
    struct timespec t;
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS) continue;
    memcpy(&t, CMSG_DATA(c), sizeof t);
    *arrived = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
  }
  if (size < (ssize_t)sizeof *h) {
    corrupt++;
    return -1;
  }
  memcpy(h, bytes, sizeof *h);
  if (h->magic != MAGIC || h->check != checksum(bytes, (size_t)size) || h->flow >= MAX_FLOWS ||
      h->sequence > 100000000) {
    corrupt++;
    return -1;
  }
  return size;
}

static int udp_socket(const struct sockaddr_in *bound) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) die("socket");
  int on = 1, size = 8 << 20;
  setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
  /* Debian's udptunnel also binds its target's port, at any address; this socket is the closer match. */
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) < 0)
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
  if (bound && bind(fd, (const struct sockaddr *)bound, sizeof *bound) < 0) die("bind");
  return fd;
}

static int watch(int poller, int fd, uint64_t data) {
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = data};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll");
  return fd;
}

static int wait_until(int poller, struct epoll_event *ready, int most, int64_t until) {
  int64_t ns = until - now_ns();
  if (ns < 0) ns = 0;
  struct timespec pause = {ns / 1000000000, ns % 1000000000};
  return epoll_pwait2(poller, ready, most, &pause, NULL);
}

/* The streams that the target sends by itself. */
static struct stream {
  struct sockaddr_in to;
  struct header header;
  int64_t due, last_heard;
  uint64_t sent;
} streams[MAX_FLOWS];
static struct tally taken[MAX_FLOWS];

static void report_taken(void) {
  printf("{\"corrupt\":%llu,\"flows\":[", (unsigned long long)corrupt);
  for (int i = 0, is_first = 1; i < MAX_FLOWS; i++) {
    if (!taken[i].has_any) continue;
    printf("%s{\"flow\":%d,\"streamed\":%llu,\"up\":", is_first ? "" : ",", i, (unsigned long long)streams[i].sent);
    tally_print(&taken[i]);
    printf("}");
    is_first = 0;
    tally_clear(&taken[i]);
    streams[i].sent = 0;
  }
  printf("]}\n");
  fflush(stdout);
  corrupt = 0;
}

static int answer(const char *address) {
  struct sockaddr_in own = address_of("traffic", address);
  int fd = udp_socket(&own);
  socklen_t length = sizeof own;
  getsockname(fd, (struct sockaddr *)&own, &length);
  printf("{\"port\":%u}\n", ntohs(own.sin_port));
  fflush(stdout);
  int poller = epoll_create1(EPOLL_CLOEXEC);
  watch(poller, fd, 0);
  while (!stopped) {
    if (report_wanted) {
      report_wanted = 0;
      report_taken();
    }
    int64_t now = now_ns(), until = now + 100000000;
    for (int i = 0; i < MAX_FLOWS; i++) {
      struct stream *s = &streams[i];
      if (s->header.stream_us == 0) continue;
      if (now - s->last_heard > STREAM_LIFE_NS) {
        s->header.stream_us = 0;
        continue;
      }
      if (s->due + MAX_DEBT_NS < now) s->due = now;
      for (; s->due <= now; s->due += (int64_t)s->header.stream_us * 1000) {
        if (!send_datagram(fd, &s->to, &s->header, s->header.stream_size)) continue;
        if (s->header.flags & COUNTED) s->sent++;
        s->header.sequence++;
        s->header.frame++;
      }
      if (s->due < until) until = s->due;
    }
    struct epoll_event ready;
    if (wait_until(poller, &ready, 1, until) <= 0) continue;
    for (int i = 0; i < 256; i++) {
      struct header h;
      struct sockaddr_in from;
      int64_t arrived;
      ssize_t size = receive(fd, &h, &from, &arrived);
      if (size == 0) break;
      if (size < 0) continue;
      h.held = 0;
      tally_add(&taken[h.flow], &h, (size_t)size, arrived);
      if (h.stream_us > 0) {
        struct stream *s = &streams[h.flow];
        if (s->header.stream_us == 0) {
          s->header = h;
          s->header.sequence = s->header.frame = 0;
          s->header.frame_size = 1;
          s->due = now_ns();
        }
        s->to = from;
        s->header.flags = h.flags;
        s->header.origin = h.origin;
        s->header.window_ms = h.window_ms;
        s->last_heard = arrived;
      } else if (h.back >= 64 && h.back <= MAX_SIZE) {
        h.flags |= ANSWER;
        h.held = now_ns() - arrived;
        send_datagram(fd, &from, &h, h.back);
      }
    }
  }
  return 0;
}

static struct flow {
  char name[32];
  double every;
  int least, most, size, back, stream_size, is_fresh, bin_ms;
  double stream_ms, from, until;
  struct sockaddr_in to;
  int fd;
  int64_t due, slot, begins, ends;
  struct header header;
  uint64_t sent, sent_bytes, frames, failed;
  struct list late, sent_bins;
  struct tally back_tally;
} flows[MAX_FLOWS];
static int flow_count;

static void parse_flow(char *text, struct sockaddr_in to, double warm_up, double seconds) {
  if (flow_count == MAX_FLOWS) die("too many flows");
  struct flow *f = &flows[flow_count++];
  *f = (struct flow){.every = 20, .least = 1, .most = 1, .size = 1200, .back = -1, .from = -warm_up, .until = seconds + TAIL_S,
                     .to = to};
  char *word = strtok(text, ",");
  snprintf(f->name, sizeof f->name, "%s", word);
  while ((word = strtok(NULL, ",")) != NULL) {
    char *value = strchr(word, '=');
    if (!value) goto bad;
    *value++ = 0;
    if (strcmp(word, "every") == 0) f->every = atof(value);
    else if (strcmp(word, "count") == 0) {
      if (sscanf(value, "%d-%d", &f->least, &f->most) < 2) f->most = f->least;
    } else if (strcmp(word, "size") == 0) f->size = atoi(value);
    else if (strcmp(word, "back") == 0) f->back = atoi(value);
    else if (strcmp(word, "stream") == 0) {
      if (sscanf(value, "%lf:%d", &f->stream_ms, &f->stream_size) < 2) goto bad;
    } else if (strcmp(word, "fresh") == 0) f->is_fresh = atoi(value);
    else if (strcmp(word, "to") == 0) f->to = address_of("traffic", value);
    else if (strcmp(word, "from") == 0) f->from = atof(value);
    else if (strcmp(word, "until") == 0) f->until = atof(value);
    else if (strcmp(word, "bin") == 0) f->bin_ms = atoi(value);
    else goto bad;
  }
  if (f->back < 0) f->back = f->stream_size > 0 ? 0 : f->size;
  if (f->size >= 64 && f->size <= MAX_SIZE && f->every > 0 && f->least >= 1 && f->most >= f->least && f->most < 256)
    return;
bad:
  fprintf(stderr, "traffic: a flow that cannot be: %s\n", f->name);
  exit(2);
}

/* Sockets of fresh flows, in the order in which they were opened. */
static struct {
  int fd;
  int64_t opened;
} fresh[MAX_FRESH];
static size_t fresh_first, fresh_end;

static int fresh_socket(int poller, int index) {
  int64_t now = now_ns();
  while (fresh_first < fresh_end && (now - fresh[fresh_first % MAX_FRESH].opened > FRESH_LIFE_NS ||
                                     fresh_end - fresh_first == MAX_FRESH))
    close(fresh[fresh_first++ % MAX_FRESH].fd);
  int fd = udp_socket(NULL);
  fresh[fresh_end % MAX_FRESH].fd = fd;
  fresh[fresh_end++ % MAX_FRESH].opened = now;
  return watch(poller, fd, (uint64_t)index << 32 | (uint64_t)(uint32_t)fd);
}

static uint64_t random_state;
static uint64_t random_number(void) {
  uint64_t z = random_state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static void next_due(struct flow *f) {
  f->slot += (int64_t)(f->every * 1e6);
  f->due = f->slot;
  if (f->every < DITHERED_MS) f->due += (int64_t)((double)(random_number() % 1024) / 1024 * f->every * 1e6);
}

static void tick(struct flow *f, int poller, int64_t window_begins, int64_t window_ends) {
  int64_t now = now_ns();
  int is_counted = now >= window_begins && now < window_ends;
  struct header *h = &f->header;
  h->flags = (uint16_t)((is_counted ? COUNTED : 0) | (f->is_fresh ? FRESH : 0));
  h->frame_size = (uint8_t)(f->least + (int)(random_number() % (uint64_t)(f->most - f->least + 1)));
  if (is_counted) add(&f->late, (uint32_t)((now - f->due) / 1000));
  int sent = 0;
  for (int i = 0; i < h->frame_size; i++) {
    int fd = f->is_fresh ? fresh_socket(poller, (int)(f - flows)) : f->fd;
    /* Numbers of datagrams that the system refused are reused, because no tunnel lost them. */
    if (!send_datagram(fd, &f->to, h, (size_t)f->size)) {
      f->failed++;
      continue;
    }
    h->sequence++;
    sent++;
  }
  h->frame++;
  if (!is_counted || sent == 0) return;
  f->frames++;
  f->sent += (uint64_t)sent;
  f->sent_bytes += (uint64_t)(sent * f->size);
  if (f->bin_ms == 0) return;
  size_t bin = (size_t)((now - window_begins) / 1000000 / f->bin_ms);
  while (f->sent_bins.count <= bin) add(&f->sent_bins, 0);
  f->sent_bins.values[bin] += (uint32_t)sent;
}

static void report_sent(void) {
  printf("{\"corrupt\":%llu,\"flows\":[", (unsigned long long)corrupt);
  for (int i = 0; i < flow_count; i++) {
    struct flow *f = &flows[i];
    qsort(f->late.values, f->late.count, sizeof(uint32_t), compare);
    printf("%s{\"flow\":%d,\"name\":\"%s\",\"size\":%d,\"sent\":%llu,\"sentBytes\":%llu,\"frames\":%llu,\"failed\":%llu,"
           "\"late\":{",
           i ? "," : "", i, f->name, f->size, (unsigned long long)f->sent, (unsigned long long)f->sent_bytes,
           (unsigned long long)f->frames, (unsigned long long)f->failed);
    print_times(&f->late);
    printf("}");
    if (f->bin_ms > 0) {
      printf(",\"sentBins\":[");
      for (size_t k = 0; k < f->sent_bins.count; k++) printf("%s%u", k ? "," : "", f->sent_bins.values[k]);
      printf("]");
    }
    if (f->back > 0 || f->stream_size > 0) {
      printf(",\"%s\":", f->stream_size > 0 ? "down" : "round");
      tally_print(&f->back_tally);
    }
    printf("}");
  }
  printf("]}\n");
}

static int send_flows(char **argv, int argc) {
  struct sockaddr_in to = address_of("traffic", argv[0]);
  double warm_up = atof(argv[1]), seconds = atof(argv[2]), drain = atof(argv[3]);
  random_state = strtoull(argv[4], NULL, 10);
  for (int i = 5; i < argc; i++) parse_flow(argv[i], to, warm_up, seconds);
  prctl(PR_SET_TIMERSLACK, 1);
  int poller = epoll_create1(EPOLL_CLOEXEC);
  int64_t begins = now_ns() + (int64_t)(warm_up * 1e9), ends = begins + (int64_t)(seconds * 1e9);
  for (int i = 0; i < flow_count; i++) {
    struct flow *f = &flows[i];
    f->header = (struct header){.flow = (uint16_t)i,
                                .back = (uint16_t)f->back,
                                .stream_us = f->stream_size > 0 ? (uint32_t)(f->stream_ms * 1e3) : 0,
                                .stream_size = (uint16_t)f->stream_size,
                                .bin_ms = (uint16_t)f->bin_ms,
                                .window_ms = (uint32_t)(seconds * 1e3),
                                .origin = begins};
    f->begins = begins + (int64_t)(f->from * 1e9);
    f->ends = begins + (int64_t)(f->until * 1e9);
    /* Flows with the same period do not all send at once. */
    f->due = f->slot = f->begins + (int64_t)((double)(random_number() % 1024) / 1024 * f->every * 1e6);
    if (!f->is_fresh) f->fd = watch(poller, udp_socket(NULL), (uint64_t)i << 32 | 0xffffffffu);
  }
  int64_t last = ends + (int64_t)(drain * 1e9);
  for (;;) {
    int64_t now = now_ns(), until = last;
    if (stopped || now >= last) break;
    int is_waiting = 0;
    for (int i = 0; i < flow_count; i++) {
      struct flow *f = &flows[i];
      if (f->due + MAX_DEBT_NS < now) f->due = f->slot = now;
      while (f->due <= now && f->due < f->ends) {
        tick(f, poller, begins, ends);
        next_due(f);
      }
      if (f->due < f->ends && f->due < until) until = f->due;
      is_waiting |= f->due < f->ends || f->stream_size > 0 || f->back_tally.received < f->sent;
    }
    if (!is_waiting) break;
    struct epoll_event ready[64];
    int got = wait_until(poller, ready, 64, until);
    for (int i = 0; i < got; i++) {
      struct flow *f = &flows[ready[i].data.u64 >> 32];
      uint32_t own = (uint32_t)ready[i].data.u64;
      int fd = own == 0xffffffffu ? f->fd : (int)own;
      for (int k = 0; k < 64; k++) {
        struct header h;
        int64_t arrived;
        ssize_t size = receive(fd, &h, NULL, &arrived);
        if (size == 0) break;
        if (size > 0 && h.flow == f - flows) tally_add(&f->back_tally, &h, (size_t)size, arrived);
      }
    }
  }
  report_sent();
  return 0;
}

int main(int argc, char **argv) {
  /* This is an instrument that computes little; programs that share its core wait less for it than it would for them. */
  struct sched_param priority = {.sched_priority = 1};
  if (sched_setscheduler(0, SCHED_FIFO, &priority) < 0) perror("traffic: SCHED_FIFO");
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGUSR1, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  if (argc == 3 && strcmp(argv[1], "answer") == 0) return answer(argv[2]);
  if (argc >= 8 && strcmp(argv[1], "send") == 0) return send_flows(argv + 2, argc - 2);
  fprintf(stderr, "traffic answer ADDRESS | traffic send TO WARM_UP SECONDS DRAIN SEED FLOW...\n");
  return 2;
}
