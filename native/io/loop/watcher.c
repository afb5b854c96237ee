#include "watcher.h"

#include <stdlib.h>

int io_watcher_begin(watcher *watcher, io_loop *loop, int fd, int events, uv_poll_cb on_ready,
                     void (*released)(void *user_data), void *user_data) {
  if (loop->is_ending) return UV_ECANCELED;
  int error = uv_poll_init_socket(loop->uv, &watcher->poll, (uv_os_sock_t)fd);
  if (error != 0) return error;
  watcher->poll.data = watcher;
  watcher->loop = loop;
  watcher->fd = fd;
  watcher->released = released;
  watcher->user_data = user_data;
  loop->open_handles++;
  uv_poll_start(&watcher->poll, events, on_ready);
  return 0;
}

static void on_closed(uv_handle_t *handle) {
  watcher *watcher = handle->data;
  io_loop *loop = watcher->loop;
  free(watcher);
  io_loop_handle_closed(loop);
}

void io_watcher_stop(watcher *watcher) {
  uv_poll_stop(&watcher->poll);
  uv_close((uv_handle_t *)&watcher->poll, on_closed);
  watcher->fd = -1;
}

void io_watcher_release(watcher *watcher) {
  if (watcher->released != NULL) watcher->released(watcher->user_data);
}

void io_watcher_end(watcher *watcher) {
  io_watcher_stop(watcher);
  io_watcher_release(watcher);
}
