// The table of shortcuts: they are given, found, ended and counted.
#include "table.h"

#include <stdlib.h>
#include <string.h>

#include "../tcp.h"
#ifndef _WIN32
#include "../tun/tun-state.h"
#endif
#include "../udp/udp-state.h"

#define IDLE_CHECK_MS 1000

// Returns NULL if there is no memory.
static shortcut_table *table_of(io_loop *loop) {
  if (loop->shortcuts != NULL || loop->is_ending) return loop->shortcuts;
  shortcut_table *table = calloc(1, sizeof *table);
  if (table == NULL) return NULL;
  if (uv_random(NULL, NULL, &table->seed, sizeof table->seed, 0, NULL) != 0) table->seed = uv_hrtime();
  memset(table->buckets, 0xff, sizeof table->buckets);
  table->first_free = table->first_news = SHORTCUT_NONE;
  loop->shortcuts = table;
  return table;
}

void io_shortcuts_end(io_loop *loop) {
  shortcut_table *table = loop->shortcuts;
  if (table == NULL) return;
  loop->shortcuts = NULL;
  free(table->batch);
  free(table);
}

static uint64_t mix(uint64_t hash, uint64_t word) {
  hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
  hash = (hash ^ hash >> 32) * 0xd6e8feb86659fd93u;
  return hash ^ hash >> 32;
}

static uint64_t mix_bytes(uint64_t hash, const uint8_t *bytes, size_t count) {
  for (size_t at = 0; at < count; at += sizeof(uint64_t)) {
    uint64_t word = 0;
    size_t left = count - at;
    memcpy(&word, bytes + at, left < sizeof word ? left : sizeof word);
    hash = mix(hash, word);
  }
  return hash;
}

static uint32_t hash_out(const shortcut_table *table, const shortcut_key *key) {
  uint64_t numbers = (uint64_t)(uint32_t)key->local << 16 | (uint64_t)key->is_of_device << 8 | key->header_bytes;
  uint64_t hash = mix(table->seed, (uint64_t)(uint32_t)key->socket << 32 | numbers);
  hash = mix_bytes(hash, key->address, key->address_bytes);
  return (uint32_t)mix_bytes(hash, key->header, key->header_bytes);
}

static uint32_t hash_in(const shortcut_table *table, int stream, int32_t context) {
  return (uint32_t)mix(mix(table->seed, (uint32_t)stream), (uint32_t)context);
}

static int16_t *bucket_of(shortcut_table *table, uint32_t hash) { return &table->buckets[hash & (SHORTCUT_BUCKETS - 1)]; }

static bool is_found_by(const shortcut *shortcut, const shortcut_key *key) {
  return shortcut->state == SHORTCUT_OUT && shortcut->is_of_device == key->is_of_device && shortcut->socket == key->socket &&
         shortcut->local == key->local && shortcut->address_bytes == key->address_bytes &&
         memcmp(shortcut->address, key->address, key->address_bytes) == 0 && shortcut->header_bytes == key->header_bytes &&
         (key->header_bytes == 0 || memcmp(shortcut->header, key->header, key->header_bytes) == 0);
}

shortcut *io_shortcut_find_out(shortcut_table *table, const shortcut_key *key) {
  uint32_t hash = hash_out(table, key);
  for (int16_t number = *bucket_of(table, hash); number != SHORTCUT_NONE; number = table->shortcuts[number].next) {
    shortcut *each = &table->shortcuts[number];
    if (each->hash == hash && is_found_by(each, key)) return each;
  }
  return NULL;
}

shortcut *io_shortcut_find_in(shortcut_table *table, int stream, int32_t context) {
  uint32_t hash = hash_in(table, stream, context);
  for (int16_t number = *bucket_of(table, hash); number != SHORTCUT_NONE; number = table->shortcuts[number].next) {
    shortcut *each = &table->shortcuts[number];
    if (each->hash == hash && each->state == SHORTCUT_IN && each->stream == stream && each->context == context) return each;
  }
  return NULL;
}

// Removes a shortcut from a list of numbers that contains it.
static void unlink_from(shortcut_table *table, int16_t *link, int16_t number, bool is_of_stream) {
  while (*link != number) {
    shortcut *each = &table->shortcuts[*link];
    link = is_of_stream ? &each->next_of_stream : &each->next;
  }
  const shortcut *found = &table->shortcuts[number];
  *link = is_of_stream ? found->next_of_stream : found->next;
}

// Adds to, or subtracts from, the number of shortcuts of a socket or device.
static void count_of_end(io_loop *loop, const shortcut *shortcut, int change) {
  bool is_out = shortcut->state == SHORTCUT_OUT;
  if (shortcut->is_of_device) {
#ifndef _WIN32
    tun *tun = io_tun_of(loop, shortcut->socket);
    if (tun == NULL) return;
    tun->shortcuts += change;
    if (is_out) tun->shortcuts_out += change;
#endif
    return;
  }
  udp_socket *socket = io_udp_socket_of(loop, shortcut->socket);
  if (socket == NULL) return;
  socket->shortcuts += change;
  if (!is_out) return;
  socket->shortcuts_out += change;
  if (change > 0) socket->prefix_lengths |= 1u << shortcut->header_bytes;
  else if (socket->shortcuts_out == 0) socket->prefix_lengths = 0;
}

