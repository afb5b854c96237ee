#include "capsule-batch.h"

#include <stdlib.h>

bool io_capsules_flush(capsule_batch *batch) {
  shortcut_table *table = batch->table;
  if (batch->first == batch->end) return true;
  bool is_kept = false;
  int error = io_stream_carry(batch->stream, table->batch, batch->bytes, &is_kept);
  if (is_kept) table->batch = NULL;
  uint64_t now = uv_now(batch->loop->uv);
  for (int32_t item = batch->first; item < batch->end; item++) {
    carried *carried = &table->carried[item];
    if (carried->shortcut == SHORTCUT_NONE) continue;
    shortcut *shortcut = &table->shortcuts[carried->shortcut];
    if (error != 0) {
      carried->shortcut = SHORTCUT_NONE;
      continue;
    }
    if (shortcut->is_of_device) shortcut->packets++;
    io_shortcut_count(table, shortcut, now, carried);
  }
  batch->first = batch->end;
  batch->bytes = 0;
  return error == 0 && !is_kept;
}

uint8_t *io_capsules_begin(capsule_batch *batch, stream *stream, size_t bytes) {
  shortcut_table *table = batch->table;
  if (batch->bytes + bytes > SHORTCUT_BATCH_BYTES && !io_capsules_flush(batch)) return NULL;
  if (table->batch == NULL) table->batch = malloc(SHORTCUT_BATCH_BYTES);
  if (table->batch == NULL) return NULL;
  batch->stream = stream;
  return table->batch + batch->bytes;
}

void io_capsules_end(capsule_batch *batch, const uint8_t *to, int32_t item, carried carried) {
  batch->bytes = (size_t)(to - batch->table->batch);
  if (batch->first == batch->end) batch->first = item;
  batch->end = item + 1;
  batch->table->carried[item] = carried;
}
