// Batched socket I/O for Node: UDP sockets that receive and send many datagrams in one call, TCP listeners on descriptors, socket
// options that node:net lacks, and TUN devices. It knows nothing about the protocols above.
#include <stdlib.h>

#include "../io/address.h"
#include "binding.h"

environment *environment_of(napi_env env) {
  void *data = NULL;
  napi_get_instance_data(env, &data);
  return data;
}

io_loop *loop_of(napi_env env) {
  return environment_of(env)->loop;
}

static void on_ended(void *data) {
  environment *environment = data;
  napi_remove_async_cleanup_hook(environment->cleanup);
  free(environment);
}

static void environment_end(napi_async_cleanup_hook_handle handle, void *data) {
  (void)handle;
  environment *environment = data;
  tcp_stacks_end(environment);
  io_loop_end(environment->loop, on_ended, environment);
}

// zoneScope(zone): number of the interface, as libuv and therefore Node reads it
static napi_value zone_scope(napi_env env, napi_callback_info info) {
  napi_value value;
  char zone[64];
  size_t length = 0;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  bool is_text = napi_get_value_string_utf8(env, value, zone, sizeof zone, &length) == napi_ok;
  int64_t scope = is_text ? io_zone_scope(zone) : UV_ENODEV;
  return scope < 0 ? throw_system_error(env, (int)scope, "zone") : make_int(env, scope);
}

NAPI_MODULE_INIT() {
  environment *state = calloc(1, sizeof *state);
  uv_loop_t *uv;
  if (state == NULL) return NULL;
  state->env = env;
  napi_get_uv_event_loop(env, &uv);
  if (io_loop_create(uv, NULL, &state->loop) != 0) {
    free(state);
    return NULL;
  }
  napi_set_instance_data(env, state, NULL, NULL);
  napi_add_async_cleanup_hook(env, environment_end, state, &state->cleanup);
  set_function(env, exports, "zoneScope", zone_scope);
  udp_init(env, exports);
  tcp_init(env, exports);
  stream_init(env, exports);
  shortcut_init(env, exports);
  tun_init(env, exports);
  tcp_stack_init(env, exports);
  service_init(env, exports);
  interfaces_init(env, exports);
  return exports;
}