// Its place is kept until it has been counted.
static void end(io_loop *loop, shortcut *shortcut) {
  shortcut_table *table = loop->shortcuts;
  int16_t number = io_shortcut_number(table, shortcut);
  unlink_from(table, bucket_of(table, shortcut->hash), number, false);
  stream *stream = io_stream_of(loop, shortcut->stream);
  if (stream != NULL) unlink_from(table, &stream->first_shortcut, number, true);
  count_of_end(loop, shortcut, -1);
  shortcut->state = SHORTCUT_ENDED;
  io_shortcut_note(table, shortcut);
}

static int32_t take_place(shortcut_table *table) {
  int16_t number = table->first_free;
  if (number != SHORTCUT_NONE) table->first_free = table->shortcuts[number].next;
  else if (table->used < IO_SHORTCUTS) number = table->used++;
  return number;
}

// True for an address without a scope, of a family that sockets have.
static bool is_address(const uint8_t *address, size_t bytes, int family) {
  struct sockaddr_storage read;
  bool is_whole = bytes == IO_ADDRESS_IPV4_BYTES || bytes == IO_ADDRESS_IPV6_BYTES;
  if (!is_whole || io_address_to_sockaddr(address, bytes, &read) == 0) return false;
  return read.ss_family == family && bytes == (family == AF_INET6 ? IO_ADDRESS_IPV6_BYTES : IO_ADDRESS_IPV4_BYTES);
}

// Completes the fields of the table, and enters the shortcut. Returns its number, or SHORTCUT_NONE.
static int32_t add(io_loop *loop, shortcut made) {
  stream *stream = io_stream_of(loop, made.stream);
  if (stream == NULL || made.context < 0) return SHORTCUT_NONE;
  // The buffer has to be longer than the kept bytes before it.
  if (stream->length < 2 * SHORTCUT_KEPT_BYTES) return SHORTCUT_NONE;
  shortcut_table *table = table_of(loop);
  if (table == NULL) return SHORTCUT_NONE;
  const shortcut_key key = {made.is_of_device, made.socket,        made.local,       made.address,
                            made.header,       made.address_bytes, made.header_bytes};
  shortcut *former = made.state == SHORTCUT_IN ? io_shortcut_find_in(table, made.stream, made.context)
                                               : io_shortcut_find_out(table, &key);
  if (former != NULL) end(loop, former);
  int32_t number = take_place(table);
  if (number == SHORTCUT_NONE) return SHORTCUT_NONE;
  if (stream->first_shortcut == SHORTCUT_NONE) io_tcp_within_host(stream->watcher.fd);
  made.last_at = uv_now(loop->uv);
  made.hash = made.state == SHORTCUT_IN ? hash_in(table, made.stream, made.context) : hash_out(table, &key);
  int16_t *bucket = bucket_of(table, made.hash);
  made.next = *bucket;
  made.next_of_stream = stream->first_shortcut;
  table->shortcuts[number] = made;
  *bucket = stream->first_shortcut = (int16_t)number;
  count_of_end(loop, &made, 1);
  return number;
}

static int32_t add_socket(io_loop *loop, const io_shortcut_flow *flow, shortcut_state state) {
  const udp_socket *socket = io_udp_socket_of(loop, flow->socket);
  if (socket == NULL || !is_address(flow->address, flow->address_bytes, socket->family)) return SHORTCUT_NONE;
  if (flow->local < 0 || flow->local > MAX_LOCALS || flow->header_bytes > IO_SHORTCUT_HEADER_BYTES) return SHORTCUT_NONE;
  shortcut made = {.state = state,
                   .socket = flow->socket,
                   .local = flow->local,
                   .context = flow->context,
                   .stream = flow->stream,
                   .header_bytes = (uint8_t)flow->header_bytes,
                   .address_bytes = (uint8_t)flow->address_bytes};
  memcpy(made.address, flow->address, flow->address_bytes);
  if (flow->header_bytes > 0) memcpy(made.header, flow->header, flow->header_bytes);
  return add(loop, made);
}

int32_t io_shortcut_out(io_loop *loop, const io_shortcut_flow *flow) { return add_socket(loop, flow, SHORTCUT_OUT); }

int32_t io_shortcut_in(io_loop *loop, const io_shortcut_flow *flow) { return add_socket(loop, flow, SHORTCUT_IN); }

