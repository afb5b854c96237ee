#include <stdlib.h>
#include <string.h>

#include "udp-state.h"

#define MAX_PENDING_BYTES 1048576

// A message that the system did not accept at once.
typedef struct pending {
  struct pending *next;
  struct sockaddr_storage to;
  socklen_t to_length;
  int32_t local;
  uint16_t segment_bytes;
  uint32_t segments;
  size_t length;
  uint8_t data[];
} pending;

static bool is_full(int error) {
  return error == UV_EAGAIN;
}

// Errors of sending from an address that the machine does not have, or on an unknown interface.
static bool may_be_gone(int error) {
  return error == UV_EINVAL || error == UV_EADDRNOTAVAIL || error == UV_ENETUNREACH || error == UV_ENODEV;
}

int io_udp_send_from(udp_socket *socket, const struct sockaddr_storage *to, socklen_t to_length, const part *parts,
                     size_t part_count, size_t segment_bytes, int32_t number) {
  local_address *local = io_udp_local_of(socket, number);
  int error = io_udp_system_send_once(socket, to, to_length, parts, part_count, segment_bytes, local);
  if (local == NULL || !may_be_gone(error)) return error;
  // This may be the error of an earlier datagram.
  error = io_udp_system_send_once(socket, to, to_length, parts, part_count, segment_bytes, local);
  if (!may_be_gone(error)) return error;
  int other_error = io_udp_system_send_once(socket, to, to_length, parts, part_count, segment_bytes, NULL);
  if (other_error != 0 && !is_full(other_error)) return error;
  local->is_gone = true;
  return other_error;
}

// Keeps a copy of a message until the socket accepts it. Returns how many datagrams were dropped instead.
static size_t keep(udp_socket *socket, const message *message, const part *parts) {
  udp *udp = socket->udp;
  if (socket->pending_bytes + message->bytes > MAX_PENDING_BYTES) {
    udp->counts[IO_UDP_COUNT_OVERFLOW] += (double)message->segments;
    return message->segments;
  }
  pending *entry = malloc(sizeof *entry + message->bytes);
  if (entry == NULL) {
    udp->counts[IO_UDP_COUNT_NO_BUFFERS] += (double)message->segments;
    return message->segments;
  }
  entry->next = NULL;
  entry->to = message->to;
  entry->to_length = message->to_length;
  entry->local = message->local;
  entry->segments = (uint32_t)message->segments;
  entry->segment_bytes = message->segments > 1 ? (uint16_t)message->segment_bytes : 0;
  entry->length = message->bytes;
  size_t at = 0;
  for (size_t i = 0; i < message->part_count; i++) {
    if (parts[i].length > 0) memcpy(entry->data + at, parts[i].data, parts[i].length);
    at += parts[i].length;
  }
  bool was_empty = socket->first_pending == NULL;
  if (was_empty) socket->first_pending = entry;
  else socket->last_pending->next = entry;
  socket->last_pending = entry;
  socket->pending_bytes += entry->length;
  if (was_empty) io_udp_watch(socket);
  return 0;
}

static void drop_first_pending(udp_socket *socket) {
  pending *entry = socket->first_pending;
  socket->first_pending = entry->next;
  if (entry->next == NULL) socket->last_pending = NULL;
  socket->pending_bytes -= entry->length;
  free(entry);
}

void io_udp_drop_pending(udp_socket *socket) {
  while (socket->first_pending != NULL) drop_first_pending(socket);
}

void io_udp_send_pending(udp_socket *socket) {
  while (socket->first_pending != NULL) {
    pending *entry = socket->first_pending;
    part whole = {entry->data, entry->length};
    int error = io_udp_send_from(socket, &entry->to, entry->to_length, &whole, 1, entry->segment_bytes, entry->local);
    if (is_full(error)) return;
    if (error != 0) {
      io_udp_count_failure(socket, &entry->to, error, entry->segments);
      socket->udp->late_drops += entry->segments;
    }
    drop_first_pending(socket);
  }
  io_udp_watch(socket);
}

// Sends the datagrams of a segmented message one by one. Returns how many were dropped.
static size_t send_singly(udp_socket *socket, const message *whole, const part *parts) {
  size_t dropped = 0, at = 0;
  size_t parts_each = whole->part_count / whole->segments;
  for (size_t i = 0; i < whole->segments; i++) {
    message single = *whole;
    single.segments = 1;
    single.part_count = parts_each;
    single.bytes = i + 1 < whole->segments ? whole->segment_bytes : whole->last_bytes;
    const part *own = parts + at;
    at += parts_each;
    int error = socket->first_pending != NULL
                    ? UV_EAGAIN
                    : io_udp_send_from(socket, &single.to, single.to_length, own, parts_each, 0, single.local);
    if (is_full(error)) dropped += keep(socket, &single, own);
    else if (error != 0) {
      io_udp_count_failure(socket, &single.to, error, 1);
      dropped++;
    }
  }
  return dropped;
}

// Handles a message that the system refused. Returns how many datagrams were dropped.
static size_t refused(udp_socket *socket, const message *message, const part *parts, int error) {
  if (io_udp_is_news(socket, error) || (may_be_gone(error) && io_udp_local_of(socket, message->local) != NULL)) {
    // This may be the error of an earlier datagram, or concern the address to send from: after one more try, it belongs to this
    // one.
    error = io_udp_send_from(socket, &message->to, message->to_length, parts, message->part_count,
                      message->segments > 1 ? message->segment_bytes : 0, message->local);
    if (error == 0) return 0;
    if (is_full(error)) return keep(socket, message, parts);
  }
  // Without a route, single datagrams would fail too.
  if (message->segments > 1 && io_udp_kind_of_error(error) == NONE) {
    // The MTU is smaller than a segment, or the device does not support it: such sizes are sent singly from now on.
    if (error == UV_EMSGSIZE || error == UV_EINVAL) socket->segment_limit = message->segment_bytes - 1;
    else if (error == UV_EIO || error == UV_ENOTSUP) socket->segment_limit = 0;
    return send_singly(socket, message, parts);
  }
  io_udp_count_failure(socket, &message->to, error, message->segments);
  return message->segments;
}

