// Random runs of shortcuts: nothing is lost, repeated or reordered.
#include <string.h>
#include <sys/socket.h>

#include "../../../native/io/shortcut/capsule.h"
#include "shortcut-world.h"

static uint32_t next_random(uint32_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 17;
  *state ^= *state << 5;
  return *state;
}

#define CONTEXTS 4

// The caller of a random run: reads its bytes as a reader of capsules does, and usually resumes at their ends.
typedef struct reader {
  uint32_t random;
  size_t at;
  uint8_t next[CONTEXTS];
} reader;

static reader caller;

// Datagrams that went to the program.
static void app_reads(shortcut_world *world, uint8_t context) {
  uint8_t got[8192];
  for (ssize_t count; (count = app_receives(world, got, sizeof got)) > 0;)
    assert_int_equal(got[count - 1], caller.next[context]++);
}

static void read_capsules(shortcut_world *world) {
  // Earlier bytes went there.
  app_reads(world, 1);
  while (caller.at < world->read_bytes) {
    const uint8_t *bytes = world->read;
    size_t stop = world->read_bytes;
    // All have lengths of one or two bytes, and a context (or, for other types, a value) of one byte.
    if (caller.at + 1 >= stop || caller.at + 1 + varint_length_from(bytes[caller.at + 1]) >= stop) return;
    size_t value = caller.at + 1 + varint_length_from(bytes[caller.at + 1]);
    size_t end = value + (size_t)read_varint(bytes + caller.at + 1);
    if (end > stop) return;
    if (bytes[caller.at] == CAPSULE_DATAGRAM) {
      uint8_t context = bytes[value];
      assert_true(context < CONTEXTS);
      assert_int_equal(bytes[end - 1], caller.next[context]++);
    }
    caller.at = end;
  }
  if (next_random(&caller.random) % 8 != 0) io_shortcut_resume(world->world.io, world->stream);
}

// Capsules of one context with a shortcut and of others, and of another type, in pieces of any size: each context's datagrams
// arrive completely and in order, at the program or at the caller.
static void capsules_in_random_pieces_all_arrive_in_order(void **state) {
  shortcut_world *world = *state;
  static uint8_t bytes[1 << 22];
  uint32_t random = 20260101;
  size_t length = 0;
  uint8_t sent[CONTEXTS] = {0};
  for (int i = 0; i < 3000; i++) {
    uint32_t kind = next_random(&random) % 64;
    size_t size = 1 + next_random(&random) % (next_random(&random) % 16 == 0 ? 5000 : 200);
    uint8_t context = kind < 56 ? 1 : kind % CONTEXTS;
    if (kind == 63) {
      bytes[length++] = 0x11;
      bytes[length++] = 1;
      bytes[length++] = 0;
    } else {
      length += put_capsule(bytes + length, context, sent[context]++, size);
    }
  }
  memset(&caller, 0, sizeof caller);
  caller.random = 77;
  world->then = read_capsules;
  assert_true(give_in(world, 1, 0) >= 0);
  io_shortcut_resume(world->world.io, world->stream);
  uint8_t end[CONTEXTS];
  for (size_t at = 0; at < length;) {
    size_t piece = 1 + next_random(&random) % (next_random(&random) % 4 == 0 ? 6000 : 300);
    if (piece > length - at) piece = length - at;
    ssize_t count = send(world->peer, bytes + at, piece, 0);
    if (count > 0) at += (size_t)count;
    world_settle(&world->world);
    app_reads(world, 1);
    if (next_random(&random) % 50 == 0) io_shortcut_end(world->world.io, world->stream);
    if (next_random(&random) % 20 == 0 && give_in(world, 1, 0) < 0) {
      double rows[64][IO_SHORTCUT_COUNT_NUMBERS];
      while (counts(world, rows, 64) > 0) continue;
    }
  }
  memcpy(end, sent, sizeof end);
  world_start_clock(&world->world);
  while (memcmp(caller.next, end, sizeof end) != 0) {
    uv_run(&world->world.loop, UV_RUN_NOWAIT);
    app_reads(world, 1);
    assert_false(world->world.is_late);
  }
  assert_true(world->read_bytes > 0 && world->read_bytes < length);
}

// The caller queues the datagrams that it receives and writes them when it can, while shortcuts write by themselves. The stream has to
// consist of complete capsules, and each way has to be in order.
static void what_two_writers_write_to_a_stream_that_is_often_full_is_whole(void **state) {
  shortcut_world *world = *state;
  static uint8_t got[1 << 22], unwritten[1 << 20];
  size_t unwritten_bytes = 0, received = 0;
  uint32_t random = 4711;
  int sent = 0, handed = 0;
  assert_true(give_out(world, 1, 0) >= 0);
  world_start_clock(&world->world);
  for (int step = 0; sent < 3000 || unwritten_bytes > 0 || step < 4000; step++) {
    if (sent < 3000) send_app(world, (uint8_t)sent++, 1 + next_random(&random) % 900);
    uv_run(&world->world.loop, UV_RUN_NOWAIT);
    uv_run(&world->world.loop, UV_RUN_NOWAIT);
    for (; handed < world->heard; handed++)
      unwritten_bytes += put_capsule(unwritten + unwritten_bytes, 2, world->heard_last[handed], 300);
    if (world->heard > MAX_HEARD / 2) handed = world->heard = 0;
    if (unwritten_bytes > 0) {
      ssize_t count = io_stream_write(world->world.io, world->stream, unwritten, unwritten_bytes, false);
      assert_true(count >= 0);
      unwritten_bytes -= (size_t)count;
      memmove(unwritten, unwritten + count, unwritten_bytes);
    }
    size_t most = next_random(&random) % 700;
    ssize_t count = recv(world->peer, got + received, most, 0);
    if (count > 0) received += (size_t)count;
    assert_true(step < 100000);
  }
  int seen = 0;
  int ways[3] = {0};
  bool has[256] = {false};
  for (size_t at = 0; seen < 3000;) {
    while (at + 4096 > received) {
      ssize_t count = recv(world->peer, got + received, sizeof got - received, 0);
      if (count > 0) received += (size_t)count;
      else if (at < received) break;
      uv_run(&world->world.loop, UV_RUN_NOWAIT);
      assert_false(world->world.is_late);
    }
    datagram_capsule capsule = {0};
    if (capsule_read(got, at, received, &capsule) == CAPSULE_CUT) continue;
    assert_int_equal(capsule_read(got, at, received, &capsule), CAPSULE_WHOLE);
    assert_true(capsule.context == 1 || capsule.context == 2);
    // All bytes of a payload are equal.
    for (size_t i = capsule.payload; i < capsule.end; i++) assert_int_equal(got[i], got[capsule.payload]);
    ways[capsule.context]++;
    has[got[capsule.payload]] = true;
    at = capsule.end;
    seen++;
  }
  for (int i = 0; i < 256; i++) assert_true(has[i]);
  assert_true(ways[1] > 0 && ways[2] > 0);
}

int shortcut_random_tests(void) {
  const struct CMUnitTest tests[] = {
      SHORTCUT_TEST(capsules_in_random_pieces_all_arrive_in_order),
      SHORTCUT_TEST(what_two_writers_write_to_a_stream_that_is_often_full_is_whole),
  };
  return cmocka_run_group_tests_name("random runs of shortcuts", tests, NULL, NULL);
}
