// Batched socket I/O for Node: UDP sockets that receive and send many datagrams in one call, TCP listeners on
// descriptors, socket options that node:net lacks, and TUN devices. It knows nothing about the protocols above.
#include "module.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

environment *environment_of(napi_env env) {
  void *data = NULL;
  napi_get_instance_data(env, &data);
  return data;
}

static void environment_free_if_done(environment *environment) {
  if (!environment->is_ending || environment->open_handles > 0) return;
  napi_remove_async_cleanup_hook(environment->cleanup);
  free(environment);
}

void environment_handle_closed(environment *environment) {
  environment->open_handles--;
  environment_free_if_done(environment);
}

static void environment_end(napi_async_cleanup_hook_handle handle, void *data) {
  environment *environment = data;
  environment->is_ending = true;
  // Keeps the environment until the last of these calls, even if one of them closes the last handle.
  environment->open_handles++;
  udp_end(environment);
  tcp_end(environment);
  tun_end(environment);
  connect_end(environment);
  stream_end(environment);
  latency_end(environment);
  environment_handle_closed(environment);
}

napi_async_context make_context(napi_env env, const char *name) {
  napi_async_context context = NULL;
  napi_value text, resource;
  napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &text);
  napi_create_object(env, &resource);
  napi_async_init(env, resource, text, &context);
  return context;
}

void call_function(environment *environment, napi_ref function, napi_async_context context, size_t argc,
                   napi_value *argv) {
  napi_env env = environment->env;
  napi_value callee, global;
  if (napi_get_reference_value(env, function, &callee) != napi_ok || callee == NULL) return;
  napi_get_global(env, &global);
  napi_status status = napi_make_callback(env, context, global, callee, argc, argv, NULL);
  if (status == napi_ok) return;
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (!pending) return;
  napi_value error;
  napi_get_and_clear_last_exception(env, &error);
  napi_fatal_exception(env, error);
}

napi_value throw_system_error(napi_env env, int error, const char *call) {
  char text[160];
  snprintf(text, sizeof text, "%s: %s", call, uv_strerror(error));
  napi_throw_error(env, uv_err_name(error), text);
  return NULL;
}

bool get_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *values) {
  size_t given = count;
  napi_get_cb_info(env, info, &given, values, NULL, NULL);
  if (given >= count) return true;
  napi_throw_type_error(env, "ERR_MISSING_ARGS", "too few arguments");
  return false;
}

int32_t get_int(napi_env env, napi_value value) {
  int32_t number = -1;
  napi_get_value_int32(env, value, &number);
  return number;
}

double get_number(napi_env env, napi_value value) {
  double number = 0;
  napi_get_value_double(env, value, &number);
  return number;
}

napi_value make_int(napi_env env, int64_t value) {
  napi_value result;
  napi_create_int64(env, value, &result);
  return result;
}

bytes_view get_bytes(napi_env env, napi_value value) {
  static const size_t element_bytes[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
  bytes_view view = {NULL, 0};
  bool is_typed = false;
  napi_is_typedarray(env, value, &is_typed);
  if (!is_typed) return view;
  napi_typedarray_type type;
  size_t length;
  void *data;
  napi_get_typedarray_info(env, value, &type, &length, &data, NULL, NULL);
  view.data = data;
  view.bytes = length * element_bytes[type];
  return view;
}

void set_function(napi_env env, napi_value exports, const char *name, napi_callback function) {
  napi_value value;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, function, NULL, &value);
  napi_set_named_property(env, exports, name, value);
}

// Node makes libuv measure how long a loop waits, for which libuv polls twice for every wait: first without waiting, then
// again. No call turns that off, so this clears its flag, which is the first member of the loop's internal fields in the
// versions below, and only if it is the only flag set.
#define FIRST_KNOWN_LIBUV ((1 << 16) | (38 << 8))
#define LAST_KNOWN_LIBUV ((1 << 16) | (52 << 8) | 0xff)

// loopForgoIdleTime(): true when done. performance.eventLoopUtilization() of this thread is meaningless from then on.
static napi_value loop_forgo_idle_time(napi_env env, napi_callback_info info) {
  napi_value result;
  bool is_done = false;
#if defined(UV_VERSION_MAJOR) && UV_VERSION_MAJOR == 1 && !defined(_WIN32)
  unsigned version = uv_version();
  unsigned *flags = environment_of(env)->loop->internal_fields;
  if (version >= FIRST_KNOWN_LIBUV && version <= LAST_KNOWN_LIBUV && flags != NULL && *flags == UV_METRICS_IDLE_TIME) {
    *flags = 0;
    is_done = true;
  }
#endif
  napi_get_boolean(env, is_done, &result);
  return result;
}

// zoneScope(zone): number of the interface that it names, as libuv and with it Node reads it
static napi_value zone_scope(napi_env env, napi_callback_info info) {
  static const char prefix[] = "fe80::%";
  napi_value value;
  char text[sizeof prefix + 64];
  size_t length = 0;
  struct sockaddr_in6 address;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  memcpy(text, prefix, sizeof prefix);
  char *zone = text + sizeof prefix - 1;
  size_t room = sizeof text - (sizeof prefix - 1);
  bool is_known = napi_get_value_string_utf8(env, value, zone, room, &length) == napi_ok && length + 1 < room &&
                  uv_ip6_addr(text, 0, &address) == 0 && address.sin6_scope_id != 0;
  return is_known ? make_int(env, address.sin6_scope_id) : throw_system_error(env, UV_ENODEV, "zone");
}

NAPI_MODULE_INIT() {
  environment *state = calloc(1, sizeof *state);
  if (state == NULL) return NULL;
  state->env = env;
  napi_get_uv_event_loop(env, &state->loop);
  napi_set_instance_data(env, state, NULL, NULL);
  napi_add_async_cleanup_hook(env, environment_end, state, &state->cleanup);
  set_function(env, exports, "loopForgoIdleTime", loop_forgo_idle_time);
  set_function(env, exports, "zoneScope", zone_scope);
  udp_init(env, exports);
  tcp_init(env, exports);
  tun_init(env, exports);
  connect_init(env, exports);
  stream_init(env, exports);
  sock_diag_init(env, exports);
  return exports;
}
