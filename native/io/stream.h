// Connected stream sockets, identified by their descriptors. Received bytes go into the caller's buffer, and bytes to send go to
// the system at once. For threads, callbacks and `released` see loop.h.
#ifndef UNDERPASS_IO_STREAM_H
#define UNDERPASS_IO_STREAM_H

#include "loop.h"

typedef struct io_stream_callbacks {
  // `count` bytes are in the buffer, valid until the call returns. 0: the peer has ended, and nothing more arrives, but writing continues.
  // Negative: a system error; then close the stream.
  void (*read)(void *user_data, ssize_t count);
  // The system accepts more, after a write that it did not accept completely.
  void (*writable)(void *user_data);
  void (*released)(void *user_data);
} io_stream_callbacks;

// Reads a connected socket into `buffer`, which is lent until `released`; streams of one context may share one. The descriptor
// is the stream's until io_stream_release. UV_EINVAL if it already is a stream's.
int io_stream_open(io_loop *loop, int descriptor, uint8_t *buffer, size_t buffer_bytes, const io_stream_callbacks *callbacks,
                   void *user_data);

// Returns how many bytes the system accepted, or a system error. If not all, `writable` is called later. While a shortcut is writing
// (shortcut.h), none are accepted. The bytes are only read during the call. `has_more`: more is written soon, so received bytes are
// acknowledged with that, and not separately.
ssize_t io_stream_write(io_loop *loop, int stream, const uint8_t *bytes, size_t length, bool has_more);

// Ends writing, and the stream's shortcuts.
void io_stream_end(io_loop *loop, int stream);

// While paused, nothing is read, not even the end. Writing continues, but the stream's shortcuts end. A connection that fails meanwhile is
// reported to `read`: on Linux at once, unless bytes are left to read first; elsewhere if the stream waits to write, otherwise when reading
// resumes.
void io_stream_pause(io_loop *loop, int stream, bool is_paused);

// Limits the bytes of one read, and the system's receive buffer if that limit can be lifted later; 0 and 0 for no limits.
void io_stream_limit(io_loop *loop, int stream, size_t read_bytes, int buffer_bytes);

// Returns the open descriptor to the caller. Bytes that shortcuts have kept or still have to write are lost.
void io_stream_release(io_loop *loop, int stream);

void io_stream_close(io_loop *loop, int stream);

// Closes it with a RST instead of a FIN.
void io_stream_reset(io_loop *loop, int stream);

#endif
