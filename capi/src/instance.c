#include "instance.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "embedder/associations.h"
#include "embedder/guest.h"
#include "embedder/packets.h"
#include "engine/scripts.h"
#include "host.h"

#if UV_VERSION_HEX < 0x013200 && !defined(_WIN32)
#include <pthread.h>
#endif

// For an instance's own thread: the engine takes at most 256 KiB, and callbacks the rest.
#define THREAD_STACK_BYTES (1024 * 1024)
#define DEFAULT_MEMORY_BYTES (256 * 1024 * 1024)

static _Thread_local char last_error[512];

int set_error(int status, const char *text) {
  snprintf(last_error, sizeof last_error, "%s", text);
  return status;
}

const char *error_text(void) { return last_error; }

instance *instance_of(JSContext *context) {
  // The engine is its first member.
  return (instance *)engine_of(context);
}

// An instance ends in reverse order: first io and handles are closed, then the script is freed, then the owner is informed.

static void free_memory(instance *instance) {
  packets_free(instance);
  uv_cond_destroy(&instance->changed);
  uv_mutex_destroy(&instance->mutex);
  free(instance);
}

// The last action of the loop's thread for an instance.
static void finish(instance *instance) {
  engine_close(&instance->engine);
  if (instance->callbacks.stopped != NULL && instance->start_status == 0)
    instance->callbacks.stopped(instance->user_data, instance->status);
  uv_mutex_lock(&instance->mutex);
  instance->is_finished = true;
  bool is_abandoned = instance->is_abandoned;
  uv_cond_broadcast(&instance->changed);
  uv_mutex_unlock(&instance->mutex);
  // An instance's own thread is joined, or frees the instance when it ends.
  if (is_abandoned && instance->place == PLACE_CALLERS_LOOP) free_memory(instance);
}

void instance_handle_closed(instance *instance) {
  if (--instance->open_handles > 0) return;
  // On a loop of its own, this is the last thing that happens after uv_run has returned.
  if (instance->place == PLACE_CALLERS_LOOP) finish(instance);
}

static void on_io_ended(void *data) { instance_handle_closed(data); }

static void on_closed(uv_handle_t *handle) { instance_handle_closed(handle->data); }

static int read_request(instance *instance, stats_request *request);

static void answer_requests(instance *instance) {
  uv_mutex_lock(&instance->mutex);
  while (instance->requests != NULL) {
    stats_request *request = instance->requests;
    instance->requests = request->next;
    uv_mutex_unlock(&instance->mutex);
    int result = read_request(instance, request);
    uv_mutex_lock(&instance->mutex);
    request->result = result;
    // The request is on the stack of a thread that continues now.
    request->is_done = true;
    uv_cond_broadcast(&instance->changed);
  }
  uv_mutex_unlock(&instance->mutex);
}

// Closes everything. The script is not called any more.
static void end(instance *instance) {
  if (instance->is_ending) return;
  instance->is_ending = true;
  instance->engine.is_broken = true;
  uv_mutex_lock(&instance->mutex);
  instance->can_wake = false;
  uv_mutex_unlock(&instance->mutex);
  answer_requests(instance);
  JSContext *context = instance->engine.context;
  guests_leave(instance);
  associations_end(instance);
  process_end(instance);
  tcp_stacks_end(instance);
  timers_end(instance);
  io_loop_end(instance->io, on_io_ended, instance);
  JS_FreeValue(context, instance->endpoint);
  JS_FreeValue(context, instance->on_turn);
  instance->endpoint = JS_UNDEFINED;
  instance->on_turn = JS_UNDEFINED;
  uv_close((uv_handle_t *)&instance->turn, on_closed);
  uv_close((uv_handle_t *)&instance->turn_idle, on_closed);
  uv_close((uv_handle_t *)&instance->wake, on_closed);
}

// Ends it in a later turn of the loop, because the script or io may be in a call now.
static void end_soon(instance *instance) {
  uv_mutex_lock(&instance->mutex);
  if (instance->can_wake) uv_async_send(&instance->wake);
  uv_mutex_unlock(&instance->mutex);
}

// The script reports that it has closed everything.
static JSValue script_stopped(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  instance *instance = instance_of(context);
  int status = get_int(context, values[0]);
  if (instance->status == 0) instance->status = status;
  instance->engine.is_broken = true;
  end_soon(instance);
  return JS_UNDEFINED;
}