// Sends the first messages of `udp->messages`. Returns how many datagrams were dropped.
static size_t send_messages(udp_socket *socket, size_t count) {
  udp *udp = socket->udp;
  size_t dropped = 0, done = 0;
  io_udp_system_prepare(socket, count);
  while (done < count && socket->first_pending == NULL) {
    int result = io_udp_system_send(socket, done, count);
    if (result > 0) {
      done += (size_t)result;
      continue;
    }
    if (is_full(result)) break;
    dropped += refused(socket, &udp->messages[done], udp->parts + udp->messages[done].first_part, result);
    done++;
  }
  for (; done < count; done++) dropped += keep(socket, &udp->messages[done], udp->parts + udp->messages[done].first_part);
  return dropped;
}

static void add_scope(const udp_socket *socket, struct sockaddr_storage *to) {
  struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)to;
  if (socket->scope_id != 0 && to->ss_family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr))
    in6->sin6_scope_id = socket->scope_id;
}

static bool fits(int32_t offset, int32_t length, size_t bytes) {
  return offset >= 0 && length >= 0 && (size_t)offset + (size_t)length <= bytes;
}

static bool is_row_good(const io_udp_batch *batch, const int32_t *row) {
  return fits(row[1], row[2], batch->header_bytes) && fits(row[3], row[4], batch->data_bytes) && row[5] >= 0 &&
         (size_t)row[5] < batch->address_bytes && (size_t)row[2] + (size_t)row[4] <= MAX_PAYLOAD;
}

static bool extends(const udp_socket *socket, const message *message, const int32_t *row, size_t bytes) {
  return message->address_offset == row[5] && message->local == row[6] && bytes > 0 && bytes <= message->segment_bytes &&
         message->segment_bytes <= socket->segment_limit && message->last_bytes == message->segment_bytes &&
         message->segments < SEND_SEGMENTS && message->bytes + bytes <= MAX_SEGMENTED &&
         // Each datagram of a message has as many parts as the others.
         (row[2] > 0) == (message->part_count > message->segments);
}

static size_t send_socket(udp_socket *socket, const io_udp_batch *batch) {
  udp *udp = socket->udp;
  message *messages = udp->messages;
  part *parts = udp->parts;
  size_t message_count = 0, part_count = 0, dropped = 0;
  for (int32_t index = socket->first_row; index != NONE; index = udp->next_row[index]) {
    const int32_t *row = batch->rows + (size_t)index * IO_UDP_SEND_ROW_INTS;
    size_t bytes = (size_t)row[2] + (size_t)row[4];
    message *last = message_count > 0 ? &messages[message_count - 1] : NULL;
    bool is_extension = last != NULL && extends(socket, last, row, bytes);
    if (part_count + 2 > SEND_PARTS || (!is_extension && message_count == SEND_MESSAGES)) {
      dropped += send_messages(socket, message_count);
      message_count = part_count = 0;
      is_extension = false;
    }
    if (!is_extension) {
      last = &messages[message_count];
      last->to_length = io_address_to_sockaddr(batch->addresses + row[5], batch->address_bytes - (size_t)row[5], &last->to);
      if (last->to_length == 0 || last->to.ss_family != socket->family) {
        socket->udp->counts[IO_UDP_COUNT_FAILED]++;
        dropped++;
        continue;
      }
      add_scope(socket, &last->to);
      message_count++;
      last->address_offset = row[5];
      last->local = row[6];
      last->first_part = part_count;
      last->part_count = last->segments = last->bytes = 0;
      last->segment_bytes = bytes;
    }
    if (row[2] > 0) parts[part_count++] = (part){batch->headers + row[1], (size_t)row[2]};
    parts[part_count++] = (part){batch->data + row[3], (size_t)row[4]};
    last->part_count = part_count - last->first_part;
    last->segments++;
    last->last_bytes = bytes;
    last->bytes += bytes;
  }
  if (message_count > 0) dropped += send_messages(socket, message_count);
  return dropped;
}

int64_t io_udp_send(io_loop *loop, const io_udp_batch *batch) {
  udp *udp = loop->udp;
  int32_t count = batch->count;
  if (udp == NULL || count < 0 || count > IO_UDP_MAX_SEND_ROWS) return UV_EINVAL;
  int32_t socket_count = 0;
  size_t dropped = udp->late_drops;
  udp->late_drops = 0;
  for (int32_t i = 0; i < count; i++) {
    const int32_t *row = batch->rows + (size_t)i * IO_UDP_SEND_ROW_INTS;
    udp_socket *socket = io_udp_socket_of(loop, row[0]);
    if (socket == NULL || !is_row_good(batch, row)) {
      udp->counts[IO_UDP_COUNT_FAILED]++;
      dropped++;
      continue;
    }
    udp->next_row[i] = NONE;
    if (socket->first_row == NONE) {
      socket->first_row = i;
      udp->order[socket_count++] = row[0];
    } else {
      udp->next_row[socket->last_row] = i;
    }
    socket->last_row = i;
  }
  for (int32_t i = 0; i < socket_count; i++) {
    udp_socket *socket = udp->sockets[udp->order[i]];
    dropped += send_socket(socket, batch);
    socket->first_row = socket->last_row = NONE;
    // The answer is expected soon.
    if (socket->latency == IO_LATENCY_INTERACTIVE) io_latency_spin(loop);
  }
  return (int64_t)dropped;
}
