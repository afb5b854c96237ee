// Connected streams, as src/host/io/native-module.ts declares them, over native/io/stream.h.
#include "io/stream.h"

#include "../host.h"

// Values of the binding.
enum { BUFFER, ON_READ, ON_WRITABLE };

static void on_read(void *data, ssize_t count) {
  binding *binding = data;
  engine_run_number(binding->engine, binding->values[ON_READ], count);
}

static void on_writable(void *data) {
  binding *binding = data;
  engine_run(binding->engine, binding->values[ON_WRITABLE], 0, NULL);
}

static const io_stream_callbacks CALLBACKS = {on_read, on_writable, binding_free};

// streamOpen(descriptor, buffer, onRead, onWritable)
static JSValue stream_open(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view buffer = get_bytes(context, values[1]);
  if (buffer.bytes == 0) return throw_system_error(context, UV_EINVAL, "streamOpen");
  binding *binding = binding_create(context, values + 1, 3);
  if (binding == NULL) return JS_EXCEPTION;
  int error = io_stream_open(instance_of(context)->io, get_int(context, values[0]), buffer.data, buffer.bytes, &CALLBACKS,
                             binding);
  if (error == 0) return JS_UNDEFINED;
  binding_free(binding);
  return throw_system_error(context, error, "streamOpen");
}

// streamWrite(descriptor, bytes, length, hasMore): bytes that the system accepted, or a system error
static JSValue stream_write(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view bytes = get_bytes(context, values[1]);
  int32_t length = get_int(context, values[2]);
  if (length < 0 || (size_t)length > bytes.bytes) return throw_system_error(context, UV_EINVAL, "streamWrite");
  return JS_NewInt64(context, io_stream_write(instance_of(context)->io, get_int(context, values[0]), bytes.data,
                                              (size_t)length, JS_ToBool(context, values[3]) == 1));
}

static JSValue stream_end(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_stream_end(instance_of(context)->io, get_int(context, values[0]));
  return JS_UNDEFINED;
}

// streamPause(descriptor, isPaused)
static JSValue stream_pause(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_stream_pause(instance_of(context)->io, get_int(context, values[0]), JS_ToBool(context, values[1]) == 1);
  return JS_UNDEFINED;
}

// streamLimit(descriptor, most bytes of one read, bytes of the receive buffer; or 0 and 0)
static JSValue stream_limit(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  int32_t bytes = get_int(context, values[1]);
  io_stream_limit(instance_of(context)->io, get_int(context, values[0]), bytes < 0 ? 0 : (size_t)bytes,
                  get_int(context, values[2]));
  return JS_UNDEFINED;
}

static JSValue stream_release(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_stream_release(instance_of(context)->io, get_int(context, values[0]));
  return JS_UNDEFINED;
}

static JSValue stream_close(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_stream_close(instance_of(context)->io, get_int(context, values[0]));
  return JS_UNDEFINED;
}

static JSValue stream_reset(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_stream_reset(instance_of(context)->io, get_int(context, values[0]));
  return JS_UNDEFINED;
}

static const JSCFunctionListEntry FUNCTIONS[] = {
    FUNCTION("streamOpen", 4, stream_open),       FUNCTION("streamWrite", 4, stream_write),
    FUNCTION("streamEnd", 1, stream_end),         FUNCTION("streamPause", 2, stream_pause),
    FUNCTION("streamRelease", 1, stream_release), FUNCTION("streamClose", 1, stream_close),
    FUNCTION("streamReset", 1, stream_reset),     FUNCTION("streamLimit", 3, stream_limit),
};

void stream_add(JSContext *context, JSValueConst host) { ADD_FUNCTIONS(context, host, FUNCTIONS); }
