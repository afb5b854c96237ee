#include <errno.h>
#include <fcntl.h>
#ifdef __linux__
#include <linux/net_tstamp.h>
#endif
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../native/io/tcp.h"
#include "world.h"

typedef struct attempt {
  struct connection_world *world;
  int number, result, done, released;
} attempt;

typedef struct connection_world {
  world world;
  int accepted, last_accepted, listener_released;
  // The error with which the listener has failed, and how often that was reported.
  int failure, failures;
  // What `accepted` also does.
  void (*then)(struct connection_world *world);
  int listener;
  char directory[64], path[80];
  int protected, protect_result, bound_when_protected, last_protected;
} connection_world;

static void on_accepted(void *data, int descriptor) {
  connection_world *world = data;
  assert_int_equal(world->listener_released, 0);
  if (descriptor < 0) {
    world->failure = descriptor;
    world->failures++;
    if (world->then != NULL) world->then(world);
    return;
  }
  world->accepted++;
  assert_true(fcntl(descriptor, F_GETFL) & O_NONBLOCK);
  assert_true(fcntl(descriptor, F_GETFD) & FD_CLOEXEC);
  io_descriptor_close(descriptor);
  if (world->then != NULL) world->then(world);
}

static void on_listener_released(void *data) {
  connection_world *world = data;
  world->listener_released++;
}

static const io_listener_callbacks listener_callbacks = {on_accepted, on_listener_released};

static void on_done(void *data, int result) {
  attempt *attempt = data;
  assert_int_equal(attempt->released, 0);
  attempt->done++;
  attempt->result = result;
  if (result >= 0) io_descriptor_close(result);
}

static void on_released(void *data) {
  attempt *attempt = data;
  attempt->released++;
}

static const io_connect_callbacks connect_callbacks = {on_done, on_released};

static int on_protect(void *data, uv_os_sock_t socket) {
  connection_world *world = data;
  uint8_t address[IO_ADDRESS_MAX_BYTES];
  size_t bytes = io_socket_address(socket, address);
  world->protected++;
  world->last_protected = socket;
  if (bytes > 0 && (address[bytes - 1] != 0 || address[bytes - 2] != 0)) world->bound_when_protected++;
  return world->protect_result;
}

static int set_up(void **state) {
  connection_world *world = calloc(1, sizeof *world);
  io_loop_options options = {on_protect, world};
  world_begin(&world->world, &options);
  snprintf(world->directory, sizeof world->directory, "/tmp/underpass-io-XXXXXX");
  assert_non_null(mkdtemp(world->directory));
  snprintf(world->path, sizeof world->path, "%s/socket", world->directory);
  *state = world;
  return 0;
}

static int tear_down(void **state) {
  connection_world *world = *state;
  world_finish(&world->world);
  assert_int_equal(world->bound_when_protected, 0);
  // Nothing is left in it.
  assert_int_equal(rmdir(world->directory), 0);
  free(world);
  return 0;
}

static void listen_on_loopback(connection_world *world) {
  address any = loopback(0);
  world->listener = io_tcp_listen(world->world.io, any.bytes, sizeof any.bytes, false, 16, &listener_callbacks, world);
  assert_true(world->listener >= 0);
}

static void begin_attempt(connection_world *world, attempt *attempt, int port) {
  address to = loopback(port);
  *attempt = (struct attempt){.world = world};
  attempt->number = io_tcp_connect(world->world.io, to.bytes, sizeof to.bytes, NULL, 0, &connect_callbacks, attempt);
  assert_true(attempt->number >= 0);
  assert_int_equal(attempt->done, 0);
}

// A port on which nothing listens.
static int free_port(connection_world *world) {
  listen_on_loopback(world);
  int port = port_of(world->listener);
  io_unlisten(world->world.io, world->listener);
  world->listener_released = 0;
  return port;
}

static void a_connection_is_made_and_accepted(void **state) {
  connection_world *world = *state;
  attempt attempt;
  listen_on_loopback(world);
  begin_attempt(world, &attempt, port_of(world->listener));
  RUN_UNTIL(&world->world, attempt.done == 1 && world->accepted == 1);
  assert_true(attempt.result >= 0);
  assert_int_equal(attempt.released, 1);
  // It has ended.
  io_connect_cancel(world->world.io, attempt.number);
  // The listener and the connection; before they are bound or connected.
  assert_int_equal(world->protected, 2);
}

