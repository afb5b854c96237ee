// Random and mutated segments, and random calls, against the TCP stack: `tcp-stack PACKETS SEED`. Under sanitizers and with lwIP's own
// checks (scripts/fuzz/native.mjs). Output has to be well-formed, events in order, and memory within its limit. Some connections are left
// undisturbed, and have to carry every byte.
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../native/io/tcp-stack.h"

#define FLOWS 48
// How many of them are undisturbed.
#define STEADY 4
#define BATCH 64
#define MEMORY (4 << 20)
#define SLACK (2 << 20)

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

typedef struct peer {
  bool is_ipv6, is_there, is_accepted, has_ended, is_closed, is_ending;
  uint16_t port;
  // The next number that it sends, and the numbers that it has received.
  uint32_t sequence, acknowledgment, stack_sequence;
  uint64_t sent, received, read, written;
} peer;

static peer peers[FLOWS];
static uint64_t state;

static uint32_t random32(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (uint32_t)(state >> 16);
}

static uint32_t below(uint32_t bound) {
  return random32() % bound;
}

#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);      \
      abort();                                                             \
    }                                                                      \
  } while (0)

static void put(uint8_t *to, size_t bytes, uint64_t value) {
  for (size_t i = 0; i < bytes; i++) to[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
}

static uint32_t get(const uint8_t *from, size_t bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < bytes; i++) value = value << 8 | from[i];
  return value;
}

