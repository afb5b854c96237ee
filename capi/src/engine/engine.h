// QuickJS with a script of this library, and the functions that the bindings need. An engine belongs to the thread of its loop.
#ifndef UNDERPASS_ENGINE_H
#define UNDERPASS_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quickjs.h"
#include "script-memory.h"

#define MAX_REJECTED 16

typedef struct engine {
  JSRuntime *runtime;
  JSContext *context;
  script_memory memory;
  // Calls into the script that are in progress.
  int depth;
  // After a fault, nothing of the script runs any more.
  bool is_broken;
  void (*on_fault)(void *data, const char *text);
  // NULL, or called when the script has finished everything that a call into it caused.
  void (*after_call)(void *data);
  void *data;
  // Promises that were rejected before anything handled them.
  JSValue rejected[MAX_REJECTED];
  int rejected_count;
} engine;

// Returns false if there is no memory. `on_fault` is called at most once, when the script throws something that nothing catches.
bool engine_open(engine *engine, size_t memory_bytes, void (*on_fault)(void *data, const char *text), void *data);
// Runs one of the SCRIPTS.
bool engine_load(engine *engine, const char *script);
// All values must have been freed.
void engine_close(engine *engine);

engine *engine_of(JSContext *context);

// Calls a function, then runs the jobs that are due after it. Takes ownership of the arguments. Returns its result, or JS_UNDEFINED
// after a fault.
JSValue engine_call(engine *engine, JSValueConst function, int count, JSValue *values);
// The same for a function that the script made global.
JSValue engine_call_global(engine *engine, const char *name, int count, JSValue *values);
// The same without a result.
void engine_run(engine *engine, JSValueConst function, int count, JSValue *values);
void engine_run_number(engine *engine, JSValueConst function, int64_t number);

// Reports the pending exception, and stops the script for good.
void engine_fail(engine *engine);

typedef struct bytes_view {
  uint8_t *data;
  size_t bytes;
} bytes_view;

// The memory of a typed array, valid as long as the array exists; {NULL, 0} for anything else.
bytes_view get_bytes(JSContext *context, JSValueConst value);
int32_t get_int(JSContext *context, JSValueConst value);
double get_number(JSContext *context, JSValueConst value);
JSValue make_bytes(JSContext *context, const uint8_t *data, size_t bytes);
// Makes a Uint8Array over memory, which is freed with it.
JSValue adopt_bytes(JSContext *context, uint8_t *data, size_t bytes);
// Makes a Uint8Array of zeros; only used pages take memory.
JSValue map_bytes(JSContext *context, size_t bytes);

// Throws an Error whose `code` is the name of a system error (negative, of libuv).
JSValue throw_system_error(JSContext *context, int error, const char *call);
// Returns a count, or throws a system error.
JSValue number_or_throw(JSContext *context, int64_t result, const char *call);

#endif
