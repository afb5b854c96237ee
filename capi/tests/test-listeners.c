// Listeners that fail while their instance runs.
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tunnel.h"

// The only listener of this process.
static int find_listener(void) {
  int found = -1;
  for (int fd = 0; fd < 256; fd++) {
    int listens = 0;
    socklen_t length = sizeof listens;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) != 0 || listens == 0) continue;
    assert_int_equal(found, -1);
    found = fd;
  }
  assert_true(found >= 0);
  return found;
}

// Ends the listener, as far as the system is concerned; its descriptor stays open.
static void expect_failure(recorder *recorder) {
  recorder_wait(recorder, &recorder->ready, 1);
  assert_int_equal(shutdown(find_listener(), SHUT_RDWR), 0);
  recorder_wait(recorder, &recorder->listener_failed, 1);
  assert_int_equal(recorder->listener_status, UNDERPASS_ERR_LISTEN);
}

// The instance continues, and does not report the failure again.
static void expect_once(recorder *recorder) {
  assert_int_equal(recorder_get(recorder, &recorder->stopped), 0);
  assert_int_equal(recorder_get(recorder, &recorder->errors), 0);
  assert_int_equal(recorder_get(recorder, &recorder->listener_failed), 1);
}

static void a_local_reports_that_its_socks5_server_accepts_nothing_more(void **state) {
  (void)state;
  recorder recorder;
  recorder_init(&recorder);
  underpass_callbacks callbacks = recorder_callbacks();
  underpass_local_options options = {.size = sizeof options, .server = "127.0.0.1:1", .listen = "127.0.0.1:0"};
  underpass_local *local;
  assert_int_equal(underpass_local_start(&options, &callbacks, &recorder, &local), 0);
  expect_failure(&recorder);
  underpass_stats stats = {.size = sizeof stats};
  assert_int_equal(underpass_local_stats(local, &stats), 0);
  expect_once(&recorder);
  underpass_local_free(local);
  recorder_destroy(&recorder);
}

static void a_server_reports_that_it_accepts_nothing_more(void **state) {
  (void)state;
  recorder recorder;
  recorder_init(&recorder);
  underpass_server *server = tunnel_server(&recorder, NULL);
  expect_failure(&recorder);
  underpass_stats stats = {.size = sizeof stats};
  assert_int_equal(underpass_server_stats(server, &stats), 0);
  expect_once(&recorder);
  underpass_server_free(server);
  recorder_destroy(&recorder);
}

static void a_tun2socks_reports_that_its_device_accepts_nothing_more(void **state) {
  (void)state;
  char folder[] = "/tmp/underpass-listeners-XXXXXX", device[64];
  assert_non_null(mkdtemp(folder));
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  snprintf(name.sun_path, sizeof name.sun_path, "%s/device", folder);
  snprintf(device, sizeof device, "unix:%.50s", name.sun_path);
  recorder recorder;
  recorder_init(&recorder);
  underpass_callbacks callbacks = recorder_callbacks();
  underpass_tun2socks_options options = {.size = sizeof options, .server = "127.0.0.1:1", .device = device};
  underpass_tun2socks *tun2socks;
  assert_int_equal(underpass_tun2socks_start(&options, &callbacks, &recorder, &tun2socks), 0);
  recorder_wait(&recorder, &recorder.ready, 1);
  // Its descriptor becomes another socket, which does not listen. A connection to the former one wakes the instance.
  int listener = find_listener(), former = dup(listener);
  int other = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
  assert_int_equal(dup2(other, listener), listener);
  assert_int_equal(connect(client, (struct sockaddr *)&name, sizeof name), 0);
  recorder_wait(&recorder, &recorder.listener_failed, 1);
  assert_int_equal(recorder.listener_status, UNDERPASS_ERR_LISTEN);
  int accepted = accept(former, NULL, NULL);
  underpass_stats stats = {.size = sizeof stats};
  assert_int_equal(underpass_tun2socks_stats(tun2socks, &stats), 0);
  expect_once(&recorder);
  underpass_tun2socks_free(tun2socks);
  const int descriptors[] = {former, other, client, accepted};
  for (int i = 0; i < 4; i++) close(descriptors[i]);
  rmdir(folder);
  recorder_destroy(&recorder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_local_reports_that_its_socks5_server_accepts_nothing_more),
      cmocka_unit_test(a_server_reports_that_it_accepts_nothing_more),
      cmocka_unit_test(a_tun2socks_reports_that_its_device_accepts_nothing_more),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
