#include "datapath.h"

#include <string.h>
#include <uv.h>

#include "../engine/engine.h"
#include "loops.h"

// The class of the object with the functions, whose opaque pointer refers to its `results`.
static JSClassID datapath_class;
static uv_once_t class_once = UV_ONCE_INIT;

static void make_class_id(void) { JS_NewClassID(&datapath_class); }

static const JSClassDef DATAPATH_CLASS = {"Datapath"};

static JSValue out_of_range(JSContext *context, const char *name) {
  return JS_ThrowRangeError(context, "%s: beyond the end of an array", name);
}

// Arguments are numbers and arrays; anything else counts as 0, or as an empty array.

static int32_t int_of(JSContext *context, JSValueConst value) {
  return JS_VALUE_GET_TAG(value) == JS_TAG_INT ? JS_VALUE_GET_INT(value) : get_int(context, value);
}

// A typed array with elements of the given size.
static datapath_bytes array_of(JSContext *context, JSValueConst value, size_t element_bytes) {
  size_t offset, length, element, whole;
  JSValue buffer = JS_GetTypedArrayBuffer(context, value, &offset, &length, &element);
  if (JS_IsException(buffer)) {
    JS_FreeValue(context, JS_GetException(context));
    return (datapath_bytes){NULL, 0};
  }
  uint8_t *data = JS_GetArrayBuffer(context, &whole, buffer);
  JS_FreeValue(context, buffer);
  if (data == NULL || element != element_bytes) return (datapath_bytes){NULL, 0};
  return (datapath_bytes){data + offset, length};
}

static datapath_bytes bytes_of(JSContext *context, JSValueConst value) { return array_of(context, value, 1); }

static datapath_ints ints_of(JSContext *context, JSValueConst value) {
  datapath_bytes array = array_of(context, value, sizeof(int32_t));
  return (datapath_ints){(int32_t *)(void *)array.data, array.count / sizeof(int32_t)};
}

// Returns NULL, with an exception pending, for any other object.
static int32_t *results_of(JSContext *context, JSValueConst self) { return JS_GetOpaque2(context, self, datapath_class); }

static JSValue count_or_throw(JSContext *context, int64_t result, const char *name) {
  return result < 0 ? out_of_range(context, name) : JS_NewInt64(context, result);
}

static JSValue copy(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  int32_t from_offset = int_of(context, values[1]), length = int_of(context, values[2]);
  int32_t to_offset = int_of(context, values[4]);
  datapath_bytes from = bytes_of(context, values[0]), to = bytes_of(context, values[3]);
  if (!datapath_is_within(from_offset, length, from.count) || !datapath_is_within(to_offset, length, to.count))
    return out_of_range(context, "copy");
  if (length > 0) memmove(to.data + to_offset, from.data + from_offset, (size_t)length);
  return JS_UNDEFINED;
}

static JSValue are_same(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  int32_t a_offset = int_of(context, values[1]), b_offset = int_of(context, values[3]);
  int32_t length = int_of(context, values[4]);
  datapath_bytes a = bytes_of(context, values[0]), b = bytes_of(context, values[2]);
  if (!datapath_is_within(a_offset, length, a.count) || !datapath_is_within(b_offset, length, b.count))
    return out_of_range(context, "areSame");
  return JS_NewBool(context, length == 0 || memcmp(a.data + a_offset, b.data + b_offset, (size_t)length) == 0);
}

static JSValue end_of_equal(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  int64_t result = datapath_end_of_equal(ints_of(context, values[0]), int_of(context, values[1]), int_of(context, values[2]),
                                         int_of(context, values[3]), int_of(context, values[4]));
  return count_or_throw(context, result, "endOfEqual");
}

static JSValue sum(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  int64_t total;
  int64_t result = datapath_sum(ints_of(context, values[0]), int_of(context, values[1]), int_of(context, values[2]),
                                int_of(context, values[3]), int_of(context, values[4]), &total);
  return result < 0 ? out_of_range(context, "sum") : JS_NewInt64(context, total);
}

// writeRows(rows, first, end, data, context, out, at)
static JSValue write_rows(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)count;
  int32_t *results = results_of(context, self);
  if (results == NULL) return JS_EXCEPTION;
  int64_t result = datapath_write_rows(ints_of(context, values[0]), int_of(context, values[1]), int_of(context, values[2]),
                                       bytes_of(context, values[3]), int_of(context, values[4]),
                                       bytes_of(context, values[5]), int_of(context, values[6]), results);
  return count_or_throw(context, result, "writeRows");
}

// readRuns(chunk, offset, end, offsets, lengths, from, runs)
static JSValue read_runs(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)count;
  int32_t *results = results_of(context, self);
  if (results == NULL) return JS_EXCEPTION;
  int64_t result = datapath_read_runs(bytes_of(context, values[0]), int_of(context, values[1]), int_of(context, values[2]),
                                      ints_of(context, values[3]), ints_of(context, values[4]),
                                      int_of(context, values[5]), ints_of(context, values[6]), results);
  return count_or_throw(context, result, "readRuns");
}

