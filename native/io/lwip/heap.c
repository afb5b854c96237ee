// lwIP's memory: the system's, counted for the stack whose call it is.
#ifdef UNDERPASS_LWIP

#include <stdlib.h>
#include <string.h>

#include "stack-state.h"

// What is larger is data.
#define SMALL_BYTES 512

// Before each piece; keeps its alignment.
typedef union header {
  size_t bytes;
  max_align_t alignment;
} header;

static void *take(size_t bytes) {
  header *made = malloc(sizeof *made + bytes);
  if (made == NULL) return NULL;
  made->bytes = sizeof *made + bytes;
  stack_current->used += made->bytes;
  return made + 1;
}

bool heap_has_room(const io_tcp_stack *stack, size_t bytes) {
  size_t limit = stack->options.memory_bytes - stack->options.memory_bytes / 8;
  return stack->used <= limit && bytes <= limit - stack->used;
}

void *heap_take(size_t bytes) {
  return take(bytes);
}

void *heap_malloc(size_t bytes) {
  bool has_room = bytes > SMALL_BYTES ? heap_has_room(stack_current, bytes)
                                      : stack_current->used + bytes <= stack_current->options.memory_bytes;
  return has_room ? take(bytes) : NULL;
}

void *heap_calloc(size_t count, size_t bytes) {
  if (bytes != 0 && count > SIZE_MAX / bytes) return NULL;
  void *made = heap_malloc(count * bytes);
  if (made != NULL) memset(made, 0, count * bytes);
  return made;
}

void heap_free(void *memory) {
  if (memory == NULL) return;
  header *made = (header *)memory - 1;
  stack_current->used -= made->bytes;
  free(made);
}

#else

typedef int underpass_has_no_heap;

#endif
