// Rows that sockets have received → capsules on streams.
#include <stdlib.h>
#include <string.h>

#include "../udp/udp-state.h"
#include "capsule.h"
#include "table.h"

// Fields of a row.
enum { SOCKET, OFFSET, LENGTH, ADDRESS, ADDRESS_BYTES, LOCAL };

// Rows that are carried together: those with a carrier before `end` of the rows, from `first` on.
typedef struct batch {
  stream *stream;
  int32_t first, end;
  size_t bytes;
} batch;

typedef struct carrying {
  io_loop *loop;
  shortcut_table *table;
  int32_t *rows;
  const uint8_t *arena, *addresses;
  batch batch;
} carrying;

static const int32_t *row_of(const carrying *carrying, int32_t row) {
  return carrying->rows + (size_t)row * IO_UDP_RECEIVE_ROW_INTS;
}

static bool has_header(const shortcut *shortcut, const uint8_t *data, size_t length) {
  return length >= shortcut->header_bytes && memcmp(shortcut->header, data, shortcut->header_bytes) == 0;
}

// The one with the longest prefix. `last`: the row before, and its carrier or NULL.
static shortcut *find(const carrying *carrying, const int32_t *row, const int32_t *last_row, shortcut *last) {
  const udp_socket *socket = io_udp_socket_of(carrying->loop, row[SOCKET]);
  if (socket == NULL || socket->shortcuts_out == 0) return NULL;
  const uint8_t *data = carrying->arena + row[OFFSET];
  size_t length = (size_t)row[LENGTH];
  bool is_same_flow = last != NULL && row[SOCKET] == last_row[SOCKET] && row[ADDRESS] == last_row[ADDRESS] &&
                      row[LOCAL] == last_row[LOCAL];
  if (is_same_flow && socket->prefix_lengths >> last->header_bytes == 1 && has_header(last, data, length)) return last;
  for (int bytes = IO_SHORTCUT_HEADER_BYTES; bytes >= 0; bytes--) {
    if ((socket->prefix_lengths & 1u << bytes) == 0 || (size_t)bytes > length) continue;
    shortcut *found = io_shortcut_find_out(carrying->table, row[SOCKET], carrying->addresses + row[ADDRESS],
                                           (size_t)row[ADDRESS_BYTES], row[LOCAL], data, (size_t)bytes);
    if (found != NULL) return found;
  }
  return NULL;
}

// Writes the batch, or leaves its rows to the caller. Returns false if the stream takes no more.
static bool flush(carrying *carrying) {
  batch *batch = &carrying->batch;
  shortcut_table *table = carrying->table;
  if (batch->first == batch->end) return true;
  bool is_kept = false;
  int error = io_stream_carry(batch->stream, table->batch, batch->bytes, &is_kept);
  if (is_kept) table->batch = NULL;
  uint64_t now = uv_now(carrying->loop->uv);
  for (int32_t row = batch->first; row < batch->end; row++) {
    int16_t number = table->carriers[row];
    if (number == SHORTCUT_NONE) continue;
    shortcut *shortcut = &table->shortcuts[number];
    if (error != 0) table->carriers[row] = SHORTCUT_NONE;
    else io_shortcut_count(table, shortcut, now, (size_t)row_of(carrying, row)[LENGTH] - shortcut->header_bytes);
  }
  batch->first = batch->end;
  batch->bytes = 0;
  return error == 0 && !is_kept;
}

static bool has_batch(shortcut_table *table) {
  if (table->batch == NULL) table->batch = malloc(SHORTCUT_BATCH_BYTES);
  return table->batch != NULL;
}

// Adds a row to the batch, which is of its stream or empty. Returns false if the stream takes no more.
static bool add(carrying *carrying, int32_t row, const shortcut *shortcut, stream *stream) {
  batch *batch = &carrying->batch;
  const int32_t *fields = row_of(carrying, row);
  const uint8_t *payload = carrying->arena + fields[OFFSET] + shortcut->header_bytes;
  size_t bytes = (size_t)fields[LENGTH] - shortcut->header_bytes;
  if (batch->bytes + capsule_bytes((uint32_t)shortcut->context, bytes) > SHORTCUT_BATCH_BYTES && !flush(carrying)) return false;
  if (!has_batch(carrying->table)) return false;
  uint8_t *to = capsule_write_header(carrying->table->batch + batch->bytes, (uint32_t)shortcut->context, bytes);
  memcpy(to, payload, bytes);
  batch->bytes = (size_t)(to + bytes - carrying->table->batch);
  batch->stream = stream;
  if (batch->first == batch->end) batch->first = row;
  batch->end = row + 1;
  carrying->table->carriers[row] = io_shortcut_number(carrying->table, shortcut);
  return true;
}

// Moves the rows that are left to the beginning. Returns how many.
static int32_t compact(carrying *carrying, int32_t count) {
  int32_t left = 0;
  for (int32_t row = 0; row < count; row++) {
    if (carrying->table->carriers[row] != SHORTCUT_NONE) continue;
    int32_t *to = carrying->rows + (size_t)left++ * IO_UDP_RECEIVE_ROW_INTS;
    if (left <= row) memcpy(to, row_of(carrying, row), IO_UDP_RECEIVE_ROW_INTS * sizeof *to);
  }
  return left;
}

int32_t io_shortcut_carry_out(io_loop *loop, int32_t *rows, int32_t count, const uint8_t *arena, const uint8_t *addresses) {
  carrying carrying = {loop, loop->shortcuts, rows, arena, addresses, {NULL, 0, 0, 0}};
  if (carrying.table == NULL) return count;
  shortcut *last = NULL;
  for (int32_t row = 0; row < count; row++) {
    const int32_t *fields = row_of(&carrying, row);
    shortcut *found = find(&carrying, fields, row_of(&carrying, row > 0 ? row - 1 : 0), last);
    last = found;
    carrying.table->carriers[row] = SHORTCUT_NONE;
    if (found == NULL) continue;
    stream *stream = io_stream_of(loop, found->stream);
    bool is_carried = stream != NULL && (size_t)fields[LENGTH] - found->header_bytes <= CAPSULE_MAX_DATAGRAM_BYTES;
    // What is left of a flow comes behind what was carried of it.
    if (!is_carried || stream != carrying.batch.stream) flush(&carrying);
    if (is_carried && io_stream_may_carry(stream)) add(&carrying, row, found, stream);
  }
  flush(&carrying);
  return compact(&carrying, count);
}
