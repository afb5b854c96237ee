// Starts and stops instances from every thread and in every order.
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tunnel.h"

// How many instances run at once, and how many are started and stopped one after another. The plain build does all of it. Each
// takes ten times as long under AddressSanitizer, where LeakSanitizer finds what a single one leaks, and longer still under
// ThreadSanitizer and valgrind. scripts/build-capi.mjs defines smaller numbers for those.
#ifndef UNDERPASS_TEST_INSTANCES
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNDERPASS_TEST_INSTANCES 50
#define UNDERPASS_TEST_STARTS 50
#else
#define UNDERPASS_TEST_INSTANCES 200
#define UNDERPASS_TEST_STARTS 1000
#endif
#endif

static const char *const FORWARDS[] = {"127.0.0.1:0=127.0.0.1:9"};

static underpass_local_options options_of(const char *const *forwards) {
  return (underpass_local_options){.size = sizeof(underpass_local_options),
                                   .server = "127.0.0.1:1",
                                   .forwards = forwards,
                                   .forward_count = 1};
}

static underpass_local *start(recorder *recorder) {
  underpass_local_options options = options_of(FORWARDS);
  underpass_callbacks callbacks = recorder_callbacks();
  underpass_local *local;
  assert_int_equal(underpass_local_start(&options, &callbacks, recorder, &local), 0);
  assert_non_null(local);
  return local;
}

static void reports_the_port_and_that_the_server_is_unreachable_and_stops_once(void **state) {
  (void)state;
  recorder recorder;
  recorder_init(&recorder);
  underpass_local *local = start(&recorder);
  recorder_wait(&recorder, &recorder.ready, 1);
  assert_int_equal(recorder.listen_count, 1);
  assert_int_equal(strncmp(recorder.listen, "127.0.0.1:", 10), 0);
  assert_true(atoi(recorder.listen + 10) > 0);
  recorder_wait(&recorder, &recorder.unreachable, 1);
  assert_true(underpass_error_name(recorder.unreachable_status) != NULL);
  underpass_stats stats = {.size = sizeof stats};
  assert_int_equal(underpass_local_stats(local, &stats), 0);
  assert_int_equal(stats.sessions, 0);
  assert_true(stats.rtt_ms < 0);
  assert_int_equal(underpass_local_stop(local), 0);
  assert_int_equal(underpass_local_stop(local), 0);
  recorder_wait(&recorder, &recorder.stopped, 1);
  assert_int_equal(recorder.stopped_status, 0);
  assert_int_equal(underpass_local_stats(local, &stats), UNDERPASS_ERR_STATE);
  assert_int_equal(underpass_local_stop(local), 0);
  underpass_local_free(local);
  assert_int_equal(recorder.stopped, 1);
  assert_int_equal(recorder.errors, 0);
  recorder_destroy(&recorder);
}

static void stops_before_it_is_ready(void **state) {
  (void)state;
  for (int i = 0; i < 20; i++) {
    recorder recorder;
    recorder_init(&recorder);
    underpass_local *local = start(&recorder);
    assert_int_equal(underpass_local_stop(local), 0);
    recorder_wait(&recorder, &recorder.stopped, 1);
    underpass_local_free(local);
    recorder_destroy(&recorder);
  }
}

static void is_freed_without_a_stop(void **state) {
  (void)state;
  recorder recorder;
  recorder_init(&recorder);
  underpass_local *local = start(&recorder);
  underpass_local_free(local);
  // It has waited for the end.
  assert_int_equal(recorder.stopped, 1);
  recorder_destroy(&recorder);
}

static void stop_it(recorder *recorder) {
  // The start may not have returned yet.
  pthread_mutex_lock(&recorder->mutex);
  while (recorder->local == NULL) pthread_cond_wait(&recorder->changed, &recorder->mutex);
  pthread_mutex_unlock(&recorder->mutex);
  underpass_stats stats = {.size = sizeof stats};
  assert_int_equal(underpass_local_stats(recorder->local, &stats), 0);
  assert_int_equal(underpass_local_stop(recorder->local), 0);
}

static void publish(recorder *recorder, underpass_local *local) {
  pthread_mutex_lock(&recorder->mutex);
  recorder->local = local;
  pthread_cond_broadcast(&recorder->changed);
  pthread_mutex_unlock(&recorder->mutex);
}

static void stops_and_counts_within_a_callback(void **state) {
  (void)state;
  recorder recorder;
  recorder_init(&recorder);
  recorder.on_ready = stop_it;
  underpass_local *local = start(&recorder);
  publish(&recorder, local);
  recorder_wait(&recorder, &recorder.stopped, 1);
  underpass_local_free(local);
  recorder_destroy(&recorder);
}

static void free_it(recorder *recorder) {
  pthread_mutex_lock(&recorder->mutex);
  while (recorder->local == NULL) pthread_cond_wait(&recorder->changed, &recorder->mutex);
  pthread_mutex_unlock(&recorder->mutex);
  underpass_local_free(recorder->local);
}

