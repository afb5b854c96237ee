#include "scripts.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *name, const void *entry) { return strcmp(name, ((const script *)entry)->name); }

// Reads one. Returns NULL with an exception pending.
static JSModuleDef *read_script(JSContext *context, const char *name, JSValue *value) {
  const script *found = bsearch(name, SCRIPTS, SCRIPT_COUNT, sizeof *SCRIPTS, compare);
  if (found == NULL) {
    JS_ThrowReferenceError(context, "there is no script %s", name);
    return NULL;
  }
  *value = JS_ReadObject(context, script_bytecode + found->offset, found->bytes, JS_READ_OBJ_BYTECODE);
  return JS_IsException(*value) ? NULL : JS_VALUE_GET_PTR(*value);
}

static JSModuleDef *load_import(JSContext *context, const char *name, void *opaque) {
  (void)opaque;
  JSValue value;
  JSModuleDef *module = read_script(context, name, &value);
  // The context has it as well.
  if (module != NULL) JS_FreeValue(context, value);
  return module;
}

JSValue scripts_run(JSContext *context, const char *name, JSModuleDef **module) {
  JSValue value;
  *module = read_script(context, name, &value);
  if (*module == NULL) return JS_EXCEPTION;
  if (JS_ResolveModule(context, value) < 0) {
    JS_FreeValue(context, value);
    return JS_EXCEPTION;
  }
  return JS_EvalFunction(context, value);
}

static JSValue load_part(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  const char *name = JS_ToCString(context, values[0]);
  if (name == NULL) return JS_EXCEPTION;
  JSModuleDef *module;
  JSValue result = scripts_run(context, name, &module);
  JS_FreeCString(context, name);
  if (JS_IsException(result)) return result;
  // That it was rejected is reported like any promise that nobody handles, and ends the instance.
  bool is_good = JS_PromiseState(context, result) == JS_PROMISE_FULFILLED;
  JS_FreeValue(context, result);
  return is_good ? JS_GetModuleNamespace(context, module) : JS_ThrowInternalError(context, "a script cannot be loaded");
}

void scripts_add(JSContext *context) {
  JS_SetModuleLoaderFunc(JS_GetRuntime(context), NULL, load_import, NULL);
  JSValue global = JS_GetGlobalObject(context);
  JS_SetPropertyStr(context, global, "underpassPart", JS_NewCFunction(context, load_part, "underpassPart", 1));
  JS_FreeValue(context, global);
}
