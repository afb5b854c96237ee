// Runs a tunnel over connections that this program makes: stream SERVER-IP:PORT PSK [LISTEN=TARGET]. A thread with a socket stands in
// for the network library that a program already has.
//   cc stream.c -o stream -pthread $(pkg-config --cflags --libs underpass)
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <underpass.h>
#include <unistd.h>

// Capacity for bytes that `write` accepted and that are not sent yet.
#define OUTPUT_BYTES 16384
#define INPUT_BYTES 16384

static struct sockaddr_in server = {.sin_family = AF_INET};

typedef struct connection {
  underpass_stream *stream;
  pthread_mutex_t mutex;
  // A byte is written here when one of the following changes.
  int wake[2];
  unsigned char output[OUTPUT_BYTES];
  size_t output_count;
  // `write` did not accept everything; the library accepts more; the library has closed the connection.
  bool was_full, is_drained, is_closed;
} connection;

// How many connections exist, for the end of the program.
static pthread_mutex_t count_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t count_changed = PTHREAD_COND_INITIALIZER;
static int connection_count;

static void count_connections(int change) {
  pthread_mutex_lock(&count_mutex);
  connection_count += change;
  pthread_cond_broadcast(&count_changed);
  pthread_mutex_unlock(&count_mutex);
}

static void wait_for_connections(void) {
  pthread_mutex_lock(&count_mutex);
  while (connection_count > 0) pthread_cond_wait(&count_changed, &count_mutex);
  pthread_mutex_unlock(&count_mutex);
}

static void wake(connection *connection) {
  // A full pipe wakes the thread too.
  if (write(connection->wake[1], "", 1) < 0) return;
}

static void send_output(connection *connection, int fd) {
  pthread_mutex_lock(&connection->mutex);
  ssize_t sent = send(fd, connection->output, connection->output_count, MSG_DONTWAIT | MSG_NOSIGNAL);
  bool is_writable = sent > 0 && connection->was_full;
  if (sent > 0) {
    connection->output_count -= (size_t)sent;
    memmove(connection->output, connection->output + sent, connection->output_count);
    connection->was_full = false;
  }
  pthread_mutex_unlock(&connection->mutex);
  if (is_writable) underpass_stream_writable(connection->stream);
}

// Carries bytes until the connection ends. Returns the reason.
static const char *carry(connection *connection, int fd) {
  unsigned char input[INPUT_BYTES];
  size_t input_start = 0, input_end = 0;
  for (;;) {
    pthread_mutex_lock(&connection->mutex);
    bool has_output = connection->output_count > 0;
    bool is_over = connection->is_closed && !has_output;
    bool is_drained = connection->is_drained;
    connection->is_drained = false;
    pthread_mutex_unlock(&connection->mutex);
    if (is_over) return NULL;
    if (is_drained && input_start < input_end) {
      ptrdiff_t taken = underpass_stream_received(connection->stream, input + input_start, input_end - input_start);
      if (taken > 0) input_start += (size_t)taken;
    }
    bool is_reading = input_start == input_end;
    short events = (short)((is_reading ? POLLIN : 0) | (has_output ? POLLOUT : 0));
    struct pollfd polled[2] = {{.fd = events == 0 ? -1 : fd, .events = events}, {.fd = connection->wake[0], .events = POLLIN}};
    if (poll(polled, 2, -1) < 0) continue;
    char ignored[64];
    if (polled[1].revents != 0 && read(connection->wake[0], ignored, sizeof ignored) < 0) return strerror(errno);
    if (polled[0].revents & (POLLOUT | POLLERR | POLLHUP)) send_output(connection, fd);
    if (is_reading && polled[0].revents & (POLLIN | POLLERR | POLLHUP)) {
      ssize_t count = recv(fd, input, sizeof input, 0);
      if (count <= 0) return count == 0 ? NULL : strerror(errno);
      ptrdiff_t taken = underpass_stream_received(connection->stream, input, (size_t)count);
      input_start = taken > 0 ? (size_t)taken : 0;
      input_end = (size_t)count;
    }
  }
}

