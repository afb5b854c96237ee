// Memory for lwIP from the system, counted for the stack that is called. Some freed pieces are kept for the next request of their
// size.
#ifdef UNDERPASS_LWIP

#include <stdlib.h>
#include <string.h>

#include "stack-state.h"

// Larger pieces are data.
#define SMALL_BYTES 512
// Limit of freed bytes that are kept.
#define KEPT_BYTES (8 * 1024 * 1024)

// Precedes each piece, and keeps its alignment.
typedef union header {
  struct {
    size_t bytes;
    // The next free piece of its size.
    union header *next;
  } piece;
  max_align_t alignment;
} header;

// Rounds sizes up by at most an eighth, so that pieces of one size can replace each other. Returns HEAP_SIZES for a size larger
// than all of them.
static size_t size_of(size_t bytes, size_t *rounded) {
  size_t octave = 0;
  while (octave < HEAP_OCTAVES && bytes > (size_t)128 << octave) octave++;
  size_t step = (size_t)8 << octave, steps = (bytes + step - 1) / step;
  *rounded = steps * step;
  return octave == HEAP_OCTAVES ? HEAP_SIZES : octave * 16 + steps - 1;
}

static void *take(size_t bytes) {
  io_tcp_stack *stack = stack_current;
  size_t all = sizeof(header) + bytes, rounded, size = size_of(all, &rounded);
  header *made = size < HEAP_SIZES ? stack->kept[size] : NULL;
  if (made != NULL) {
    stack->kept[size] = made->piece.next;
    stack->kept_bytes -= rounded;
  } else made = malloc(rounded);
  if (made == NULL) return NULL;
  made->piece.bytes = all;
  stack->used += all;
  return made + 1;
}

void heap_close(io_tcp_stack *stack) {
  for (size_t size = 0; size < HEAP_SIZES; size++) {
    for (header *next = stack->kept[size]; next != NULL;) {
      header *piece = next;
      next = piece->piece.next;
      free(piece);
    }
  }
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

static bool may_keep(const io_tcp_stack *stack, size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  // Lets the sanitizer find use after free.
  (void)stack, (void)bytes;
  return false;
#else
  size_t most = stack->options.memory_bytes / 16;
  return stack->kept_bytes + bytes <= (most < KEPT_BYTES ? most : KEPT_BYTES);
#endif
}

void heap_free(void *memory) {
  if (memory == NULL) return;
  io_tcp_stack *stack = stack_current;
  header *piece = (header *)memory - 1;
  size_t rounded, size = size_of(piece->piece.bytes, &rounded);
  stack->used -= piece->piece.bytes;
  if (size == HEAP_SIZES || !may_keep(stack, rounded)) {
    free(piece);
    return;
  }
  piece->piece.next = stack->kept[size];
  stack->kept[size] = piece;
  stack->kept_bytes += rounded;
}

#else

typedef int underpass_has_no_heap;

#endif
