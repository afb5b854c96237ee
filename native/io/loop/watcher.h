// Descriptors that the loop watches, with one libuv poll handle each.
#ifndef UNDERPASS_IO_WATCHER_H
#define UNDERPASS_IO_WATCHER_H

#include "loop-state.h"

// The first member of its owner's memory, allocated by calloc.
typedef struct watcher {
  uv_poll_t poll;
  io_loop *loop;
  // -1 once it is no longer watched.
  int fd;
  void (*released)(void *user_data);
  void *user_data;
} watcher;

// Returns 0, or a negative system error; then nothing was done, and the caller keeps the memory.
int io_watcher_begin(watcher *watcher, io_loop *loop, int fd, int events, uv_poll_cb on_ready,
                     void (*released)(void *user_data), void *user_data);

// Stops watching and calls `released`; frees the owner's memory when libuv has released it. The descriptor stays open.
void io_watcher_end(watcher *watcher);

// The two halves of io_watcher_end, for an owner that has to make a last call after its descriptor is no longer watched.
void io_watcher_stop(watcher *watcher);
void io_watcher_release(watcher *watcher);

#endif
