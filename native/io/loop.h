// The context of all I/O on one loop, and the rules for every call in this directory.
//
// Threads: a context belongs to the thread that runs its loop, and every call that takes it is made there. Contexts share nothing;
// nothing here is global. A process may have any number of them, on one loop or on several.
//
// Handles are numbers: a UDP socket has an id; a stream, a listener, a connection attempt and a TUN device have their descriptor. A
// call with a number that is not open does nothing, or returns UV_EINVAL. A number may be reused once it has been closed.
//
// Callbacks are called only from the loop, never within a call that opens, writes or closes; only `released` is called within the
// call that closes. A callback may call anything here, close its own handle, and end the context. It may not run the loop. The
// caller owns the struct of callbacks and the memory that `user_data` points to, which must exist until `released`.
//
// `released` is called once for each handle that was opened: when it is closed or released, when its attempt has ended, or when the
// context ends. No other callback of the handle follows, and lent memory is no longer touched. If a callback closes its own handle,
// `released` is called within that call, so what `user_data` points to may be gone when the call returns. `released` may not call
// anything here. It is not called if opening fails. Every callback except `released` and `protect` is required.
//
// Results: 0, a number or a count, or a system error as libuv's negative number (UV_EINVAL; -errno except on Windows). Functions
// that open a handle return UV_ECANCELED in a context that is ending.
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
  // Called with each IP socket, UDP or TCP, before it is bound or connected, for Android's VpnService.protect, for marks and similar
  // purposes. Returns 0, or a negative system error, with which the call that opens the socket then fails. May not call anything here. NULL
  // for none.
  int (*protect)(void *user_data, uv_os_sock_t socket);
  void *user_data;
} io_loop_options;

// Creates a context on a loop that the caller owns, initialises before and closes after it. `options` is copied; NULL for none.
// Only open handles keep the loop alive.
int io_loop_create(uv_loop_t *loop, const io_loop_options *options, io_loop **result);

// Closes everything that is open, and calls every `released`. `on_ended` is called from the loop once that has released all
// handles; the context has then been freed. Until then, the loop has to run, and only this call may be made again, which does
// nothing.
void io_loop_end(io_loop *loop, void (*on_ended)(void *user_data), void *user_data);

uv_loop_t *io_loop_uv(const io_loop *loop);

// Latency classes, as on the wire.
enum { IO_LATENCY_INTERACTIVE, IO_LATENCY_BALANCED, IO_LATENCY_BULK };

#endif
