// Compiles scripts, modules that import only each other, to QuickJS bytecode without sources and debug information, and writes the
// bytecode as C (capi/src/engine/scripts.h).
//   compile-script LIST.txt OUTPUT.c [--swap]      LIST.txt: names of files in the folder `scripts` beside it, one a line
//                                                  --swap: for a machine of the other byte order
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quickjs.h"

#define MAX_SCRIPTS 1024

typedef struct compiled {
  char *name;
  JSModuleDef *module;
  uint8_t *code;
  size_t bytes;
} compiled;

static const char *list_path;
static compiled scripts[MAX_SCRIPTS];
static int script_count;

static char *read_file(const char *path, size_t *length) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) return NULL;
  size_t capacity = 1 << 16;
  char *text = malloc(capacity);
  *length = 0;
  while (text != NULL) {
    *length += fread(text + *length, 1, capacity - *length, file);
    if (*length < capacity) break;
    char *larger = realloc(text, capacity *= 2);
    if (larger == NULL) free(text);
    text = larger;
  }
  // JS_Eval requires a terminating 0.
  if (text != NULL) text[*length] = 0;
  fclose(file);
  return text;
}

static void fail(const char *what, const char *why) {
  fprintf(stderr, "compile-script: %s: %s\n", what, why);
  exit(1);
}

static void fail_by_exception(JSContext *context, const char *what) {
  const char *text = JS_ToCString(context, JS_GetException(context));
  fail(what, text == NULL ? "?" : text);
}

// Compiles a script of the list, or one that another script imports. Both know it by the same name, and each is compiled once.
static JSModuleDef *compile(JSContext *context, const char *name, void *opaque) {
  (void)opaque;
  for (int i = 0; i < script_count; i++)
    if (strcmp(scripts[i].name, name) == 0) return scripts[i].module;
  if (script_count == MAX_SCRIPTS) fail(name, "too many scripts");
  const char *slash = strrchr(list_path, '/');
  char path[4096];
  snprintf(path, sizeof path, "%.*sscripts/%s", slash == NULL ? 0 : (int)(slash - list_path + 1), list_path, name);
  size_t length;
  char *text = read_file(path, &length);
  if (text == NULL) fail(path, "cannot be read");
  // This call also compiles its imports.
  JSValue value = JS_Eval(context, text, length, name, JS_EVAL_TYPE_MODULE | JS_EVAL_FLAG_COMPILE_ONLY);
  if (JS_IsException(value)) fail_by_exception(context, path);
  free(text);
  scripts[script_count++] = (compiled){.name = strdup(name), .module = JS_VALUE_GET_PTR(value)};
  // The context holds a reference too.
  JS_FreeValue(context, value);
  return scripts[script_count - 1].module;
}

static int compare(const void *a, const void *b) { return strcmp(((const compiled *)a)->name, ((const compiled *)b)->name); }

static void write_table(FILE *output) {
  fprintf(output, "#include \"engine/scripts.h\"\n\nconst uint8_t script_bytecode[] = {");
  for (int i = 0; i < script_count; i++)
    for (size_t at = 0; at < scripts[i].bytes; at++) fprintf(output, "%s%u,", at % 32 == 0 ? "\n" : "", scripts[i].code[at]);
  fprintf(output, "\n};\n\nconst size_t SCRIPT_COUNT = %d;\nconst script SCRIPTS[] = {\n", script_count);
  size_t offset = 0;
  for (int i = 0; i < script_count; i++) {
    fprintf(output, "    {\"%s\", %zu, %zu},\n", scripts[i].name, offset, scripts[i].bytes);
    offset += scripts[i].bytes;
  }
  fprintf(output, "};\n");
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: compile-script LIST.txt OUTPUT.c [--swap]\n");
    return 2;
  }
  bool is_swapped = argc > 3 && strcmp(argv[3], "--swap") == 0;
  list_path = argv[1];
  JSRuntime *runtime = JS_NewRuntime();
  JSContext *context = JS_NewContext(runtime);
  JS_SetStripInfo(runtime, JS_STRIP_SOURCE | JS_STRIP_DEBUG);
  JS_SetModuleLoaderFunc(runtime, NULL, compile, NULL);
  size_t length;
  char *list = read_file(list_path, &length);
  if (list == NULL) fail(list_path, "cannot be read");
  for (char *name = strtok(list, "\r\n"); name != NULL; name = strtok(NULL, "\r\n")) compile(context, name, NULL);
  for (int i = 0; i < script_count; i++) {
    scripts[i].code = JS_WriteObject(context, &scripts[i].bytes, JS_MKPTR(JS_TAG_MODULE, scripts[i].module),
                                     JS_WRITE_OBJ_BYTECODE | (is_swapped ? JS_WRITE_OBJ_BSWAP : 0));
    if (scripts[i].code == NULL) fail_by_exception(context, scripts[i].name);
  }
  qsort(scripts, (size_t)script_count, sizeof *scripts, compare);
  FILE *output = fopen(argv[2], "w");
  if (output == NULL) fail(argv[2], "cannot be written");
  write_table(output);
  if (fclose(output) != 0) fail(argv[2], "cannot be written");
  for (int i = 0; i < script_count; i++) {
    js_free(context, scripts[i].code);
    free(scripts[i].name);
  }
  free(list);
  JS_FreeContext(context);
  JS_FreeRuntime(runtime);
  return 0;
}