static void on_fault(void *data, const char *text) {
  instance *instance = data;
  if (instance->start_status == 0 && instance->options != NULL) {
    // The start has not finished yet.
    instance->start_status = UNDERPASS_ERR_INTERNAL;
    snprintf(instance->start_text, sizeof instance->start_text, "%s", text);
    return;
  }
  if (instance->status == 0) {
    instance->status = UNDERPASS_ERR_INTERNAL;
    if (instance->callbacks.error != NULL)
      instance->callbacks.error(instance->user_data, UNDERPASS_ERR_INTERNAL, text);
  }
  end_soon(instance);
}

// Turns of the loop

static void on_idle(uv_idle_t *idle) { (void)idle; }

static void on_turn(uv_check_t *check) {
  instance *instance = check->data;
  uv_idle_stop(&instance->turn_idle);
  uv_check_stop(check);
  engine_run(&instance->engine, instance->on_turn, 0, NULL);
}

void instance_request_turn(instance *instance) {
  if (instance->is_ending) return;
  uv_check_start(&instance->turn, on_turn);
  // Prevents the loop from waiting.
  uv_idle_start(&instance->turn_idle, on_idle);
}

// Requests from other threads

void instance_call(instance *instance, const char *name) {
  JSContext *context = instance->engine.context;
  JSValue method = JS_GetPropertyStr(context, instance->endpoint, name);
  engine_run(&instance->engine, method, 0, NULL);
  JS_FreeValue(context, method);
}

static int read_request(instance *instance, stats_request *request) {
  JSContext *context = instance->engine.context;
  if (instance->engine.is_broken) return UNDERPASS_ERR_STATE;
  JSValue method = JS_GetPropertyStr(context, instance->endpoint, request->text == NULL ? "stats" : "report");
  JSValue result = engine_call(&instance->engine, method, 0, NULL);
  JS_FreeValue(context, method);
  bool is_good;
  if (request->text == NULL) {
    bytes_view bytes = get_bytes(context, result);
    is_good = bytes.bytes == STATS * sizeof(double);
    if (is_good) memcpy(request->values, bytes.data, bytes.bytes);
  } else {
    const char *text = JS_IsString(result) ? JS_ToCString(context, result) : NULL;
    *request->text = text == NULL ? NULL : strdup(text);
    is_good = *request->text != NULL;
    if (text != NULL) JS_FreeCString(context, text);
  }
  JS_FreeValue(context, result);
  return is_good ? 0 : UNDERPASS_ERR_INTERNAL;
}

static void on_wake(uv_async_t *wake) {
  instance *instance = wake->data;
  if (instance->engine.is_broken) {
    end(instance);
    return;
  }
  uv_mutex_lock(&instance->mutex);
  bool wants_stop = instance->wants_stop;
  bool wants_reconnect = instance->wants_reconnect;
  instance->wants_stop = false;
  instance->wants_reconnect = false;
  uv_mutex_unlock(&instance->mutex);
  answer_requests(instance);
  guests_handle(instance);
  if (wants_reconnect) instance_call(instance, "reconnect");
  if (wants_stop) instance_call(instance, "stop");
}

// The start, on the loop's thread

static JSValue texts(JSContext *context, const char *const *list, size_t count) {
  JSValue array = JS_NewArray(context);
  for (size_t i = 0; i < count; i++)
    JS_SetPropertyUint32(context, array, (uint32_t)i, list[i] == NULL ? JS_NULL : JS_NewString(context, list[i]));
  return array;
}

static bool takes_packets(const instance *instance) {
  return instance->callbacks.packets != NULL && strcmp(instance->options->program, "tun2socks") == 0;
}

static JSValue options_value(JSContext *context, const instance *instance) {
  const start_options *options = instance->options;
  JSValue value = JS_NewObject(context);
  JS_SetPropertyStr(context, value, "program", JS_NewString(context, options->program));
  if (options->config != NULL)
    JS_SetPropertyStr(context, value, "config", JS_NewString(context, options->config));
  if (options->server != NULL)
    JS_SetPropertyStr(context, value, "server", JS_NewString(context, options->server));
  if (options->psk != NULL)
    JS_SetPropertyStr(context, value, "psk", make_bytes(context, options->psk, options->psk_bytes));
  if (options->listen_count > 0)
    JS_SetPropertyStr(context, value, "listen", texts(context, options->listen, options->listen_count));
  if (options->device != NULL)
    JS_SetPropertyStr(context, value, "device", JS_NewString(context, options->device));
  if (takes_packets(instance)) JS_SetPropertyStr(context, value, "hasPackets", JS_TRUE);
  if (options->wants_plan) JS_SetPropertyStr(context, value, "wantsPlan", JS_TRUE);
  if (options->carrier != NULL) JS_SetPropertyStr(context, value, "hasCarrier", JS_TRUE);
  if (options->forward_count > 0)
    JS_SetPropertyStr(context, value, "forwards", texts(context, options->forwards, options->forward_count));
  return value;
}

