// Capsules for one stream, made of what was received, in its order: written together, or left to the caller together.
#ifndef UNDERPASS_IO_CAPSULE_BATCH_H
#define UNDERPASS_IO_CAPSULE_BATCH_H

#include "table.h"

typedef struct capsule_batch {
  io_loop *loop;
  shortcut_table *table;
  stream *stream;
  // Those of `table->carried` that are in it, from `first` on, before `end`.
  int32_t first, end;
  size_t bytes;
} capsule_batch;

// Writes the batch, or leaves it to the caller. Returns false if the stream takes no more.
bool io_capsules_flush(capsule_batch *batch);

// Where capsules for a stream go, which may carry, and which the batch is of unless it is empty; at most SHORTCUT_BATCH_BYTES. NULL if
// the stream takes no more.
uint8_t *io_capsules_begin(capsule_batch *batch, stream *stream, size_t bytes);

// They have been written there, up to `to`: number `item` of what was received.
void io_capsules_end(capsule_batch *batch, const uint8_t *to, int32_t item, carried carried);

#endif
