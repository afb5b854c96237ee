// The embedder's streams as a carrier.
#define main example_main
#include "../../examples/c/stream.c"
#undef main

#include "tunnel.h"

enum { DATAGRAMS = 200, DATAGRAM_BYTES = 1200 };

static const char *const FORWARDS[] = {"127.0.0.1:0=127.0.0.1:9"};

static underpass_local *start_with(recorder *recorder, const underpass_carrier *with, const char *const *forwards) {
  underpass_local_options options = {.size = sizeof options,
                                     .psk = TUNNEL_KEY,
                                     .psk_bytes = sizeof TUNNEL_KEY - 1,
                                     .forwards = forwards,
                                     .forward_count = 1,
                                     // A session that grows is replaced by another, and may lose datagrams in flight.
                                     .config = "{\"lanes\": 1, \"age-budget-ms\": 10000}",
                                     .carrier = with};
  underpass_callbacks callbacks = recorder_callbacks();
  underpass_local *local;
  int status = underpass_local_start(&options, &callbacks, recorder, &local);
  if (status != 0) fail_msg("%s", underpass_error_text());
  return local;
}

static void carries_datagrams_both_ways_and_resumes_on_another_stream(void **state) {
  (void)state;
  int before = open_descriptors();
  recorder at_server, at_local;
  recorder_init(&at_server);
  recorder_init(&at_local);
  underpass_server *running = tunnel_server(&at_server, "{\"allow\": \"127.0.0.0/8\", \"age-budget-ms\": 10000}");
  assert_true(set_server(at_server.listen));
  struct sockaddr_in target_address, own_address, source, forward_address = {.sin_family = AF_INET};
  int target = tunnel_socket(&target_address), application = tunnel_socket(&own_address);
  char forward[64];
  snprintf(forward, sizeof forward, "127.0.0.1:0=127.0.0.1:%u", ntohs(target_address.sin_port));
  const char *const forwards[] = {forward};
  underpass_local *local = start_with(&at_local, &carrier, forwards);
  recorder_wait(&at_local, &at_local.session_up, 1);
  forward_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  forward_address.sin_port = htons((uint16_t)atoi(at_local.listen + 10));
  for (int round = 0; round < 2; round++) {
    // More than the stream accepts at once, both ways: writes are short, and received bytes are not all accepted.
    char data[DATAGRAM_BYTES] = "";
    for (int i = 0; i < DATAGRAMS; i++) {
      socklen_t length = sizeof source;
      sendto(application, data, sizeof data, 0, (struct sockaddr *)&forward_address, sizeof forward_address);
      if (i % 10 != 9) continue;
      for (int j = 0; j < 10; j++)
        assert_int_equal(recvfrom(target, data, sizeof data, 0, (struct sockaddr *)&source, &length), DATAGRAM_BYTES);
      for (int j = 0; j < 10; j++) sendto(target, data, sizeof data, 0, (struct sockaddr *)&source, length);
      for (int j = 0; j < 10; j++) assert_int_equal(recv(application, data, sizeof data, 0), DATAGRAM_BYTES);
    }
    if (round > 0) break;
    assert_int_equal(underpass_local_network_changed(local), 0);
    recorder_wait(&at_local, &at_local.session_resumed, 1);
  }
  // The server ends: the stream reports it, and another is opened, which is refused.
  underpass_server_free(running);
  recorder_wait(&at_local, &at_local.session_down, 1);
  recorder_wait(&at_local, &at_local.unreachable, 1);
  underpass_local_free(local);
  wait_for_connections();
  close(target);
  close(application);
  recorder_destroy(&at_local);
  recorder_destroy(&at_server);
  assert_int_equal(open_descriptors(), before);
}

// A stream that leads nowhere, and counts calls.
typedef struct nowhere {
  // First, because the instance's callbacks get a pointer to it.
  recorder recorder;
  underpass_stream *stream;
  int opened, written, closed;
  size_t take;
  int open_answer;
  bool connects;
  void (*on_open)(struct nowhere *nowhere);
  void (*on_write)(struct nowhere *nowhere);
  void (*on_close)(struct nowhere *nowhere);
} nowhere;

static void count_one(nowhere *nowhere, int *count) {
  pthread_mutex_lock(&nowhere->recorder.mutex);
  (*count)++;
  pthread_cond_broadcast(&nowhere->recorder.changed);
  pthread_mutex_unlock(&nowhere->recorder.mutex);
}