static int fail_start(instance *instance, int status, const char *text) {
  instance->start_status = status;
  snprintf(instance->start_text, sizeof instance->start_text, "%s", text);
  return status;
}

// Stores the status and the text of an object that represents a failure, and frees it.
static void take_failure(instance *instance, JSContext *context, JSValue failure) {
  if (instance->start_status != 0) {
    // It is the result of a fault, which has been stored.
    JS_FreeValue(context, failure);
    return;
  }
  JSValue status = JS_GetPropertyStr(context, failure, "status");
  JSValue text_value = JS_GetPropertyStr(context, failure, "text");
  const char *text = JS_ToCString(context, text_value);
  fail_start(instance, get_int(context, status), text == NULL ? "" : text);
  if (text != NULL) JS_FreeCString(context, text);
  JS_FreeValue(context, text_value);
  JS_FreeValue(context, status);
  JS_FreeValue(context, failure);
}

// Checks the options in an engine of its own, which releases the memory for their tables with it. Returns all options as JSON, to
// be freed, or the plan as text; NULL after a failure.
static char *check_options(instance *instance) {
  engine engine;
  char *checked = NULL;
  if (!engine_open(&engine, DEFAULT_MEMORY_BYTES, on_fault, instance)) {
    fail_start(instance, UNDERPASS_ERR_RESOURCE, "no memory for the engine");
    return NULL;
  }
  if (engine_load(&engine, "check.js")) {
    JSContext *context = engine.context;
    JSValue values[2] = {file_host_create(context), options_value(context, instance)};
    JSValue result = engine_call_global(&engine, "underpassCheck", 2, values);
    if (JS_IsString(result)) {
      const char *text = JS_ToCString(context, result);
      checked = text == NULL ? NULL : strdup(text);
      if (text != NULL) JS_FreeCString(context, text);
      if (checked == NULL) fail_start(instance, UNDERPASS_ERR_RESOURCE, "no memory");
      JS_FreeValue(context, result);
    } else take_failure(instance, context, result);
  }
  engine_close(&engine);
  return checked;
}

int instance_plan(start_options *options, const underpass_callbacks *callbacks, char **plan) {
  // Only the parts that checking the options needs.
  instance *instance = calloc(1, sizeof *instance);
  if (instance == NULL) return set_error(UNDERPASS_ERR_RESOURCE, "no memory");
  options->wants_plan = true;
  instance->options = options;
  instance->callbacks = *callbacks;
  *plan = check_options(instance);
  int status = instance->start_status;
  if (status != 0) set_error(status, instance->start_text);
  free(instance);
  return status;
}

static bool start_script(instance *instance, const char *checked) {
  engine *engine = &instance->engine;
  char script[32];
  snprintf(script, sizeof script, "%s.js", instance->options->program);
  if (!engine_load(engine, script)) return false;
  JSContext *context = engine->context;
  JSValue host = host_create(instance);
  if (JS_IsException(host)) {
    engine_fail(engine);
    return false;
  }
  JS_SetPropertyStr(context, host, "stopped", JS_NewCFunction(context, script_stopped, "stopped", 1));
  JSValue values[2] = {host, JS_NewString(context, checked)};
  JSValue endpoint = engine_call_global(engine, "underpassStart", 2, values);
  bool is_good = instance->start_status == 0;
  if (is_good) {
    JSValue status = JS_GetPropertyStr(context, endpoint, "status");
    is_good = JS_IsUndefined(status);
    JS_FreeValue(context, status);
  }
  if (is_good) instance->endpoint = endpoint;
  else take_failure(instance, context, endpoint);
  return is_good;
}

