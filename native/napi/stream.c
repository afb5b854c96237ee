#include "../io/stream.h"

#include "binding.h"

#ifdef _WIN32

void stream_init(napi_env env, napi_value exports) {
  (void)env, (void)exports;
}

#else

// References of its callee.
enum { BUFFER, ON_READ, ON_WRITABLE, REFERENCES };

static void on_read(void *user_data, ssize_t count) {
  callee_call(user_data, ON_READ, 1, count);
}

static void on_writable(void *user_data) {
  callee_call(user_data, ON_WRITABLE, 0, 0);
}

static const io_stream_callbacks callbacks = {on_read, on_writable, callee_free};

// streamOpen(descriptor of a connection, buffer, onRead(count, 0 at the end, or a system error), onWritable())
static napi_value stream_open(napi_env env, napi_callback_info info) {
  napi_value values[1 + REFERENCES];
  if (!get_arguments(env, info, 1 + REFERENCES, values)) return NULL;
  bytes_view buffer = get_bytes(env, values[1]);
  callee *callee = callee_new(env, "underpass:stream", values + 1, REFERENCES);
  if (callee == NULL) return NULL;
  int error = io_stream_open(loop_of(env), get_int(env, values[0]), buffer.data, buffer.bytes, &callbacks, callee);
  if (error == 0) return NULL;
  callee_free(callee);
  return throw_system_error(env, error, "streamOpen");
}

// streamWrite(descriptor, bytes, length, whether the caller has more): how many bytes the system accepted, or a system error; if
// not all, onWritable is called when it accepts more
static napi_value stream_write(napi_env env, napi_callback_info info) {
  napi_value values[4];
  if (!get_arguments(env, info, 4, values)) return NULL;
  bytes_view bytes = get_bytes(env, values[1]);
  int64_t length = -1;
  napi_get_value_int64(env, values[2], &length);
  if (length < 0 || (size_t)length > bytes.bytes) return make_int(env, UV_EINVAL);
  return make_int(env, io_stream_write(loop_of(env), get_int(env, values[0]), bytes.data, (size_t)length,
                                       get_bool(env, values[3])));
}

// streamPause(descriptor, whether to pause)
static napi_value stream_pause(napi_env env, napi_callback_info info) {
  napi_value values[2];
  if (get_arguments(env, info, 2, values)) io_stream_pause(loop_of(env), get_int(env, values[0]), get_bool(env, values[1]));
  return NULL;
}

// streamLimit(descriptor, most bytes of one read, bytes of the receive buffer; or 0 and 0)
static napi_value stream_limit(napi_env env, napi_callback_info info) {
  napi_value values[3];
  if (!get_arguments(env, info, 3, values)) return NULL;
  int bytes = get_int(env, values[1]);
  io_stream_limit(loop_of(env), get_int(env, values[0]), bytes < 0 ? 0 : (size_t)bytes, get_int(env, values[2]));
  return NULL;
}

// Calls that take only the descriptor.
static napi_value call(napi_env env, napi_callback_info info, void (*what)(io_loop *, int)) {
  napi_value value;
  if (get_arguments(env, info, 1, &value)) what(loop_of(env), get_int(env, value));
  return NULL;
}

// streamEnd(descriptor): ends writing
static napi_value stream_finish(napi_env env, napi_callback_info info) {
  return call(env, info, io_stream_end);
}

// streamRelease(descriptor): returns the open descriptor to the caller
static napi_value stream_release(napi_env env, napi_callback_info info) {
  return call(env, info, io_stream_release);
}

// streamClose(descriptor); streamReset(descriptor): with a RST
static napi_value stream_close(napi_env env, napi_callback_info info) {
  return call(env, info, io_stream_close);
}

static napi_value stream_reset(napi_env env, napi_callback_info info) {
  return call(env, info, io_stream_reset);
}

void stream_init(napi_env env, napi_value exports) {
  set_function(env, exports, "streamOpen", stream_open);
  set_function(env, exports, "streamWrite", stream_write);
  set_function(env, exports, "streamPause", stream_pause);
  set_function(env, exports, "streamLimit", stream_limit);
  set_function(env, exports, "streamEnd", stream_finish);
  set_function(env, exports, "streamRelease", stream_release);
  set_function(env, exports, "streamClose", stream_close);
  set_function(env, exports, "streamReset", stream_reset);
}

#endif
