#include "stream-state.h"

#include <stdlib.h>
#include <string.h>

#include "../shortcut/table.h"
#include "../socket/socket.h"

#ifdef _WIN32
#define SHUT_WR SD_SEND
// Handles are multiples of four.
#define INDEX_OF(descriptor) ((descriptor) >> 2)
#else
#include <netinet/tcp.h>
#define INDEX_OF(descriptor) (descriptor)
#endif

// After a read of this size, more bytes are likely to be available already.
#define MUCH_BYTES 65536
// A stream under load yields to the others after this many reads.
#define READ_ROUNDS 4
// After a read of at most this size the sender may be a relay with Nagle's algorithm, which holds the next datagram back until
// this one is acknowledged: up to 40 ms later, unless something is sent meanwhile. At 60,000 datagrams/s this costs 0 to 4 % of
// CPU time; longer reads are those of a flood, in which the system acknowledges by itself.
#define ACKNOWLEDGED_BYTES 16384
#define MAX_INDEX (1 << 24)
// A stream fails after this many error conditions in a row that nothing explains: they would keep the loop busy.
#define MAX_CONDITIONS 64
// The event to watch for on a stream that neither reads nor has anything to write. epoll always reports a connection that fails, but only
// for descriptors that it watches.
#ifdef __linux__
#define FAILURE UV_PRIORITIZED
#else
#define FAILURE 0
#endif
// Since Linux 5.14; musl does not define it. All but two architectures use this number.
#if defined(__linux__) && !defined(SO_BUF_LOCK) && !defined(__hppa__) && !defined(__sparc__)
#define SO_BUF_LOCK 72
#endif

typedef struct stream_table {
  // By descriptor.
  stream **streams;
  int capacity;
} stream_table;

stream *io_stream_of(io_loop *loop, int descriptor) {
  stream_table *table = loop->streams;
  int index = INDEX_OF(descriptor);
  return table != NULL && index >= 0 && index < table->capacity ? table->streams[index] : NULL;
}

static bool reserve(io_loop *loop, int index) {
  if (loop->streams == NULL) loop->streams = calloc(1, sizeof *loop->streams);
  stream_table *table = loop->streams;
  if (table == NULL || index < 0 || index > MAX_INDEX) return false;
  if (index < table->capacity) return true;
  int capacity = index < 64 ? 64 : 2 * index;
  stream **streams = realloc(table->streams, (size_t)capacity * sizeof *streams);
  if (streams == NULL) return false;
  memset(streams + table->capacity, 0, (size_t)(capacity - table->capacity) * sizeof *streams);
  table->streams = streams;
  table->capacity = capacity;
  return true;
}

static void on_ready(uv_poll_t *poll, int status, int events);

static bool waits_to_write(const stream *stream) { return stream->is_full || stream->rest != NULL; }

// Watches for the events that the stream needs.
static void watch(stream *stream) {
  int events = (stream->has_ended || stream->is_paused ? 0 : UV_READABLE) | (waits_to_write(stream) ? UV_WRITABLE : 0);
  if (events == 0 && !stream->is_deaf) events = FAILURE;
  if (events == 0) uv_poll_stop(&stream->watcher.poll);
  else uv_poll_start(&stream->watcher.poll, events, on_ready);
}

// Acknowledges received bytes, unless a write of the caller has done so. The option does not last, so it is set again, but at most once a
// millisecond, because a peer that sends more often does not wait for it. While the caller has more to write than the path takes, separate
// acknowledgements would use up to 4 % of a slow link, so they are left out.
static void acknowledge(stream *stream) {
#ifdef TCP_QUICKACK
  if (stream->has_more) return;
  uint64_t now = uv_now(stream->watcher.loop->uv);
  if (now == stream->acknowledged_at) return;
  stream->acknowledged_at = now;
  // Fails on a Unix socket, which needs none.
  io_socket_set(stream->watcher.fd, IPPROTO_TCP, TCP_QUICKACK, 1);
#else
  (void)stream;
#endif
}

// Takes the error of a connection that has failed, which the system then clears; 0 for none.
static int take_error(const stream *stream) {
  int code = 0;
#ifdef __linux__
  // SO_ERROR of a TCP connection may also be an ICMP error that it outlives, unlike what a write of nothing reports and takes.
  if (io_socket_tcp_state(stream->watcher.fd) >= 0) {
    uint8_t nothing = 0;
    ssize_t written = io_socket_write((uv_os_sock_t)stream->watcher.fd, &nothing, 0);
    bool has_failed = io_socket_tcp_state(stream->watcher.fd) == TCP_CLOSE;
    if (!has_failed || written >= 0 || written == UV_EAGAIN) return 0;
    return written == UV_EPIPE && stream->is_finished ? 0 : (int)written;
  }
#endif
  socklen_t length = sizeof code;
  getsockopt((uv_os_sock_t)stream->watcher.fd, SOL_SOCKET, SO_ERROR, (void *)&code, &length);
  return code == 0 ? 0 : uv_translate_sys_error(code);
}

