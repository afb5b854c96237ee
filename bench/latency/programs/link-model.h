/*
 * One direction of a link, without clock, device or system call: time is an argument, in nanoseconds.
 *
 * A packet that is offered waits in a drop-tail queue for the transmitter, which sends one packet after the other at the
 * rate; then it is lost, or arrives after the delay. Loss comes after the transmitter, as on a radio: a lost packet has
 * used the link.
 *
 *   loss      each packet independently, or in bursts: Gilbert's model, in which all packets of the bad state are lost.
 *             With mean loss p and mean burst b, a burst ends with probability 1/b and begins with p / (b (1 - p)).
 *   jitter    a further delay between 0 and the bound, drawn every JITTER_STEP and interpolated in between, so that it
 *             changes gradually; packets stay in order
 *   reorder   a share of the packets is held back for a further time, without delaying the others
 *
 * Loss, jitter and reordering have random streams of their own, all from one seed.
 */
#ifndef LINK_MODEL_H
#define LINK_MODEL_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define JITTER_STEP 20000000
#define NEVER INT64_MAX

struct packet {
  struct packet *next;
  int64_t offered, due;
  uint64_t order;
  uint32_t size;
  uint8_t bytes[];
};

struct link_settings {
  double rate;         /* bit/s of IP packets; 0: no limit */
  double delay;        /* ns */
  double jitter;       /* ns */
  double loss;         /* share */
  double burst;        /* packets; up to 1: losses are independent */
  double queue;        /* bytes; 0: no limit */
  double reorder;      /* share */
  double reorder_hold; /* ns */
};

struct link_counts {
  uint64_t packets, bytes;     /* offered */
  uint64_t dropped;            /* the queue was full */
  uint64_t lost;               /* on the way */
  uint64_t reordered;          /* held back */
  uint64_t delivered, delivered_bytes;
  int64_t longest_wait;        /* of a packet that was sent, in the queue, ns */
};

struct link {
  struct link_settings settings;
  struct link_counts counts;
  struct packet *head, *tail;  /* waiting; the head is being sent */
  double backlog;              /* bytes that wait, the head's whole */
  double head_bits;            /* of the head, not yet sent */
  int64_t clock;               /* everything up to here has happened */
  int64_t last_due;            /* of packets that keep their order */
  int is_bad;                  /* Gilbert's state */
  uint64_t loss_random, reorder_random, jitter_seed;
  struct packet **heap;        /* on the way, the earliest first */
  size_t on_way, capacity;
  uint64_t order;
};

/* splitmix64 (Steele, Lea, Flood 2014). */
static uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* Uniform in [0, 1). */
static double uniform(uint64_t *state) {
  return (double)(mix(*state += 0x9e3779b97f4a7c15u) >> 11) * 0x1p-53;
}

static void link_seed(struct link *l, uint64_t seed) {
  l->loss_random = mix(seed * 4 + 1);
  l->reorder_random = mix(seed * 4 + 2);
  l->jitter_seed = mix(seed * 4 + 3);
}

static double jitter_at(const struct link *l, int64_t time) {
  uint64_t step = (uint64_t)time / JITTER_STEP;
  double share = (double)((uint64_t)time % JITTER_STEP) / JITTER_STEP;
  uint64_t from = l->jitter_seed + step * 0x9e3779b97f4a7c15u;
  uint64_t to = from;
  double a = uniform(&from);
  to += 0x9e3779b97f4a7c15u;
  return l->settings.jitter * (a + (uniform(&to) - a) * share);
}

static int is_lost(struct link *l) {
  double loss = l->settings.loss, burst = l->settings.burst;
  if (loss <= 0) return 0;
  double draw = uniform(&l->loss_random);
  if (burst <= 1) return draw < loss;
  if (l->is_bad) l->is_bad = draw >= 1 / burst;
  else l->is_bad = loss >= 1 || draw < loss / (burst * (1 - loss));
  return l->is_bad;
}

