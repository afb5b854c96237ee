// A stream, as it and shortcuts see it.
#ifndef UNDERPASS_IO_STREAM_STATE_H
#define UNDERPASS_IO_STREAM_STATE_H

#include "../loop/watcher.h"
#include "../stream.h"

// What a stream keeps of a capsule that is not complete yet.
#define SHORTCUT_KEPT_BYTES 2048

typedef struct stream {
  watcher watcher;
  const io_stream_callbacks *callbacks;
  uint8_t *data;
  size_t length;
  // The other end has ended, which reading would report again and again.
  bool has_ended;
  bool is_paused;
  // What FAILURE also stands for has come, urgent data or the end of both directions, and would be reported again and again.
  bool is_deaf;
  // Not everything that the caller wrote was sent.
  bool is_full;
  // The caller writes again soon: what was read is acknowledged with that.
  bool has_more;
  // Of the caller's last write something is still to be written, or more comes.
  bool is_owed;
  // The caller writes nothing more; it is still to be reported to the other end.
  bool is_finished, has_end_to_send;
  // The caller stands at the beginning of a capsule: shortcuts may read.
  bool is_resumed;
  // The first of its shortcuts, by number.
  int16_t first_shortcut;
  // The beginning of a capsule, which comes before what is read next. NULL until there was one.
  uint8_t *kept;
  size_t kept_bytes;
  // The rest of what shortcuts have written; NULL for none.
  uint8_t *rest;
  size_t rest_start, rest_end;
  // Milliseconds of the loop's clock.
  uint64_t acknowledged_at;
} stream;

// NULL if there is none.
stream *io_stream_of(io_loop *loop, int descriptor);

// Whether shortcuts may write.
bool io_stream_may_carry(const stream *stream);

// Writes whole capsules for shortcuts. Returns 0 if they are on their way; if the stream has kept `bytes`, of malloc, for that, *is_kept is
// set. A negative system error if nothing was written: UV_EAGAIN if the stream takes nothing now.
int io_stream_carry(stream *stream, uint8_t *bytes, size_t length, bool *is_kept);

#endif
