// The context of all I/O on one loop, and what holds for every call in this directory.
//
// Threads: a context belongs to the thread that runs its loop, and every call that takes it is made there. Contexts share
// nothing; nothing here is global. A process may have any number of them, on one loop or on several.
//
// Handles are numbers: a UDP socket has an id; a stream, a listener, a connection attempt and a TUN device have their
// descriptor. A call with a number that is not open does nothing, or returns UV_EINVAL. A number may be given out again once it
// has been closed.
//
// Callbacks are only called from the loop, never within a call that opens, writes or closes; `released` alone is called within
// the call that closes. A callback may call anything here, close its own handle, and end the context. It may not run the loop.
// The struct of callbacks and what `user_data` points to are the caller's, and must exist until `released`.
//
// `released` is called once for each handle that was opened: when it is closed or released, when its attempt has ended, or when
// the context ends. No other callback of the handle follows, and memory that was lent is no longer touched. A callback that
// closes its own handle gets it within that call, so that what `user_data` points to may be gone when the call returns. It may
// not call anything here. It is not called if opening fails. Every callback but `released` and `protect` is required.
//
// Results: 0, a number or a count, or a system error as libuv's negative number (UV_EINVAL; -errno except on Windows). What opens
// a handle in a context that is ending returns UV_ECANCELED.
//
// Sources are compiled as C11 with _GNU_SOURCE defined, against the headers of libuv 1.38 or later.
#ifndef UNDERPASS_IO_LOOP_H
#define UNDERPASS_IO_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

typedef struct io_loop io_loop;

typedef struct io_loop_options {
  // Called with each IP socket, UDP or TCP, before it is bound or connected: for Android's VpnService.protect, marks and the
  // like. Returns 0, or a negative system error, with which the call that opens the socket then fails. May not call anything
  // here. NULL for none.
  int (*protect)(void *user_data, uv_os_sock_t socket);
  void *user_data;
} io_loop_options;

// Creates a context on a loop that the caller owns, initialises before and closes after it. `options` is copied; NULL for none.
// Nothing keeps the loop alive but handles that are open.
int io_loop_create(uv_loop_t *loop, const io_loop_options *options, io_loop **result);

// Closes all that is open, and calls every `released`. `on_ended` is called from the loop when that has let go of all handles;
// the context has then been freed. Until then the loop has to run, and only this call may be made again, which does nothing.
void io_loop_end(io_loop *loop, void (*on_ended)(void *user_data), void *user_data);

uv_loop_t *io_loop_uv(const io_loop *loop);

// Latency classes, as on the wire.
enum { IO_LATENCY_INTERACTIVE, IO_LATENCY_BALANCED, IO_LATENCY_BULK };

#endif
