#include "carrier.h"

#include <stdlib.h>
#include <string.h>

#include "../host.h"
#include "guest.h"

// Limit of bytes that arrived and were not read yet.
#define ROOM_BYTES (256 * 1024)
#define FIRST_BYTES (16 * 1024)

struct underpass_stream {
  guest guest;
  underpass_carrier carrier;
  void *connection;
  // The script's object, and the function that it calls on events.
  JSValue object, on_event;
  JSContext *context;
  // Whether `close` was called, or nothing was opened. Used on the instance's thread, like the fields above.
  bool is_closed;

  // Guarded by the mutex of the guest.
  uint8_t *bytes;
  size_t start, count, capacity;
  bool is_writable;
  // Not everything was accepted, so `drained` is called when there is room.
  bool was_full;
  // Its owner has reported that it is closed, and why.
  bool has_ended;
  char *reason;
};

static JSClassID stream_class;
static const JSClassDef STREAM_CLASS = {"Stream", .finalizer = NULL};
static uv_once_t class_once = UV_ONCE_INIT;

static void make_class_id(void) { JS_NewClassID(&stream_class); }

static void handle(guest *guest) {
  underpass_stream *stream = (underpass_stream *)guest;
  uv_mutex_lock(&guest->mutex);
  bool is_writable = stream->is_writable;
  stream->is_writable = false;
  uv_mutex_unlock(&guest->mutex);
  JSValue value = JS_NewBool(stream->context, is_writable);
  engine_run(engine_of(stream->context), stream->on_event, 1, &value);
}

static void leave(guest *guest) {
  underpass_stream *stream = (underpass_stream *)guest;
  JS_SetOpaque(stream->object, NULL);
  JS_FreeValue(stream->context, stream->object);
  JS_FreeValue(stream->context, stream->on_event);
  if (!stream->is_closed && stream->carrier.close != NULL) stream->carrier.close(stream->connection);
  stream->is_closed = true;
}

static void destroy(guest *guest) {
  underpass_stream *stream = (underpass_stream *)guest;
  free(stream->bytes);
  free(stream->reason);
  free(stream);
}

static const guest_kind STREAM = {handle, leave, destroy};

static underpass_stream *stream_of(JSValueConst value) { return JS_GetOpaque(value, stream_class); }

// carrierOpen(onEvent(isWritable)): a stream
static JSValue carrier_open(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  instance *instance = instance_of(context);
  if (instance->carrier.open == NULL || instance->is_silent) return throw_system_error(context, UV_ECANCELED, "open");
  underpass_stream *stream = calloc(1, sizeof *stream);
  if (stream == NULL) return JS_ThrowOutOfMemory(context);
  stream->carrier = instance->carrier;
  stream->context = context;
  stream->object = JS_NewObjectClass(context, (int)stream_class);
  if (JS_IsException(stream->object) || !guest_join(&stream->guest, &STREAM, instance)) {
    JS_FreeValue(context, stream->object);
    free(stream);
    return JS_ThrowOutOfMemory(context);
  }
  stream->on_event = JS_DupValue(context, values[0]);
  JS_SetOpaque(stream->object, stream);
  int result = instance->carrier.open(instance->user_data, stream, &stream->connection);
  if (result == 0) return JS_DupValue(context, stream->object);
  // Nothing is open, and the owner holds no reference.
  stream->is_closed = true;
  guest_leave(&stream->guest);
  guest_release(&stream->guest);
  return JS_ThrowInternalError(context, "the carrier's open returned %d", result);
}

// carrierWrite(stream, bytes): how many were accepted
static JSValue carrier_write(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  underpass_stream *stream = stream_of(values[0]);
  bytes_view bytes = get_bytes(context, values[1]);
  if (stream == NULL || bytes.bytes == 0) return JS_NewInt64(context, (int64_t)bytes.bytes);
  size_t taken =
      instance_of(context)->is_silent ? 0 : stream->carrier.write(stream->connection, bytes.data, bytes.bytes);
  return JS_NewInt64(context, (int64_t)(taken < bytes.bytes ? taken : bytes.bytes));
}

