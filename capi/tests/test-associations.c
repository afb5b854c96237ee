// Associations without sockets.
#include <errno.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tunnel.h"

// The received datagrams.
typedef struct receiver {
  // First; its mutex also guards this struct.
  recorder recorder;
  int received, unreachable, closed;
  char last[64], last_address[64];
  underpass_unreachable_reason reason;
  underpass_association *association;
  underpass_local *local;
  // Called within `received`.
  void (*on_received)(struct receiver *receiver);
} receiver;

static void add(receiver *receiver, int *count, int more) {
  pthread_mutex_lock(&receiver->recorder.mutex);
  *count += more;
  pthread_cond_broadcast(&receiver->recorder.changed);
  pthread_mutex_unlock(&receiver->recorder.mutex);
}

static void on_received(void *data, const underpass_datagram *datagrams, size_t count) {
  receiver *receiver = data;
  assert_true(count > 0);
  const underpass_datagram *last = &datagrams[count - 1];
  snprintf(receiver->last, sizeof receiver->last, "%.*s", (int)last->bytes, (const char *)last->data);
  snprintf(receiver->last_address, sizeof receiver->last_address, "%s", last->address);
  if (receiver->on_received != NULL) receiver->on_received(receiver);
  add(receiver, &receiver->received, (int)count);
}

static void on_unreachable(void *data, const char *address, underpass_unreachable_reason reason, unsigned mtu) {
  receiver *receiver = data;
  (void)mtu;
  snprintf(receiver->last_address, sizeof receiver->last_address, "%s", address);
  receiver->reason = reason;
  add(receiver, &receiver->unreachable, 1);
}

static void on_closed(void *data) {
  receiver *receiver = data;
  assert_int_equal(recorder_get(&receiver->recorder, &receiver->recorder.stopped), 0);
  add(receiver, &receiver->closed, 1);
}

static const underpass_association_callbacks CALLBACKS = {.size = sizeof CALLBACKS,
                                                          .received = on_received,
                                                          .unreachable = on_unreachable,
                                                          .closed = on_closed};

static recorder at_server;
static underpass_server *server;

static int start_server(void **state) {
  (void)state;
  recorder_init(&at_server);
  server = tunnel_server(&at_server, "{\"allow\": [\"127.0.0.0/8\", \"::1/128\"], \"age-budget-ms\": 10000}");
  return 0;
}

static int stop_server(void **state) {
  (void)state;
  underpass_server_free(server);
  recorder_destroy(&at_server);
  return 0;
}

static void start(receiver *receiver) {
  memset(receiver, 0, sizeof *receiver);
  recorder_init(&receiver->recorder);
  underpass_local_options options = {.size = sizeof options,
                                     .server = at_server.listen,
                                     .psk = TUNNEL_KEY,
                                     .psk_bytes = sizeof TUNNEL_KEY - 1,
                                     // A busy machine is slow, and a slow path would get more lanes, with descriptors of their own.
                                     .config = "{\"lanes\": 1, \"age-budget-ms\": 10000}",
                                     .listen = ""};
  underpass_callbacks callbacks = recorder_callbacks();
  int status = underpass_local_start(&options, &callbacks, receiver, &receiver->local);
  if (status != 0) fail_msg("%s", underpass_error_text());
  assert_int_equal(underpass_association_open(receiver->local, &CALLBACKS, receiver, &receiver->association), 0);
  recorder_wait(&receiver->recorder, &receiver->recorder.session_up, 1);
}

// Opens a target and writes its address.
static int open_target(char text[32]) {
  struct sockaddr_in address;
  int fd = tunnel_socket(&address);
  snprintf(text, 32, "127.0.0.1:%u", ntohs(address.sin_port));
  return fd;
}

// Answers one datagram.
static void answer(int target, const char *with) {
  struct sockaddr_in source;
  socklen_t length = sizeof source;
  char text[64];
  ssize_t count;
  do {
    count = recvfrom(target, text, sizeof text, 0, (struct sockaddr *)&source, &length);
  } while (count < 0 && errno == EINTR);
  assert_true(count >= 0);
  sendto(target, with, strlen(with), 0, (struct sockaddr *)&source, length);
}