static void a_port_without_a_listener_refuses(void **state) {
  connection_world *world = *state;
  attempt attempt;
  begin_attempt(world, &attempt, free_port(world));
  RUN_UNTIL(&world->world, attempt.done == 1);
  assert_int_equal(attempt.result, UV_ECONNREFUSED);
  assert_int_equal(attempt.released, 1);
}

static void an_attempt_whose_error_somebody_else_has_taken_has_failed_all_the_same(void **state) {
  connection_world *world = *state;
  attempt attempt;
  int code = 0;
  socklen_t length = sizeof code;
  begin_attempt(world, &attempt, free_port(world));
  assert_int_equal(getsockopt(world->last_protected, SOL_SOCKET, SO_ERROR, &code, &length), 0);
  assert_int_equal(code, ECONNREFUSED);
  RUN_UNTIL(&world->world, attempt.done == 1);
  assert_int_equal(attempt.result, UV_ECONNABORTED);
}

#ifdef __linux__
static void an_attempt_that_outlives_an_error_is_connected(void **state) {
  connection_world *world = *state;
  attempt attempt;
  // Nobody accepts: the peer says nothing that would clear the error.
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(bind(listener, (struct sockaddr *)&name, sizeof name), 0);
  assert_int_equal(listen(listener, 1), 0);
  begin_attempt(world, &attempt, port_of(listener));
  // With an error condition besides.
  set_timestamps(world->last_protected, SOF_TIMESTAMPING_TX_SCHED | SOF_TIMESTAMPING_SOFTWARE);
  assert_int_equal(send(world->last_protected, "x", 1, 0), 1);
  bool is_told = report_unreachable(world->last_protected);
  assert_true(has_error_condition(world->last_protected));
  RUN_UNTIL(&world->world, attempt.done == 1);
  close(listener);
  assert_int_equal(attempt.result, attempt.number);
  if (!is_told) skip();
}
#endif

static void an_attempt_that_is_cancelled_reports_nothing(void **state) {
  connection_world *world = *state;
  attempt cancelled, other;
  listen_on_loopback(world);
  begin_attempt(world, &cancelled, port_of(world->listener));
  io_connect_cancel(world->world.io, cancelled.number);
  assert_int_equal(cancelled.released, 1);
  io_connect_cancel(world->world.io, -1);
  begin_attempt(world, &other, port_of(world->listener));
  RUN_UNTIL(&world->world, other.done == 1);
  world_settle(&world->world);
  assert_int_equal(cancelled.done, 0);
  assert_int_equal(cancelled.released, 1);
}

static void attempts_and_listeners_end_with_the_context(void **state) {
  connection_world *world = *state;
  attempt attempts[5];
  listen_on_loopback(world);
  for (int i = 0; i < 5; i++) begin_attempt(world, &attempts[i], port_of(world->listener));
  world_end_context(&world->world);
  for (int i = 0; i < 5; i++) assert_int_equal(attempts[i].released, 1);
  assert_int_equal(world->listener_released, 1);
  address any = loopback(1);
  assert_int_equal(io_tcp_connect(world->world.io, any.bytes, sizeof any.bytes, "", 0, &connect_callbacks, NULL), UV_ECANCELED);
  RUN_UNTIL(&world->world, world->world.ended == 1);
  for (int i = 0; i < 5; i++) assert_int_equal(attempts[i].done, 0);
}

static void what_cannot_be_opened_says_why_and_leaves_nothing(void **state) {
  connection_world *world = *state;
  io_loop *io = world->world.io;
  const uint8_t nonsense[7] = {7};
  assert_int_equal(io_tcp_listen(io, nonsense, sizeof nonsense, false, 1, &listener_callbacks, world), UV_EINVAL);
  assert_int_equal(io_tcp_connect(io, nonsense, sizeof nonsense, "", 0, &connect_callbacks, world), UV_EINVAL);
  assert_int_equal(io_tcp_connect(io, NULL, 0, "", 0, &connect_callbacks, world), UV_EINVAL);
  listen_on_loopback(world);
  address taken = loopback(port_of(world->listener));
  assert_int_equal(io_tcp_listen(io, taken.bytes, sizeof taken.bytes, false, 1, &listener_callbacks, world), UV_EADDRINUSE);
  assert_true(io_tcp_connect(io, taken.bytes, sizeof taken.bytes, "nothing0", 0, &connect_callbacks, world) < 0);
  assert_int_equal(world->listener_released, 0);
}

