// Compiles a script, a module without imports, to QuickJS' bytecode, without its source and debug information, and writes that as C.
//   compile-script SCRIPT.js NAME OUTPUT.c [--swap]      --swap: for a machine of the other byte order
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quickjs.h"

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
  // JS_Eval wants a 0 behind the text.
  if (text != NULL) text[*length] = 0;
  fclose(file);
  return text;
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: compile-script SCRIPT.js NAME OUTPUT.c [--swap]\n");
    return 2;
  }
  bool is_swapped = argc > 4 && strcmp(argv[4], "--swap") == 0;
  size_t length, bytes;
  char *text = read_file(argv[1], &length);
  if (text == NULL) {
    perror(argv[1]);
    return 1;
  }
  JSRuntime *runtime = JS_NewRuntime();
  JSContext *context = JS_NewContext(runtime);
  // A module's variables are found at once by each function that uses them, those of a function by a search.
  JS_SetStripInfo(runtime, JS_STRIP_SOURCE | JS_STRIP_DEBUG);
  JSValue script = JS_Eval(context, text, length, "underpass", JS_EVAL_TYPE_MODULE | JS_EVAL_FLAG_COMPILE_ONLY);
  if (JS_IsException(script)) {
    JSValue error = JS_GetException(context);
    fprintf(stderr, "%s: %s\n", argv[1], JS_ToCString(context, error));
    return 1;
  }
  uint8_t *code = JS_WriteObject(context, &bytes, script, JS_WRITE_OBJ_BYTECODE | (is_swapped ? JS_WRITE_OBJ_BSWAP : 0));
  FILE *output = code == NULL ? NULL : fopen(argv[3], "w");
  if (output == NULL) {
    perror(argv[3]);
    return 1;
  }
  fprintf(output, "#include <stddef.h>\n#include <stdint.h>\n\nconst size_t %s_bytecode_bytes = %zu;\n",
          argv[2], bytes);
  fprintf(output, "const uint8_t %s_bytecode[] = {", argv[2]);
  for (size_t i = 0; i < bytes; i++) fprintf(output, "%s%u,", i % 32 == 0 ? "\n" : "", code[i]);
  fprintf(output, "\n};\n");
  if (fclose(output) != 0) {
    perror(argv[3]);
    return 1;
  }
  js_free(context, code);
  JS_FreeValue(context, script);
  JS_FreeContext(context);
  JS_FreeRuntime(runtime);
  free(text);
  return 0;
}