static int is_earlier(const struct packet *a, const struct packet *b) {
  return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static void heap_push(struct link *l, struct packet *p) {
  if (l->on_way == l->capacity) {
    l->capacity = l->capacity ? 2 * l->capacity : 1024;
    l->heap = realloc(l->heap, l->capacity * sizeof *l->heap);
    if (!l->heap) abort();
  }
  size_t i = l->on_way++;
  for (; i > 0 && is_earlier(p, l->heap[(i - 1) / 2]); i = (i - 1) / 2) l->heap[i] = l->heap[(i - 1) / 2];
  l->heap[i] = p;
}

static struct packet *heap_pop(struct link *l) {
  struct packet *first = l->heap[0], *moved = l->heap[--l->on_way];
  size_t i = 0;
  for (size_t child; (child = 2 * i + 1) < l->on_way; i = child) {
    if (child + 1 < l->on_way && is_earlier(l->heap[child + 1], l->heap[child])) child++;
    if (!is_earlier(l->heap[child], moved)) break;
    l->heap[i] = l->heap[child];
  }
  if (l->on_way > 0) l->heap[i] = moved;
  return first;
}

/* The transmitter has sent the head of the queue. */
static void link_sent(struct link *l) {
  struct packet *p = l->head;
  l->head = p->next;
  if (!l->head) l->tail = NULL;
  else l->head_bits = 8.0 * l->head->size;
  l->backlog -= p->size;
  if (l->clock - p->offered > l->counts.longest_wait) l->counts.longest_wait = l->clock - p->offered;
  if (is_lost(l)) {
    l->counts.lost++;
    free(p);
    return;
  }
  p->order = l->order++;
  p->due = l->clock + (int64_t)l->settings.delay;
  if (l->settings.jitter > 0) p->due += (int64_t)jitter_at(l, l->clock);
  if (p->due < l->last_due) p->due = l->last_due;
  if (l->settings.reorder > 0 && uniform(&l->reorder_random) < l->settings.reorder) {
    l->counts.reordered++;
    p->due += (int64_t)l->settings.reorder_hold;
  } else l->last_due = p->due;
  heap_push(l, p);
}

static int64_t head_ends(const struct link *l) {
  if (!l->head) return NEVER;
  if (l->settings.rate <= 0) return l->clock;
  return l->clock + (int64_t)(l->head_bits * 1e9 / l->settings.rate + 0.5);
}

/* Runs everything that happens up to a time. */
static void link_run(struct link *l, int64_t now) {
  for (int64_t end; (end = head_ends(l)) <= now;) {
    l->clock = end;
    link_sent(l);
  }
  if (now <= l->clock) return;
  if (l->head) l->head_bits -= (double)(now - l->clock) * l->settings.rate / 1e9;
  l->clock = now;
}

/* Takes ownership of the packet. Times do not go back. */
static void link_offer(struct link *l, int64_t now, struct packet *p) {
  link_run(l, now);
  l->counts.packets++;
  l->counts.bytes += p->size;
  if (l->settings.queue > 0 && l->head && l->backlog + p->size > l->settings.queue) {
    l->counts.dropped++;
    free(p);
    return;
  }
  p->next = NULL;
  p->offered = now;
  l->backlog += p->size;
  if (l->tail) l->tail->next = p;
  else {
    l->head = p;
    l->head_bits = 8.0 * p->size;
  }
  l->tail = p;
  link_run(l, now);
}

/* Returns a time before which no packet arrives. */
static int64_t link_next(const struct link *l) {
  int64_t end = head_ends(l), due = end == NEVER ? NEVER : end + (int64_t)l->settings.delay;
  return l->on_way > 0 && l->heap[0]->due < due ? l->heap[0]->due : due;
}

/* Returns a packet that has arrived, or none; the caller frees it. */
static struct packet *link_take(struct link *l, int64_t now) {
  link_run(l, now);
  if (l->on_way == 0 || l->heap[0]->due > now) return NULL;
  struct packet *p = heap_pop(l);
  l->counts.delivered++;
  l->counts.delivered_bytes += p->size;
  return p;
}
#endif
