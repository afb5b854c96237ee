// Text that grows.
#ifndef TEXT_H
#define TEXT_H

#include <stddef.h>

typedef struct text {
  // NULL while it is empty, and after memory has run out.
  char *data;
  size_t length, capacity;
} text;

void text_add(text *text, const char *more);
// Adds text as a JSON string, in quotes.
void text_add_json(text *text, const char *more, size_t length);

#endif
