// Packets that a device has read → capsules on streams.
#include "table.h"

#ifdef _WIN32

size_t io_shortcut_carry_packets(io_loop *loop, const struct tun *tun, size_t count) {
  (void)loop, (void)tun;
  return count;
}

#else

#include <string.h>

#include "../tun/tun-state.h"
#include "capsule-batch.h"
#include "capsule.h"
#include "packet.h"

static shortcut *find(shortcut_table *table, const tun *tun, const udp_packet *packet) {
  const shortcut_key key = {.is_of_device = true,
                            .socket = tun->watcher.fd,
                            .address = packet->remote,
                            .address_bytes = packet->address_bytes,
                            .header = packet->source,
                            .header_bytes = packet->address_bytes};
  return io_shortcut_find_out(table, &key);
}

// Adds all datagrams of a packet. Returns false if they are left to the caller.
static bool add(capsule_batch *batch, int32_t item, const shortcut *shortcut, stream *stream, const udp_packet *packet) {
  uint32_t context = (uint32_t)shortcut->context;
  size_t segment = packet->segment_bytes, left = packet->payload_bytes;
  size_t datagrams = left > segment ? (left + segment - 1) / segment : 1;
  uint8_t *to = io_capsules_begin(batch, stream, datagrams * (capsule_bytes(context, segment) - segment) + left);
  if (to == NULL) return false;
  const uint8_t *from = packet->payload;
  carried carried = {io_shortcut_number(batch->table, shortcut), (uint16_t)datagrams, (uint32_t)left, 0};
  for (size_t i = 0; i < datagrams; i++) {
    size_t bytes = left < segment ? left : segment;
    to = capsule_write_header(to, context, bytes);
    memcpy(to, from, bytes);
    to += bytes;
    from += bytes;
    left -= bytes;
    carried.last_bytes = (uint32_t)bytes;
  }
  io_capsules_end(batch, to, item, carried);
  return true;
}

// Moves the remaining packets to the beginning. Returns how many.
static size_t compact(const shortcut_table *table, const io_tun_memory *memory, size_t judged, size_t count) {
  size_t left = 0;
  for (size_t i = 0; i < count; i++) {
    if (i < judged && table->carried[i].shortcut != SHORTCUT_NONE) continue;
    memory->offsets[left] = memory->offsets[i];
    memory->lengths[left++] = memory->lengths[i];
  }
  return left;
}

// Carries packet `item` if possible. Returns false if everything after it must go to the caller, because this packet may belong to the same
// flow.
static bool carry(capsule_batch *batch, const tun *tun, int32_t item) {
  const io_tun_memory *memory = &tun->memory;
  udp_packet packet;
  packet_kind kind =
      packet_read(memory->arena + memory->offsets[item], (size_t)memory->lengths[item], tun->format.has_virtio, &packet);
  if (kind != PACKET_UDP) return kind == PACKET_NO_UDP;
  const shortcut *found = find(batch->table, tun, &packet);
  if (found == NULL) return true;
  stream *stream = io_stream_of(batch->loop, found->stream);
  if (found->dscp != packet.dscp || stream == NULL) return false;
  if (stream != batch->stream) io_capsules_flush(batch);
  return io_stream_may_carry(stream) && add(batch, item, found, stream, &packet);
}

size_t io_shortcut_carry_packets(io_loop *loop, const tun *tun, size_t count) {
  capsule_batch batch = {.loop = loop, .table = loop->shortcuts};
  if (batch.table == NULL || tun->shortcuts_out == 0) return count;
  size_t judged = count < IO_UDP_RECEIVE_ROWS ? count : IO_UDP_RECEIVE_ROWS;
  bool goes_on = true;
  for (size_t i = 0; i < judged; i++) {
    batch.table->carried[i].shortcut = SHORTCUT_NONE;
    goes_on = goes_on && carry(&batch, tun, (int32_t)i);
  }
  io_capsules_flush(&batch);
  return compact(batch.table, &tun->memory, judged, count);
}

#endif
