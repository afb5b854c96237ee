#include "latency.h"

#include <stdlib.h>

#ifdef __linux__

#include <sched.h>
#include <sys/timerfd.h>
#include <unistd.h>

// How long the loop keeps polling: about as long as the other end takes for an answer that it has ready.
#define SPIN_NS 80000
// Longest time without reading. It is shorter if more than this many messages arrived in that time, because waiting longer gains
// little and may overflow a socket's buffer.
#define HOLD_NS 1000000
#define HOLD_MESSAGES 64
#define MIN_HOLD_NS 50000

struct latency {
  io_loop *loop;
  uv_idle_t spin;
  uint64_t spin_end;
  uv_poll_t timer;
  int timer_fd;
  // True while the timer runs.
  bool is_armed;
  uint64_t hold_ns, hold_start;
  // Messages read since the timer last expired.
  size_t messages;
  held *held;
  int open_handles;
};

static void on_closed(uv_handle_t *handle) {
  struct latency *latency = handle->data;
  io_loop *loop = latency->loop;
  if (--latency->open_handles == 0) free(latency);
  io_loop_handle_closed(loop);
}

static void on_idle(uv_idle_t *idle) {
  struct latency *latency = idle->data;
  if (uv_hrtime() >= latency->spin_end) uv_idle_stop(idle);
  // Another thread that wants this processor is likely to be the one that the loop waits for.
  else sched_yield();
}

static void arm(struct latency *latency) {
  struct itimerspec at = {.it_value = {.tv_nsec = (long)latency->hold_ns}};
  timerfd_settime(latency->timer_fd, 0, &at, NULL);
  latency->is_armed = true;
  latency->hold_start = uv_hrtime();
}

static void on_timer(uv_poll_t *poll, int status, int events) {
  (void)events;
  struct latency *latency = poll->data;
  // libuv has stopped watching. A timer has no error conditions that would last.
  if (status < 0) uv_poll_start(poll, UV_READABLE, on_timer);
  uint64_t expirations;
  if (read(latency->timer_fd, &expirations, sizeof expirations) < 0) return;
  uint64_t waited_ns = uv_hrtime() - latency->hold_start;
  latency->messages = 0;
  held *ended = latency->held;
  latency->held = NULL;
  if (ended != NULL) ended->link = &ended;
  // The timer still counts as armed, because its next interval depends on what is read now.
  while (ended != NULL) {
    held *each = ended;
    io_latency_release(each);
    each->resume(each);
  }
  latency->is_armed = false;
  uint64_t ns = latency->messages == 0 ? HOLD_NS : waited_ns * HOLD_MESSAGES / latency->messages;
  latency->hold_ns = ns > HOLD_NS ? HOLD_NS : ns < MIN_HOLD_NS ? MIN_HOLD_NS : ns;
  if (latency->held != NULL) arm(latency);
}

// NULL if the system lacks the necessary functions.
static struct latency *latency_of(io_loop *loop) {
  if (loop->latency != NULL || loop->is_ending) return loop->latency;
  struct latency *latency = calloc(1, sizeof *latency);
  if (latency == NULL) return NULL;
  latency->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (latency->timer_fd < 0 || uv_poll_init(loop->uv, &latency->timer, latency->timer_fd) != 0) {
    if (latency->timer_fd >= 0) close(latency->timer_fd);
    free(latency);
    return NULL;
  }
  uv_idle_init(loop->uv, &latency->spin);
  latency->loop = loop;
  latency->spin.data = latency->timer.data = latency;
  latency->hold_ns = HOLD_NS;
  latency->open_handles = 2;
  loop->open_handles += 2;
  uv_poll_start(&latency->timer, UV_READABLE, on_timer);
  uv_unref((uv_handle_t *)&latency->timer);
  uv_unref((uv_handle_t *)&latency->spin);
  loop->latency = latency;
  return latency;
}

void io_latency_spin(io_loop *loop) {
  struct latency *latency = latency_of(loop);
  if (latency == NULL) return;
  latency->spin_end = uv_hrtime() + SPIN_NS;
  uv_idle_start(&latency->spin, on_idle);
}

bool io_latency_hold(io_loop *loop, held *held, size_t messages) {
  struct latency *latency = latency_of(loop);
  if (latency == NULL) return false;
  latency->messages += messages;
  io_latency_release(held);
  held->next = latency->held;
  if (held->next != NULL) held->next->link = &held->next;
  latency->held = held;
  held->link = &latency->held;
  if (!latency->is_armed) arm(latency);
  return true;
}

void io_latency_release(held *held) {
  if (held->link == NULL) return;
  *held->link = held->next;
  if (held->next != NULL) held->next->link = held->link;
  held->next = NULL;
  held->link = NULL;
}

void io_latency_end(io_loop *loop) {
  struct latency *latency = loop->latency;
  if (latency == NULL) return;
  loop->latency = NULL;
  uv_close((uv_handle_t *)&latency->spin, on_closed);
  uv_close((uv_handle_t *)&latency->timer, on_closed);
  close(latency->timer_fd);
}

#else

void io_latency_spin(io_loop *loop) {
  (void)loop;
}

bool io_latency_hold(io_loop *loop, held *held, size_t messages) {
  (void)loop, (void)held, (void)messages;
  return false;
}

void io_latency_release(held *held) {
  (void)held;
}

void io_latency_end(io_loop *loop) {
  (void)loop;
}

#endif
