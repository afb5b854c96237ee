// The memory of one engine. An engine has many small blocks. They are in pages of its own, which are all released when it is
// closed, so that remains of one engine never keep another's pages in use.
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
  // The part of the newest chunk that no block has used yet.
  uint8_t *next, *end;
  struct chunk *chunks;
} script_memory;

// The functions for JS_NewRuntime2; its opaque pointer refers to a zeroed script_memory.
extern const JSMallocFunctions SCRIPT_MEMORY_FUNCTIONS;
// Call this after freeing the runtime.
void script_memory_free(script_memory *memory);

#endif
