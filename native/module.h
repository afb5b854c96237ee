// Shared by the parts of the module: the state of one Node environment (the main thread's or a worker's).
#ifndef UNDERPASS_MODULE_H
#define UNDERPASS_MODULE_H

#include <node_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#if defined(_MSC_VER) && !defined(__clang__)
#define _Thread_local __declspec(thread)
#endif

struct udp_io;
struct listener;
struct tun;
struct connection;
struct stream_table;
struct latency;

typedef struct environment {
  napi_env env;
  uv_loop_t *loop;
  struct udp_io *udp;
  struct listener *listeners;
  struct tun *tuns;
  struct connection *connections;
  struct stream_table *streams;
  struct latency *latency;
  // libuv handles that are not closed yet; the environment is freed with the last.
  int open_handles;
  bool is_ending;
  napi_async_cleanup_hook_handle cleanup;
} environment;

environment *environment_of(napi_env env);

// To be called in the close callback of every handle that was counted in open_handles.
void environment_handle_closed(environment *environment);

// The context that calls from the loop are attributed to; napi_async_destroy frees it.
napi_async_context make_context(napi_env env, const char *name);

// Calls a JavaScript function from the loop; anything that it throws becomes an uncaught exception.
void call_function(environment *environment, napi_ref function, napi_async_context context, size_t argc,
                   napi_value *argv);

// Throws an Error whose `code` is the name of a system error (negative errno), and returns NULL.
napi_value throw_system_error(napi_env env, int error, const char *call);

// Arguments of a call; false, with an exception pending, when there are fewer than `count`.
bool get_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *values);
int32_t get_int(napi_env env, napi_value value);
double get_number(napi_env env, napi_value value);
napi_value make_int(napi_env env, int64_t value);

typedef struct {
  uint8_t *data;
  size_t bytes;
} bytes_view;

// The memory of a typed array; {NULL, 0} for anything else.
bytes_view get_bytes(napi_env env, napi_value value);

#ifndef _WIN32
#define WATCHER_REFERENCES 4

// A descriptor that the loop watches, and what its callbacks need. The first member of its owner's calloc'ed memory.
typedef struct watcher {
  uv_poll_t poll;
  environment *environment;
  // -1 once it is no longer watched.
  int fd;
  napi_async_context context;
  // Buffers and functions, in the order in which watcher_begin got them.
  napi_ref references[WATCHER_REFERENCES];
} watcher;

// Returns 0, or a negative system error; then nothing has been done, and the caller keeps the memory.
int watcher_begin(watcher *watcher, environment *environment, int fd, int events, uv_poll_cb on_ready, const char *name,
                  const napi_value *values, size_t count);

// Calls one of its functions with a number, or with nothing when argc is 0.
void watcher_call(watcher *watcher, int function, size_t argc, int64_t number);

// Stops watching and drops the references; frees the owner's memory when libuv has let go of it. The descriptor stays open.
void watcher_end(watcher *watcher);

// The two halves of watcher_end, for an owner that has a last call to make when its descriptor is no longer watched.
void watcher_stop(watcher *watcher);
void watcher_release(watcher *watcher);
#endif

void set_function(napi_env env, napi_value exports, const char *name, napi_callback function);

// Latency classes, as on the wire.
enum { LATENCY_INTERACTIVE, LATENCY_BALANCED, LATENCY_BULK };

// What is not read for a moment, so that more gathers. Belongs to a descriptor that is not watched meanwhile.
typedef struct held {
  struct held *next;
  // NULL while it is not held.
  struct held **link;
  // The moment is over: reads, then watches the descriptor again or holds it again.
  void (*resume)(struct held *held);
} held;

// Makes the loop poll for some tens of microseconds before it sleeps.
void latency_spin(environment *environment);
// Returns false if the system does not support that. `messages`: how many were just read, which decides how long it takes.
bool latency_hold(environment *environment, held *held, size_t messages);
// Forgets it, if it is held.
void latency_release(held *held);
void latency_end(environment *environment);

void udp_init(napi_env env, napi_value exports);
void udp_end(environment *environment);
void tcp_init(napi_env env, napi_value exports);
void tcp_end(environment *environment);
void tun_init(napi_env env, napi_value exports);
void tun_end(environment *environment);
void connect_init(napi_env env, napi_value exports);
void connect_end(environment *environment);
void stream_init(napi_env env, napi_value exports);
void stream_end(environment *environment);
void sock_diag_init(napi_env env, napi_value exports);

#ifndef _WIN32
#include <net/if.h>
// Restricts a socket to one interface or gives it a mark; "" and 0 for none. Returns 0, or a negative system error.
int restrict_socket(int fd, int family, const char *interface_name, uint32_t mark);
// Reads the two; false, with an exception pending, if the name of the interface is invalid.
bool get_restriction(napi_env env, napi_value name, napi_value mark_value, char interface_name[IFNAMSIZ],
                     uint32_t *mark);
#endif

#endif
