// Rows that sockets have received → capsules on streams.
#include <string.h>

#include "../udp/udp-state.h"
#include "capsule-batch.h"
#include "capsule.h"

// Fields of a row.
enum { SOCKET_ID, OFFSET, LENGTH, ADDRESS, ADDRESS_BYTES, LOCAL };

typedef struct carrying {
  int32_t *rows;
  const uint8_t *arena, *addresses;
  capsule_batch batch;
} carrying;

static const int32_t *row_of(const carrying *carrying, int32_t row) {
  return carrying->rows + (size_t)row * IO_UDP_RECEIVE_ROW_INTS;
}

static bool has_header(const shortcut *shortcut, const uint8_t *data, size_t length) {
  return length >= shortcut->header_bytes && memcmp(shortcut->header, data, shortcut->header_bytes) == 0;
}

// Finds the one with the longest prefix. `last`: the row before, and its carrier or NULL.
static shortcut *find(const carrying *carrying, const int32_t *row, const int32_t *last_row, shortcut *last) {
  const udp_socket *socket = io_udp_socket_of(carrying->batch.loop, row[SOCKET_ID]);
  if (socket == NULL || socket->shortcuts_out == 0) return NULL;
  const uint8_t *data = carrying->arena + row[OFFSET];
  size_t length = (size_t)row[LENGTH];
  bool is_same_flow = last != NULL && row[SOCKET_ID] == last_row[SOCKET_ID] && row[ADDRESS] == last_row[ADDRESS] &&
                      row[LOCAL] == last_row[LOCAL];
  if (is_same_flow && socket->prefix_lengths >> last->header_bytes == 1 && has_header(last, data, length)) return last;
  for (int bytes = IO_SHORTCUT_HEADER_BYTES; bytes >= 0; bytes--) {
    if ((socket->prefix_lengths & 1u << bytes) == 0 || (size_t)bytes > length) continue;
    const shortcut_key key = {.socket = row[SOCKET_ID],
                              .local = row[LOCAL],
                              .address = carrying->addresses + row[ADDRESS],
                              .address_bytes = (size_t)row[ADDRESS_BYTES],
                              .header = data,
                              .header_bytes = (size_t)bytes};
    shortcut *found = io_shortcut_find_out(carrying->batch.table, &key);
    if (found != NULL) return found;
  }
  return NULL;
}

static void add(carrying *carrying, int32_t row, const shortcut *shortcut, stream *stream) {
  const int32_t *fields = row_of(carrying, row);
  uint32_t bytes = (uint32_t)(fields[LENGTH] - shortcut->header_bytes), context = (uint32_t)shortcut->context;
  uint8_t *to = io_capsules_begin(&carrying->batch, stream, capsule_bytes(context, bytes));
  if (to == NULL) return;
  to = capsule_write_header(to, context, bytes);
  memcpy(to, carrying->arena + fields[OFFSET] + shortcut->header_bytes, bytes);
  const carried carried = {io_shortcut_number(carrying->batch.table, shortcut), 1, bytes, bytes};
  io_capsules_end(&carrying->batch, to + bytes, row, carried);
}

// Moves the remaining rows to the beginning. Returns how many.
static int32_t compact(carrying *carrying, int32_t count) {
  int32_t left = 0;
  for (int32_t row = 0; row < count; row++) {
    if (carrying->batch.table->carried[row].shortcut != SHORTCUT_NONE) continue;
    int32_t *to = carrying->rows + (size_t)left++ * IO_UDP_RECEIVE_ROW_INTS;
    if (left <= row) memcpy(to, row_of(carrying, row), IO_UDP_RECEIVE_ROW_INTS * sizeof *to);
  }
  return left;
}

int32_t io_shortcut_carry_out(io_loop *loop, int32_t *rows, int32_t count, const uint8_t *arena, const uint8_t *addresses) {
  carrying carrying = {rows, arena, addresses, {.loop = loop, .table = loop->shortcuts}};
  capsule_batch *batch = &carrying.batch;
  if (batch->table == NULL) return count;
  shortcut *last = NULL;
  for (int32_t row = 0; row < count; row++) {
    const int32_t *fields = row_of(&carrying, row);
    shortcut *found = find(&carrying, fields, row_of(&carrying, row > 0 ? row - 1 : 0), last);
    last = found;
    batch->table->carried[row].shortcut = SHORTCUT_NONE;
    if (found == NULL) continue;
    stream *stream = io_stream_of(loop, found->stream);
    bool is_carried = stream != NULL && (size_t)fields[LENGTH] - found->header_bytes <= CAPSULE_MAX_DATAGRAM_BYTES;
    // The remaining rows of a flow come after those that were carried.
    if (!is_carried || stream != batch->stream) io_capsules_flush(batch);
    if (is_carried && io_stream_may_carry(stream)) add(&carrying, row, found, stream);
  }
  io_capsules_flush(batch);
  return compact(&carrying, count);
}