static void is_freed_within_stopped(void **state) {
  (void)state;
  recorder recorder;
  recorder_init(&recorder);
  recorder.on_stopped = free_it;
  underpass_local *local = start(&recorder);
  publish(&recorder, local);
  underpass_local_stop(local);
  recorder_wait(&recorder, &recorder.stopped, 1);
  recorder_destroy(&recorder);
}

static void is_freed_within_ready_and_calls_nothing_back_after_it(void **state) {
  (void)state;
  int before = open_descriptors();
  recorder recorder;
  recorder_init(&recorder);
  recorder.on_ready = free_it;
  underpass_local *local = start(&recorder);
  publish(&recorder, local);
  recorder_wait(&recorder, &recorder.ready, 1);
  // Its thread ends by itself.
  for (int i = 0; i < 2000 && open_descriptors() > before; i++) usleep(10000);
  assert_int_equal(open_descriptors(), before);
  assert_int_equal(recorder.stopped, 0);
  recorder_destroy(&recorder);
}

static void reports_a_port_that_is_taken(void **state) {
  (void)state;
  int taken = socket(AF_INET, SOCK_DGRAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  assert_int_equal(bind(taken, (struct sockaddr *)&address, length), 0);
  getsockname(taken, (struct sockaddr *)&address, &length);
  char forward[64];
  snprintf(forward, sizeof forward, "127.0.0.1:%u=127.0.0.1:9", ntohs(address.sin_port));
  const char *const forwards[] = {forward};
  recorder recorder;
  recorder_init(&recorder);
  underpass_local_options options = options_of(forwards);
  underpass_callbacks callbacks = recorder_callbacks();
  underpass_local *local;
  assert_int_equal(underpass_local_start(&options, &callbacks, &recorder, &local), 0);
  recorder_wait(&recorder, &recorder.stopped, 1);
  assert_int_equal(recorder.ready, 0);
  assert_int_equal(recorder.errors, 1);
  assert_int_equal(recorder.error_status, UNDERPASS_ERR_LISTEN);
  assert_int_equal(recorder.stopped_status, UNDERPASS_ERR_LISTEN);
  underpass_local_free(local);
  recorder_destroy(&recorder);
  close(taken);
}

static void hands_every_socket_to_protect(void **state) {
  (void)state;
  recorder recorder;
  recorder_init(&recorder);
  underpass_local *local = start(&recorder);
  // The forward's socket and the connection's.
  recorder_wait(&recorder, &recorder.protected_sockets, 2);
  underpass_local_free(local);
  recorder_destroy(&recorder);

  recorder_init(&recorder);
  recorder.protect_answer = -1;
  local = start(&recorder);
  recorder_wait(&recorder, &recorder.stopped, 1);
  assert_int_equal(recorder.error_status, UNDERPASS_ERR_LISTEN);
  underpass_local_free(local);
  recorder_destroy(&recorder);
}

typedef struct runner {
  recorder recorder;
  int status;
} runner;

static void *run(void *data) {
  runner *runner = data;
  underpass_local_options options = options_of(FORWARDS);
  underpass_callbacks callbacks = recorder_callbacks();
  underpass_local *local;
  runner->status = underpass_local_run(&options, &callbacks, &runner->recorder, &runner->recorder.local);
  local = runner->recorder.local;
  underpass_local_free(local);
  return NULL;
}

static void stop_from_within(recorder *recorder) { underpass_local_stop(recorder->local); }

static void runs_on_the_calling_thread_until_it_is_stopped(void **state) {
  (void)state;
  runner runner = {.status = 1};
  recorder_init(&runner.recorder);
  runner.recorder.on_ready = stop_from_within;
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, run, &runner), 0);
  pthread_join(thread, NULL);
  assert_int_equal(runner.status, 0);
  assert_int_equal(runner.recorder.stopped, 1);
  recorder_destroy(&runner.recorder);
}