static int open_nowhere(void *user_data, underpass_stream *stream, void **result) {
  nowhere *nowhere = user_data;
  nowhere->stream = stream;
  *result = nowhere;
  if (nowhere->on_open != NULL) nowhere->on_open(nowhere);
  if (nowhere->connects) assert_int_equal(underpass_stream_writable(stream), 0);
  int answer = nowhere->open_answer;
  count_one(nowhere, &nowhere->opened);
  return answer;
}

static size_t write_nowhere(void *data, const void *bytes, size_t count) {
  nowhere *nowhere = data;
  (void)bytes, (void)count;
  size_t take = nowhere->take;
  if (nowhere->on_write != NULL) nowhere->on_write(nowhere);
  count_one(nowhere, &nowhere->written);
  return take;
}

static void close_nowhere(void *data) {
  nowhere *nowhere = data;
  if (nowhere->on_close != NULL) nowhere->on_close(nowhere);
  underpass_stream *stream = nowhere->stream;
  assert_int_equal(underpass_stream_received(stream, "late", 4), UNDERPASS_ERR_STATE);
  assert_int_equal(underpass_stream_writable(stream), UNDERPASS_ERR_STATE);
  underpass_stream_closed(stream, "closed");
  count_one(nowhere, &nowhere->closed);
}

static const underpass_carrier NOWHERE = {
    .size = sizeof NOWHERE, .open = open_nowhere, .write = write_nowhere, .close = close_nowhere};

static void publish(nowhere *nowhere, underpass_local *local) {
  pthread_mutex_lock(&nowhere->recorder.mutex);
  nowhere->recorder.local = local;
  pthread_cond_broadcast(&nowhere->recorder.changed);
  pthread_mutex_unlock(&nowhere->recorder.mutex);
}

static underpass_local *published(nowhere *nowhere) {
  pthread_mutex_lock(&nowhere->recorder.mutex);
  while (nowhere->recorder.local == NULL) pthread_cond_wait(&nowhere->recorder.changed, &nowhere->recorder.mutex);
  pthread_mutex_unlock(&nowhere->recorder.mutex);
  return nowhere->recorder.local;
}

static void stop_it(nowhere *nowhere) { underpass_local_stop(published(nowhere)); }

static void free_it(nowhere *nowhere) {
  underpass_local *local = published(nowhere);
  nowhere->on_open = nowhere->on_write = NULL;
  underpass_local_free(local);
}

static void an_open_that_refuses_is_reported_and_not_closed(void **state) {
  (void)state;
  nowhere nowhere = {.open_answer = 7};
  recorder_init(&nowhere.recorder);
  underpass_local *local = start_with(&nowhere.recorder, &NOWHERE, FORWARDS);
  recorder_wait(&nowhere.recorder, &nowhere.recorder.unreachable, 1);
  assert_int_equal(nowhere.recorder.unreachable_status, UNDERPASS_ERR_CONNECT);
  underpass_local_free(local);
  assert_int_equal(nowhere.closed, 0);
  recorder_destroy(&nowhere.recorder);
}

static void a_stream_that_closes_is_reported_with_its_reason_and_tried_again(void **state) {
  (void)state;
  nowhere nowhere = {.connects = true, .take = SIZE_MAX};
  recorder_init(&nowhere.recorder);
  underpass_local *local = start_with(&nowhere.recorder, &NOWHERE, FORWARDS);
  recorder_wait(&nowhere.recorder, &nowhere.written, 1);
  // Whatever it is, it is not an answer.
  assert_int_equal(underpass_stream_received(nowhere.stream, "SSH-2.0\r\n\r\n", 11), 11);
  recorder_wait(&nowhere.recorder, &nowhere.recorder.unreachable, 1);
  recorder_wait(&nowhere.recorder, &nowhere.opened, 2);
  recorder_wait(&nowhere.recorder, &nowhere.closed, 1);
  underpass_local_free(local);
  assert_int_equal(nowhere.opened, nowhere.closed);
  recorder_destroy(&nowhere.recorder);
}

static void takes_no_more_than_it_has_room_for(void **state) {
  (void)state;
  static char much[300000];
  nowhere nowhere = {.take = 0};
  recorder_init(&nowhere.recorder);
  // The stream is not connected, so nothing is read.
  underpass_local *local = start_with(&nowhere.recorder, &NOWHERE, FORWARDS);
  recorder_wait(&nowhere.recorder, &nowhere.opened, 1);
  assert_int_equal(underpass_stream_received(nowhere.stream, NULL, 0), 0);
  assert_int_equal(underpass_stream_received(nowhere.stream, NULL, 1), UNDERPASS_ERR_OPTION);
  assert_int_equal(underpass_stream_received(nowhere.stream, much, sizeof much), 256 * 1024);
  assert_int_equal(underpass_stream_received(nowhere.stream, much, 1), 0);
  underpass_local_free(local);
  assert_int_equal(nowhere.closed, 1);
  recorder_destroy(&nowhere.recorder);
}

