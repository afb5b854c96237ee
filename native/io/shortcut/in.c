// Capsules that a stream has received → datagrams of sockets.
#include <stddef.h>

#include "../udp/udp-state.h"
#include "capsule.h"
#include "packets-in.h"

// Datagrams that could not be sent are reported with the caller's next datagrams.
static void send_rows(io_loop *loop, const uint8_t *bytes, size_t byte_count, int32_t row_count) {
  const shortcut_table *table = loop->shortcuts;
  if (row_count == 0) return;
  const io_udp_batch batch = {.rows = table->send_rows,
                              .count = row_count,
                              .data = bytes,
                              .data_bytes = byte_count,
                              .headers = (const uint8_t *)table->shortcuts,
                              .header_bytes = sizeof table->shortcuts,
                              .addresses = (const uint8_t *)table->shortcuts,
                              .address_bytes = sizeof table->shortcuts};
  int64_t dropped = io_udp_send(loop, &batch);
  if (dropped > 0) loop->udp->late_drops += (size_t)dropped;
}

// Adds a datagram to those that a socket sends.
static void add_row(io_loop *loop, shortcut *shortcut, const datagram_capsule *capsule, int32_t index) {
  shortcut_table *table = loop->shortcuts;
  uint32_t payload_bytes = (uint32_t)(capsule->end - capsule->payload);
  size_t place = (size_t)io_shortcut_number(table, shortcut) * sizeof *shortcut;
  int32_t *row = table->send_rows + (size_t)index * IO_UDP_SEND_ROW_INTS;
  row[0] = shortcut->socket;
  row[1] = (int32_t)(place + offsetof(struct shortcut, header));
  row[2] = shortcut->header_bytes;
  row[3] = (int32_t)capsule->payload;
  row[4] = (int32_t)payload_bytes;
  row[5] = (int32_t)(place + offsetof(struct shortcut, address));
  row[6] = shortcut->local;
  const carried carried = {0, 1, payload_bytes, payload_bytes};
  io_shortcut_count(table, shortcut, uv_now(loop->uv), &carried);
}

size_t io_shortcut_carry_in(io_loop *loop, const stream *stream, const uint8_t *bytes, size_t count, bool *may_keep) {
  shortcut_table *table = loop->shortcuts;
  size_t at = 0;
  int32_t row_count = 0;
  shortcut *last = NULL;
  packet_run run;
  io_packets_begin(&run);
  *may_keep = false;
  while (at < count) {
    datagram_capsule capsule;
    capsule_kind kind = capsule_read(bytes, at, count, &capsule);
    if (kind == CAPSULE_OTHER) break;
    if (capsule.context >= 0 && (last == NULL || last->context != capsule.context)) {
      last = io_shortcut_find_in(table, stream->watcher.fd, (int32_t)capsule.context);
      if (last == NULL) break;
    }
    if (kind == CAPSULE_CUT) {
      *may_keep = true;
      break;
    }
    if (last->is_of_device) {
      if (!io_packets_add(loop, &run, last, bytes + capsule.payload, capsule.end - capsule.payload)) break;
    } else {
      if (row_count == IO_UDP_MAX_SEND_ROWS) {
        send_rows(loop, bytes, count, row_count);
        row_count = 0;
      }
      add_row(loop, last, &capsule, row_count++);
    }
    at = capsule.end;
  }
  io_packets_flush(loop, &run);
  send_rows(loop, bytes, count, row_count);
  return at;
}