static int32_t add_device(io_loop *loop, const io_shortcut_packets *flow, shortcut_state state) {
#ifdef _WIN32
  (void)loop, (void)flow, (void)state;
  return SHORTCUT_NONE;
#else
  const tun *tun = io_tun_of(loop, flow->device);
  if (tun == NULL || tun->format.mtu == 0 || flow->dscp < 0 || flow->dscp > 63) return SHORTCUT_NONE;
  int family = flow->address_bytes == IO_ADDRESS_IPV6_BYTES ? AF_INET6 : AF_INET;
  if (!is_address(flow->remote, flow->address_bytes, family) || !is_address(flow->source, flow->address_bytes, family))
    return SHORTCUT_NONE;
  shortcut made = {.state = state,
                   .is_of_device = true,
                   .dscp = (uint8_t)flow->dscp,
                   .socket = flow->device,
                   .context = flow->context,
                   .stream = flow->stream,
                   .header_bytes = (uint8_t)flow->address_bytes,
                   .address_bytes = (uint8_t)flow->address_bytes};
  memcpy(made.address, flow->remote, flow->address_bytes);
  memcpy(made.header, flow->source, flow->address_bytes);
  return add(loop, made);
#endif
}

int32_t io_shortcut_packets_out(io_loop *loop, const io_shortcut_packets *flow) { return add_device(loop, flow, SHORTCUT_OUT); }

int32_t io_shortcut_packets_in(io_loop *loop, const io_shortcut_packets *flow) { return add_device(loop, flow, SHORTCUT_IN); }

void io_shortcut_end_stream(io_loop *loop, stream *stream) {
  while (stream->first_shortcut != SHORTCUT_NONE) end(loop, &loop->shortcuts->shortcuts[stream->first_shortcut]);
}

void io_shortcut_end(io_loop *loop, int descriptor) {
  stream *stream = io_stream_of(loop, descriptor);
  if (stream != NULL) io_shortcut_end_stream(loop, stream);
}

static bool is_open(const shortcut *shortcut) { return shortcut->state == SHORTCUT_OUT || shortcut->state == SHORTCUT_IN; }

// Ends all shortcuts of a socket or device. `left`: how many are left.
static void end_all(io_loop *loop, bool is_of_device, int32_t socket, const int32_t *left) {
  shortcut_table *table = loop->shortcuts;
  if (table == NULL) return;
  for (int16_t number = 0; *left > 0 && number < table->used; number++) {
    shortcut *each = &table->shortcuts[number];
    if (is_open(each) && each->is_of_device == is_of_device && each->socket == socket) end(loop, each);
  }
}

void io_shortcut_end_socket(io_loop *loop, const udp_socket *socket) { end_all(loop, false, socket->id, &socket->shortcuts); }

#ifndef _WIN32
void io_shortcut_end_device(io_loop *loop, const tun *tun) { end_all(loop, true, tun->watcher.fd, &tun->shortcuts); }
#endif

void io_shortcut_resume(io_loop *loop, int descriptor) {
  stream *stream = io_stream_of(loop, descriptor);
  if (stream != NULL) stream->is_resumed = true;
}

// At most once a second, because it checks all of them.
static void end_idle(io_loop *loop, double now) {
  shortcut_table *table = loop->shortcuts;
  if (now - (double)table->looked_at < IDLE_CHECK_MS) return;
  table->looked_at = uv_now(loop->uv);
  int32_t open = 0;
  for (int16_t number = 0; number < table->used; number++) {
    if (is_open(&table->shortcuts[number])) open++;
  }
  double most = open > IO_SHORTCUTS / 4 * 3 ? IO_SHORTCUT_CROWDED_IDLE_MS : IO_SHORTCUT_IDLE_MS;
  for (int16_t number = 0; number < table->used; number++) {
    shortcut *each = &table->shortcuts[number];
    if (is_open(each) && now - (double)each->last_at >= most) end(loop, each);
  }
}

int32_t io_shortcut_counts(io_loop *loop, double *rows, int32_t capacity) {
  shortcut_table *table = loop->shortcuts;
  if (table == NULL) return 0;
  int32_t count = 0;
  double now = (double)uv_hrtime() / 1e6;
  end_idle(loop, now);
  while (table->first_news != SHORTCUT_NONE && count < capacity) {
    int16_t number = table->first_news;
    shortcut *each = &table->shortcuts[number];
    bool has_ended = each->state == SHORTCUT_ENDED;
    double *row = rows + (size_t)count++ * IO_SHORTCUT_COUNT_NUMBERS;
    double age = now - (double)each->last_at;
    row[0] = number;
    row[1] = (double)each->datagrams;
    row[2] = (double)each->bytes;
    row[3] = age < 0 ? 0 : age;
    row[4] = (double)each->last_bytes;
    row[5] = has_ended;
    row[6] = (double)each->packets;
    each->datagrams = each->bytes = each->packets = 0;
    each->has_news = false;
    table->first_news = each->next_of_news;
    if (!has_ended) continue;
    each->state = SHORTCUT_FREE;
    each->next = table->first_free;
    table->first_free = number;
  }
  return count;
}
