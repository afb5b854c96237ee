#include <string.h>

#include "../shortcut/table.h"
#include "udp-state.h"

// A busy socket yields to the others after this many reads.
#define READ_ROUNDS 4

void io_udp_deliver(udp *udp) {
  if (udp->row_count == 0) return;
  const io_udp_memory *memory = &udp->memory;
  int32_t left = io_shortcut_carry_out(udp->loop, memory->rows, udp->row_count, memory->arena, memory->addresses);
  if (left > 0) udp->callbacks->received(udp->user_data, left);
  udp->row_count = 0;
  udp->slot_count = 0;
}

void io_udp_add_message(udp_socket *socket, int32_t slot, size_t length, size_t segment_bytes,
                        const struct sockaddr_storage *from, int32_t local, int32_t *address_offset) {
  udp *udp = socket->udp;
  const io_udp_memory *memory = &udp->memory;
  uint8_t *address = memory->addresses + (size_t)slot * IO_ADDRESS_MAX_BYTES;
  size_t address_bytes = io_address_from_sockaddr(from, address);
  if (address_bytes == 0) return;
  // Rows with the same source and local address as the row before share its offset, so that the receiver only compares
  // numbers.
  bool is_equal = *address_offset != NONE &&
                  memory->rows[(size_t)udp->row_count * IO_UDP_RECEIVE_ROW_INTS - 1] == local &&
                  memcmp(memory->addresses + *address_offset, address, address_bytes) == 0;
  if (!is_equal) *address_offset = slot * IO_ADDRESS_MAX_BYTES;
  size_t at = 0;
  do {
    size_t left = length - at;
    size_t bytes = segment_bytes > 0 && segment_bytes < left ? segment_bytes : left;
    if (udp->row_count == IO_UDP_RECEIVE_ROWS) return;
    int32_t *row = memory->rows + (size_t)udp->row_count++ * IO_UDP_RECEIVE_ROW_INTS;
    row[0] = socket->id;
    row[1] = (int32_t)((size_t)slot * IO_UDP_SLOT_STRIDE + at);
    row[2] = (int32_t)bytes;
    row[3] = *address_offset;
    row[4] = (int32_t)address_bytes;
    row[5] = local;
    at += bytes;
  } while (at < length);
}

// Reads once. Returns true if more may be waiting.
static bool receive(udp_socket *socket) {
  if (socket->udp->slot_count == IO_UDP_SLOTS) {
    io_udp_deliver(socket->udp);
    if (socket->is_closing) return false;
  }
  return io_udp_system_receive(socket);
}

void io_udp_read_all(udp_socket *socket) {
  udp *udp = socket->udp;
  bool is_more = true;
  size_t messages = 0;
  // If several datagrams arrived at once, more arrive while they are handled, and reading again is cheaper than waiting. A single
  // one is delivered at the end of the turn, together with those of other sockets.
  for (int round = 0; round < READ_ROUNDS && is_more; round++) {
    int32_t rows_before = udp->row_count, slots_before = udp->slot_count == IO_UDP_SLOTS ? 0 : udp->slot_count;
    is_more = receive(socket);
    if (socket->is_closing) return;
    messages += (size_t)(udp->slot_count - slots_before);
    if (socket->latency != IO_LATENCY_BULK) is_more = is_more || udp->row_count - rows_before >= 2;
    if (is_more && round + 1 < READ_ROUNDS) io_udp_deliver(udp);
    if (socket->is_closing) return;
  }
  if (messages == 0) return;
  if (socket->latency == IO_LATENCY_INTERACTIVE) io_latency_spin(udp->loop);
  if (socket->latency == IO_LATENCY_BULK && !is_more) io_latency_hold(udp->loop, &socket->held, messages);
}

// The socket's hold is over.
void io_udp_resume(held *held) {
  udp_socket *socket = (udp_socket *)((char *)held - offsetof(udp_socket, held));
  io_udp_read_all(socket);
  if (!socket->is_closing && held->link == NULL) io_udp_watch(socket);
}
