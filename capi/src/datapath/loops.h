// The loops of src/core/datapath/datapath.ts, without an engine. They do what typescript-datapath.ts does, but also check every
// offset and length, because these come from scripts: a call that would reach beyond an array returns -1, and has written nothing
// beyond it.
#ifndef UNDERPASS_DATAPATH_LOOPS_H
#define UNDERPASS_DATAPATH_LOOPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DATAPATH_BLOCK_BYTES 2048
#define DATAPATH_ENTRY_COST 64
#define DATAPATH_ROW_INTS 6
#define DATAPATH_SEND_ROW_INTS 7
#define DATAPATH_RUN_INTS 3
#define DATAPATH_RESULTS 4

typedef struct datapath_bytes {
  uint8_t *data;
  size_t count;
} datapath_bytes;

typedef struct datapath_ints {
  int32_t *data;
  size_t count;
} datapath_ints;

// The same as QueueMemory. All block arrays are used up to the length of the shortest, and so are all entry arrays.
typedef struct datapath_queue {
  datapath_bytes blocks;
  datapath_ints block_next, entry_next, entry_block, entry_length, entry_context;
  double *entry_time;
  size_t entry_times;
  datapath_ints heads;
} datapath_queue;

enum { DATAPATH_FREE_BLOCK, DATAPATH_BLOCKS_USED, DATAPATH_FREE_ENTRY, DATAPATH_ENTRIES_USED, DATAPATH_HEADS };

// Whether `length` bytes from `offset` are within the given size.
static inline bool datapath_is_within(int64_t offset, int64_t length, size_t count) {
  return offset >= 0 && length >= 0 && offset <= (int64_t)count && length <= (int64_t)count - offset;
}

int64_t datapath_end_of_equal(datapath_ints numbers, int32_t stride, int32_t column, int32_t first, int32_t end);

// Writes the sum to `*sum`.
int64_t datapath_sum(datapath_ints numbers, int32_t stride, int32_t column, int32_t first, int32_t end, int64_t *sum);

int64_t datapath_write_rows(datapath_ints rows, int32_t first, int32_t end, datapath_bytes data, int32_t context,
                            datapath_bytes out, int32_t at, int32_t results[DATAPATH_RESULTS]);

int64_t datapath_read_runs(datapath_bytes chunk, int32_t offset, int32_t end, datapath_ints offsets, datapath_ints lengths,
                           int32_t from, datapath_ints runs, int32_t results[DATAPATH_RESULTS]);

typedef struct datapath_send {
  int32_t socket, header_offset, header_length, address_offset, local;
} datapath_send;

int64_t datapath_add_send_rows(datapath_ints rows, int32_t at, const datapath_send *send, datapath_ints offsets,
                               datapath_ints lengths, int32_t first, int32_t end);

int64_t datapath_queue_rows(const datapath_queue *queue, double now, int32_t context, datapath_ints rows, int32_t first,
                            int32_t end, datapath_bytes data, int32_t tail, int32_t room,
                            int32_t results[DATAPATH_RESULTS]);

int64_t datapath_take_entries(const datapath_queue *queue, double oldest, int32_t head, int32_t credit, datapath_bytes out,
                              int32_t at, int32_t results[DATAPATH_RESULTS]);

int64_t datapath_drop_entries(const datapath_queue *queue, double oldest, int32_t head, int32_t cost, int32_t most,
                              int32_t results[DATAPATH_RESULTS]);

#endif
