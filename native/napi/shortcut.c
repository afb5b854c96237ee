#include "../io/shortcut.h"

#include "binding.h"

#ifdef _WIN32

void shortcut_init(napi_env env, napi_value exports) {
  (void)env, (void)exports;
}

#else

// The arguments of shortcutOut and shortcutIn: socket, address, local, header, stream, context. Returns the shortcut's number, or
// -1.
static napi_value give(napi_env env, napi_callback_info info, int32_t (*how)(io_loop *, const io_shortcut_flow *)) {
  napi_value values[6];
  if (!get_arguments(env, info, 6, values)) return NULL;
  bytes_view address = get_bytes(env, values[1]), header = get_bytes(env, values[3]);
  io_shortcut_flow flow = {.socket = get_int(env, values[0]),
                           .address = address.data,
                           .address_bytes = address.bytes,
                           .local = get_int(env, values[2]),
                           .header = header.data,
                           .header_bytes = header.bytes,
                           .stream = get_int(env, values[4]),
                           .context = get_int(env, values[5])};
  return make_int(env, how(loop_of(env), &flow));
}

static napi_value shortcut_out(napi_env env, napi_callback_info info) { return give(env, info, io_shortcut_out); }

static napi_value shortcut_in(napi_env env, napi_callback_info info) { return give(env, info, io_shortcut_in); }

// The arguments of shortcutPacketsOut and shortcutPacketsIn: device, source, remote, dscp, stream, context. Returns the
// shortcut's number, or -1.
static napi_value give_packets(napi_env env, napi_callback_info info,
                               int32_t (*how)(io_loop *, const io_shortcut_packets *)) {
  napi_value values[6];
  if (!get_arguments(env, info, 6, values)) return NULL;
  bytes_view source = get_bytes(env, values[1]), remote = get_bytes(env, values[2]);
  io_shortcut_packets flow = {.device = get_int(env, values[0]),
                              .source = source.data,
                              .remote = remote.data,
                              .address_bytes = source.bytes == remote.bytes ? source.bytes : 0,
                              .dscp = get_int(env, values[3]),
                              .stream = get_int(env, values[4]),
                              .context = get_int(env, values[5])};
  return make_int(env, how(loop_of(env), &flow));
}

static napi_value shortcut_packets_out(napi_env env, napi_callback_info info) {
  return give_packets(env, info, io_shortcut_packets_out);
}

static napi_value shortcut_packets_in(napi_env env, napi_callback_info info) {
  return give_packets(env, info, io_shortcut_packets_in);
}

// shortcutEnd(stream): ends all shortcuts of the stream
static napi_value shortcut_end(napi_env env, napi_callback_info info) {
  napi_value value;
  if (get_arguments(env, info, 1, &value)) io_shortcut_end(loop_of(env), get_int(env, value));
  return NULL;
}

// shortcutResume(stream): its shortcuts may read on
static napi_value shortcut_resume(napi_env env, napi_callback_info info) {
  napi_value value;
  if (get_arguments(env, info, 1, &value)) io_shortcut_resume(loop_of(env), get_int(env, value));
  return NULL;
}

// shortcutCounts(Float64Array): rows written
static napi_value shortcut_counts(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  bytes_view rows = get_bytes(env, value);
  int32_t capacity = (int32_t)(rows.bytes / (IO_SHORTCUT_COUNT_NUMBERS * sizeof(double)));
  return make_int(env, io_shortcut_counts(loop_of(env), (double *)(void *)rows.data, capacity));
}

void shortcut_init(napi_env env, napi_value exports) {
  set_function(env, exports, "shortcutOut", shortcut_out);
  set_function(env, exports, "shortcutIn", shortcut_in);
  set_function(env, exports, "shortcutPacketsOut", shortcut_packets_out);
  set_function(env, exports, "shortcutPacketsIn", shortcut_packets_in);
  set_function(env, exports, "shortcutEnd", shortcut_end);
  set_function(env, exports, "shortcutResume", shortcut_resume);
  set_function(env, exports, "shortcutCounts", shortcut_counts);
}

#endif