// carrierRead(stream, buffer): bytes in it; 0 if more has to arrive, -1 when it is closed
static JSValue carrier_read(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  underpass_stream *stream = stream_of(values[0]);
  bytes_view buffer = get_bytes(context, values[1]);
  if (stream == NULL) return JS_NewInt32(context, -1);
  uv_mutex_lock(&stream->guest.mutex);
  size_t length = stream->count < buffer.bytes ? stream->count : buffer.bytes;
  if (length > 0) memcpy(buffer.data, stream->bytes + stream->start, length);
  stream->start += length;
  stream->count -= length;
  bool has_ended = stream->has_ended;
  bool is_drained = stream->was_full && stream->count <= ROOM_BYTES / 2 && !has_ended;
  if (is_drained) stream->was_full = false;
  uv_mutex_unlock(&stream->guest.mutex);
  if (is_drained && stream->carrier.drained != NULL && !instance_of(context)->is_silent)
    stream->carrier.drained(stream->connection);
  return JS_NewInt64(context, length > 0 ? (int64_t)length : has_ended ? -1 : 0);
}

// carrierReason(stream): why it was closed; undefined for an orderly end
static JSValue carrier_reason(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  underpass_stream *stream = stream_of(values[0]);
  // The reason does not change after `has_ended`.
  return stream == NULL || stream->reason == NULL ? JS_UNDEFINED : JS_NewString(context, stream->reason);
}

static JSValue carrier_close(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)context, (void)self, (void)count;
  underpass_stream *stream = stream_of(values[0]);
  if (stream != NULL) guest_leave(&stream->guest);
  return JS_UNDEFINED;
}

static const JSCFunctionListEntry FUNCTIONS[] = {
    FUNCTION("carrierOpen", 1, carrier_open),     FUNCTION("carrierWrite", 2, carrier_write),
    FUNCTION("carrierRead", 2, carrier_read),     FUNCTION("carrierReason", 1, carrier_reason),
    FUNCTION("carrierClose", 1, carrier_close),
};

void carrier_add(JSContext *context, JSValueConst host) {
  // Class numbers belong to the process, and QuickJS assigns them without a lock.
  uv_once(&class_once, make_class_id);
  JS_NewClass(JS_GetRuntime(context), stream_class, &STREAM_CLASS);
  ADD_FUNCTIONS(context, host, FUNCTIONS);
}

// From any thread

static bool make_room(underpass_stream *stream, size_t count) {
  if (stream->start + stream->count + count <= stream->capacity) return true;
  if (stream->start > 0) {
    memmove(stream->bytes, stream->bytes + stream->start, stream->count);
    stream->start = 0;
  }
  size_t capacity = stream->capacity == 0 ? FIRST_BYTES : stream->capacity;
  while (capacity < stream->count + count) capacity *= 2;
  if (capacity == stream->capacity) return true;
  uint8_t *bytes = realloc(stream->bytes, capacity);
  if (bytes == NULL) return false;
  stream->bytes = bytes;
  stream->capacity = capacity;
  return true;
}

ptrdiff_t underpass_stream_received(underpass_stream *stream, const void *bytes, size_t count) {
  if (stream == NULL) return set_error(UNDERPASS_ERR_OPTION, "stream: NULL");
  if (bytes == NULL && count > 0) return set_error(UNDERPASS_ERR_OPTION, "bytes: NULL with a length");
  uv_mutex_lock(&stream->guest.mutex);
  bool is_open = stream->guest.instance != NULL;
  size_t room = ROOM_BYTES - stream->count;
  size_t taken = count < room ? count : room;
  if (!is_open || !make_room(stream, taken)) taken = 0;
  if (taken > 0) {
    memcpy(stream->bytes + stream->start + stream->count, bytes, taken);
    stream->count += taken;
    guest_stir(&stream->guest);
  }
  if (taken < count) stream->was_full = true;
  uv_mutex_unlock(&stream->guest.mutex);
  return is_open ? (ptrdiff_t)taken : set_error(UNDERPASS_ERR_STATE, "the connection is not wanted any more");
}

int underpass_stream_writable(underpass_stream *stream) {
  if (stream == NULL) return set_error(UNDERPASS_ERR_OPTION, "stream: NULL");
  uv_mutex_lock(&stream->guest.mutex);
  bool is_open = stream->guest.instance != NULL;
  stream->is_writable = true;
  guest_stir(&stream->guest);
  uv_mutex_unlock(&stream->guest.mutex);
  return is_open ? 0 : set_error(UNDERPASS_ERR_STATE, "the connection is not wanted any more");
}

void underpass_stream_closed(underpass_stream *stream, const char *reason) {
  if (stream == NULL) return;
  uv_mutex_lock(&stream->guest.mutex);
  stream->has_ended = true;
  if (reason != NULL && stream->reason == NULL) stream->reason = strdup(reason);
  guest_stir(&stream->guest);
  uv_mutex_unlock(&stream->guest.mutex);
  guest_release(&stream->guest);
}
