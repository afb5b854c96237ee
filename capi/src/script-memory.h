// The memory of one engine. An engine has many small blocks: they are in pages of its own, which are all given back when it is closed,
// so that what one leaves behind never keeps the next from doing so.
#ifndef UNDERPASS_SCRIPT_MEMORY_H
#define UNDERPASS_SCRIPT_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "quickjs.h"

#define SMALL_BYTES 512
#define GRAIN_BYTES 8

typedef struct script_memory {
  // Free blocks by size.
  void *free[SMALL_BYTES / GRAIN_BYTES + 1];
  // What no block has had yet of the newest chunk.
  uint8_t *next, *end;
  struct chunk *chunks;
} script_memory;

// What JS_NewRuntime2 wants; its opaque is a script_memory of zeros.
extern const JSMallocFunctions SCRIPT_MEMORY_FUNCTIONS;
// After the runtime.
void script_memory_free(script_memory *memory);

#endif
