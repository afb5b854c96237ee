// Rows that sockets have received → capsules on streams.
#include <stdlib.h>
#include <string.h>

#include "../udp/udp-state.h"
#include "capsule.h"
#include "table.h"

// Fields of a row.
enum { SOCKET, OFFSET, LENGTH, ADDRESS, ADDRESS_BYTES, LOCAL };

// Rows that are carried together: those before `end` of the rows, from `first` on.
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
  // Rows that are left, at the beginning.
  int32_t left;
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

static void leave(carrying *carrying, int32_t first, int32_t end) {
  size_t row_bytes = IO_UDP_RECEIVE_ROW_INTS * sizeof(int32_t);
  int32_t *to = carrying->rows + (size_t)carrying->left * IO_UDP_RECEIVE_ROW_INTS;
  if (carrying->left != first) memmove(to, row_of(carrying, first), (size_t)(end - first) * row_bytes);
  carrying->left += end - first;
}

// Writes the batch, or leaves its rows. Returns false if the stream takes no more.
static bool flush(carrying *carrying) {
  batch *batch = &carrying->batch;
  shortcut_table *table = carrying->table;
  if (batch->first == batch->end) return true;
  bool is_kept = false;
  int error = io_stream_carry(batch->stream, table->batch, batch->bytes, &is_kept);
  if (is_kept) table->batch = NULL;
  if (error == 0) {
    uint64_t now = uv_now(carrying->loop->uv);
    for (int32_t row = batch->first; row < batch->end; row++) {
      shortcut *shortcut = &table->shortcuts[table->carriers[row]];
      io_shortcut_count(shortcut, now, (size_t)row_of(carrying, row)[LENGTH] - shortcut->header_bytes);
    }
  } else {
    leave(carrying, batch->first, batch->end);
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

int32_t io_shortcut_carry_out(io_loop *loop, int32_t *rows, int32_t count, const uint8_t *arena, const uint8_t *addresses) {
  carrying carrying = {loop, loop->shortcuts, rows, arena, addresses, 0, {NULL, 0, 0, 0}};
  if (carrying.table == NULL) return count;
  shortcut *last = NULL;
  for (int32_t row = 0; row < count; row++) {
    const int32_t *fields = row_of(&carrying, row);
    // The row before is where it was: rows are left over it only after it was not carried.
    shortcut *found = find(&carrying, fields, row_of(&carrying, row > 0 ? row - 1 : 0), last);
    stream *stream = found == NULL ? NULL : io_stream_of(loop, found->stream);
    bool is_carried = stream != NULL && (size_t)fields[LENGTH] - found->header_bytes <= CAPSULE_MAX_DATAGRAM_BYTES;
    // Those of another stream, or that are left, come behind the batch.
    if (!is_carried || stream != carrying.batch.stream) flush(&carrying);
    is_carried = is_carried && io_stream_may_carry(stream) && add(&carrying, row, found, stream);
    if (!is_carried) leave(&carrying, row, row + 1);
    last = is_carried ? found : NULL;
  }
  flush(&carrying);
  return carrying.left;
}