static void a_socket_that_cannot_be_protected_is_not_opened(void **state) {
  connection_world *world = *state;
  world->protect_result = UV_EPERM;
  address any = loopback(0);
  assert_int_equal(io_tcp_listen(world->world.io, any.bytes, sizeof any.bytes, false, 1, &listener_callbacks, world), UV_EPERM);
  assert_int_equal(io_tcp_connect(world->world.io, any.bytes, sizeof any.bytes, "", 0, &connect_callbacks, world), UV_EPERM);
  assert_int_equal(world->protected, 2);
  // A Unix socket needs no protection, because it does not leave the machine.
  int listener = io_unix_listen(world->world.io, world->path, 0600, 1, &listener_callbacks, world);
  assert_true(listener >= 0);
  assert_int_equal(world->protected, 2);
}

static void close_listener(connection_world *world) {
  io_unlisten(world->world.io, world->listener);
  assert_int_equal(world->listener_released, 1);
  io_unlisten(world->world.io, world->listener);
}

static void a_listener_may_close_within_its_call(void **state) {
  connection_world *world = *state;
  attempt attempts[3];
  listen_on_loopback(world);
  world->then = close_listener;
  int port = port_of(world->listener);
  for (int i = 0; i < 3; i++) begin_attempt(world, &attempts[i], port);
  RUN_UNTIL(&world->world, attempts[0].done + attempts[1].done + attempts[2].done == 3);
  world_settle(&world->world);
  assert_int_equal(world->accepted, 1);
}

static void end_context(connection_world *world) {
  world_end_context(&world->world);
}

static void the_context_may_end_within_a_listener_s_call(void **state) {
  connection_world *world = *state;
  attempt attempts[2];
  listen_on_loopback(world);
  world->then = end_context;
  for (int i = 0; i < 2; i++) begin_attempt(world, &attempts[i], port_of(world->listener));
  RUN_UNTIL(&world->world, world->world.ended == 1);
  assert_int_equal(attempts[0].released, 1);
  assert_int_equal(attempts[1].released, 1);
  assert_int_equal(world->accepted, 1);
}

static void on_done_end_context(void *data, int result) {
  attempt *attempt = data;
  on_done(data, result);
  world_end_context(&attempt->world->world);
  // The callback follows the call.
  assert_int_equal(attempt->released, 0);
}

static void the_context_may_end_within_an_attempt_s_call(void **state) {
  static const io_connect_callbacks ending = {on_done_end_context, on_released};
  connection_world *world = *state;
  attempt attempt = {.world = world};
  listen_on_loopback(world);
  address to = loopback(port_of(world->listener));
  assert_true(io_tcp_connect(world->world.io, to.bytes, sizeof to.bytes, "", 0, &ending, &attempt) >= 0);
  RUN_UNTIL(&world->world, world->world.ended == 1);
  assert_int_equal(attempt.done, 1);
  assert_int_equal(attempt.released, 1);
}

static void a_unix_socket_has_its_mode_and_goes_with_its_listener(void **state) {
  connection_world *world = *state;
  attempt attempt = {.world = world};
  struct stat found;
  world->listener = io_unix_listen(world->world.io, world->path, 0660, 4, &listener_callbacks, world);
  assert_true(world->listener >= 0);
  assert_int_equal(stat(world->path, &found), 0);
  assert_int_equal(found.st_mode & 0777, 0660);
  assert_true(io_unix_connect(world->world.io, world->path, &connect_callbacks, &attempt) >= 0);
  RUN_UNTIL(&world->world, attempt.done == 1 && world->accepted == 1);
  assert_true(attempt.result >= 0);
  // Something answers there.
  assert_int_equal(io_unix_listen(world->world.io, world->path, 0660, 4, &listener_callbacks, world), UV_EADDRINUSE);
  assert_int_equal(stat(world->path, &found), 0);
  io_unlisten(world->world.io, world->listener);
  assert_int_not_equal(stat(world->path, &found), 0);
  assert_true(io_unix_connect(world->world.io, world->path, &connect_callbacks, &attempt) == UV_ENOENT);
}

