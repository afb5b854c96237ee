#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "pages.h"
#include "scripts.h"

// AddressSanitizer checks only blocks that are allocated separately.
#if defined(__has_feature)
#define HAS_SCRIPT_MEMORY !__has_feature(address_sanitizer)
#elif defined(__SANITIZE_ADDRESS__)
#define HAS_SCRIPT_MEMORY 0
#else
#define HAS_SCRIPT_MEMORY 1
#endif

// Limit of its thread's stack for one call.
#define STACK_BYTES (256 * 1024)

static void on_rejection(JSContext *context, JSValueConst promise, JSValueConst reason, JS_BOOL is_handled,
                         void *opaque) {
  engine *engine = opaque;
  (void)reason;
  if (!is_handled) {
    if (engine->rejected_count < MAX_REJECTED)
      engine->rejected[engine->rejected_count++] = JS_DupValue(context, promise);
    return;
  }
  for (int i = 0; i < engine->rejected_count; i++) {
    if (JS_VALUE_GET_PTR(engine->rejected[i]) != JS_VALUE_GET_PTR(promise)) continue;
    JS_FreeValue(context, engine->rejected[i]);
    engine->rejected[i] = engine->rejected[--engine->rejected_count];
    return;
  }
}

bool engine_open(engine *engine, size_t memory_bytes, void (*on_fault)(void *data, const char *text), void *data) {
  memset(engine, 0, sizeof *engine);
  engine->on_fault = on_fault;
  engine->data = data;
#if HAS_SCRIPT_MEMORY
  engine->runtime = JS_NewRuntime2(&SCRIPT_MEMORY_FUNCTIONS, &engine->memory);
#else
  engine->runtime = JS_NewRuntime();
#endif
  if (engine->runtime == NULL) {
#if HAS_SCRIPT_MEMORY
    script_memory_free(&engine->memory);
#endif
    return false;
  }
  JS_SetMaxStackSize(engine->runtime, STACK_BYTES);
  JS_SetHostPromiseRejectionTracker(engine->runtime, on_rejection, engine);
  engine->context = JS_NewContextRaw(engine->runtime);
  if (engine->context == NULL) {
    engine_close(engine);
    return false;
  }
  JS_SetContextOpaque(engine->context, engine);
  // Includes neither Eval, so that text never runs as code, nor anything else that the script does not use.
  JS_AddIntrinsicBaseObjects(engine->context);
  JS_AddIntrinsicRegExp(engine->context);
  JS_AddIntrinsicJSON(engine->context);
  JS_AddIntrinsicMapSet(engine->context);
  JS_AddIntrinsicTypedArrays(engine->context);
  JS_AddIntrinsicPromise(engine->context);
  scripts_add(engine->context);
  // The engine does not survive running out of memory before this point.
  JS_SetMemoryLimit(engine->runtime, memory_bytes);
  return true;
}

engine *engine_of(JSContext *context) { return JS_GetContextOpaque(context); }

// Writes the text of the exception, and its place, in at most `size` bytes.
static void describe(JSContext *context, JSValueConst thrown, char *text, size_t size) {
  const char *message = JS_ToCString(context, thrown);
  JSValue stack_value = JS_IsObject(thrown) ? JS_GetPropertyStr(context, thrown, "stack") : JS_UNDEFINED;
  const char *stack = JS_IsString(stack_value) ? JS_ToCString(context, stack_value) : NULL;
  snprintf(text, size, "%s%s%s", message == NULL ? "out of memory" : message, stack == NULL ? "" : "\n",
           stack == NULL ? "" : stack);
  if (stack != NULL) JS_FreeCString(context, stack);
  JS_FreeValue(context, stack_value);
  if (message != NULL) JS_FreeCString(context, message);
}

static void fail_by(engine *engine, JSValue thrown) {
  char text[1024];
  describe(engine->context, thrown, text, sizeof text);
  JS_FreeValue(engine->context, thrown);
  // Describing the exception may have failed too.
  JS_FreeValue(engine->context, JS_GetException(engine->context));
  if (engine->is_broken) return;
  engine->is_broken = true;
  engine->on_fault(engine->data, text);
}

void engine_fail(engine *engine) { fail_by(engine, JS_GetException(engine->context)); }

static void forget_rejected(engine *engine) {
  while (engine->rejected_count > 0) JS_FreeValue(engine->context, engine->rejected[--engine->rejected_count]);
}

bool engine_load(engine *engine, const char *script) {
  JSContext *context = engine->context;
  JSModuleDef *module;
  JSValue result = scripts_run(context, script, &module);
  if (JS_IsException(result)) engine_fail(engine);
  else if (JS_PromiseState(context, result) == JS_PROMISE_REJECTED) fail_by(engine, JS_PromiseResult(context, result));
  JS_FreeValue(context, result);
  forget_rejected(engine);
  return !engine->is_broken;
}

void engine_close(engine *engine) {
  if (engine->context != NULL) {
    forget_rejected(engine);
    JS_FreeContext(engine->context);
  }
  if (engine->runtime != NULL) JS_FreeRuntime(engine->runtime);
  script_memory_free(&engine->memory);
  engine->context = NULL;
  engine->runtime = NULL;
}

