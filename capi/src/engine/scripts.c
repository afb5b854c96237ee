#include "scripts.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

static int compare(const void *name, const void *entry) { return strcmp(name, ((const script *)entry)->name); }

// Reads a script. Returns NULL with an exception pending.
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
  // The context holds a reference too.
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
  // A rejection is reported like that of any promise that nothing handles, and ends the instance.
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

#ifdef __linux__
// True if a file contains these bytes unchanged. Those of a packed program, for example, are only in memory, and would be lost.
static bool is_of_file(uintptr_t start, uintptr_t end) {
  FILE *maps = fopen("/proc/self/maps", "re");
  if (maps == NULL) return false;
  char line[512];
  bool is_good = false, is_line_start = true;
  while (!is_good && fgets(line, sizeof line, maps) != NULL) {
    unsigned long from, to, inode;
    char write;
    // The rest of a line longer than the buffer is its path.
    if (is_line_start && sscanf(line, "%lx-%lx %*c%c%*2c %*s %*s %lu", &from, &to, &write, &inode) == 4)
      is_good = from <= start && end <= to && write == '-' && inode != 0;
    is_line_start = strchr(line, '\n') != NULL;
  }
  fclose(maps);
  return is_good;
}
#endif

void scripts_drop_pages(void) {
#ifdef __linux__
  const script *last = &SCRIPTS[SCRIPT_COUNT - 1];
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)script_bytecode;
  uintptr_t end = (start + last->offset + last->bytes) & ~(page - 1);
  start = (start + page - 1) & ~(page - 1);
  if (start < end && is_of_file(start, end)) madvise((void *)start, end - start, MADV_DONTNEED);
#endif
}