static void a_socket_that_a_dead_process_left_is_replaced_but_no_other_file(void **state) {
  connection_world *world = *state;
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  struct stat found;
  memcpy(name.sun_path, world->path, strlen(world->path));
  int left = socket(AF_UNIX, SOCK_STREAM, 0);
  assert_int_equal(bind(left, (struct sockaddr *)&name, sizeof name), 0);
  close(left);
  world->listener = io_unix_listen(world->world.io, world->path, 0600, 4, &listener_callbacks, world);
  assert_true(world->listener >= 0);
  io_unlisten(world->world.io, world->listener);
  int file = open(world->path, O_CREAT | O_WRONLY, 0600);
  close(file);
  assert_int_equal(io_unix_listen(world->world.io, world->path, 0600, 4, &listener_callbacks, world), UV_EADDRINUSE);
  assert_int_equal(stat(world->path, &found), 0);
  assert_true(S_ISREG(found.st_mode));
  unlink(world->path);
}

static void a_path_that_is_no_path_is_refused(void **state) {
  connection_world *world = *state;
  char longer[300];
  memset(longer, 'a', sizeof longer - 1);
  longer[sizeof longer - 1] = '\0';
  io_loop *io = world->world.io;
  assert_int_equal(io_unix_listen(io, longer, 0600, 4, &listener_callbacks, world), UV_ENAMETOOLONG);
  assert_int_equal(io_unix_connect(io, longer, &connect_callbacks, world), UV_ENAMETOOLONG);
  assert_int_equal(io_unix_listen(io, "", 0600, 4, &listener_callbacks, world), UV_EINVAL);
  assert_int_equal(io_unix_connect(io, NULL, &connect_callbacks, world), UV_EINVAL);
  assert_int_equal(io_unix_listen(io, "/nowhere/at/all", 0600, 4, &listener_callbacks, world), UV_ENOENT);
}

static void a_listening_socket_that_was_given_is_accepted_on_and_owned(void **state) {
  connection_world *world = *state;
  attempt attempt;
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int given = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(bind(given, (struct sockaddr *)&name, sizeof name), 0);
  assert_int_equal(listen(given, 4), 0);
  int port = port_of(given);
  assert_int_equal(io_listen_on(world->world.io, given, 16, &listener_callbacks, world), given);
  assert_true(fcntl(given, F_GETFD) & FD_CLOEXEC);
  begin_attempt(world, &attempt, port);
  RUN_UNTIL(&world->world, attempt.done == 1 && world->accepted == 1);
  io_unlisten(world->world.io, given);
  assert_int_equal(world->listener_released, 1);
  assert_int_equal(fcntl(given, F_GETFD), -1);
}

static void a_listener_outlives_conditions_that_nothing_explains(void **state) {
  connection_world *world = *state;
  listen_on_loopback(world);
  for (int i = 0; i < 200; i++) {
    attempt attempt;
    report_conditions(&world->world);
    begin_attempt(world, &attempt, port_of(world->listener));
    RUN_UNTIL(&world->world, attempt.done == 1 && world->accepted == i + 1);
  }
  assert_int_equal(world->failures, 0);
}

static void a_listener_with_nothing_but_conditions_fails_once(void **state) {
  connection_world *world = *state;
  listen_on_loopback(world);
  for (int i = 0; i < 64; i++) report_conditions(&world->world);
  assert_int_equal(world->failures, 0);
  for (int i = 0; i < 64; i++) report_conditions(&world->world);
  assert_int_equal(world->failures, 1);
  assert_int_equal(world->failure, UV_EBADF);
  io_unlisten(world->world.io, world->listener);
  assert_int_equal(world->listener_released, 1);
}

// Somebody who shares the socket has ended it.
static void a_listener_that_is_no_listener_any_more_fails_once_and_leaves_the_loop_alone(void **state) {
  connection_world *world = *state;
  listen_on_loopback(world);
  assert_int_equal(shutdown(world->listener, SHUT_RDWR), 0);
  RUN_UNTIL(&world->world, world->failures > 0);
  for (int i = 0; i < 20; i++) uv_run(&world->world.loop, UV_RUN_NOWAIT);
  assert_int_equal(world->failures, 1);
  assert_int_equal(world->failure, UV_EINVAL);
  io_unlisten(world->world.io, world->listener);
  assert_int_equal(world->listener_released, 1);
}