static void report_error(stream *stream, int error) {
  uv_poll_stop(&stream->watcher.poll);
  stream->callbacks->read(stream->watcher.user_data, error);
}

// Returns the memory of a rest.
static void drop_rest(stream *stream) {
  shortcut_table *table = stream->watcher.loop->shortcuts;
  if (table != NULL && table->batch == NULL) table->batch = stream->rest;
  else free(stream->rest);
  stream->rest = NULL;
}

// Handles a failure to write the rest of what shortcuts began, which no write of the caller would detect.
static void fail(stream *stream, int error) {
  io_shortcut_end_stream(stream->watcher.loop, stream);
  drop_rest(stream);
  report_error(stream, error);
}

// Empties the error queue. Until it is read, the system reports it as an error condition although the connection still works: for example
// timestamps of sent bytes, if the program that opened the socket requested them. Returns whether the queue had anything.
static bool drain_error_queue(const stream *stream) {
  bool had_any = false;
#ifdef __linux__
  int domain = 0;
  socklen_t length = sizeof domain;
  struct msghdr message;
  getsockopt(stream->watcher.fd, SOL_SOCKET, SO_DOMAIN, &domain, &length);
  // A Unix socket has no such queue, and would read its bytes instead.
  if (domain != AF_INET && domain != AF_INET6) return false;
  for (;;) {
    message = (struct msghdr){0};
    if (recvmsg(stream->watcher.fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) break;
    had_any = true;
  }
#else
  (void)stream;
#endif
  return had_any;
}

// Handles an event of a stream that is not being read. Bytes that arrived before a failure are still to be read; reading then reports the
// failure.
static void look_for_failure(stream *stream) {
  char byte;
  int error = 0;
  int count = stream->has_ended ? 0 : (int)recv((uv_os_sock_t)stream->watcher.fd, &byte, 1, MSG_PEEK);
  if (count < 0) error = io_socket_error();
  bool is_outlived = error != 0 && io_socket_outlives((uv_os_sock_t)stream->watcher.fd, error);
  if (count == 0) error = take_error(stream);
  if (error == UV_EAGAIN || error == UV_EINTR || is_outlived) error = 0;
  if (error != 0) {
    report_error(stream, error);
    return;
  }
  if (!drain_error_queue(stream) && !is_outlived) stream->is_deaf = true;
  watch(stream);
}

static void finish(const stream *stream) { shutdown((uv_os_sock_t)stream->watcher.fd, SHUT_WR); }

// Continues to write what shortcuts began. Returns 0, or a negative system error.
static int write_rest(stream *stream) {
  ssize_t written = io_socket_write((uv_os_sock_t)stream->watcher.fd, stream->rest + stream->rest_start,
                                    stream->rest_end - stream->rest_start);
  if (written == UV_EAGAIN) return 0;
  if (written < 0) return (int)written;
  stream->rest_start += (size_t)written;
  if (stream->rest_start < stream->rest_end) return 0;
  drop_rest(stream);
  if (stream->has_end_to_send) finish(stream);
  return 0;
}

bool io_stream_may_carry(const stream *stream) {
  return stream->watcher.fd >= 0 && !stream->is_owed && stream->rest == NULL && !stream->is_finished;
}

int io_stream_carry(stream *stream, uint8_t *bytes, size_t length, bool *is_kept) {
  ssize_t written = io_socket_write((uv_os_sock_t)stream->watcher.fd, bytes, length);
  if (written <= 0) {
    // The bytes now belong to the caller, which has to write them before any that follow.
    stream->is_owed = true;
    return written == 0 ? UV_EAGAIN : (int)written;
  }
  stream->has_more = false;
  if ((size_t)written == length) return 0;
  stream->rest = bytes;
  stream->rest_start = (size_t)written;
  stream->rest_end = length;
  *is_kept = true;
  watch(stream);
  return 0;
}

// The system accepts more. Returns false if the stream must not be read any more.
static bool on_writable(stream *stream) {
  if (stream->rest != NULL) {
    int error = write_rest(stream);
    if (error < 0) {
      fail(stream, error);
      return false;
    }
    if (stream->rest != NULL) return true;
  }
  bool was_full = stream->is_full;
  stream->is_full = false;
  watch(stream);
  if (was_full) stream->callbacks->writable(stream->watcher.user_data);
  return true;
}

// Keeps the beginning of a capsule for the next read. Returns false if there is no memory, or it is too long.
static bool keep(stream *stream, const uint8_t *bytes, size_t count) {
  if (count > SHORTCUT_KEPT_BYTES) return false;
  if (stream->kept == NULL) stream->kept = malloc(SHORTCUT_KEPT_BYTES);
  if (stream->kept == NULL) return false;
  memcpy(stream->kept, bytes, count);
  stream->kept_bytes = count;
  return true;
}

// Passes on the bytes in the buffer: those that shortcuts may have to them, the rest to the caller.
static void pass_on(stream *stream, size_t count) {
  io_loop *loop = stream->watcher.loop;
  if (stream->is_resumed && stream->first_shortcut != SHORTCUT_NONE) {
    bool may_keep;
    size_t taken = io_shortcut_carry_in(loop, stream, stream->data, count, &may_keep);
    count -= taken;
    if (count == 0 || (may_keep && keep(stream, stream->data + taken, count))) return;
    memmove(stream->data, stream->data + taken, count);
  }
  stream->is_resumed = false;
  stream->callbacks->read(stream->watcher.user_data, (ssize_t)count);
}

static bool is_read(const stream *stream) { return stream->watcher.fd >= 0 && !stream->is_paused; }

// How much of the buffer one read may fill, including the kept bytes.
static size_t room(const stream *stream) {
  size_t most = stream->most == 0 ? stream->length : stream->kept_bytes + stream->most;
  return most < stream->length ? most : stream->length;
}

// Reads once, after the kept bytes. Returns false if nothing more is to be read now.
static bool read_once(stream *stream) {
  size_t kept = stream->kept_bytes;
  if (kept > 0) memcpy(stream->data, stream->kept, kept);
  ssize_t count = io_socket_read((uv_os_sock_t)stream->watcher.fd, stream->data + kept, room(stream) - kept);
  if (count == UV_EAGAIN) return false;
  stream->kept_bytes = 0;
  if (count > 0) {
    pass_on(stream, kept + (size_t)count);
    if (count <= ACKNOWLEDGED_BYTES && stream->watcher.fd >= 0) acknowledge(stream);
    return count >= MUCH_BYTES && is_read(stream);
  }
  if (count == 0 && kept > 0) {
    stream->is_resumed = false;
    stream->callbacks->read(stream->watcher.user_data, (ssize_t)kept);
    // The end is read again.
    if (!is_read(stream)) return false;
  }
  if (count < 0) uv_poll_stop(&stream->watcher.poll);
  if (count == 0) {
    stream->has_ended = true;
    watch(stream);
  }
  stream->callbacks->read(stream->watcher.user_data, count);
  return false;
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  stream *stream = poll->data;
  if (status >= 0) stream->conditions = 0;
  bool is_quiet = stream->is_paused || stream->has_ended;
  if (is_quiet && !waits_to_write(stream)) {
    look_for_failure(stream);
    return;
  }
  if (status < 0) {
    // The rest of a write is kept, because the connection may survive the condition, and nothing else may follow a part of a capsule.
    io_shortcut_end_stream(stream->watcher.loop, stream);
    // Reading would not report the error.
    int error = is_quiet ? take_error(stream) : 0;
    if (error != 0) {
      report_error(stream, error);
      return;
    }
    if (!drain_error_queue(stream) && ++stream->conditions > MAX_CONDITIONS) {
      report_error(stream, UV_EIO);
      return;
    }
    // libuv has stopped watching. Reading reports an error after the bytes that arrived before it.
    watch(stream);
    events = is_quiet ? UV_WRITABLE : UV_READABLE;
  }
  if ((events & UV_WRITABLE) && !on_writable(stream)) return;
  if (!(events & UV_READABLE)) return;
  for (int round = 0; round < READ_ROUNDS && is_read(stream); round++) {
    if (!read_once(stream)) return;
  }
}

int io_stream_open(io_loop *loop, int descriptor, uint8_t *buffer, size_t buffer_bytes,
                   const io_stream_callbacks *callbacks, void *user_data) {
  if (loop->is_ending) return UV_ECANCELED;
  if (descriptor < 0) return UV_EBADF;
  if (buffer_bytes == 0 || io_stream_of(loop, descriptor) != NULL) return UV_EINVAL;
  stream *stream = reserve(loop, INDEX_OF(descriptor)) ? calloc(1, sizeof *stream) : NULL;
  if (stream == NULL) return UV_ENOMEM;
  stream->callbacks = callbacks;
  stream->data = buffer;
  stream->length = buffer_bytes;
  stream->first_shortcut = SHORTCUT_NONE;
#ifdef SO_NOSIGPIPE
  io_socket_set(descriptor, SOL_SOCKET, SO_NOSIGPIPE, 1);
#endif
  int error = io_watcher_begin(&stream->watcher, loop, descriptor, UV_READABLE, on_ready, callbacks->released, user_data);
  if (error != 0) {
    free(stream);
    return error;
  }
  loop->streams->streams[INDEX_OF(descriptor)] = stream;
  return 0;
}

ssize_t io_stream_write(io_loop *loop, int descriptor, const uint8_t *bytes, size_t length, bool has_more) {
  stream *stream = io_stream_of(loop, descriptor);
  if (stream == NULL) return UV_EINVAL;
  stream->has_more = has_more;
  stream->is_owed = true;
  ssize_t written = stream->rest != NULL ? 0 : io_socket_write((uv_os_sock_t)descriptor, bytes, length);
  if (written == UV_EAGAIN) written = 0;
  if (written < 0) return written;
  if ((size_t)written < length) {
    stream->is_full = true;
    watch(stream);
  } else {
    stream->is_owed = has_more;
  }
  return written;
}

void io_stream_end(io_loop *loop, int descriptor) {
  stream *stream = io_stream_of(loop, descriptor);
  if (stream == NULL) return;
  io_shortcut_end_stream(loop, stream);
  stream->is_finished = true;
  if (stream->rest == NULL) finish(stream);
  else stream->has_end_to_send = true;
}

void io_stream_pause(io_loop *loop, int descriptor, bool is_paused) {
  stream *stream = io_stream_of(loop, descriptor);
  if (stream == NULL || stream->is_paused == is_paused) return;
  stream->is_paused = is_paused;
  if (is_paused) io_shortcut_end_stream(loop, stream);
  watch(stream);
}

void io_stream_limit(io_loop *loop, int descriptor, size_t read_bytes, int buffer_bytes) {
  stream *stream = io_stream_of(loop, descriptor);
  if (stream == NULL) return;
  stream->most = read_bytes;
#ifdef SO_BUF_LOCK
  uv_os_sock_t socket = (uv_os_sock_t)descriptor;
  // Returns the buffer to autotuning, which setting its size has disabled.
  if (io_socket_set(socket, SOL_SOCKET, SO_BUF_LOCK, 0) != 0 || buffer_bytes == 0) return;
  io_socket_set(socket, SOL_SOCKET, SO_RCVBUF, buffer_bytes);
  // The system reports twice the size, and may have limited it: a buffer that is too small would slow the transfer down.
  int got = 0;
  socklen_t length = sizeof got;
  if (getsockopt(socket, SOL_SOCKET, SO_RCVBUF, &got, &length) == 0 && got / 2 < buffer_bytes)
    io_socket_set(socket, SOL_SOCKET, SO_BUF_LOCK, 0);
#else
  (void)buffer_bytes;
#endif
}

// Stops watching the descriptor, which stays open. The caller still has to call `released`.
static watcher *forget(stream *stream) {
  watcher *watcher = &stream->watcher;
  io_shortcut_end_stream(watcher->loop, stream);
  if (stream->rest != NULL) drop_rest(stream);
  free(stream->kept);
  stream->kept = NULL;
  stream->kept_bytes = 0;
  watcher->loop->streams->streams[INDEX_OF(watcher->fd)] = NULL;
  io_watcher_stop(watcher);
  return watcher;
}

void io_stream_release(io_loop *loop, int descriptor) {
  stream *stream = io_stream_of(loop, descriptor);
  if (stream != NULL) io_watcher_release(forget(stream));
}

void io_stream_close(io_loop *loop, int descriptor) {
  stream *stream = io_stream_of(loop, descriptor);
  if (stream == NULL) return;
  // As much as the system accepts, so that a capsule is not cut if possible.
  if (stream->rest != NULL) write_rest(stream);
  watcher *watcher = forget(stream);
  io_socket_close((uv_os_sock_t)descriptor);
  io_watcher_release(watcher);
}

void io_stream_reset(io_loop *loop, int descriptor) {
  struct linger now = {.l_onoff = 1, .l_linger = 0};
  stream *stream = io_stream_of(loop, descriptor);
  if (stream == NULL) return;
  if (stream->rest != NULL) drop_rest(stream);
  setsockopt((uv_os_sock_t)descriptor, SOL_SOCKET, SO_LINGER, (const void *)&now, sizeof now);
  io_stream_close(loop, descriptor);
}

void io_streams_end(io_loop *loop) {
  stream_table *table = loop->streams;
  if (table == NULL) return;
  for (int index = 0; index < table->capacity; index++) {
    if (table->streams[index] != NULL) io_stream_close(loop, table->streams[index]->watcher.fd);
  }
  free(table->streams);
  free(table);
  loop->streams = NULL;
}
