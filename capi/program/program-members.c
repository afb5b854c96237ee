#include "program-members.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILE_BYTES (1024 * 1024)

// Skips blanks and comments.
static char *skip(char *at) {
  for (;;) {
    at += strspn(at, " \t\r\n");
    if (at[0] != '/') return at;
    char *end = at[1] == '/' ? strchr(at, '\n') : at[1] == '*' ? strstr(at + 2, "*/") : NULL;
    if (end == NULL) return at + strlen(at);
    at = end + (at[1] == '/' ? 1 : 2);
  }
}

// Skips the string that begins here.
static char *skip_string(char *at) {
  for (at++; *at != 0 && *at != '"'; at++)
    if (*at == '\\' && at[1] != 0) at++;
  return *at == 0 ? at : at + 1;
}

static const char *read_members(char *text, const char *(*take)(const char *name, const char *value, void *data),
                                void *data) {
  int depth = 0;
  const char *problem = NULL;
  for (char *at = skip(text); *at != 0 && problem == NULL; at = skip(at)) {
    if (*at == '{' || *at == '[') depth++;
    if (*at == '}' || *at == ']') depth--;
    if (*at != '"') {
      at++;
      continue;
    }
    char *name = at + 1, *name_end = skip_string(at);
    at = skip(name_end);
    if (depth != 1 || *at != ':') continue;
    at = skip(at + 1);
    if (*at != '"') continue;
    char *value = at + 1, *value_end = skip_string(at);
    at = value_end;
    // Both end with a quote, unless the file ends first.
    if (name_end[-1] != '"' || value_end[-1] != '"') break;
    name_end[-1] = value_end[-1] = 0;
    problem = take(name, value, data);
    name_end[-1] = value_end[-1] = '"';
  }
  return problem;
}

const char *program_members_read(const char *path, const char *(*take)(const char *name, const char *value, void *data),
                                 void *data) {
  FILE *file = fopen(path, "rb");
  char *text = file == NULL ? NULL : malloc(MAX_FILE_BYTES + 1);
  const char *problem = NULL;
  if (text != NULL) {
    size_t length = fread(text, 1, MAX_FILE_BYTES, file);
    text[length] = 0;
    problem = read_members(text, take, data);
  }
  free(text);
  if (file != NULL) fclose(file);
  return problem;
}
