#include "pipe.h"

#ifndef _WIN32
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_WAITING_BYTES (4 * 1024 * 1024)
#define INPUT_BYTES (256 * 1024)
#define BATCH_PACKETS 256
#define LEAST_HEADER_BYTES 6

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned char *waiting;
static size_t waiting_bytes, waiting_capacity;

static underpass_tun2socks *running;
static void (*on_end)(void *data, const char *problem);
static void *on_end_data;

void pipe_packets(void *user_data, const underpass_packet *packets, size_t count) {
  (void)user_data;
  pthread_mutex_lock(&mutex);
  for (size_t i = 0; i < count; i++) {
    size_t bytes = packets[i].bytes;
    if (waiting_bytes + bytes > MAX_WAITING_BYTES) break;
    if (waiting_bytes + bytes > waiting_capacity) {
      size_t capacity = waiting_capacity == 0 ? INPUT_BYTES : 2 * waiting_capacity;
      unsigned char *larger = realloc(waiting, capacity);
      if (larger == NULL) break;
      waiting = larger;
      waiting_capacity = capacity;
    }
    memcpy(waiting + waiting_bytes, packets[i].data, bytes);
    waiting_bytes += bytes;
  }
  pthread_cond_signal(&changed);
  pthread_mutex_unlock(&mutex);
}

static void *write_output(void *data) {
  (void)data;
  for (;;) {
    pthread_mutex_lock(&mutex);
    while (waiting_bytes == 0) pthread_cond_wait(&changed, &mutex);
    unsigned char *taken = waiting;
    size_t count = waiting_bytes;
    waiting = NULL;
    waiting_bytes = waiting_capacity = 0;
    pthread_mutex_unlock(&mutex);
    for (size_t at = 0; at < count;) {
      ssize_t written = write(STDOUT_FILENO, taken + at, count - at);
      if (written < 0 && errno == EINTR) continue;
      // The reader is gone, so standard input ends too.
      if (written <= 0) break;
      at += (size_t)written;
    }
    free(taken);
  }
  return NULL;
}

// The length of the packet at this position; 0 if there is none.
static size_t length_of(const unsigned char *bytes) {
  size_t header = bytes[0] >> 4 == 4 ? 20 : 40;
  size_t length = (size_t)(header == 20 ? bytes[2] << 8 | bytes[3] : bytes[4] << 8 | bytes[5]) + (header == 20 ? 0 : 40);
  return (bytes[0] >> 4 == 4 || bytes[0] >> 4 == 6) && length >= header ? length : 0;
}

// Hands over whole packets. Returns how many bytes they took; SIZE_MAX for anything but a packet.
static size_t hand_over(const unsigned char *input, size_t end) {
  size_t at = 0;
  for (;;) {
    underpass_packet batch[BATCH_PACKETS];
    size_t count = 0;
    while (count < BATCH_PACKETS && end - at >= LEAST_HEADER_BYTES) {
      size_t length = length_of(input + at);
      if (length == 0) return SIZE_MAX;
      if (length > end - at) break;
      batch[count++] = (underpass_packet){input + at, length};
      at += length;
    }
    if (count == 0) return at;
    // Packets that the instance does not accept are dropped, as a device drops packets that nobody reads.
    underpass_tun2socks_packets(running, batch, count);
  }
}

static void *read_input(void *data) {
  (void)data;
  static unsigned char input[INPUT_BYTES];
  size_t end = 0;
  const char *problem = NULL;
  for (;;) {
    ssize_t count = read(STDIN_FILENO, input + end, sizeof input - end);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    end += (size_t)count;
    size_t taken = hand_over(input, end);
    if (taken == SIZE_MAX) {
      problem = "received something other than an IP packet";
      break;
    }
    memmove(input, input + taken, end - taken);
    end -= taken;
  }
  on_end(on_end_data, problem);
  return NULL;
}

bool pipe_start(underpass_tun2socks *tun2socks, void (*ended)(void *data, const char *problem), void *data) {
  running = tun2socks;
  on_end = ended;
  on_end_data = data;
  pthread_t writer, reader;
  if (pthread_create(&writer, NULL, write_output, NULL) != 0) return false;
  pthread_detach(writer);
  if (pthread_create(&reader, NULL, read_input, NULL) != 0) return false;
  pthread_detach(reader);
  return true;
}
#endif
