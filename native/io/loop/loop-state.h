// The parts of a context that its files share.
#ifndef UNDERPASS_IO_LOOP_STATE_H
#define UNDERPASS_IO_LOOP_STATE_H

#include "../loop.h"

struct udp;
struct listener;
struct attempt;
struct stream_table;
struct tun;
struct latency;
struct shortcut_table;

struct io_loop {
  uv_loop_t *uv;
  io_loop_options options;
  struct udp *udp;
  struct listener *listeners;
  struct attempt *attempts;
  struct stream_table *streams;
  struct tun *tuns;
  struct latency *latency;
  struct shortcut_table *shortcuts;
  // Never active; closed last, so that the loop always reports the end.
  uv_idle_t anchor;
  // libuv handles that are not closed yet; the context is freed with the last.
  int open_handles;
  bool is_ending;
  void (*on_ended)(void *user_data);
  void *ended_data;
};

// Call this in the close callback of every handle that was counted in open_handles.
void io_loop_handle_closed(io_loop *loop);

void io_udp_end(io_loop *loop);
void io_listeners_end(io_loop *loop);
void io_attempts_end(io_loop *loop);
void io_streams_end(io_loop *loop);
void io_tuns_end(io_loop *loop);
void io_latency_end(io_loop *loop);
void io_shortcuts_end(io_loop *loop);

#endif