static void sessions_come_up_carry_datagrams_and_resume_when_the_network_has_changed(void **state) {
  (void)state;
  recorder at_server, at_local;
  recorder_init(&at_server);
  recorder_init(&at_local);
  underpass_server *server = tunnel_server(&at_server, "{\"allow\": \"127.0.0.0/8\", \"age-budget-ms\": 10000}");

  struct sockaddr_in target_address, own_address, source, forward_address = {.sin_family = AF_INET};
  int target = tunnel_socket(&target_address);
  int application = tunnel_socket(&own_address);
  char forward[64];
  snprintf(forward, sizeof forward, "127.0.0.1:0=127.0.0.1:%u", ntohs(target_address.sin_port));
  const char *const forwards[] = {forward};
  underpass_local_options options = options_of(forwards);
  options.server = at_server.listen;
  // On a slow machine, a session with more lanes would replace this one, and its source port would change.
  options.config = "{\"lanes\": 1, \"age-budget-ms\": 10000}";
  options.psk = TUNNEL_KEY;
  options.psk_bytes = sizeof TUNNEL_KEY - 1;
  underpass_callbacks callbacks = recorder_callbacks();
  underpass_local *local;
  assert_int_equal(underpass_local_start(&options, &callbacks, &at_local, &local), 0);
  recorder_wait(&at_local, &at_local.session_up, 1);
  recorder_wait(&at_server, &at_server.session_up, 1);

  forward_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  forward_address.sin_port = htons((uint16_t)atoi(at_local.listen + 10));
  in_port_t first_source = 0;
  for (int round = 0; round < 2; round++) {
    char text[8] = "";
    socklen_t length = sizeof source;
    sendto(application, "hello", 5, 0, (struct sockaddr *)&forward_address, sizeof forward_address);
    assert_int_equal(recvfrom(target, text, sizeof text, 0, (struct sockaddr *)&source, &length), 5);
    sendto(target, "world", 5, 0, (struct sockaddr *)&source, length);
    assert_int_equal(recv(application, text, sizeof text, 0), 5);
    assert_string_equal(text, "world");
    // The session keeps its source port.
    if (round == 0) first_source = source.sin_port;
    assert_int_equal(source.sin_port, first_source);
    if (round > 0) break;
    assert_int_equal(underpass_local_network_changed(local), 0);
    recorder_wait(&at_local, &at_local.session_resumed, 1);
    recorder_wait(&at_server, &at_server.session_resumed, 1);
  }
  underpass_stats stats = {.size = sizeof stats};
  assert_int_equal(underpass_server_stats(server, &stats), 0);
  assert_int_equal(stats.datagrams_in, 2);
  assert_int_equal(stats.datagrams_out, 2);
  assert_int_equal(stats.resumed, 1);

  underpass_local_free(local);
  assert_int_equal(underpass_server_stop(server), 0);
  recorder_wait(&at_server, &at_server.stopped, 1);
  underpass_server_free(server);
  close(target);
  close(application);
  recorder_destroy(&at_local);
  recorder_destroy(&at_server);
}

static void many_run_at_once(void **state) {
  (void)state;
  int before = open_descriptors();
  static recorder recorders[UNDERPASS_TEST_INSTANCES];
  static underpass_local *locals[UNDERPASS_TEST_INSTANCES];
  for (int i = 0; i < UNDERPASS_TEST_INSTANCES; i++) {
    recorder_init(&recorders[i]);
    locals[i] = start(&recorders[i]);
  }
  for (int i = 0; i < UNDERPASS_TEST_INSTANCES; i++) {
    recorder_wait(&recorders[i], &recorders[i].ready, 1);
    underpass_stats stats = {.size = sizeof stats};
    assert_int_equal(underpass_local_stats(locals[i], &stats), 0);
  }
  for (int i = 0; i < UNDERPASS_TEST_INSTANCES; i++) underpass_local_stop(locals[i]);
  for (int i = 0; i < UNDERPASS_TEST_INSTANCES; i++) {
    underpass_local_free(locals[i]);
    assert_int_equal(recorders[i].stopped, 1);
    recorder_destroy(&recorders[i]);
  }
  assert_int_equal(open_descriptors(), before);
}

static void starts_and_stops_leave_no_descriptor_and_less_than_a_kilobyte(void **state) {
  (void)state;
  int before = open_descriptors();
  size_t bytes_before = 0;
  for (int i = 0; i < UNDERPASS_TEST_STARTS; i++) {
    recorder recorder;
    recorder_init(&recorder);
    underpass_local *local = start(&recorder);
    if (i % 2 == 0) recorder_wait(&recorder, &recorder.ready, 1);
    underpass_local_free(local);
    assert_int_equal(recorder.stopped, 1);
    recorder_destroy(&recorder);
    // The first rounds fill caches of libraries.
    if (i == 10) bytes_before = allocated_bytes();
  }
  assert_int_equal(open_descriptors(), before);
  size_t bytes = allocated_bytes();
  if (bytes > bytes_before + 1024) fail_msg("%zu bytes more", bytes - bytes_before);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reports_the_port_and_that_the_server_is_unreachable_and_stops_once),
      cmocka_unit_test(stops_before_it_is_ready),
      cmocka_unit_test(is_freed_without_a_stop),
      cmocka_unit_test(stops_and_counts_within_a_callback),
      cmocka_unit_test(is_freed_within_stopped),
      cmocka_unit_test(is_freed_within_ready_and_calls_nothing_back_after_it),
      cmocka_unit_test(reports_a_port_that_is_taken),
      cmocka_unit_test(hands_every_socket_to_protect),
      cmocka_unit_test(runs_on_the_calling_thread_until_it_is_stopped),
      cmocka_unit_test(sessions_come_up_carry_datagrams_and_resume_when_the_network_has_changed),
      cmocka_unit_test(many_run_at_once),
      cmocka_unit_test(starts_and_stops_leave_no_descriptor_and_less_than_a_kilobyte),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
