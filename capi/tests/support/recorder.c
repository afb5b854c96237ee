#include "recorder.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void recorder_init(recorder *recorder) {
  memset(recorder, 0, sizeof *recorder);
  pthread_mutex_init(&recorder->mutex, NULL);
  pthread_cond_init(&recorder->changed, NULL);
}

void recorder_destroy(recorder *recorder) {
  pthread_cond_destroy(&recorder->changed);
  pthread_mutex_destroy(&recorder->mutex);
}

static void count_one(recorder *recorder, int *count) {
  pthread_mutex_lock(&recorder->mutex);
  (*count)++;
  pthread_cond_broadcast(&recorder->changed);
  pthread_mutex_unlock(&recorder->mutex);
}

static void on_ready(void *data, const underpass_addresses *addresses) {
  recorder *recorder = data;
  recorder->listen_count = addresses->listen_count;
  if (addresses->listen_count > 0)
    snprintf(recorder->listen, sizeof recorder->listen, "%s", addresses->listen[0]);
  if (addresses->socks5 != NULL) snprintf(recorder->socks5, sizeof recorder->socks5, "%s", addresses->socks5);
  if (recorder->on_ready != NULL) recorder->on_ready(recorder);
  count_one(recorder, &recorder->ready);
}

static void on_session_up(void *data) { count_one(data, &((recorder *)data)->session_up); }

static void on_session_down(void *data, int status, const char *text) {
  (void)status, (void)text;
  count_one(data, &((recorder *)data)->session_down);
}

static void on_session_resumed(void *data) { count_one(data, &((recorder *)data)->session_resumed); }

static void on_unreachable(void *data, int status, const char *text) {
  recorder *recorder = data;
  (void)text;
  recorder->unreachable_status = status;
  count_one(recorder, &recorder->unreachable);
}

static void on_listener_failed(void *data, int status, const char *text) {
  recorder *recorder = data;
  (void)text;
  recorder->listener_status = status;
  count_one(recorder, &recorder->listener_failed);
}

static void on_error(void *data, int status, const char *text) {
  recorder *recorder = data;
  recorder->error_status = status;
  snprintf(recorder->error_text, sizeof recorder->error_text, "%s", text);
  count_one(recorder, &recorder->errors);
}

static void on_stopped(void *data, int status) {
  recorder *recorder = data;
  recorder->stopped_status = status;
  if (recorder->on_stopped != NULL) recorder->on_stopped(recorder);
  count_one(recorder, &recorder->stopped);
}

static int on_protect(void *data, intptr_t socket) {
  recorder *recorder = data;
  (void)socket;
  count_one(recorder, &recorder->protected_sockets);
  return recorder->protect_answer;
}

underpass_callbacks recorder_callbacks(void) {
  return (underpass_callbacks){.size = sizeof(underpass_callbacks),
                               .ready = on_ready,
                               .session_up = on_session_up,
                               .session_down = on_session_down,
                               .session_resumed = on_session_resumed,
                               .unreachable = on_unreachable,
                               .error = on_error,
                               .stopped = on_stopped,
                               .protect = on_protect,
                               .listener_failed = on_listener_failed};
}

void recorder_wait(recorder *recorder, const int *count, int number) {
  struct timespec end;
  clock_gettime(CLOCK_REALTIME, &end);
  end.tv_sec += 20;
  pthread_mutex_lock(&recorder->mutex);
  int error = 0;
  while (*count < number && error == 0) error = pthread_cond_timedwait(&recorder->changed, &recorder->mutex, &end);
  int reached = *count;
  pthread_mutex_unlock(&recorder->mutex);
  if (reached < number) fail_msg("%d of %d after 20 s; error: %s", reached, number, recorder->error_text);
}

int recorder_get(recorder *recorder, const int *count) {
  pthread_mutex_lock(&recorder->mutex);
  int number = *count;
  pthread_mutex_unlock(&recorder->mutex);
  return number;
}