static int protect(void *data, uv_os_sock_t socket) {
  instance *instance = data;
  // After its owner has released it, nobody can protect the sockets that it opens until it has stopped.
  if (instance->callbacks.protect == NULL) return UV_ECANCELED;
  return instance->callbacks.protect(instance->user_data, (intptr_t)socket) == 0 ? 0 : UV_EPERM;
}

static void flush(void *data) { associations_flush(data); }

// Puts the instance on its loop. If that fails, `start_status` is set, everything opened is closed, and `finish` follows.
static void open_on_loop(instance *instance) {
  uv_loop_t *loop = instance->loop;
  instance->endpoint = JS_UNDEFINED;
  instance->on_turn = JS_UNDEFINED;
  size_t memory_bytes = instance->options->memory_bytes;
  char *checked = check_options(instance);
  if (checked == NULL) return;
  if (!engine_open(&instance->engine, memory_bytes == 0 ? DEFAULT_MEMORY_BYTES : memory_bytes, on_fault, instance)) {
    free(checked);
    fail_start(instance, UNDERPASS_ERR_RESOURCE, "no memory for the engine");
    return;
  }
  instance->engine.after_call = flush;
  const io_loop_options io_options = {instance->callbacks.protect == NULL ? NULL : protect, instance};
  int error = io_loop_create(loop, &io_options, &instance->io);
  if (error == 0) {
    error = uv_async_init(loop, &instance->wake, on_wake);
    if (error != 0) {
      instance->open_handles = 1;
      io_loop_end(instance->io, on_io_ended, instance);
    }
  }
  if (error != 0) {
    free(checked);
    fail_start(instance, UNDERPASS_ERR_RESOURCE, uv_strerror(error));
    return;
  }
  uv_check_init(loop, &instance->turn);
  uv_idle_init(loop, &instance->turn_idle);
  instance->wake.data = instance->turn.data = instance->turn_idle.data = instance;
  instance->open_handles = 4;
  instance->can_wake = true;
  if (takes_packets(instance) && !packets_open(instance)) {
    fail_start(instance, UNDERPASS_ERR_RESOURCE, "no memory");
    end(instance);
  } else if (!start_script(instance, checked)) end(instance);
  scripts_drop_pages();
  free(checked);
  instance->options = NULL;
}

static void run_own_loop(instance *instance) {
  uv_run(instance->loop, UV_RUN_DEFAULT);
  int error = uv_loop_close(instance->loop);
  assert(error == 0);
  (void)error;
  finish(instance);
}

static bool init_own_loop(instance *instance) {
  int error = uv_loop_init(instance->loop);
  if (error != 0) fail_start(instance, UNDERPASS_ERR_RESOURCE, uv_strerror(error));
  return error == 0;
}

static void thread_main(void *data) {
  instance *instance = data;
  instance->loop_thread = uv_thread_self();
  // Not on the caller's thread: when libuv closes its io_uring, Linux interrupts whatever the thread that set it up is waiting for.
  bool has_loop = init_own_loop(instance);
  if (has_loop) open_on_loop(instance);
  bool has_failed = instance->start_status != 0;
  // After a failed start, the thread that started it joins this one.
  uv_sem_post(&instance->started);
  if (has_loop) run_own_loop(instance);
  if (has_failed) return;
  uv_mutex_lock(&instance->mutex);
  bool is_abandoned = instance->is_abandoned;
  uv_mutex_unlock(&instance->mutex);
  if (is_abandoned) free_memory(instance);
}

static int start_thread(instance *instance) {
  if (uv_sem_init(&instance->started, 0) != 0)
    return fail_start(instance, UNDERPASS_ERR_RESOURCE, "no memory for a thread");
  const uv_thread_options_t thread_options = {UV_THREAD_HAS_STACK_SIZE, THREAD_STACK_BYTES};
  int error = uv_thread_create_ex(&instance->thread, &thread_options, thread_main, instance);
  if (error == 0) uv_sem_wait(&instance->started);
  uv_sem_destroy(&instance->started);
  if (error != 0) return fail_start(instance, UNDERPASS_ERR_RESOURCE, uv_strerror(error));
  if (instance->start_status != 0) uv_thread_join(&instance->thread);
  return instance->start_status;
}

