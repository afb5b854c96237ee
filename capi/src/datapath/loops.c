#include "loops.h"

#include <string.h>

#include "io/shortcut/capsule.h"

#define NONE (-1)
#define ROW_OFFSET 1
#define ROW_LENGTH 2

// Rows

// Whether rows `first` to `end - 1` exist.
static bool has_rows(datapath_ints rows, int32_t row_ints, int32_t first, int32_t end) {
  return first >= 0 && first <= end && (size_t)end <= rows.count / (size_t)row_ints;
}

static bool has_column(datapath_ints numbers, int32_t stride, int32_t column, int32_t first, int32_t end) {
  return stride > 0 && column >= 0 && column < stride && has_rows(numbers, stride, first, end);
}

int64_t datapath_end_of_equal(datapath_ints numbers, int32_t stride, int32_t column, int32_t first, int32_t end) {
  if (first >= end || !has_column(numbers, stride, column, first, end)) return -1;
  const int32_t *at = numbers.data + (size_t)first * (size_t)stride + column;
  int32_t value = *at;
  int32_t row = first + 1;
  for (; row < end; row++) {
    at += stride;
    if (*at != value) break;
  }
  return row;
}

int64_t datapath_sum(datapath_ints numbers, int32_t stride, int32_t column, int32_t first, int32_t end, int64_t *sum) {
  if (!has_column(numbers, stride, column, first, end)) return -1;
  const int32_t *at = numbers.data + (size_t)first * (size_t)stride + column;
  int64_t total = 0;
  for (int32_t row = first; row < end; row++, at += stride) total += *at;
  *sum = total;
  return 0;
}

int64_t datapath_write_rows(datapath_ints rows, int32_t first, int32_t end, datapath_bytes data, int32_t context,
                            datapath_bytes out, int32_t at, int32_t results[DATAPATH_RESULTS]) {
  if (!has_rows(rows, DATAPATH_ROW_INTS, first, end) || context < 0 || !datapath_is_within(at, 0, out.count)) return -1;
  uint8_t *to = out.data + at;
  size_t room = out.count - (size_t)at;
  int64_t bytes = 0;
  int32_t row = first;
  for (; row < end; row++) {
    const int32_t *fields = rows.data + (size_t)row * DATAPATH_ROW_INTS;
    int32_t offset = fields[ROW_OFFSET], length = fields[ROW_LENGTH];
    if (!datapath_is_within(offset, length, data.count)) return -1;
    size_t needed = capsule_bytes((uint32_t)context, (size_t)length);
    if (needed > room) break;
    room -= needed;
    to = capsule_write_header(to, (uint32_t)context, (size_t)length);
    memcpy(to, data.data + offset, (size_t)length);
    to += length;
    bytes += length;
  }
  results[0] = row;
  results[1] = (int32_t)bytes;
  return to - out.data;
}

int64_t datapath_read_runs(datapath_bytes chunk, int32_t offset, int32_t end, datapath_ints offsets, datapath_ints lengths,
                           int32_t from, datapath_ints runs, int32_t results[DATAPATH_RESULTS]) {
  if (!datapath_is_within(offset, 0, chunk.count) || end < offset || (size_t)end > chunk.count) return -1;
  if (from < 0 || lengths.count < offsets.count || offsets.count > INT32_MAX) return -1;
  const uint8_t *bytes = chunk.data;
  // All of these are offsets in the chunk.
  size_t at = (size_t)offset, stop = (size_t)end, row = (size_t)from;
  size_t count = 0;
  int32_t last = NONE;
  int32_t *run = NULL;
  datagram_capsule capsule;
  while (row < offsets.count && at < stop && capsule_read(bytes, at, stop, &capsule) == CAPSULE_WHOLE) {
    int32_t context = (int32_t)capsule.context;
    int32_t payload_bytes = (int32_t)(capsule.end - capsule.payload);
    if (run == NULL || context != last) {
      if (DATAPATH_RUN_INTS * (count + 1) > runs.count) break;
      run = runs.data + DATAPATH_RUN_INTS * count++;
      run[0] = last = context;
      run[2] = 0;
    }
    offsets.data[row] = (int32_t)capsule.payload;
    lengths.data[row] = payload_bytes;
    row++;
    run[1] = (int32_t)row;
    run[2] += payload_bytes;
    at = capsule.end;
  }
  results[0] = (int32_t)at;
  return (int64_t)count;
}

