// Runs a script in QuickJS, with all of ECMAScript, three functions: print(text), readText(path), exit(status), and the library's
// `datapath`. When no job is left, it calls the global function onIdle(), and exits if that returns false.
//   run-script SCRIPT.js
#include <stdio.h>
#include <stdlib.h>

#include "datapath/datapath.h"
#include "quickjs.h"

static int status = 0;

static char *read_text(const char *path, size_t *length) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) return NULL;
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  char *text = size < 0 ? NULL : malloc((size_t)size + 1);
  if (text != NULL) {
    *length = fread(text, 1, (size_t)size, file);
    // JS_Eval requires a terminating 0.
    text[*length] = 0;
  }
  fclose(file);
  return text;
}

static JSValue js_print(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self;
  (void)count;
  const char *text = JS_ToCString(context, values[0]);
  if (text == NULL) return JS_EXCEPTION;
  puts(text);
  fflush(stdout);
  JS_FreeCString(context, text);
  return JS_UNDEFINED;
}

static JSValue js_read_text(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self;
  (void)count;
  const char *path = JS_ToCString(context, values[0]);
  if (path == NULL) return JS_EXCEPTION;
  size_t length = 0;
  char *text = read_text(path, &length);
  JSValue result = text == NULL ? JS_ThrowTypeError(context, "cannot read %s", path) : JS_NewStringLen(context, text, length);
  JS_FreeCString(context, path);
  free(text);
  return result;
}

static JSValue js_exit(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self;
  (void)count;
  JS_ToInt32(context, &status, values[0]);
  return JS_UNDEFINED;
}

static int fail(JSContext *context, JSValue thrown) {
  const char *text = JS_ToCString(context, thrown);
  JSValue stack = JS_IsObject(thrown) ? JS_GetPropertyStr(context, thrown, "stack") : JS_UNDEFINED;
  const char *where = JS_ToCString(context, stack);
  fprintf(stderr, "%s\n%s\n", text == NULL ? "?" : text, where == NULL ? "" : where);
  return 1;
}

// Returns 1 if there is more to do, 0 if not, -1 after an exception.
static int is_more_to_do(JSContext *context) {
  JSValue global = JS_GetGlobalObject(context);
  JSValue on_idle = JS_GetPropertyStr(context, global, "onIdle");
  JSValue result = JS_IsFunction(context, on_idle) ? JS_Call(context, on_idle, JS_UNDEFINED, 0, NULL) : JS_FALSE;
  int more = JS_IsException(result) ? -1 : JS_ToBool(context, result);
  JS_FreeValue(context, result);
  JS_FreeValue(context, on_idle);
  JS_FreeValue(context, global);
  return more;
}

int main(int argc, char **argv) {
  size_t length = 0;
  char *text = argc == 2 ? read_text(argv[1], &length) : NULL;
  if (text == NULL) {
    fprintf(stderr, "usage: run-script SCRIPT.js\n");
    return 2;
  }
  JSRuntime *runtime = JS_NewRuntime();
  JSContext *context = JS_NewContext(runtime);
  JS_SetMaxStackSize(runtime, 4 * 1024 * 1024);
  JSValue global = JS_GetGlobalObject(context);
  JS_SetPropertyStr(context, global, "print", JS_NewCFunction(context, js_print, "print", 1));
  JS_SetPropertyStr(context, global, "readText", JS_NewCFunction(context, js_read_text, "readText", 1));
  JS_SetPropertyStr(context, global, "exit", JS_NewCFunction(context, js_exit, "exit", 1));
  JS_SetPropertyStr(context, global, "datapath", datapath_create(context));
  JS_FreeValue(context, global);
  JSValue result = JS_Eval(context, text, length, argv[1], JS_EVAL_TYPE_MODULE);
  free(text);
  if (JS_IsException(result)) return fail(context, JS_GetException(context));
  JSContext *where;
  for (int more = 1; more != 0;) {
    more = JS_ExecutePendingJob(runtime, &where);
    if (more < 0) return fail(where, JS_GetException(where));
    if (more == 0) more = is_more_to_do(context);
    if (more < 0) return fail(context, JS_GetException(context));
  }
  if (JS_PromiseState(context, result) == JS_PROMISE_REJECTED) return fail(context, JS_PromiseResult(context, result));
  JS_FreeValue(context, result);
  JS_FreeContext(context);
  JS_FreeRuntime(runtime);
  return status;
}
