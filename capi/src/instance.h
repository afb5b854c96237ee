// A running endpoint: a loop, a script on it, and the callbacks of its owner.
#ifndef UNDERPASS_INSTANCE_H
#define UNDERPASS_INSTANCE_H

#include <uv.h>

#include "engine/engine.h"
#include "io/loop.h"
#include "underpass.h"

// The numbers that the script's `stats` returns, in its order.
enum {
  STAT_SESSIONS,
  STAT_LANES,
  STAT_ASSOCIATIONS,
  STAT_CONTEXTS,
  STAT_DATAGRAMS_IN,
  STAT_DATAGRAMS_OUT,
  STAT_BYTES_IN,
  STAT_BYTES_OUT,
  STAT_RESUMED,
  STAT_DROPPED,
  STAT_REFUSED,
  STAT_RTT_MS,
  STATS
};

typedef enum { PLACE_OWN_THREAD, PLACE_CALLING_THREAD, PLACE_CALLERS_LOOP } place;

struct timers;
struct process;
struct tcp_stack;
struct lookup;
struct guest;
struct associations;
typedef struct packets packets;

// A call from another thread that waits for the loop's thread.
typedef struct stats_request {
  struct stats_request *next;
  // Only one of the two: numbers, or all of them as JSON, to be freed.
  double *values;
  char **text;
  bool is_done;
  int result;
} stats_request;

// The arguments for starting the script.
typedef struct start_options {
  // "local", "server" or "tun2socks".
  const char *program;
  const char *config;
  const char *server;
  const void *psk;
  size_t psk_bytes;
  const char *const *listen;
  size_t listen_count;
  const char *const *forwards;
  size_t forward_count;
  // NULL for none.
  const underpass_carrier *carrier;
  const char *device;
  size_t memory_bytes;
  uv_loop_t *loop;
  // For a tun2socks: checking the options returns its plan.
  bool wants_plan;
} start_options;

typedef struct instance {
  engine engine;
  // The script's object with its functions.
  JSValue endpoint;
  uv_loop_t own_loop;
  uv_loop_t *loop;
  io_loop *io;
  place place;
  underpass_callbacks callbacks;
  // Its `open` is NULL if there is none.
  underpass_carrier carrier;
  void *user_data;
  // Its owner has released it within a callback, and now only learns when connections and associations end.
  bool is_silent;
  struct associations *associations;
  // NULL unless it is a tun2socks whose packets come by callback. Set from the start.
  packets *packets;

  struct timers *timers;
  // Running programs, and the number of the latest.
  struct process *processes;
  struct tcp_stack *tcp_stacks;
  int32_t last_tcp_stack;
  int32_t process_number;
  // Look-ups: the first that waits, and how many have a thread.
  struct {
    struct lookup *first;
    int running;
  } lookups;
  uv_check_t turn;
  uv_idle_t turn_idle;
  JSValue on_turn;

  // libuv handles and requests of ours that are not closed yet, plus 1 for the io_loop.
  int open_handles;
  bool is_ending;
  // 0, or the status that `stopped` will report.
  int status;

  // For the thread that starts it.
  uv_sem_t started;
  const start_options *options;
  int start_status;
  char start_text[512];

  // The thread as its starter knows it, for joining, and as it knows itself.
  uv_thread_t thread, loop_thread;
  uv_mutex_t mutex;
  uv_cond_t changed;
  uv_async_t wake;
  // The mutex guards all fields that follow.
  bool can_wake;
  bool wants_stop;
  bool wants_reconnect;
  bool is_finished;
  // Its owner has released it: no callback follows, and its memory is freed with its last part.
  bool is_abandoned;
  stats_request *requests;
  // Everything that its owner holds besides it, and the guests that have something to handle.
  struct guest *guests, *stirred;
} instance;

// Sets `*result` before any callback. Returns 0, or the negative number of an error, whose text underpass_error_text() returns.
int instance_start(const start_options *options, place place, const underpass_callbacks *callbacks, void *user_data,
                   instance **result);
// Checks the options of a tun2socks. Returns like instance_start; `*plan` is to be freed.
int instance_plan(start_options *options, const underpass_callbacks *callbacks, char **plan);
// Runs a PLACE_CALLING_THREAD instance to its end. Returns the status that `stopped` reported.
int instance_run(instance *instance);
int instance_stop(instance *instance);
int instance_reconnect(instance *instance);
int instance_stats(instance *instance, double values[STATS]);
int instance_report(instance *instance, char **text);
void instance_free(instance *instance);

// Call this when a handle or request that was counted in open_handles is closed.
void instance_handle_closed(instance *instance);

// Calls the script's `on_turn` in the next turn of the loop.
void instance_request_turn(instance *instance);

// Calls a method of the script's object.
void instance_call(instance *instance, const char *name);

// Detaches a thread, so that nothing waits for it.
void instance_detach(uv_thread_t *thread);

instance *instance_of(JSContext *context);

struct underpass_association;
int association_open(instance *instance, const underpass_association_callbacks *callbacks, void *user_data,
                     struct underpass_association **result);

// Sets the text of the last error in this thread.
int set_error(int status, const char *text);
const char *error_text(void);

#endif
