#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void append(text *text, const char *more, size_t length) {
  if (text->length + length + 1 > text->capacity) {
    size_t capacity = 2 * (text->length + length) + 64;
    char *data = text->data == NULL && text->length > 0 ? NULL : realloc(text->data, capacity);
    if (data == NULL) {
      free(text->data);
      text->data = NULL;
      // Later additions fail too.
      text->length = 1;
      text->capacity = 0;
      return;
    }
    text->data = data;
    text->capacity = capacity;
  }
  memcpy(text->data + text->length, more, length);
  text->length += length;
  text->data[text->length] = 0;
}

void text_add(text *text, const char *more) { append(text, more, strlen(more)); }

void text_add_json(text *text, const char *more, size_t length) {
  append(text, "\"", 1);
  for (size_t i = 0; i < length; i++) {
    unsigned char byte = (unsigned char)more[i];
    char escaped[8];
    if (byte == '"' || byte == '\\') append(text, "\\", 1);
    if (byte >= 0x20) append(text, more + i, 1);
    else append(text, escaped, (size_t)snprintf(escaped, sizeof escaped, "\\u%04x", byte));
  }
  append(text, "\"", 1);
}
