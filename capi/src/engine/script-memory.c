#include "script-memory.h"

#include <stdlib.h>
#include <string.h>

#include "pages.h"

#define CHUNK_BYTES ((size_t)256 * 1024)

typedef struct chunk {
  struct chunk *next;
  // Ends like a block, because blocks begin with 8 bytes of their own.
  uint64_t padding;
} chunk;

// Bytes before each block, which contain its size including them.
#define HEAD_BYTES sizeof(uint64_t)

static uint64_t *head_of(const void *block) { return (uint64_t *)block - 1; }

static void *take_small(script_memory *memory, size_t bytes) {
  void **list = &memory->free[bytes / GRAIN_BYTES];
  void *block = *list;
  if (block != NULL) {
    memcpy(list, block, sizeof *list);
    return block;
  }
  if ((size_t)(memory->end - memory->next) < bytes) {
    chunk *chunk = pages_map(CHUNK_BYTES);
    if (chunk == NULL) return NULL;
    chunk->next = memory->chunks;
    memory->chunks = chunk;
    memory->next = (uint8_t *)(chunk + 1);
    memory->end = (uint8_t *)chunk + CHUNK_BYTES;
  }
  block = memory->next + HEAD_BYTES;
  memory->next += bytes;
  *head_of(block) = bytes;
  return block;
}

static void *take(script_memory *memory, size_t bytes) {
  if (bytes <= SMALL_BYTES) return take_small(memory, bytes);
  uint64_t *head = malloc(bytes);
  if (head == NULL) return NULL;
  *head = bytes;
  return head + 1;
}

static void give_back(script_memory *memory, void *block, size_t bytes) {
  if (bytes > SMALL_BYTES) {
    free(head_of(block));
    return;
  }
  void **list = &memory->free[bytes / GRAIN_BYTES];
  memcpy(block, list, sizeof *list);
  *list = block;
}

// Larger sizes would wrap around.
#define MOST_BYTES (SIZE_MAX / 2)

// The size of a block with its head.
static size_t rounded(size_t size) { return (size + HEAD_BYTES + GRAIN_BYTES - 1) & ~(size_t)(GRAIN_BYTES - 1); }

static void *allocate(JSMallocState *state, size_t size) {
  if (size == 0 || size > MOST_BYTES || state->malloc_size + size > state->malloc_limit) return NULL;
  size_t bytes = rounded(size);
  void *block = take(state->opaque, bytes);
  if (block == NULL) return NULL;
  state->malloc_count++;
  state->malloc_size += bytes;
  return block;
}

static void release(JSMallocState *state, void *block) {
  if (block == NULL) return;
  size_t bytes = (size_t)*head_of(block);
  state->malloc_count--;
  state->malloc_size -= bytes;
  give_back(state->opaque, block, bytes);
}

static void *reallocate(JSMallocState *state, void *block, size_t size) {
  if (block == NULL) return size == 0 ? NULL : allocate(state, size);
  if (size == 0) {
    release(state, block);
    return NULL;
  }
  if (size > MOST_BYTES) return NULL;
  size_t old_bytes = (size_t)*head_of(block), bytes = rounded(size);
  if (bytes == old_bytes) return block;
  if (state->malloc_size + size - old_bytes > state->malloc_limit) return NULL;
  void *other;
  if (old_bytes > SMALL_BYTES && bytes > SMALL_BYTES) {
    uint64_t *head = realloc(head_of(block), bytes);
    if (head == NULL) return NULL;
    *head = bytes;
    other = head + 1;
  } else {
    other = take(state->opaque, bytes);
    if (other == NULL) return NULL;
    memcpy(other, block, (old_bytes < bytes ? old_bytes : bytes) - HEAD_BYTES);
    give_back(state->opaque, block, old_bytes);
  }
  state->malloc_size += bytes - old_bytes;
  return other;
}

static size_t usable_bytes(const void *block) { return block == NULL ? 0 : (size_t)*head_of(block) - HEAD_BYTES; }

const JSMallocFunctions SCRIPT_MEMORY_FUNCTIONS = {allocate, release, reallocate, usable_bytes};

void script_memory_free(script_memory *memory) {
  while (memory->chunks != NULL) {
    chunk *chunk = memory->chunks;
    memory->chunks = chunk->next;
    pages_unmap(chunk, CHUNK_BYTES);
  }
  memset(memory, 0, sizeof *memory);
}
