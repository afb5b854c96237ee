// Capsules for one stream, made from received datagrams in their order. They are written together, or left to the caller together.
#ifndef UNDERPASS_IO_CAPSULE_BATCH_H
#define UNDERPASS_IO_CAPSULE_BATCH_H

#include "table.h"

typedef struct capsule_batch {
  io_loop *loop;
  shortcut_table *table;
  stream *stream;
  // The items of `table->carried` in this batch, from `first` to before `end`.
  int32_t first, end;
  size_t bytes;
} capsule_batch;

// Writes the batch, or leaves it to the caller. Returns false if the stream accepts no more.
bool io_capsules_flush(capsule_batch *batch);

// Returns the place for capsules, of at most SHORTCUT_BATCH_BYTES, to a stream that may carry them; unless the batch is empty, it is that
// stream's. Returns NULL if the stream accepts no more.
uint8_t *io_capsules_begin(capsule_batch *batch, stream *stream, size_t bytes);

// Reports that the capsules for received item number `item` were written there, up to `to`.
void io_capsules_end(capsule_batch *batch, const uint8_t *to, int32_t item, carried carried);

#endif
