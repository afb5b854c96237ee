// Asks DNS servers for the address of a name through a tunnel, without a UDP socket: association SERVER:PORT PSK [TARGET...]
//   cc association.c -o association -pthread $(pkg-config --cflags --libs underpass)
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <underpass.h>

#define WAIT_S 10
#define MAX_TARGETS 16

// example.com, type A, class IN.
static const unsigned char QUERY[] = "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07" "example" "\x03" "com\x00\x00\x01\x00\x01";

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int is_up, answers;

static void add(int *count, int more) {
  pthread_mutex_lock(&mutex);
  *count += more;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mutex);
}

// Returns whether the count was reached in time.
static int wait_for(const int *count, int number) {
  struct timespec end = {.tv_sec = time(NULL) + WAIT_S};
  int error = 0;
  pthread_mutex_lock(&mutex);
  while (*count < number && error == 0) error = pthread_cond_timedwait(&changed, &mutex, &end);
  int reached = *count >= number;
  pthread_mutex_unlock(&mutex);
  return reached;
}

static void on_session_up(void *user_data) {
  (void)user_data;
  add(&is_up, 1);
}

static void on_unreachable(void *user_data, int status, const char *text) {
  (void)user_data;
  fprintf(stderr, "%s: %s\n", underpass_error_name(status), text);
}

static void on_received(void *user_data, const underpass_datagram *datagrams, size_t count) {
  (void)user_data;
  for (size_t i = 0; i < count; i++) printf("%zu bytes from %s\n", datagrams[i].bytes, datagrams[i].address);
  add(&answers, (int)count);
}

int main(int argc, char **argv) {
  if (argc < 3 || argc - 3 > MAX_TARGETS) {
    fprintf(stderr, "usage: association SERVER:PORT PSK [TARGET...]\n");
    return 2;
  }
  underpass_callbacks callbacks = {
      .size = sizeof callbacks, .session_up = on_session_up, .unreachable = on_unreachable};
  underpass_local_options options = {.size = sizeof options, .server = argv[1], .psk = argv[2], .listen = ""};
  options.psk_bytes = strlen(argv[2]);
  underpass_local *local;
  if (underpass_local_start(&options, &callbacks, NULL, &local) != 0) {
    fprintf(stderr, "%s\n", underpass_error_text());
    return 1;
  }
  underpass_association_callbacks receiver = {.size = sizeof receiver, .received = on_received};
  underpass_association *association;
  if (underpass_association_open(local, &receiver, NULL, &association) != 0 || !wait_for(&is_up, 1)) return 1;

  underpass_datagram queries[MAX_TARGETS] = {{QUERY, sizeof QUERY - 1, "9.9.9.9:53"}};
  int count = argc > 3 ? argc - 3 : 1;
  for (int i = 0; i < argc - 3; i++) queries[i] = (underpass_datagram){QUERY, sizeof QUERY - 1, argv[3 + i]};
  if (underpass_association_send(association, queries, (size_t)count) < count) {
    fprintf(stderr, "%s\n", underpass_error_text());
    return 1;
  }
  int is_answered = wait_for(&answers, count);
  if (!is_answered) fprintf(stderr, "not every target has answered\n");
  underpass_association_close(association);
  underpass_local_free(local);
  return is_answered ? 0 : 1;
}
