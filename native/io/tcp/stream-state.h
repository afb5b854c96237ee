// The state of a stream, for itself and for shortcuts.
#ifndef UNDERPASS_IO_STREAM_STATE_H
#define UNDERPASS_IO_STREAM_STATE_H

#include "../loop/watcher.h"
#include "../stream.h"

// Limit of an incomplete capsule's bytes that a stream keeps.
#define SHORTCUT_KEPT_BYTES 2048

typedef struct stream {
  watcher watcher;
  const io_stream_callbacks *callbacks;
  uint8_t *data;
  size_t length;
  // Limit for one read, in bytes; 0 for the whole length.
  size_t most;
  // The other end has ended; reading would report this repeatedly.
  bool has_ended;
  bool is_paused;
  // FAILURE has another cause: urgent data, or the end of both directions. The system would report it repeatedly.
  bool is_deaf;
  // How often in a row there was an error condition of which nothing was found.
  uint8_t conditions;
  // Not everything that the caller wrote was sent.
  bool is_full;
  // The caller writes again soon, and that write acknowledges what was read.
  bool has_more;
  // Part of the caller's last write is still unwritten, or more follows.
  bool is_owed;
  // The caller has finished writing, but the end has not been sent yet.
  bool is_finished, has_end_to_send;
  // The caller is at the beginning of a capsule, so shortcuts may read.
  bool is_resumed;
  // The number of the first of its shortcuts.
  int16_t first_shortcut;
  // The beginning of a capsule, which precedes the next bytes that are read. NULL before the first one.
  uint8_t *kept;
  size_t kept_bytes;
  // The rest of what shortcuts wrote; NULL for none.
  uint8_t *rest;
  size_t rest_start, rest_end;
  // In milliseconds of the loop's clock.
  uint64_t acknowledged_at;
} stream;

// NULL if there is no such stream.
stream *io_stream_of(io_loop *loop, int descriptor);

// Whether shortcuts may write.
bool io_stream_may_carry(const stream *stream);

// Writes whole capsules for shortcuts. Returns 0 if they are being sent. Sets *is_kept if the stream keeps `bytes`, which malloc allocated,
// to send the rest. Returns a negative system error if nothing was written: UV_EAGAIN if the stream accepts nothing now.
int io_stream_carry(stream *stream, uint8_t *bytes, size_t length, bool *is_kept);

#endif
