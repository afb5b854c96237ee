// Connected stream sockets: received bytes go into the caller's one buffer and to JavaScript in one call, bytes to send go to
// the system at once. Less work per wake-up than node:net's streams.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "module.h"

#ifdef _WIN32

void stream_init(napi_env env, napi_value exports) {}
void stream_end(environment *environment) {}

#else

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

// After a read of this size, more bytes are likely to be available already.
#define MUCH_BYTES 65536
// A stream under load yields to the others after this many reads.
#define READ_ROUNDS 4
// After a read of at most this size the sender may be a relay with Nagle's algorithm, which holds the next datagram back until
// this one is acknowledged: up to 40 ms later, unless something is sent meanwhile. At 60,000 datagrams/s this costs 0 to 4 % of
// CPU time; longer reads are those of a flood, in which the system acknowledges by itself.
#define ACKNOWLEDGED_BYTES 16384

typedef struct stream {
  watcher watcher;
  uint8_t *data;
  size_t length;
  // The other end has ended, which reading would report again and again.
  bool ended;
  // Not everything was sent.
  bool full;
  // Milliseconds of the loop's clock.
  uint64_t acknowledged_at;
  // The caller writes again soon: what was read is acknowledged with that.
  bool has_more;
} stream;

// References of a stream.
enum { MEMORY, ON_READ, ON_WRITABLE, STREAM_REFERENCES };

typedef struct stream_table {
  // By descriptor.
  stream **streams;
  int capacity;
} stream_table;

static stream *stream_of(environment *environment, int fd) {
  stream_table *table = environment->streams;
  return table != NULL && fd >= 0 && fd < table->capacity ? table->streams[fd] : NULL;
}

static bool reserve(environment *environment, int fd) {
  if (environment->streams == NULL) environment->streams = calloc(1, sizeof *environment->streams);
  stream_table *table = environment->streams;
  if (table == NULL || fd < 0) return false;
  if (fd < table->capacity) return true;
  int capacity = fd < 64 ? 64 : 2 * fd;
  stream **streams = realloc(table->streams, (size_t)capacity * sizeof *streams);
  if (streams == NULL) return false;
  memset(streams + table->capacity, 0, (size_t)(capacity - table->capacity) * sizeof *streams);
  table->streams = streams;
  table->capacity = capacity;
  return true;
}

static void on_ready(uv_poll_t *poll, int status, int events);

// Waits for what there is to wait for.
static void watch(stream *stream) {
  int events = (stream->ended ? 0 : UV_READABLE) | (stream->full ? UV_WRITABLE : 0);
  if (events == 0) uv_poll_stop(&stream->watcher.poll);
  else uv_poll_start(&stream->watcher.poll, events, on_ready);
}

// Acknowledges what was read, if what the caller wrote since has not. The option does not last, so it is set again, but at most
// once a millisecond: who sends more often does not wait for it. Where the caller has more to write than the path takes, an
// acknowledgement by itself would take room from that, as much as 4 % of a slow link.
static void acknowledge(stream *stream) {
#ifdef TCP_QUICKACK
  if (stream->has_more) return;
  uint64_t now = uv_now(stream->watcher.poll.loop);
  if (now == stream->acknowledged_at) return;
  stream->acknowledged_at = now;
  int one = 1;
  // Fails on a Unix socket, which needs none.
  setsockopt(stream->watcher.fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one);
#endif
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  stream *stream = poll->data;
  if (status < 0) {
    // libuv has stopped watching; the error is read after what arrived before it.
    stream->full = false;
    watch(stream);
    events = UV_READABLE;
  }
  if (events & UV_WRITABLE) {
    stream->full = false;
    watch(stream);
    watcher_call(&stream->watcher, ON_WRITABLE, 0, 0);
  }
  if (!(events & UV_READABLE)) return;
  for (int round = 0; round < READ_ROUNDS && stream->watcher.fd >= 0; round++) {
    ssize_t count;
    do count = recv(stream->watcher.fd, stream->data, stream->length, MSG_DONTWAIT);
    while (count < 0 && errno == EINTR);
    int error = errno;
    if (count < 0 && (error == EAGAIN || error == EWOULDBLOCK)) return;
    if (count < 0) uv_poll_stop(poll);
    if (count == 0) {
      stream->ended = true;
      watch(stream);
    }
    watcher_call(&stream->watcher, ON_READ, 1, count < 0 ? -error : count);
    if (count > 0 && count <= ACKNOWLEDGED_BYTES && stream->watcher.fd >= 0) acknowledge(stream);
    if (count < MUCH_BYTES) return;
  }
}