// Such a socket is readable for ever, and yet has nothing to accept.
static void a_unix_listener_that_somebody_shuts_down_accepts_what_waits_and_fails_once(void **state) {
  connection_world *world = *state;
  for (int i = 0; i < 2; i++) {
    attempt attempt = {.world = world};
    world->failures = world->accepted = world->listener_released = 0;
    world->listener = io_unix_listen(world->world.io, world->path, 0600, 4, &listener_callbacks, world);
    assert_true(world->listener >= 0);
    assert_true(io_unix_connect(world->world.io, world->path, &connect_callbacks, &attempt) >= 0);
    assert_int_equal(shutdown(world->listener, i == 0 ? SHUT_RD : SHUT_RDWR), 0);
    RUN_UNTIL(&world->world, world->failures > 0 && attempt.done == 1);
    for (int turn = 0; turn < 20; turn++) uv_run(&world->world.loop, UV_RUN_NOWAIT);
    assert_int_equal(world->accepted, 1);
    assert_int_equal(world->failures, 1);
    assert_int_equal(world->failure, UV_EINVAL);
    io_unlisten(world->world.io, world->listener);
    assert_int_equal(world->listener_released, 1);
  }
}

static void a_listener_that_fails_may_close_within_its_call(void **state) {
  connection_world *world = *state;
  listen_on_loopback(world);
  world->then = close_listener;
  assert_int_equal(shutdown(world->listener, SHUT_RDWR), 0);
  RUN_UNTIL(&world->world, world->listener_released == 1);
  assert_int_equal(world->failures, 1);
}

static void a_descriptor_of_no_stream_socket_is_left_alone(void **state) {
  connection_world *world = *state;
  io_loop *io = world->world.io;
  int file = open("/dev/null", O_RDONLY), datagrams = socket(AF_INET, SOCK_DGRAM, 0);
  assert_int_equal(io_listen_on(io, file, 16, &listener_callbacks, world), UV_ENOTSOCK);
  assert_int_equal(io_listen_on(io, datagrams, 16, &listener_callbacks, world), UV_ENOTSOCK);
  assert_int_equal(io_listen_on(io, 9999, 16, &listener_callbacks, world), UV_ENOTSOCK);
  assert_int_equal(close(file), 0);
  assert_int_equal(close(datagrams), 0);
}

int connection_tests(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
  const struct CMUnitTest tests[] = {
      TEST(a_connection_is_made_and_accepted),
      TEST(a_port_without_a_listener_refuses),
      TEST(an_attempt_whose_error_somebody_else_has_taken_has_failed_all_the_same),
#ifdef __linux__
      TEST(an_attempt_that_outlives_an_error_is_connected),
#endif
      TEST(an_attempt_that_is_cancelled_reports_nothing),
      TEST(attempts_and_listeners_end_with_the_context),
      TEST(what_cannot_be_opened_says_why_and_leaves_nothing),
      TEST(a_socket_that_cannot_be_protected_is_not_opened),
      TEST(a_listener_may_close_within_its_call),
      TEST(the_context_may_end_within_a_listener_s_call),
      TEST(the_context_may_end_within_an_attempt_s_call),
      TEST(a_unix_socket_has_its_mode_and_goes_with_its_listener),
      TEST(a_socket_that_a_dead_process_left_is_replaced_but_no_other_file),
      TEST(a_path_that_is_no_path_is_refused),
      TEST(a_listening_socket_that_was_given_is_accepted_on_and_owned),
      TEST(a_descriptor_of_no_stream_socket_is_left_alone),
      TEST(a_listener_outlives_conditions_that_nothing_explains),
      TEST(a_listener_with_nothing_but_conditions_fails_once),
#ifdef __linux__
      TEST(a_listener_that_is_no_listener_any_more_fails_once_and_leaves_the_loop_alone),
      TEST(a_unix_listener_that_somebody_shuts_down_accepts_what_waits_and_fails_once),
      TEST(a_listener_that_fails_may_close_within_its_call),
#endif
  };
  return cmocka_run_group_tests_name("listeners and attempts", tests, NULL, NULL);
}
