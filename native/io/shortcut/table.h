// The shortcuts of a context, and what they need to carry datagrams.
#ifndef UNDERPASS_IO_SHORTCUT_TABLE_H
#define UNDERPASS_IO_SHORTCUT_TABLE_H

#include "../address.h"
#include "../loop/loop-state.h"
#include "../shortcut.h"
#include "../tcp/stream-state.h"
#include "../udp.h"

// A power of two.
#define SHORTCUT_BUCKETS 8192
// Limit of bytes written to a stream at once: several of the largest datagrams.
#define SHORTCUT_BATCH_BYTES 262144
#define SHORTCUT_NONE (-1)

typedef enum { SHORTCUT_FREE, SHORTCUT_OUT, SHORTCUT_IN, SHORTCUT_ENDED } shortcut_state;

typedef struct shortcut {
  shortcut_state state;
  // True if `socket` is the descriptor of a device. Then `header` is the application's address, `local` is 0, and outgoing packets have
  // `dscp`.
  bool is_of_device;
  uint8_t dscp;
  int32_t socket, local, context;
  int stream;
  // Hash of its key.
  uint32_t hash;
  // The next shortcut in its bucket, or of the free ones; the next of its stream; the next with something to count.
  int16_t next, next_of_stream, next_of_news;
  bool has_news;
  uint8_t header_bytes, address_bytes;
  uint8_t header[IO_SHORTCUT_HEADER_BYTES];
  uint8_t address[IO_ADDRESS_MAX_BYTES];
  // Since the last row of counts; `packets` of a device.
  uint64_t datagrams, bytes, packets;
  size_t last_bytes;
  // On the clock of uv_now.
  uint64_t last_at;
} shortcut;

// The shortcut of a received row or packet; SHORTCUT_NONE for one that is left to the caller.
typedef struct carried {
  int16_t shortcut;
  uint16_t datagrams;
  uint32_t bytes, last_bytes;
} carried;

typedef struct shortcut_table {
  // Unpredictable, because others choose the sources of datagrams.
  uint64_t seed;
  // The number of places that have been used, and the first that is free again.
  int16_t used, first_free;
  // Shortcuts with something to count, in the order in which they got it.
  int16_t first_news, last_news;
  // Time of the last search for idle ones, on the clock of uv_now.
  uint64_t looked_at;
  int16_t buckets[SHORTCUT_BUCKETS];
  shortcut shortcuts[IO_SHORTCUTS];
  carried carried[IO_UDP_RECEIVE_ROWS];
  // Capsules to write; NULL while a stream keeps that memory.
  uint8_t *batch;
  // Datagrams to send.
  int32_t send_rows[IO_UDP_MAX_SEND_ROWS * IO_UDP_SEND_ROW_INTS];
} shortcut_table;

// The key of an outgoing datagram; all fields have to be equal.
typedef struct shortcut_key {
  bool is_of_device;
  int32_t socket, local;
  const uint8_t *address, *header;
  size_t address_bytes, header_bytes;
} shortcut_key;

// The shortcut that carries such a datagram, or such capsules; NULL for none.
shortcut *io_shortcut_find_out(shortcut_table *table, const shortcut_key *key);
shortcut *io_shortcut_find_in(shortcut_table *table, int stream, int32_t context);

static inline int16_t io_shortcut_number(const shortcut_table *table, const shortcut *shortcut) {
  return (int16_t)(shortcut - table->shortcuts);
}

// Marks a shortcut that has something to count.
static inline void io_shortcut_note(shortcut_table *table, shortcut *shortcut) {
  if (shortcut->has_news) return;
  int16_t number = io_shortcut_number(table, shortcut);
  shortcut->has_news = true;
  shortcut->next_of_news = SHORTCUT_NONE;
  if (table->first_news == SHORTCUT_NONE) table->first_news = number;
  else table->shortcuts[table->last_news].next_of_news = number;
  table->last_news = number;
}

static inline void io_shortcut_count(shortcut_table *table, shortcut *shortcut, uint64_t now, const carried *what) {
  io_shortcut_note(table, shortcut);
  shortcut->datagrams += what->datagrams;
  shortcut->bytes += what->bytes;
  shortcut->last_bytes = what->last_bytes;
  shortcut->last_at = now;
}

// Called when sockets, devices and streams are closed.
struct udp_socket;
struct tun;
void io_shortcut_end_socket(io_loop *loop, const struct udp_socket *socket);
void io_shortcut_end_device(io_loop *loop, const struct tun *tun);
void io_shortcut_end_stream(io_loop *loop, stream *stream);

// out.c: carries received rows if possible, and removes them. Returns how many are left, from the first on.
int32_t io_shortcut_carry_out(io_loop *loop, int32_t *rows, int32_t count, const uint8_t *arena, const uint8_t *addresses);

// packets-out.c: the same for packets that a device has read.
size_t io_shortcut_carry_packets(io_loop *loop, const struct tun *tun, size_t count);

// in.c: carries bytes that a stream has received, from the beginning of a capsule on. Returns how many bytes that took. `may_keep`:
// whether the rest is the beginning of a capsule that may be a shortcut's.
size_t io_shortcut_carry_in(io_loop *loop, const stream *stream, const uint8_t *bytes, size_t count, bool *may_keep);

#endif