static void run_jobs(engine *engine) {
  JSContext *context;
  while (!engine->is_broken) {
    int result = JS_ExecutePendingJob(engine->runtime, &context);
    if (result == 0) break;
    if (result < 0) engine_fail(engine);
  }
  if (engine->rejected_count > 0 && !engine->is_broken)
    fail_by(engine, JS_PromiseResult(engine->context, engine->rejected[0]));
  forget_rejected(engine);
}

JSValue engine_call(engine *engine, JSValueConst function, int count, JSValue *values) {
  JSContext *context = engine->context;
  JSValue result = JS_UNDEFINED;
  if (!engine->is_broken) {
    // The caller may run its loop at any stack depth.
    if (engine->depth == 0) JS_UpdateStackTop(engine->runtime);
    engine->depth++;
    // The call may free the function.
    JSValue held = JS_DupValue(context, function);
    result = JS_Call(context, held, JS_UNDEFINED, count, values);
    JS_FreeValue(context, held);
    if (JS_IsException(result)) {
      engine_fail(engine);
      result = JS_UNDEFINED;
    }
    if (engine->depth == 1) run_jobs(engine);
    engine->depth--;
    if (engine->depth == 0 && engine->after_call != NULL) engine->after_call(engine->data);
  }
  for (int i = 0; i < count; i++) JS_FreeValue(context, values[i]);
  return result;
}

JSValue engine_call_global(engine *engine, const char *name, int count, JSValue *values) {
  JSValue global = JS_GetGlobalObject(engine->context);
  JSValue function = JS_GetPropertyStr(engine->context, global, name);
  JS_FreeValue(engine->context, global);
  JSValue result = engine_call(engine, function, count, values);
  JS_FreeValue(engine->context, function);
  return result;
}

void engine_run(engine *engine, JSValueConst function, int count, JSValue *values) {
  JS_FreeValue(engine->context, engine_call(engine, function, count, values));
}

void engine_run_number(engine *engine, JSValueConst function, int64_t number) {
  JSValue value = JS_NewInt64(engine->context, number);
  engine_run(engine, function, 1, &value);
}

bytes_view get_bytes(JSContext *context, JSValueConst value) {
  size_t offset, length, element, whole;
  JSValue buffer = JS_GetTypedArrayBuffer(context, value, &offset, &length, &element);
  if (JS_IsException(buffer)) {
    JS_FreeValue(context, JS_GetException(context));
    return (bytes_view){NULL, 0};
  }
  uint8_t *data = JS_GetArrayBuffer(context, &whole, buffer);
  JS_FreeValue(context, buffer);
  if (data == NULL) return (bytes_view){NULL, 0};
  return (bytes_view){data + offset, length};
}

int32_t get_int(JSContext *context, JSValueConst value) {
  int32_t number = 0;
  if (JS_ToInt32(context, &number, value) < 0) JS_FreeValue(context, JS_GetException(context));
  return number;
}

double get_number(JSContext *context, JSValueConst value) {
  double number = 0;
  if (JS_ToFloat64(context, &number, value) < 0) JS_FreeValue(context, JS_GetException(context));
  return number;
}

static JSValue bytes_over(JSContext *context, JSValue buffer) {
  if (JS_IsException(buffer)) return buffer;
  // The function reads all three, whatever the count.
  JSValueConst values[3] = {buffer, JS_UNDEFINED, JS_UNDEFINED};
  JSValue array = JS_NewTypedArray(context, 3, values, JS_TYPED_ARRAY_UINT8);
  JS_FreeValue(context, buffer);
  return array;
}

JSValue make_bytes(JSContext *context, const uint8_t *data, size_t bytes) {
  return bytes_over(context, JS_NewArrayBufferCopy(context, data, bytes));
}

static void free_adopted(JSRuntime *runtime, void *opaque, void *data) {
  (void)runtime;
  (void)opaque;
  free(data);
}

JSValue adopt_bytes(JSContext *context, uint8_t *data, size_t bytes) {
  JSValue buffer = JS_NewArrayBuffer(context, data, bytes, free_adopted, NULL, false);
  if (JS_IsException(buffer)) free(data);
  return bytes_over(context, buffer);
}

static void unmap(JSRuntime *runtime, void *opaque, void *data) {
  (void)runtime;
  pages_unmap(data, (size_t)(uintptr_t)opaque);
}

JSValue map_bytes(JSContext *context, size_t bytes) {
  uint8_t *data = pages_map(bytes);
  if (data == NULL) return JS_ThrowOutOfMemory(context);
  JSValue buffer = JS_NewArrayBuffer(context, data, bytes, unmap, (void *)(uintptr_t)bytes, false);
  if (JS_IsException(buffer)) pages_unmap(data, bytes);
  return bytes_over(context, buffer);
}

JSValue throw_system_error(JSContext *context, int error, const char *call) {
  char text[160], reason[128], code[32];
  uv_err_name_r(error, code, sizeof code);
  snprintf(text, sizeof text, "%s: %s", call, uv_strerror_r(error, reason, sizeof reason));
  JSValue object = JS_NewError(context);
  if (JS_IsException(object)) return object;
  JS_DefinePropertyValueStr(context, object, "message", JS_NewString(context, text), JS_PROP_C_W_E);
  JS_DefinePropertyValueStr(context, object, "code", JS_NewString(context, code), JS_PROP_C_W_E);
  return JS_Throw(context, object);
}

JSValue number_or_throw(JSContext *context, int64_t result, const char *call) {
  return result < 0 ? throw_system_error(context, (int)result, call) : JS_NewInt64(context, result);
}