static void carries_datagrams_to_several_targets_and_back(void **state) {
  (void)state;
  receiver receiver;
  start(&receiver);
  char first[32], second[32], named[32];
  int one = open_target(first), two = open_target(second);
  snprintf(named, sizeof named, "localhost:%s", strchr(second, ':') + 1);
  const underpass_datagram datagrams[] = {{"a", 1, first}, {NULL, 0, first}, {"b", 1, second}, {"c", 1, first}};
  assert_int_equal(underpass_association_send(receiver.association, datagrams, 4), 4);
  for (int i = 0; i < 3; i++) answer(one, "from one");
  answer(two, "from two");
  recorder_wait(&receiver.recorder, &receiver.received, 4);

  const underpass_datagram to_name = {"d", 1, named};
  assert_int_equal(underpass_association_send(receiver.association, &to_name, 1), 1);
  answer(two, "by name");
  recorder_wait(&receiver.recorder, &receiver.received, 5);
  assert_string_equal(receiver.last, "by name");
  assert_string_equal(strchr(receiver.last_address, ':'), strchr(second, ':'));

  underpass_stats stats = {.size = sizeof stats};
  assert_int_equal(underpass_local_stats(receiver.local, &stats), 0);
  assert_int_equal(stats.associations, 1);
  assert_int_equal(stats.datagrams_out, 5);
  underpass_association_close(receiver.association);
  recorder_wait(&receiver.recorder, &receiver.closed, 1);
  assert_int_equal(underpass_local_stats(receiver.local, &stats), 0);
  assert_int_equal(stats.associations, 0);
  underpass_local_free(receiver.local);
  close(one);
  close(two);
  recorder_destroy(&receiver.recorder);
}

static void reports_a_target_that_is_not_reached(void **state) {
  (void)state;
  receiver receiver;
  start(&receiver);
  char nobody[32];
  close(open_target(nobody));
  const underpass_datagram datagrams[] = {{"a", 1, nobody}};
  // The second receiver gets what the first caused.
  for (int i = 0; i < 50 && recorder_get(&receiver.recorder, &receiver.unreachable) == 0; i++) {
    underpass_association_send(receiver.association, datagrams, 1);
    usleep(20000);
  }
  recorder_wait(&receiver.recorder, &receiver.unreachable, 1);
  assert_int_equal(receiver.reason, UNDERPASS_UNREACHABLE_PORT);
  assert_string_equal(receiver.last_address, nobody);
  underpass_association_close(receiver.association);
  underpass_local_free(receiver.local);
  assert_int_equal(receiver.closed, 1);
  recorder_destroy(&receiver.recorder);
}

static void takes_no_more_than_it_has_room_for(void **state) {
  (void)state;
  static char data[60000];
  receiver receiver;
  start(&receiver);
  underpass_datagram datagrams[64];
  for (int i = 0; i < 64; i++) datagrams[i] = (underpass_datagram){data, sizeof data, "127.0.0.1:9"};
  ptrdiff_t taken = underpass_association_send(receiver.association, datagrams, 64);
  assert_true(taken > 0 && taken < 64);
  underpass_association_close(receiver.association);
  underpass_local_free(receiver.local);
  recorder_destroy(&receiver.recorder);
}