int64_t datapath_add_send_rows(datapath_ints rows, int32_t at, const datapath_send *send, datapath_ints offsets,
                               datapath_ints lengths, int32_t first, int32_t end) {
  if (!has_rows(offsets, 1, first, end) || !has_rows(lengths, 1, first, end)) return -1;
  if (at < 0 || end - first > INT32_MAX - at || !has_rows(rows, DATAPATH_SEND_ROW_INTS, at, at + (end - first))) return -1;
  int32_t *row = rows.data + (size_t)at * DATAPATH_SEND_ROW_INTS;
  for (int32_t i = first; i < end; i++, row += DATAPATH_SEND_ROW_INTS) {
    row[0] = send->socket;
    row[1] = send->header_offset;
    row[2] = send->header_length;
    row[3] = offsets.data[i];
    row[4] = lengths.data[i];
    row[5] = send->address_offset;
    row[6] = send->local;
  }
  return 0;
}

// Queues

static size_t min_of(size_t a, size_t b) { return a < b ? a : b; }

static size_t block_capacity(const datapath_queue *queue) {
  return min_of(queue->block_next.count, queue->blocks.count / DATAPATH_BLOCK_BYTES);
}

static size_t entry_capacity(const datapath_queue *queue) {
  size_t count = min_of(queue->entry_next.count, queue->entry_block.count);
  count = min_of(count, min_of(queue->entry_length.count, queue->entry_context.count));
  return min_of(min_of(count, queue->entry_times), INT32_MAX);
}

static bool is_index(int32_t index, size_t count) { return index >= 0 && (size_t)index < count; }

static bool is_link(int32_t index, size_t count) { return index == NONE || is_index(index, count); }

// The heads contain what this code and the script have written.
static bool has_heads(const datapath_queue *queue, size_t blocks, size_t entries) {
  if (queue->heads.count < DATAPATH_HEADS) return false;
  const int32_t *heads = queue->heads.data;
  return is_link(heads[DATAPATH_FREE_BLOCK], blocks) && is_link(heads[DATAPATH_FREE_ENTRY], entries) &&
         heads[DATAPATH_BLOCKS_USED] >= 0 && (size_t)heads[DATAPATH_BLOCKS_USED] <= blocks &&
         heads[DATAPATH_ENTRIES_USED] >= 0 && (size_t)heads[DATAPATH_ENTRIES_USED] <= entries;
}

// Checks for an entry and a number of blocks. Returns -1 for a list that leads out of its array.
static int has_room(const datapath_queue *queue, size_t blocks, size_t entries, size_t needed) {
  const int32_t *heads = queue->heads.data;
  if (heads[DATAPATH_FREE_ENTRY] == NONE && (size_t)heads[DATAPATH_ENTRIES_USED] == entries) return 0;
  size_t unused = blocks - (size_t)heads[DATAPATH_BLOCKS_USED];
  for (int32_t block = heads[DATAPATH_FREE_BLOCK]; needed > unused && block != NONE; needed--) {
    block = queue->block_next.data[block];
    if (!is_link(block, blocks)) return -1;
  }
  return needed <= unused;
}

// Takes a free item, or one that was never used; one must exist. Returns -1 for a list that leads out of its array.
static int32_t take_free(int32_t *heads, int free_head, int used, datapath_ints next, size_t count) {
  int32_t taken = heads[free_head];
  if (taken == NONE) return (size_t)heads[used] < count ? heads[used]++ : NONE;
  if (!is_link(next.data[taken], count)) return NONE;
  heads[free_head] = next.data[taken];
  return taken;
}

// Puts an item at the head of its free list. Returns the item that followed it before.
static int32_t put_free(int32_t *heads, int free_head, datapath_ints next, int32_t item) {
  int32_t following = next.data[item];
  next.data[item] = heads[free_head];
  heads[free_head] = item;
  return following;
}

int64_t datapath_queue_rows(const datapath_queue *queue, double now, int32_t context, datapath_ints rows, int32_t first,
                            int32_t end, datapath_bytes data, int32_t tail, int32_t room,
                            int32_t results[DATAPATH_RESULTS]) {
  size_t blocks = block_capacity(queue), entries = entry_capacity(queue);
  if (!has_rows(rows, DATAPATH_ROW_INTS, first, end) || !has_heads(queue, blocks, entries) || !is_link(tail, entries))
    return -1;
  int32_t *heads = queue->heads.data;
  int64_t cost = 0;
  int32_t head = NONE, last = tail, row = first;
  for (; row < end; row++) {
    const int32_t *fields = rows.data + (size_t)row * DATAPATH_ROW_INTS;
    int32_t offset = fields[ROW_OFFSET], length = fields[ROW_LENGTH];
    if (!datapath_is_within(offset, length, data.count)) return -1;
    if (cost + length + DATAPATH_ENTRY_COST > room) break;
    int is_room = has_room(queue, blocks, entries, ((size_t)length + DATAPATH_BLOCK_BYTES - 1) / DATAPATH_BLOCK_BYTES);
    if (is_room < 0) return -1;
    if (is_room == 0) break;
    int32_t entry = take_free(heads, DATAPATH_FREE_ENTRY, DATAPATH_ENTRIES_USED, queue->entry_next, entries);
    if (entry == NONE) return -1;
    const uint8_t *from = data.data + offset;
    int32_t before = NONE;
    queue->entry_block.data[entry] = NONE;
    for (size_t left = (size_t)length; left > 0;) {
      int32_t block = take_free(heads, DATAPATH_FREE_BLOCK, DATAPATH_BLOCKS_USED, queue->block_next, blocks);
      if (block == NONE) return -1;
      size_t size = min_of(left, DATAPATH_BLOCK_BYTES);
      memcpy(queue->blocks.data + (size_t)block * DATAPATH_BLOCK_BYTES, from, size);
      if (before == NONE) queue->entry_block.data[entry] = block;
      else queue->block_next.data[before] = block;
      queue->block_next.data[block] = NONE;
      before = block;
      from += size;
      left -= size;
    }
    queue->entry_length.data[entry] = length;
    queue->entry_context.data[entry] = context;
    queue->entry_time[entry] = now;
    queue->entry_next.data[entry] = NONE;
    if (last != NONE) queue->entry_next.data[last] = entry;
    if (head == NONE) head = entry;
    last = entry;
    cost += length + DATAPATH_ENTRY_COST;
  }
  results[0] = row;
  results[1] = head;
  results[2] = head == NONE ? NONE : last;
  return cost;
}

