// Instances on a loop of the caller, which a library built with the system's libuv supports.
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "tunnel.h"

static const char *const FORWARDS[] = {"127.0.0.1:0=127.0.0.1:9"};

typedef struct on_loop {
  // First, because callbacks get a pointer to it.
  recorder recorder;
  underpass_local *local;
  underpass_association *association;
  uv_timer_t timer;
  int ticks;
} on_loop;

static void start(on_loop *on_loop, uv_loop_t *loop, const char *server) {
  memset(on_loop, 0, sizeof *on_loop);
  recorder_init(&on_loop->recorder);
  underpass_local_options options = {.size = sizeof options,
                                     .server = server,
                                     .psk = TUNNEL_KEY,
                                     .psk_bytes = sizeof TUNNEL_KEY - 1,
                                     .forwards = FORWARDS,
                                     .forward_count = 1,
                                     .loop = loop};
  underpass_callbacks callbacks = recorder_callbacks();
  int status = underpass_local_start(&options, &callbacks, on_loop, &on_loop->local);
  if (status != 0) fail_msg("%s", underpass_error_text());
}

// Runs the loop until a count has reached a number, or for 20 s.
static void run_until(uv_loop_t *loop, recorder *recorder, const int *count, int number) {
  uint64_t end = uv_hrtime() + 20000000000;
  while (*count < number && uv_hrtime() < end && uv_run(loop, UV_RUN_ONCE) != 0) {
  }
  if (*count < number) fail_msg("%d of %d; error: %s", *count, number, recorder->error_text);
}

static void runs_beside_other_handles_and_leaves_the_loop_as_it_was(void **state) {
  (void)state;
  uv_loop_t loop;
  assert_int_equal(uv_loop_init(&loop), 0);
  on_loop on_loop;
  start(&on_loop, &loop, "127.0.0.1:1");
  // Everything happens on the loop.
  assert_int_equal(on_loop.recorder.ready, 0);
  run_until(&loop, &on_loop.recorder, &on_loop.recorder.ready, 1);
  run_until(&loop, &on_loop.recorder, &on_loop.recorder.unreachable, 1);
  underpass_stats stats = {.size = sizeof stats};
  assert_int_equal(underpass_local_stats(on_loop.local, &stats), 0);
  assert_int_equal(underpass_local_stop(on_loop.local), 0);
  run_until(&loop, &on_loop.recorder, &on_loop.recorder.stopped, 1);
  assert_int_equal(underpass_local_stats(on_loop.local, &stats), UNDERPASS_ERR_STATE);
  underpass_local_free(on_loop.local);
  // The instance has closed all of its handles.
  assert_int_equal(uv_loop_alive(&loop), 0);
  assert_int_equal(uv_loop_close(&loop), 0);
  recorder_destroy(&on_loop.recorder);
}

static void is_freed_before_it_has_stopped_and_goes_on_the_loop(void **state) {
  (void)state;
  uv_loop_t loop;
  assert_int_equal(uv_loop_init(&loop), 0);
  for (int i = 0; i < 10; i++) {
    on_loop on_loop;
    start(&on_loop, &loop, "127.0.0.1:1");
    if (i % 2 == 0) run_until(&loop, &on_loop.recorder, &on_loop.recorder.ready, 1);
    underpass_local_free(on_loop.local);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(on_loop.recorder.stopped, 0);
    assert_int_equal(uv_loop_alive(&loop), 0);
    recorder_destroy(&on_loop.recorder);
  }
  assert_int_equal(uv_loop_close(&loop), 0);
}

static void a_failed_start_leaves_nothing_on_the_loop(void **state) {
  (void)state;
  uv_loop_t loop;
  assert_int_equal(uv_loop_init(&loop), 0);
  underpass_local *local = (underpass_local *)&loop;
  underpass_local_options options = {
      .size = sizeof options, .server = "nowhere", .forwards = FORWARDS, .forward_count = 1, .loop = &loop};
  assert_int_equal(underpass_local_start(&options, NULL, NULL, &local), UNDERPASS_ERR_OPTION);
  assert_null(local);
  // No calling thread is available to run it on.
  options.server = "127.0.0.1:1";
  assert_int_equal(underpass_local_run(&options, NULL, NULL, &local), UNDERPASS_ERR_OPTION);
  uv_run(&loop, UV_RUN_DEFAULT);
  assert_int_equal(uv_loop_close(&loop), 0);
}

static void several_share_a_loop_and_datagrams_go_through_them(void **state) {
  (void)state;
  uv_loop_t loop;
  assert_int_equal(uv_loop_init(&loop), 0);
  recorder at_server;
  recorder_init(&at_server);
  underpass_server *server = tunnel_server(&at_server, "{\"allow\": \"127.0.0.0/8\"}");
  on_loop all[3];
  for (int i = 0; i < 3; i++) start(&all[i], &loop, at_server.listen);
  for (int i = 0; i < 3; i++) run_until(&loop, &all[i].recorder, &all[i].recorder.session_up, 1);
  struct sockaddr_in address;
  int target = tunnel_socket(&address);
  char text[32];
  snprintf(text, sizeof text, "127.0.0.1:%u", ntohs(address.sin_port));
  for (int i = 0; i < 3; i++) {
    const underpass_datagram datagram = {"hello", 5, text};
    assert_int_equal(underpass_association_open(all[i].local, NULL, NULL, &all[i].association), 0);
    assert_int_equal(underpass_association_send(all[i].association, &datagram, 1), 1);
  }
  underpass_stats stats = {.size = sizeof stats};
  uint64_t end = uv_hrtime() + 20000000000;
  do {
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(underpass_server_stats(server, &stats), 0);
  } while (stats.datagrams_in < 3 && uv_hrtime() < end);
  assert_int_equal(stats.datagrams_in, 3);
  for (int i = 0; i < 3; i++) {
    underpass_association_close(all[i].association);
    underpass_local_stop(all[i].local);
  }
  for (int i = 0; i < 3; i++) {
    run_until(&loop, &all[i].recorder, &all[i].recorder.stopped, 1);
    underpass_local_free(all[i].local);
    recorder_destroy(&all[i].recorder);
  }
  assert_int_equal(uv_loop_close(&loop), 0);
  underpass_server_free(server);
  recorder_destroy(&at_server);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(runs_beside_other_handles_and_leaves_the_loop_as_it_was),
      cmocka_unit_test(is_freed_before_it_has_stopped_and_goes_on_the_loop),
      cmocka_unit_test(a_failed_start_leaves_nothing_on_the_loop),
      cmocka_unit_test(several_share_a_loop_and_datagrams_go_through_them),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
