// Programs with a stream to their standard input and from their output.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "../host.h"

#ifndef _WIN32

#include <unistd.h>

#define MAX_WORDS 256

typedef struct process {
  uv_process_t handle;
  instance *instance;
  JSValue on_exit;
  int32_t number;
  struct process *next, **link;
} process;

static void on_closed(uv_handle_t *handle) {
  process *process = handle->data;
  instance *instance = process->instance;
  free(process);
  instance_handle_closed(instance);
}

static void close_process(process *process) {
  *process->link = process->next;
  if (process->next != NULL) process->next->link = process->link;
  JS_FreeValue(process->instance->engine.context, process->on_exit);
  uv_close((uv_handle_t *)&process->handle, on_closed);
}

static void on_exit_of(uv_process_t *handle, int64_t status, int signal) {
  process *process = handle->data;
  engine *engine = &process->instance->engine;
  JSValue on_exit = JS_DupValue(engine->context, process->on_exit);
  char text[64];
  if (signal != 0) snprintf(text, sizeof text, "exit by signal %d", signal);
  else snprintf(text, sizeof text, "exit %d", (int)status);
  close_process(process);
  JSValue value = JS_NewString(engine->context, text);
  engine_run(engine, on_exit, 1, &value);
  JS_FreeValue(engine->context, on_exit);
}

// Reads a list of texts, which are to be freed. Returns their number.
static int take_words(JSContext *context, JSValueConst list, char *words[MAX_WORDS + 1]) {
  int count = 0;
  for (; count < MAX_WORDS; count++) {
    JSValue value = JS_GetPropertyUint32(context, list, (uint32_t)count);
    const char *text = JS_IsString(value) ? JS_ToCString(context, value) : NULL;
    words[count] = text == NULL ? NULL : strdup(text);
    if (text != NULL) JS_FreeCString(context, text);
    JS_FreeValue(context, value);
    if (words[count] == NULL) break;
  }
  words[count] = NULL;
  return count;
}

static int spawn(instance *instance, process *process, char **words, uv_os_sock_t ends[2]) {
  int error = uv_socketpair(SOCK_STREAM, 0, ends, UV_NONBLOCK_PIPE, 0);
  if (error != 0) return error;
  uv_stdio_container_t stdio[3] = {{.flags = UV_INHERIT_FD, .data.fd = ends[1]},
                                   {.flags = UV_INHERIT_FD, .data.fd = ends[1]},
                                   {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO}};
  const uv_process_options_t options = {
      .file = words[0], .args = words, .exit_cb = on_exit_of, .stdio = stdio, .stdio_count = 3};
  process->handle.data = process;
  error = uv_spawn(instance->loop, &process->handle, &options);
  close(ends[1]);
  if (error != 0) close(ends[0]);
  return error;
}

// processSpawn(argv, onExit(text)): [number, descriptor]
static JSValue process_spawn(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  instance *instance = instance_of(context);
  if (instance->is_ending) return throw_system_error(context, UV_ECANCELED, "spawn");
  char *words[MAX_WORDS + 1];
  int word_count = take_words(context, values[0], words);
  process *process = calloc(1, sizeof *process);
  uv_os_sock_t ends[2];
  int error = process == NULL ? UV_ENOMEM : word_count == 0 ? UV_EINVAL : spawn(instance, process, words, ends);
  for (int i = 0; i < word_count; i++) free(words[i]);
  if (process == NULL) return throw_system_error(context, error, "spawn");
  process->instance = instance;
  process->on_exit = JS_UNDEFINED;
  if (error != 0) {
    // libuv made a handle of it, unless there was no socket.
    if (process->handle.data == NULL) {
      free(process);
      return throw_system_error(context, error, "spawn");
    }
    instance->open_handles++;
    uv_close((uv_handle_t *)&process->handle, on_closed);
    return throw_system_error(context, error, "spawn");
  }
  instance->open_handles++;
  process->on_exit = JS_DupValue(context, values[1]);
  process->number = ++instance->process_number;
  process->next = instance->processes;
  process->link = &instance->processes;
  if (process->next != NULL) process->next->link = &process->next;
  instance->processes = process;
  JSValue list = JS_NewArray(context);
  JS_SetPropertyUint32(context, list, 0, JS_NewInt32(context, process->number));
  JS_SetPropertyUint32(context, list, 1, JS_NewInt32(context, ends[0]));
  return list;
}

// processKill(number)
static JSValue process_kill(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  int32_t number = get_int(context, values[0]);
  for (process *process = instance_of(context)->processes; process != NULL; process = process->next)
    if (process->number == number) uv_process_kill(&process->handle, SIGTERM);
  return JS_UNDEFINED;
}

static const JSCFunctionListEntry FUNCTIONS[] = {
    FUNCTION("processSpawn", 2, process_spawn),
    FUNCTION("processKill", 1, process_kill),
};

void process_add(JSContext *context, JSValueConst host) { ADD_FUNCTIONS(context, host, FUNCTIONS); }

void process_end(instance *instance) {
  while (instance->processes != NULL) {
    uv_process_kill(&instance->processes->handle, SIGTERM);
    close_process(instance->processes);
  }
}

#else

void process_add(JSContext *context, JSValueConst host) { (void)context, (void)host; }

void process_end(instance *instance) { (void)instance; }

#endif