static void *run(void *data) {
  connection *connection = data;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  const char *reason;
  if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof server) != 0) {
    reason = strerror(errno);
  } else {
    underpass_stream_writable(connection->stream);
    reason = carry(connection, fd);
  }
  underpass_stream_closed(connection->stream, reason);
  if (fd >= 0) close(fd);
  // The library owns the connection until `close`.
  for (;;) {
    pthread_mutex_lock(&connection->mutex);
    bool is_closed = connection->is_closed;
    pthread_mutex_unlock(&connection->mutex);
    char ignored;
    if (is_closed || read(connection->wake[0], &ignored, 1) < 0) break;
  }
  close(connection->wake[0]);
  close(connection->wake[1]);
  pthread_mutex_destroy(&connection->mutex);
  free(connection);
  count_connections(-1);
  return NULL;
}

// The functions that the library calls

static int open_connection(void *user_data, underpass_stream *stream, void **result) {
  (void)user_data;
  connection *connection = calloc(1, sizeof *connection);
  pthread_t thread;
  if (connection == NULL) return -1;
  connection->stream = stream;
  pthread_mutex_init(&connection->mutex, NULL);
  *result = connection;
  if (pipe(connection->wake) != 0) {
    free(connection);
    return -1;
  }
  fcntl(connection->wake[1], F_SETFL, O_NONBLOCK);
  count_connections(1);
  if (pthread_create(&thread, NULL, run, connection) == 0) {
    pthread_detach(thread);
    return 0;
  }
  count_connections(-1);
  close(connection->wake[0]);
  close(connection->wake[1]);
  free(connection);
  return -1;
}

static size_t write_connection(void *data, const void *bytes, size_t count) {
  connection *connection = data;
  pthread_mutex_lock(&connection->mutex);
  size_t room = sizeof connection->output - connection->output_count;
  size_t taken = count < room ? count : room;
  memcpy(connection->output + connection->output_count, bytes, taken);
  connection->output_count += taken;
  connection->was_full = taken < count;
  wake(connection);
  pthread_mutex_unlock(&connection->mutex);
  return taken;
}

static void drained_connection(void *data) {
  connection *connection = data;
  pthread_mutex_lock(&connection->mutex);
  connection->is_drained = true;
  wake(connection);
  pthread_mutex_unlock(&connection->mutex);
}

static void close_connection(void *data) {
  connection *connection = data;
  pthread_mutex_lock(&connection->mutex);
  connection->is_closed = true;
  wake(connection);
  pthread_mutex_unlock(&connection->mutex);
}

static const underpass_carrier carrier = {.size = sizeof carrier,
                                          .open = open_connection,
                                          .write = write_connection,
                                          .drained = drained_connection,
                                          .close = close_connection};

// Returns whether the text is an IPv4 address and a port.
static bool set_server(const char *text) {
  char ip[INET_ADDRSTRLEN];
  int port;
  if (sscanf(text, "%15[0-9.]:%d", ip, &port) != 2 || inet_pton(AF_INET, ip, &server.sin_addr) != 1) return false;
  server.sin_port = htons((uint16_t)port);
  return true;
}

static void on_ready(void *user_data, const underpass_addresses *addresses) {
  (void)user_data;
  printf("send datagrams to %s\n", addresses->listen[0]);
  fflush(stdout);
}

int main(int argc, char **argv) {
  if (argc < 3 || !set_server(argv[1])) {
    fprintf(stderr, "usage: stream SERVER-IP:PORT PSK [LISTEN=TARGET]\n");
    return 2;
  }
  const char *forwards[] = {argc > 3 ? argv[3] : "127.0.0.1:5353=9.9.9.9:53"};
  underpass_callbacks callbacks = {.size = sizeof callbacks, .ready = on_ready};
  underpass_local_options options = {.size = sizeof options, .psk = argv[2], .carrier = &carrier};
  options.psk_bytes = strlen(argv[2]);
  options.forwards = forwards;
  options.forward_count = 1;
  underpass_local *local;
  if (underpass_local_start(&options, &callbacks, NULL, &local) != 0) {
    fprintf(stderr, "%s\n", underpass_error_text());
    return 1;
  }
  getchar();
  underpass_local_free(local);
  wait_for_connections();
  return 0;
}