static void refuses_what_is_no_datagram(void **state) {
  (void)state;
  receiver receiver;
  start(&receiver);
  static char data[65508];
  const underpass_datagram bad[] = {
      {NULL, 1, "127.0.0.1:9"},  {data, sizeof data, "127.0.0.1:9"}, {"a", 1, NULL},        {"a", 1, "127.0.0.1"},
      {"a", 1, "127.0.0.1:0"},   {"a", 1, "127.0.0.1:65536"},        {"a", 1, ":9"},        {"a", 1, "[::1:9"},
      {"a", 1, "[fe80::1%1]:9"}, {"a", 1, "::1:9"},                  {"a", 1, "a name:9"},  {"a", 1, "127.0.0.1:9x"},
      {"a", 1, "[]:9"},          {"a", 1, "x/y:9"},                  {"a", 1, "[1.2.3.4]:9"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    if (underpass_association_send(receiver.association, &bad[i], 1) != UNDERPASS_ERR_OPTION)
      fail_msg("accepted number %zu", i);
  }
  // The valid datagrams before it are accepted.
  const underpass_datagram mixed[] = {{"a", 1, "[::ffff:127.0.0.1]:9"}, {"a", 1, "nowhere"}};
  assert_int_equal(underpass_association_send(receiver.association, mixed, 2), 1);
  assert_int_equal(underpass_association_send(receiver.association, NULL, 1), UNDERPASS_ERR_OPTION);
  assert_int_equal(underpass_association_send(receiver.association, NULL, 0), 0);
  assert_int_equal(underpass_association_send(NULL, mixed, 1), UNDERPASS_ERR_OPTION);
  underpass_association *none;
  assert_int_equal(underpass_association_open(NULL, NULL, NULL, &none), UNDERPASS_ERR_OPTION);
  assert_int_equal(underpass_association_open(receiver.local, NULL, NULL, NULL), UNDERPASS_ERR_OPTION);
  const underpass_association_callbacks small = {.size = 1};
  assert_int_equal(underpass_association_open(receiver.local, &small, NULL, &none), UNDERPASS_ERR_OPTION);
  assert_null(none);
  underpass_association_close(NULL);

  underpass_local_stop(receiver.local);
  recorder_wait(&receiver.recorder, &receiver.recorder.stopped, 1);
  assert_int_equal(receiver.closed, 1);
  assert_int_equal(underpass_association_send(receiver.association, mixed, 1), UNDERPASS_ERR_STATE);
  assert_int_equal(underpass_association_open(receiver.local, NULL, NULL, &none), UNDERPASS_ERR_STATE);
  underpass_local_free(receiver.local);
  // The association outlives its instance.
  assert_int_equal(underpass_association_send(receiver.association, mixed, 1), UNDERPASS_ERR_STATE);
  underpass_association_close(receiver.association);
  recorder_destroy(&receiver.recorder);
}

static void stop_it(receiver *receiver) { underpass_local_stop(receiver->local); }

static void close_it(receiver *receiver) { underpass_association_close(receiver->association); }

static void count_and_send(receiver *receiver) {
  underpass_stats stats = {.size = sizeof stats};
  assert_int_equal(underpass_local_stats(receiver->local, &stats), 0);
  const underpass_datagram datagram = {"again", 5, receiver->last_address};
  assert_int_equal(underpass_association_send(receiver->association, &datagram, 1), 1);
  close_it(receiver);
}

static void free_all(receiver *receiver) {
  close_it(receiver);
  underpass_local_free(receiver->local);
}

static void ends_within_its_callback(void **state) {
  (void)state;
  void (*const ends[])(struct receiver *) = {stop_it, close_it, count_and_send, free_all};
  for (int i = 0; i < 4; i++) {
    receiver receiver;
    start(&receiver);
    receiver.on_received = ends[i];
    char text[32];
    int target = open_target(text);
    const underpass_datagram datagram = {"a", 1, text};
    assert_int_equal(underpass_association_send(receiver.association, &datagram, 1), 1);
    answer(target, "answer");
    recorder_wait(&receiver.recorder, &receiver.received, 1);
    recorder_wait(&receiver.recorder, &receiver.closed, 1);
    if (ends[i] == stop_it) close_it(&receiver);
    if (ends[i] != free_all) underpass_local_free(receiver.local);
    assert_int_equal(receiver.received, 1);
    close(target);
    recorder_destroy(&receiver.recorder);
  }
}

static void many_come_and_go_and_leave_nothing(void **state) {
  (void)state;
  receiver receiver;
  start(&receiver);
  char text[32];
  int target = open_target(text);
  const underpass_datagram datagram = {"a", 1, text};
  size_t before = 0;
  int descriptors = open_descriptors();
  for (int i = 0; i < 40; i++) {
    underpass_association *associations[50];
    for (int j = 0; j < 50; j++) {
      assert_int_equal(underpass_association_open(receiver.local, &CALLBACKS, &receiver, &associations[j]), 0);
      assert_int_equal(underpass_association_send(associations[j], &datagram, 1), 1);
    }
    for (int j = 0; j < 50; j++) answer(target, "answer");
    recorder_wait(&receiver.recorder, &receiver.received, 50 * (i + 1));
    for (int j = 0; j < 50; j++) underpass_association_close(associations[j]);
    recorder_wait(&receiver.recorder, &receiver.closed, 50 * (i + 1));
    underpass_stats stats = {.size = sizeof stats};
    assert_int_equal(underpass_local_stats(receiver.local, &stats), 0);
    assert_int_equal(stats.associations, 0);
    if (i == 5) before = allocated_bytes();
  }
  // The server's memory is in the same process, and so is what its engine collects later.
  if (allocated_bytes() > before + 1024 * 1024) fail_msg("%zu bytes more", allocated_bytes() - before);
  // The server closes their sockets when it learns of the end.
  for (int i = 0; i < 500 && open_descriptors() != descriptors; i++) usleep(10000);
  assert_int_equal(open_descriptors(), descriptors);
  underpass_association_close(receiver.association);
  underpass_local_free(receiver.local);
  close(target);
  recorder_destroy(&receiver.recorder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(carries_datagrams_to_several_targets_and_back),
      cmocka_unit_test(reports_a_target_that_is_not_reached),
      cmocka_unit_test(takes_no_more_than_it_has_room_for),
      cmocka_unit_test(refuses_what_is_no_datagram),
      cmocka_unit_test(ends_within_its_callback),
      cmocka_unit_test(many_come_and_go_and_leave_nothing),
  };
  return cmocka_run_group_tests(tests, start_server, stop_server);
}