// streamOpen(descriptor of a connection, buffer, onRead(count, 0 at the end, or a system error), onWritable())
static napi_value stream_open(napi_env env, napi_callback_info info) {
  napi_value values[4];
  if (!get_arguments(env, info, 4, values)) return NULL;
  environment *environment = environment_of(env);
  int fd = get_int(env, values[0]);
  bytes_view buffer = get_bytes(env, values[1]);
  if (buffer.bytes == 0 || stream_of(environment, fd) != NULL) return throw_system_error(env, UV_EINVAL, "streamOpen");
  stream *stream = reserve(environment, fd) ? calloc(1, sizeof *stream) : NULL;
  if (stream == NULL) return throw_system_error(env, fd < 0 ? UV_EBADF : UV_ENOMEM, "streamOpen");
  stream->data = buffer.data;
  stream->length = buffer.bytes;
  int error = watcher_begin(&stream->watcher, environment, fd, UV_READABLE, on_ready, "underpass:stream", values + 1,
                            STREAM_REFERENCES);
  if (error != 0) {
    free(stream);
    return throw_system_error(env, error, "streamOpen");
  }
  environment->streams->streams[fd] = stream;
  return NULL;
}

// streamWrite(descriptor, bytes, length, whether the caller has more): how many bytes the system accepted, or a system error; if
// not all, onWritable is called when it accepts more
static napi_value stream_write(napi_env env, napi_callback_info info) {
  napi_value values[4];
  if (!get_arguments(env, info, 4, values)) return NULL;
  stream *stream = stream_of(environment_of(env), get_int(env, values[0]));
  bytes_view bytes = get_bytes(env, values[1]);
  int64_t length = -1;
  napi_get_value_int64(env, values[2], &length);
  if (stream == NULL || length < 0 || (size_t)length > bytes.bytes) return make_int(env, UV_EINVAL);
  napi_get_value_bool(env, values[3], &stream->has_more);
  ssize_t written;
  do written = send(stream->watcher.fd, bytes.data, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (written < 0 && errno == EINTR);
  if (written < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return make_int(env, -errno);
  if (written < length) {
    stream->full = true;
    watch(stream);
  }
  return make_int(env, written < 0 ? 0 : written);
}

// streamEnd(descriptor): nothing more is written
static napi_value stream_finish(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  stream *stream = stream_of(environment_of(env), get_int(env, value));
  if (stream != NULL) shutdown(stream->watcher.fd, SHUT_WR);
  return NULL;
}

// Gives up the descriptor, which stays open.
static void forget(stream *stream) {
  stream->watcher.environment->streams->streams[stream->watcher.fd] = NULL;
  watcher_end(&stream->watcher);
}

// streamRelease(descriptor): returns the open descriptor to the caller; streamClose(descriptor): closes it
static napi_value stream_release(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  stream *stream = stream_of(environment_of(env), get_int(env, value));
  if (stream != NULL) forget(stream);
  return NULL;
}

static napi_value stream_close(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  int fd = get_int(env, value);
  stream *stream = stream_of(environment_of(env), fd);
  if (stream == NULL) return NULL;
  forget(stream);
  close(fd);
  return NULL;
}

void stream_end(environment *environment) {
  stream_table *table = environment->streams;
  if (table == NULL) return;
  for (int fd = 0; fd < table->capacity; fd++) {
    if (table->streams[fd] == NULL) continue;
    forget(table->streams[fd]);
    close(fd);
  }
  free(table->streams);
  free(table);
  environment->streams = NULL;
}

void stream_init(napi_env env, napi_value exports) {
  set_function(env, exports, "streamOpen", stream_open);
  set_function(env, exports, "streamWrite", stream_write);
  set_function(env, exports, "streamEnd", stream_finish);
  set_function(env, exports, "streamRelease", stream_release);
  set_function(env, exports, "streamClose", stream_close);
}

#endif
