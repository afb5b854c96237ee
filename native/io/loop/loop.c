#include <stdlib.h>

#include "loop-state.h"

int io_loop_create(uv_loop_t *uv, const io_loop_options *options, io_loop **result) {
  io_loop *loop = calloc(1, sizeof *loop);
  if (loop == NULL) return UV_ENOMEM;
  loop->uv = uv;
  if (options != NULL) loop->options = *options;
  uv_idle_init(uv, &loop->anchor);
  loop->anchor.data = loop;
  loop->open_handles = 1;
  *result = loop;
  return 0;
}

void io_loop_handle_closed(io_loop *loop) {
  if (--loop->open_handles > 0) return;
  void (*on_ended)(void *) = loop->on_ended;
  void *data = loop->ended_data;
  free(loop);
  if (on_ended != NULL) on_ended(data);
}

static void on_anchor_closed(uv_handle_t *handle) {
  io_loop_handle_closed(handle->data);
}

void io_loop_end(io_loop *loop, void (*on_ended)(void *user_data), void *user_data) {
  if (loop->is_ending) return;
  loop->is_ending = true;
  loop->on_ended = on_ended;
  loop->ended_data = user_data;
  io_udp_end(loop);
  io_listeners_end(loop);
  io_tuns_end(loop);
  io_attempts_end(loop);
  io_streams_end(loop);
  io_latency_end(loop);
  // After the sockets and streams, which end their own.
  io_shortcuts_end(loop);
  uv_close((uv_handle_t *)&loop->anchor, on_anchor_closed);
}

uv_loop_t *io_loop_uv(const io_loop *loop) {
  return loop->uv;
}
