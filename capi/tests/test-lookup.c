// A slow look-up does not delay the end of an instance.
#include <netdb.h>
#include <string.h>
#include <time.h>

#include "recorder.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
// Counts of look-ups that have started, may end, and have ended.
static int begun, may_end, ended;

static void set(int *count, int number) {
  pthread_mutex_lock(&mutex);
  *count = number;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mutex);
}

static void wait_until(const int *count, int number) {
  struct timespec end;
  clock_gettime(CLOCK_REALTIME, &end);
  end.tv_sec += 20;
  int error = 0;
  pthread_mutex_lock(&mutex);
  while (*count < number && error == 0) error = pthread_cond_timedwait(&changed, &mutex, &end);
  int reached = *count;
  pthread_mutex_unlock(&mutex);
  if (reached < number) fail_msg("%d of %d after 20 s", reached, number);
}

// Replaces the C library's: answers only when it may.
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **result) {
  (void)name, (void)service, (void)hints;
  *result = NULL;
  pthread_mutex_lock(&mutex);
  begun++;
  pthread_cond_broadcast(&changed);
  while (!may_end) pthread_cond_wait(&changed, &mutex);
  ended++;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mutex);
  return EAI_NONAME;
}

static underpass_local *start(recorder *recorder, const char *server) {
  recorder_init(recorder);
  static const char *const forwards[] = {"127.0.0.1:0=127.0.0.1:9"};
  underpass_local_options options = {
      .size = sizeof options, .server = server, .forwards = forwards, .forward_count = 1};
  underpass_callbacks callbacks = recorder_callbacks();
  underpass_local *local;
  assert_int_equal(underpass_local_start(&options, &callbacks, recorder, &local), 0);
  return local;
}

static void stops_at_once_while_a_look_up_is_under_way(void **state) {
  (void)state;
  recorder recorder;
  underpass_local *local = start(&recorder, "slow.test:1");
  wait_until(&begun, 1);
  underpass_local_stop(local);
  recorder_wait(&recorder, &recorder.stopped, 1);
  assert_int_equal(recorder.stopped_status, 0);
  underpass_local_free(local);
  // The resolver answers only now, to nobody.
  assert_int_equal(ended, 0);
  set(&may_end, 1);
  wait_until(&ended, 1);
  recorder_destroy(&recorder);
}

static void reports_what_the_resolver_has_answered(void **state) {
  (void)state;
  set(&may_end, 1);
  recorder recorder;
  underpass_local *local = start(&recorder, "nowhere.test:1");
  recorder_wait(&recorder, &recorder.unreachable, 1);
  assert_int_equal(recorder.unreachable_status, UNDERPASS_ERR_CONNECT);
  underpass_local_free(local);
  recorder_destroy(&recorder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(stops_at_once_while_a_look_up_is_under_way),
      cmocka_unit_test(reports_what_the_resolver_has_answered),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