// addSendRows(rows, at, socket, headerOffset, headerLength, offsets, lengths, first, end, addressOffset, local)
static JSValue add_send_rows(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  const datapath_send send = {
      .socket = int_of(context, values[2]),
      .header_offset = int_of(context, values[3]),
      .header_length = int_of(context, values[4]),
      .address_offset = int_of(context, values[9]),
      .local = int_of(context, values[10]),
  };
  int64_t result = datapath_add_send_rows(ints_of(context, values[0]), int_of(context, values[1]), &send,
                                          ints_of(context, values[5]), ints_of(context, values[6]),
                                          int_of(context, values[7]), int_of(context, values[8]));
  return result < 0 ? out_of_range(context, "addSendRows") : JS_UNDEFINED;
}

// The arrays live as long as the list, which the caller owns.
static datapath_queue queue_of(JSContext *context, JSValueConst memory) {
  datapath_queue queue;
  memset(&queue, 0, sizeof queue);
  for (uint32_t i = 0; i < 8; i++) {
    JSValue value = JS_GetPropertyUint32(context, memory, i);
    if (i == 0) queue.blocks = bytes_of(context, value);
    else if (i == 1) queue.block_next = ints_of(context, value);
    else if (i == 2) queue.entry_next = ints_of(context, value);
    else if (i == 3) queue.entry_block = ints_of(context, value);
    else if (i == 4) queue.entry_length = ints_of(context, value);
    else if (i == 5) queue.entry_context = ints_of(context, value);
    else if (i == 6) {
      datapath_bytes times = array_of(context, value, sizeof(double));
      queue.entry_time = (double *)(void *)times.data;
      queue.entry_times = times.count / sizeof(double);
    } else queue.heads = ints_of(context, value);
    JS_FreeValue(context, value);
  }
  return queue;
}

// queueRows(memory, now, context, rows, first, end, data, tail, room)
static JSValue queue_rows(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)count;
  int32_t *results = results_of(context, self);
  if (results == NULL) return JS_EXCEPTION;
  datapath_queue queue = queue_of(context, values[0]);
  int64_t result = datapath_queue_rows(&queue, get_number(context, values[1]), int_of(context, values[2]),
                                       ints_of(context, values[3]), int_of(context, values[4]), int_of(context, values[5]),
                                       bytes_of(context, values[6]), int_of(context, values[7]),
                                       int_of(context, values[8]), results);
  return count_or_throw(context, result, "queueRows");
}

// takeEntries(memory, oldest, head, credit, out, at)
static JSValue take_entries(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)count;
  int32_t *results = results_of(context, self);
  if (results == NULL) return JS_EXCEPTION;
  datapath_queue queue = queue_of(context, values[0]);
  int64_t result = datapath_take_entries(&queue, get_number(context, values[1]), int_of(context, values[2]),
                                         int_of(context, values[3]), bytes_of(context, values[4]),
                                         int_of(context, values[5]), results);
  return count_or_throw(context, result, "takeEntries");
}

// dropEntries(memory, oldest, head, cost, most)
static JSValue drop_entries(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)count;
  int32_t *results = results_of(context, self);
  if (results == NULL) return JS_EXCEPTION;
  datapath_queue queue = queue_of(context, values[0]);
  int64_t result = datapath_drop_entries(&queue, get_number(context, values[1]), int_of(context, values[2]),
                                         int_of(context, values[3]), int_of(context, values[4]), results);
  return count_or_throw(context, result, "dropEntries");
}

static const JSCFunctionListEntry FUNCTIONS[] = {
    JS_CFUNC_DEF("copy", 5, copy),
    JS_CFUNC_DEF("areSame", 5, are_same),
    JS_CFUNC_DEF("endOfEqual", 5, end_of_equal),
    JS_CFUNC_DEF("sum", 5, sum),
    JS_CFUNC_DEF("writeRows", 7, write_rows),
    JS_CFUNC_DEF("readRuns", 7, read_runs),
    JS_CFUNC_DEF("addSendRows", 11, add_send_rows),
    JS_CFUNC_DEF("queueRows", 9, queue_rows),
    JS_CFUNC_DEF("takeEntries", 6, take_entries),
    JS_CFUNC_DEF("dropEntries", 5, drop_entries),
};

JSValue datapath_create(JSContext *context) {
  // Class numbers belong to the process, and QuickJS assigns them without a lock.
  uv_once(&class_once, make_class_id);
  JS_NewClass(JS_GetRuntime(context), datapath_class, &DATAPATH_CLASS);
  JSValue datapath = JS_NewObjectClass(context, (int)datapath_class);
  if (JS_IsException(datapath)) return datapath;
  JS_SetPropertyFunctionList(context, datapath, FUNCTIONS, sizeof FUNCTIONS / sizeof *FUNCTIONS);
  static const uint8_t zeros[DATAPATH_RESULTS * sizeof(int32_t)];
  // The function reads all three, whatever the count.
  JSValueConst values[3] = {JS_NewArrayBufferCopy(context, zeros, sizeof zeros), JS_UNDEFINED, JS_UNDEFINED};
  JSValue results = JS_IsException(values[0]) ? JS_EXCEPTION : JS_NewTypedArray(context, 3, values, JS_TYPED_ARRAY_INT32);
  JS_FreeValue(context, values[0]);
  if (JS_IsException(results)) {
    JS_FreeValue(context, datapath);
    return results;
  }
  JS_SetOpaque(datapath, ints_of(context, results).data);
  // The object keeps its memory, so it cannot be replaced.
  JS_DefinePropertyValueStr(context, datapath, "results", results, JS_PROP_ENUMERABLE);
  return datapath;
}
