// Timers of the script, by number.
#include <stdlib.h>

#include "../host.h"

typedef struct timer {
  uv_timer_t handle;
  instance *instance;
  JSValue callback;
  int32_t number;
  // The next unused one.
  struct timer *next;
} timer;

typedef struct timers {
  timer **all;
  int32_t count, capacity;
  timer *unused;
} timers;

static void let_go(timer *timer) {
  struct timers *timers = timer->instance->timers;
  timer->callback = JS_UNDEFINED;
  timer->next = timers->unused;
  timers->unused = timer;
}

static void on_timer(uv_timer_t *handle) {
  timer *timer = handle->data;
  instance *instance = timer->instance;
  JSValue callback = timer->callback;
  let_go(timer);
  engine_run(&instance->engine, callback, 0, NULL);
  JS_FreeValue(instance->engine.context, callback);
}

static timer *take(instance *instance) {
  if (instance->timers == NULL) instance->timers = calloc(1, sizeof *instance->timers);
  struct timers *timers = instance->timers;
  if (timers == NULL) return NULL;
  timer *timer = timers->unused;
  if (timer != NULL) {
    timers->unused = timer->next;
    return timer;
  }
  if (timers->count == timers->capacity) {
    int32_t capacity = timers->capacity == 0 ? 16 : 2 * timers->capacity;
    struct timer **all = realloc(timers->all, (size_t)capacity * sizeof *all);
    if (all == NULL) return NULL;
    timers->all = all;
    timers->capacity = capacity;
  }
  timer = calloc(1, sizeof *timer);
  if (timer == NULL) return NULL;
  timer->instance = instance;
  timer->number = timers->count;
  timer->handle.data = timer;
  uv_timer_init(instance->loop, &timer->handle);
  instance->open_handles++;
  timers->all[timers->count++] = timer;
  return timer;
}

// timerStart(milliseconds, callback): a number, valid until it has called back or is cancelled
static JSValue timer_start(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  instance *instance = instance_of(context);
  if (instance->is_ending) return JS_NewInt32(context, -1);
  timer *timer = take(instance);
  if (timer == NULL) return JS_ThrowOutOfMemory(context);
  double delay = get_number(context, values[0]);
  if (!(delay > 0)) delay = 0;
  timer->callback = JS_DupValue(context, values[1]);
  // The loop's clock shows the time of its last wake-up.
  uv_update_time(instance->loop);
  uint64_t whole = delay < 1e15 ? (uint64_t)delay : (uint64_t)1e15;
  uv_timer_start(&timer->handle, on_timer, whole < delay ? whole + 1 : whole, 0);
  return JS_NewInt32(context, timer->number);
}

// timerCancel(number)
static JSValue timer_cancel(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  instance *instance = instance_of(context);
  int32_t number = get_int(context, values[0]);
  struct timers *timers = instance->timers;
  if (timers == NULL || number < 0 || number >= timers->count || instance->is_ending) return JS_UNDEFINED;
  timer *timer = timers->all[number];
  if (!uv_is_active((uv_handle_t *)&timer->handle)) return JS_UNDEFINED;
  uv_timer_stop(&timer->handle);
  JSValue callback = timer->callback;
  let_go(timer);
  JS_FreeValue(context, callback);
  return JS_UNDEFINED;
}

static const JSCFunctionListEntry FUNCTIONS[] = {
    FUNCTION("timerStart", 2, timer_start),
    FUNCTION("timerCancel", 1, timer_cancel),
};

void timers_add(JSContext *context, JSValueConst host) { ADD_FUNCTIONS(context, host, FUNCTIONS); }

static void on_closed(uv_handle_t *handle) {
  timer *timer = handle->data;
  instance *instance = timer->instance;
  free(timer);
  instance_handle_closed(instance);
}

void timers_end(instance *instance) {
  struct timers *timers = instance->timers;
  if (timers == NULL) return;
  for (int32_t i = 0; i < timers->count; i++) {
    timer *timer = timers->all[i];
    JS_FreeValue(instance->engine.context, timer->callback);
    timer->callback = JS_UNDEFINED;
    uv_close((uv_handle_t *)&timer->handle, on_closed);
  }
  free(timers->all);
  free(timers);
  instance->timers = NULL;
}