int64_t datapath_take_entries(const datapath_queue *queue, double oldest, int32_t head, int32_t credit, datapath_bytes out,
                              int32_t at, int32_t results[DATAPATH_RESULTS]) {
  size_t blocks = block_capacity(queue), entries = entry_capacity(queue);
  if (!has_heads(queue, blocks, entries) || !is_link(head, entries) || !datapath_is_within(at, 0, out.count)) return -1;
  int32_t *heads = queue->heads.data;
  uint8_t *to = out.data + at;
  size_t room = out.count - (size_t)at;
  int32_t entry = head, left = credit, count = 0;
  while (entry != NONE && queue->entry_time[entry] >= oldest) {
    int32_t length = queue->entry_length.data[entry], context = queue->entry_context.data[entry];
    if (length < 0 || length > CAPSULE_MAX_PAYLOAD_BYTES || context < 0) return -1;
    size_t needed = capsule_bytes((uint32_t)context, (size_t)length);
    if (length > left || needed > room) break;
    room -= needed;
    to = capsule_write_header(to, (uint32_t)context, (size_t)length);
    size_t missing = (size_t)length;
    for (int32_t block = queue->entry_block.data[entry]; block != NONE;) {
      if (!is_index(block, blocks)) return -1;
      size_t size = min_of(missing, DATAPATH_BLOCK_BYTES);
      memcpy(to, queue->blocks.data + (size_t)block * DATAPATH_BLOCK_BYTES, size);
      to += size;
      missing -= size;
      block = put_free(heads, DATAPATH_FREE_BLOCK, queue->block_next, block);
      // A list longer than its datagram may be endless.
      if (missing == 0 && block != NONE) return -1;
    }
    if (missing > 0) return -1;
    left -= length;
    count++;
    if (!is_link(queue->entry_next.data[entry], entries)) return -1;
    entry = put_free(heads, DATAPATH_FREE_ENTRY, queue->entry_next, entry);
  }
  results[0] = entry;
  results[1] = count;
  results[2] = credit - left;
  return to - out.data;
}

int64_t datapath_drop_entries(const datapath_queue *queue, double oldest, int32_t head, int32_t cost, int32_t most,
                              int32_t results[DATAPATH_RESULTS]) {
  size_t blocks = block_capacity(queue), entries = entry_capacity(queue);
  if (!has_heads(queue, blocks, entries) || !is_link(head, entries)) return -1;
  int32_t *heads = queue->heads.data;
  int64_t dropped = 0;
  int32_t entry = head, count = 0;
  // A ring of entries is endless.
  if (most > (int64_t)entries) most = (int32_t)entries;
  while (entry != NONE && count < most && (dropped < cost || queue->entry_time[entry] < oldest)) {
    int32_t length = queue->entry_length.data[entry];
    if (length < 0 || length > CAPSULE_MAX_PAYLOAD_BYTES) return -1;
    // A list with more blocks than its datagram may be endless.
    size_t left = ((size_t)length + DATAPATH_BLOCK_BYTES - 1) / DATAPATH_BLOCK_BYTES;
    for (int32_t block = queue->entry_block.data[entry]; block != NONE; left--) {
      if (!is_index(block, blocks) || left == 0) return -1;
      block = put_free(heads, DATAPATH_FREE_BLOCK, queue->block_next, block);
    }
    dropped += length + DATAPATH_ENTRY_COST;
    count++;
    if (!is_link(queue->entry_next.data[entry], entries)) return -1;
    entry = put_free(heads, DATAPATH_FREE_ENTRY, queue->entry_next, entry);
  }
  results[0] = entry;
  results[1] = count;
  return dropped;
}