static uint32_t sum_of(uint32_t sum, const uint8_t *bytes, size_t length) {
  for (size_t i = 0; i < length; i++) sum += i % 2 == 0 ? (uint32_t)bytes[i] << 8 : bytes[i];
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

static uint32_t segment_sum(const uint8_t *ip, const uint8_t *tcp, size_t bytes) {
  bool is_ipv6 = ip[0] >> 4 == 6;
  return sum_of(sum_of(6 + (uint32_t)bytes, is_ipv6 ? ip + 8 : ip + 12, is_ipv6 ? 32 : 8), tcp, bytes);
}

// The byte at a position of a stream.
static uint8_t byte_at(uint32_t flow, uint64_t place) {
  return (uint8_t)(place * 167 + flow * 31 + (place >> 8));
}

static size_t build(uint32_t number, uint8_t *packet, uint8_t flags, uint32_t sequence, uint32_t acknowledgment, uint16_t window,
                    size_t options, size_t length, uint64_t place) {
  peer *peer = &peers[number];
  size_t header = peer->is_ipv6 ? 40 : 20, segment = 20 + options + length;
  uint8_t *tcp = packet + header;
  memset(packet, 0, header + 20);
  if (peer->is_ipv6) {
    packet[0] = 0x60;
    put(packet + 4, 2, segment);
    packet[6] = 6;
    packet[7] = 64;
    packet[8] = 0xfd;
    packet[24] = 0xfd;
    packet[39] = (uint8_t)(number + 1);
  } else {
    packet[0] = 0x45;
    put(packet + 2, 2, header + segment);
    packet[8] = 64;
    packet[9] = 6;
    packet[12] = 10;
    packet[15] = 1;
    packet[16] = 192;
    packet[19] = (uint8_t)(number + 1);
  }
  put(tcp, 2, peer->port);
  put(tcp + 2, 2, 80);
  put(tcp + 4, 4, sequence);
  put(tcp + 8, 4, acknowledgment);
  tcp[12] = (uint8_t)((20 + options) / 4 << 4);
  tcp[13] = flags;
  put(tcp + 14, 2, window);
  for (size_t i = 0; i < options; i++) tcp[20 + i] = below(3) == 0 ? (uint8_t)random32() : (uint8_t)below(11);
  for (size_t i = 0; i < length; i++) tcp[20 + options + i] = byte_at(number, place + i);
  put(tcp + 16, 2, (uint16_t)~segment_sum(packet, tcp, segment));
  return header + segment;
}

static void see_packet(const uint8_t *packet, size_t length) {
  bool is_ipv6 = packet[0] >> 4 == 6;
  size_t header = is_ipv6 ? 40 : 20;
  CHECK(length >= header + 20 && (is_ipv6 ? get(packet + 4, 2) + 40 : get(packet + 2, 2)) == length);
  CHECK(is_ipv6 || sum_of(0, packet, 20) == 0xffff);
  const uint8_t *tcp = packet + header;
  CHECK(segment_sum(packet, tcp, length - header) == 0xffff);
  uint32_t number = (is_ipv6 ? packet[23] : packet[15]) - 1u;
  CHECK(number < FLOWS);
  peer *peer = &peers[number];
  size_t header_bytes = (size_t)(tcp[12] >> 4) * 4, data = length - header - header_bytes;
  CHECK(header_bytes >= 20 && header + header_bytes <= length && data <= 1460);
  if (get(tcp + 2, 2) != peer->port || !peer->is_there) return;
  uint32_t sequence = get(tcp + 4, 4);
  if ((tcp[13] & SYN) != 0) {
    peer->acknowledgment = peer->stack_sequence = sequence + 1;
    return;
  }
  if ((tcp[13] & RST) != 0) {
    CHECK(number >= STEADY);
    return;
  }
  for (size_t i = 0; number < STEADY && i < data; i++) {
    uint32_t place = sequence - peer->stack_sequence + (uint32_t)i;
    CHECK(tcp[header_bytes + i] == byte_at(number, place));
  }
  // A repeated segment may contain more data than before.
  uint32_t known = peer->acknowledgment - sequence;
  if (known <= data) peer->acknowledgment += (uint32_t)data - known;
}

static void poll(io_tcp_stack *stack, const io_tcp_stack_memory *memory) {
  int32_t count;
  while ((count = io_tcp_stack_poll_events(stack)) > 0) {
    for (int32_t i = 0; i < count; i++) {
      const int32_t *row = memory->events + i * IO_TCP_STACK_EVENT_INTS;
      CHECK(row[0] >= 0 && row[0] < FLOWS);
      peer *peer = &peers[row[0]];
      CHECK(peer->is_there && !peer->is_closed);
      switch (row[1]) {
        case IO_TCP_STACK_ACCEPTED:
          CHECK(!peer->is_accepted);
          peer->is_accepted = true;
          io_tcp_stack_pause(stack, (uint32_t)row[0], false);
          break;
        case IO_TCP_STACK_BYTES:
          CHECK(peer->is_accepted && !peer->has_ended && row[2] >= 0 && row[3] > 0);
          CHECK((size_t)row[2] + (size_t)row[3] <= memory->received_bytes);
          for (int32_t j = 0; j < row[3]; j++) {
            if (row[0] < STEADY) CHECK(memory->received[row[2] + j] == byte_at((uint32_t)row[0], peer->read + (uint64_t)j));
          }
          peer->read += (uint64_t)row[3];
          break;
        case IO_TCP_STACK_ENDED:
          CHECK(peer->is_accepted && !peer->has_ended);
          peer->has_ended = true;
          break;
        case IO_TCP_STACK_WRITABLE:
          break;
        default:
          CHECK(row[1] == IO_TCP_STACK_CLOSED && row[2] <= 0);
          CHECK(row[0] >= STEADY);
          peer->is_closed = true;
          peer->is_there = false;
      }
    }
  }
  while ((count = io_tcp_stack_poll_packets(stack)) > 0) {
    for (int32_t i = 0; i < count; i++) see_packet(memory->packets + memory->offsets[i], (size_t)memory->lengths[i]);
  }
}

// A segment of a disturbed connection: nearly correct, or entirely wrong.
static size_t any_segment(uint32_t number, uint8_t *packet) {
  peer *peer = &peers[number];
  static const uint8_t usual[] = {ACK, ACK, ACK, ACK, ACK | PSH, ACK | PSH, SYN, SYN, FIN | ACK, RST, RST | ACK, SYN | ACK};
  uint8_t flags = below(8) == 0 ? (uint8_t)random32() : usual[below(sizeof usual)];
  static const uint32_t steps[] = {0, 0, 0, 0, 0, 1, 100, 1460, 65536, 1 << 20};
  uint32_t away = steps[below(10)], length = below(3) == 0 ? 0 : below(1400);
  uint32_t sequence = peer->sequence + (below(2) == 0 ? away : 0u - away) + (below(64) == 0 ? random32() : 0);
  uint32_t acknowledgment = below(12) == 0 ? random32() : peer->acknowledgment - (below(6) == 0 ? below(5000) : 0);
  uint16_t window = below(4) == 0 ? (uint16_t)below(2000) : 65535;
  if ((flags & (SYN | RST | FIN | ACK)) == SYN) length = below(4) == 0 ? length : 0;
  size_t bytes = build(number, packet, flags, sequence, acknowledgment, window, below(4) == 0 ? below(11) * 4 : 0, length, peer->sent);
  if (sequence == peer->sequence && (flags & (SYN | RST)) == 0) peer->sequence += length + ((flags & FIN) != 0 ? 1 : 0);
  if ((flags & (SYN | ACK)) == SYN) peer->sequence = sequence + 1;
  return bytes;
}

static size_t steady_segment(uint32_t number, uint8_t *packet) {
  peer *peer = &peers[number];
  uint32_t length = 1 + below(1400);
  size_t bytes = build(number, packet, ACK, peer->sequence, peer->acknowledgment, 65535, 0, length, peer->sent);
  peer->sequence += length;
  peer->sent += length;
  return bytes;
}

int main(int argc, char **argv) {
  long packets = argc > 1 ? atol(argv[1]) : 100000;
  state = (argc > 2 ? strtoull(argv[2], NULL, 10) : 1) * 0x9e3779b97f4a7c15 + 1;
  io_tcp_stack_memory memory = {.packets = malloc(1 << 20),
                                .packet_bytes = 1 << 20,
                                .offsets = malloc(1024 * sizeof(int32_t)),
                                .lengths = malloc(1024 * sizeof(int32_t)),
                                .capacity = 1024,
                                .received = malloc(1 << 18),
                                .received_bytes = 1 << 18,
                                .events = malloc(64 * IO_TCP_STACK_EVENT_INTS * sizeof(int32_t)),
                                .event_capacity = 64};
  io_tcp_stack_options options = {.mtu = 1500, .max_flows = FLOWS, .memory_bytes = MEMORY, .secret = {7}};
  io_tcp_stack *stack;
  CHECK(io_tcp_stack_create(&options, &memory, &stack) == 0);
  static uint8_t zeros[65536];
  double now = 1000;
  size_t most = 0;
  uint64_t closed = 0, accepted = 0;
  for (uint32_t i = 0; i < FLOWS; i++) peers[i] = (peer){.is_ipv6 = i % 2 == 1, .port = (uint16_t)(1000 + i), .sequence = random32()};

  // The undisturbed connections.
  for (uint32_t i = 0; i < STEADY; i++) {
    uint8_t packet[128];
    for (int step = 0; step < 2; step++) {
      peers[i].is_there = true;
      size_t header = peers[i].is_ipv6 ? 40 : 20;
      size_t bytes = build(i, packet, step == 0 ? SYN : ACK, peers[i].sequence, peers[i].acknowledgment, 65535, 0, 0, 0);
      int32_t row[] = {(int32_t)i, 0, (int32_t)header, (int32_t)bytes};
      io_tcp_stack_handle_segments(stack, now, packet, bytes, row, 1);
      if (step == 0) peers[i].sequence++;
      poll(stack, &memory);
    }
    CHECK(peers[i].is_accepted);
  }

  for (long done = 0; done < packets;) {
    uint32_t count = 1 + below(BATCH);
    uint8_t *data = malloc(BATCH * 1600);
    int32_t rows[BATCH * IO_TCP_STACK_SEGMENT_INTS];
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
      uint32_t number = below(4) == 0 ? below(STEADY) : STEADY + below(FLOWS - STEADY);
      peer *peer = &peers[number];
      if (!peer->is_there) {
        bool is_ipv6 = peer->is_ipv6;
        accepted += peer->is_accepted;
        *peer = (struct peer){.is_ipv6 = is_ipv6, .is_there = true, .port = (uint16_t)(1000 + below(60000)), .sequence = random32()};
      }
      size_t bytes = number < STEADY ? steady_segment(number, data + at) : any_segment(number, data + at);
      size_t header = peer->is_ipv6 ? 40 : 20;
      int32_t *row = rows + i * IO_TCP_STACK_SEGMENT_INTS;
      row[0] = (int32_t)number, row[1] = (int32_t)at, row[2] = (int32_t)(at + header), row[3] = (int32_t)(at + bytes);
      if (number >= STEADY && below(16) == 0) {
        // Wrong bits, lengths and positions.
        data[at + below((uint32_t)bytes)] ^= (uint8_t)(1 << below(8));
        if (below(2) == 0) put(data + at + header + 16, 2, 0);
        if (below(4) == 0) row[1 + below(3)] += (int32_t)below(64) - 32;
        if (below(32) == 0) row[below(4)] = (int32_t)random32();
      }
      at += bytes;
    }
    // Nothing after the last packet.
    uint8_t *exact = malloc(at);
    memcpy(exact, data, at);
    io_tcp_stack_handle_segments(stack, now, exact, at, rows, count);
    memset(exact, 0xee, at);
    free(exact);
    free(data);
    done += count;
    poll(stack, &memory);
    for (uint32_t calls = below(6); calls > 0; calls--) {
      uint32_t number = STEADY + below(FLOWS - STEADY);
      peer *peer = &peers[number];
      switch (below(10)) {
        case 0:
        case 1:
        case 2:
          if (peer->is_accepted && peer->is_there) io_tcp_stack_write(stack, now, number, zeros, below(sizeof zeros));
          break;
        case 3:
        case 4:
          io_tcp_stack_pause(stack, number, below(2) == 0);
          break;
        case 5:
          if (peer->is_accepted && peer->is_there && !peer->is_ending) io_tcp_stack_end(stack, now, number);
          peer->is_ending = true;
          break;
        case 6:
          if (peer->is_accepted && below(4) == 0) io_tcp_stack_close(stack, now, number);
          break;
        case 7:
          if (below(4) > 0) break;
          io_tcp_stack_drop(stack, number, below(2) == 0);
          peer->is_there = false;
          break;
        default: {
          uint32_t steady = below(STEADY);
          uint8_t bytes[4096];
          size_t length = 1 + below(sizeof bytes);
          for (size_t i = 0; i < length; i++) bytes[i] = byte_at(steady, peers[steady].written + i);
          int64_t written = io_tcp_stack_write(stack, now, steady, bytes, length);
          CHECK(written >= 0);
          peers[steady].written += (uint64_t)written;
        }
      }
    }
    poll(stack, &memory);
    now += below(3) == 0 ? below(300) : below(5);
    if (io_tcp_stack_next_timeout(stack) <= now) io_tcp_stack_handle_timeout(stack, now);
    poll(stack, &memory);
    size_t used = io_tcp_stack_memory_used(stack);
    if (used > most) most = used;
    CHECK(used <= MEMORY + SLACK);
  }
  // A real peer would repeat data that was dropped for lack of memory or of window; here the undisturbed connections had room.
  double counts[IO_TCP_STACK_COUNTS];
  io_tcp_stack_counts(stack, counts);
  for (uint32_t i = 0; i < FLOWS; i++) closed += peers[i].is_closed;
  for (uint32_t i = 0; i < STEADY; i++) CHECK(peers[i].read > 0 && peers[i].is_there);
  printf("%ld packets, %.0f sent, %llu accepted, %.0f wrong sums, %.0f malformed, %.0f beyond the bound, at most %zu bytes\n", packets,
         counts[IO_TCP_STACK_COUNT_PACKETS], (unsigned long long)accepted, counts[IO_TCP_STACK_COUNT_BAD_CHECKSUM],
         counts[IO_TCP_STACK_COUNT_MALFORMED], counts[IO_TCP_STACK_COUNT_NO_MEMORY], most);
  io_tcp_stack_free(stack);
  free(memory.packets);
  free(memory.offsets);
  free(memory.lengths);
  free(memory.received);
  free(memory.events);
  return 0;
}