int instance_start(const start_options *options, place place, const underpass_callbacks *callbacks, void *user_data,
                   instance **result) {
  *result = NULL;
  instance *instance = calloc(1, sizeof *instance);
  if (instance == NULL) return set_error(UNDERPASS_ERR_RESOURCE, "no memory");
  if (callbacks != NULL) instance->callbacks = *callbacks;
  if (options->carrier != NULL) instance->carrier = *options->carrier;
  instance->user_data = user_data;
  instance->options = options;
  instance->place = place;
  instance->loop = place == PLACE_CALLERS_LOOP ? options->loop : &instance->own_loop;
  uv_mutex_init(&instance->mutex);
  uv_cond_init(&instance->changed);
  *result = instance;
  int status = 0;
  if (place == PLACE_OWN_THREAD) {
    status = start_thread(instance);
  } else if (place == PLACE_CALLING_THREAD && !init_own_loop(instance)) {
    status = instance->start_status;
  } else {
    instance->loop_thread = uv_thread_self();
    open_on_loop(instance);
    status = instance->start_status;
    if (status != 0 && place == PLACE_CALLING_THREAD) run_own_loop(instance);
  }
  if (status == 0) return 0;
  set_error(status, instance->start_text);
  *result = NULL;
  // On the caller's loop, its handles close later.
  if (place == PLACE_CALLERS_LOOP && instance->open_handles > 0) {
    instance->is_abandoned = true;
    return status;
  }
  engine_close(&instance->engine);
  free_memory(instance);
  return status;
}

int instance_run(instance *instance) {
  run_own_loop(instance);
  int status = instance->status;
  uv_mutex_lock(&instance->mutex);
  bool is_abandoned = instance->is_abandoned;
  uv_mutex_unlock(&instance->mutex);
  if (is_abandoned) free_memory(instance);
  return status;
}

void instance_detach(uv_thread_t *thread) {
#if UV_VERSION_HEX >= 0x013200
  uv_thread_detach(thread);
#elif !defined(_WIN32)
  pthread_detach(*thread);
#endif
}

// From any thread

static bool is_on_loop_thread(instance *instance) {
  if (instance->place == PLACE_CALLERS_LOOP) return true;
  uv_thread_t self = uv_thread_self();
  return uv_thread_equal(&self, &instance->loop_thread) != 0;
}

int instance_stop(instance *instance) {
  uv_mutex_lock(&instance->mutex);
  instance->wants_stop = true;
  if (instance->can_wake) uv_async_send(&instance->wake);
  uv_mutex_unlock(&instance->mutex);
  return 0;
}

int instance_reconnect(instance *instance) {
  uv_mutex_lock(&instance->mutex);
  bool can_wake = instance->can_wake;
  instance->wants_reconnect = true;
  if (can_wake) uv_async_send(&instance->wake);
  uv_mutex_unlock(&instance->mutex);
  return can_wake ? 0 : set_error(UNDERPASS_ERR_STATE, "it has stopped");
}

static int request_stats(instance *instance, stats_request *request) {
  request->result = UNDERPASS_ERR_STATE;
  if (is_on_loop_thread(instance)) {
    if (!instance->is_ending) request->result = read_request(instance, request);
  } else {
    uv_mutex_lock(&instance->mutex);
    if (instance->can_wake) {
      request->next = instance->requests;
      instance->requests = request;
      uv_async_send(&instance->wake);
      while (!request->is_done) uv_cond_wait(&instance->changed, &instance->mutex);
    }
    uv_mutex_unlock(&instance->mutex);
  }
  return request->result == 0 ? 0 : set_error(request->result, "it has stopped");
}

int instance_stats(instance *instance, double values[STATS]) {
  return request_stats(instance, &(stats_request){.values = values});
}

int instance_report(instance *instance, char **text) {
  return request_stats(instance, &(stats_request){.text = text});
}

void instance_free(instance *instance) {
  bool is_own_thread = instance->place == PLACE_OWN_THREAD;
  bool waits = is_own_thread && !is_on_loop_thread(instance);
  if (waits) {
    instance_stop(instance);
    uv_thread_join(&instance->thread);
    free_memory(instance);
    return;
  }
  uv_mutex_lock(&instance->mutex);
  bool is_finished = instance->is_finished;
  instance->is_abandoned = true;
  uv_mutex_unlock(&instance->mutex);
  if (is_finished) {
    free_memory(instance);
    return;
  }
  if (is_on_loop_thread(instance)) {
    memset(&instance->callbacks, 0, sizeof instance->callbacks);
    instance->is_silent = true;
  }
  if (is_own_thread) instance_detach(&instance->loop_thread);
  instance_stop(instance);
}