static void stops_and_is_freed_within_each_of_its_callbacks(void **state) {
  (void)state;
  void (*const ends[])(struct nowhere *) = {stop_it, free_it};
  for (int i = 0; i < 6; i++) {
    void (*end)(struct nowhere *) = ends[i % 2];
    // It accepts nothing, or everything.
    nowhere nowhere = {.connects = true, .take = i % 3 == 0 ? 0 : SIZE_MAX};
    if (i < 2) nowhere.on_open = end;
    else if (i < 4) nowhere.on_write = end;
    else nowhere.on_close = stop_it;
    recorder_init(&nowhere.recorder);
    underpass_local *local = start_with(&nowhere.recorder, &NOWHERE, FORWARDS);
    publish(&nowhere, local);
    if (i >= 4) {
      recorder_wait(&nowhere.recorder, &nowhere.written, 1);
      underpass_local_stop(local);
    }
    recorder_wait(&nowhere.recorder, &nowhere.closed, 1);
    bool is_freed = end == free_it && i < 4;
    if (!is_freed) {
      recorder_wait(&nowhere.recorder, &nowhere.recorder.stopped, 1);
      underpass_local_free(local);
    }
    assert_int_equal(nowhere.opened, nowhere.closed);
    assert_int_equal(nowhere.recorder.stopped, is_freed ? 0 : 1);
    recorder_destroy(&nowhere.recorder);
  }
}

static void stops_while_it_is_not_connected_and_leaves_nothing(void **state) {
  (void)state;
  int before = open_descriptors();
  size_t bytes_before = 0;
  for (int i = 0; i < 20; i++) {
    nowhere nowhere = {.take = 0};
    recorder_init(&nowhere.recorder);
    underpass_local *local = start_with(&nowhere.recorder, &NOWHERE, FORWARDS);
    recorder_wait(&nowhere.recorder, &nowhere.opened, 1);
    assert_int_equal(underpass_stream_received(nowhere.stream, "early", 5), 5);
    underpass_local_free(local);
    assert_int_equal(nowhere.opened, nowhere.closed);
    recorder_destroy(&nowhere.recorder);
    if (i == 10) bytes_before = allocated_bytes();
  }
  assert_int_equal(open_descriptors(), before);
  size_t bytes = allocated_bytes();
  if (bytes > bytes_before + 1024) fail_msg("%zu bytes more", bytes - bytes_before);
}

static void refuses_null_and_wrong_sizes(void **state) {
  (void)state;
  recorder recorder;
  recorder_init(&recorder);
  underpass_local *local;
  underpass_local_options options = {
      .size = sizeof options, .forwards = FORWARDS, .forward_count = 1, .carrier = &(underpass_carrier){.size = 3}};
  assert_int_equal(underpass_local_start(&options, NULL, NULL, &local), UNDERPASS_ERR_OPTION);
  assert_non_null(strstr(underpass_error_text(), "carrier"));
  options.carrier = &(underpass_carrier){.size = sizeof(underpass_carrier), .open = open_nowhere};
  assert_int_equal(underpass_local_start(&options, NULL, NULL, &local), UNDERPASS_ERR_OPTION);
  // Two ways to the server cannot be combined.
  options.carrier = &NOWHERE;
  options.config = "{\"via\": \"socks5://127.0.0.1:1\"}";
  options.server = "127.0.0.1:1";
  assert_int_equal(underpass_local_start(&options, NULL, NULL, &local), UNDERPASS_ERR_OPTION);
  assert_int_equal(underpass_stream_received(NULL, "", 0), UNDERPASS_ERR_OPTION);
  assert_int_equal(underpass_stream_writable(NULL), UNDERPASS_ERR_OPTION);
  underpass_stream_closed(NULL, NULL);
  recorder_destroy(&recorder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(an_open_that_refuses_is_reported_and_not_closed),
      cmocka_unit_test(a_stream_that_closes_is_reported_with_its_reason_and_tried_again),
      cmocka_unit_test(takes_no_more_than_it_has_room_for),
      cmocka_unit_test(stops_and_is_freed_within_each_of_its_callbacks),
      cmocka_unit_test(stops_while_it_is_not_connected_and_leaves_nothing),
      cmocka_unit_test(refuses_null_and_wrong_sizes),
      cmocka_unit_test(carries_datagrams_both_ways_and_resumes_on_another_stream),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
