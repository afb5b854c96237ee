// Descriptors that the loop watches: one libuv poll handle each, with the JavaScript functions that its events go to.
#include "module.h"

#ifndef _WIN32

#include <stdlib.h>

int watcher_begin(watcher *watcher, environment *environment, int fd, int events, uv_poll_cb on_ready, const char *name,
                  const napi_value *values, size_t count) {
  int error = uv_poll_init(environment->loop, &watcher->poll, fd);
  if (error != 0) return error;
  watcher->poll.data = watcher;
  watcher->environment = environment;
  watcher->fd = fd;
  watcher->context = make_context(environment->env, name);
  for (size_t i = 0; i < count; i++) napi_create_reference(environment->env, values[i], 1, &watcher->references[i]);
  environment->open_handles++;
  uv_poll_start(&watcher->poll, events, on_ready);
  return 0;
}

void watcher_call(watcher *watcher, int function, size_t argc, int64_t number) {
  napi_env env = watcher->environment->env;
  napi_handle_scope scope;
  napi_open_handle_scope(env, &scope);
  napi_value value = make_int(env, number);
  call_function(watcher->environment, watcher->references[function], watcher->context, argc, &value);
  napi_close_handle_scope(env, scope);
}

static void on_closed(uv_handle_t *handle) {
  watcher *watcher = handle->data;
  environment *environment = watcher->environment;
  free(watcher);
  environment_handle_closed(environment);
}

void watcher_stop(watcher *watcher) {
  uv_poll_stop(&watcher->poll);
  uv_close((uv_handle_t *)&watcher->poll, on_closed);
  watcher->fd = -1;
}

void watcher_release(watcher *watcher) {
  napi_env env = watcher->environment->env;
  napi_async_destroy(env, watcher->context);
  for (size_t i = 0; i < WATCHER_REFERENCES; i++) {
    if (watcher->references[i] != NULL) napi_delete_reference(env, watcher->references[i]);
  }
}

void watcher_end(watcher *watcher) {
  watcher_stop(watcher);
  watcher_release(watcher);
}

#endif
