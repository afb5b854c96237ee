// Calls the loops over datagrams with arguments that no script should pass: nothing is read or written beyond an array.
// scripts/fuzz/datapath.mjs compares their normal behaviour with the TypeScript.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "datapath/loops.h"

static datapath_bytes bytes_of(size_t count) { return (datapath_bytes){calloc(count + 1, 1), count}; }

static datapath_ints ints_of(size_t count) { return (datapath_ints){calloc(count + 1, sizeof(int32_t)), count}; }

// Rows with payloads of the given size, one after the other.
static datapath_ints rows_of(size_t count, int32_t bytes) {
  datapath_ints rows = ints_of(count * DATAPATH_ROW_INTS);
  for (size_t i = 0; i < count; i++) {
    rows.data[i * DATAPATH_ROW_INTS + 1] = (int32_t)i * bytes;
    rows.data[i * DATAPATH_ROW_INTS + 2] = bytes;
  }
  return rows;
}

static void rows_beyond_their_array_are_refused(void **state) {
  (void)state;
  int32_t results[DATAPATH_RESULTS];
  int64_t sum;
  datapath_ints rows = rows_of(2, 10);
  datapath_bytes data = bytes_of(20), out = bytes_of(100);
  static const int32_t RANGES[][2] = {{0, 3}, {-1, 1}, {2, 1}, {INT32_MIN, INT32_MAX}, {0, INT32_MAX}};
  for (size_t i = 0; i < sizeof RANGES / sizeof *RANGES; i++) {
    int32_t first = RANGES[i][0], end = RANGES[i][1];
    assert_int_equal(datapath_write_rows(rows, first, end, data, 2, out, 0, results), -1);
    assert_int_equal(datapath_end_of_equal(rows, DATAPATH_ROW_INTS, 0, first, end), -1);
    assert_int_equal(datapath_sum(rows, DATAPATH_ROW_INTS, 0, first, end, &sum), -1);
  }
  assert_int_equal(datapath_end_of_equal(rows, 0, 0, 0, 1), -1);
  assert_int_equal(datapath_end_of_equal(rows, DATAPATH_ROW_INTS, DATAPATH_ROW_INTS, 0, 2), -1);
  assert_int_equal(datapath_end_of_equal(rows, DATAPATH_ROW_INTS, -1, 0, 2), -1);
  free(rows.data), free(data.data), free(out.data);
}

static void payloads_beyond_their_array_are_refused(void **state) {
  (void)state;
  int32_t results[DATAPATH_RESULTS];
  datapath_bytes data = bytes_of(20), out = bytes_of(100);
  static const int32_t PAYLOADS[][2] = {{0, 21}, {20, 1}, {-1, 2}, {0, -1}, {INT32_MAX, INT32_MAX}, {5, INT32_MIN}};
  for (size_t i = 0; i < sizeof PAYLOADS / sizeof *PAYLOADS; i++) {
    datapath_ints rows = rows_of(1, 0);
    rows.data[1] = PAYLOADS[i][0];
    rows.data[2] = PAYLOADS[i][1];
    assert_int_equal(datapath_write_rows(rows, 0, 1, data, 2, out, 0, results), -1);
    free(rows.data);
  }
  free(data.data), free(out.data);
}

static void rows_that_do_not_fit_are_left(void **state) {
  (void)state;
  int32_t results[DATAPATH_RESULTS];
  datapath_ints rows = rows_of(3, 10);
  // A capsule is 13 bytes.
  datapath_bytes data = bytes_of(30), out = bytes_of(27);
  assert_int_equal(datapath_write_rows(rows, 0, 3, data, 2, out, 1, results), 27);
  assert_int_equal(results[0], 2);
  assert_int_equal(results[1], 20);
  assert_int_equal(datapath_write_rows(rows, 0, 3, data, 2, out, 27, results), 27);
  assert_int_equal(results[0], 0);
  assert_int_equal(datapath_write_rows(rows, 0, 3, data, 2, out, 28, results), -1);
  assert_int_equal(datapath_write_rows(rows, 0, 3, data, 2, out, -1, results), -1);
  assert_int_equal(datapath_write_rows(rows, 0, 3, data, -2, out, 0, results), -1);
  free(rows.data), free(data.data), free(out.data);
}

static void capsules_are_read_within_the_chunk_alone(void **state) {
  (void)state;
  int32_t results[DATAPATH_RESULTS];
  datapath_ints offsets = ints_of(4), lengths = ints_of(4), runs = ints_of(4 * DATAPATH_RUN_INTS);
  // Every prefix of two datagrams, in memory that ends with the prefix.
  static const uint8_t CAPSULES[] = {0, 3, 2, 'a', 'b', 0, 0x40, 3, 0x40, 2, 'c'};
  for (size_t length = 0; length <= sizeof CAPSULES; length++) {
    datapath_bytes chunk = {malloc(length == 0 ? 1 : length), length};
    memcpy(chunk.data, CAPSULES, length);
    int64_t count = datapath_read_runs(chunk, 0, (int32_t)length, offsets, lengths, 0, runs, results);
    assert_int_equal(count, length < 5 ? 0 : 1);
    assert_int_equal(results[0], length < 5 ? 0 : length < 11 ? 5 : 11);
    free(chunk.data);
  }
  assert_int_equal(runs.data[0], 2);
  assert_int_equal(runs.data[1], 2);
  assert_int_equal(runs.data[2], 3);
  assert_int_equal(offsets.data[1], 10);
  datapath_bytes chunk = bytes_of(8);
  assert_int_equal(datapath_read_runs(chunk, 0, 9, offsets, lengths, 0, runs, results), -1);
  assert_int_equal(datapath_read_runs(chunk, -1, 8, offsets, lengths, 0, runs, results), -1);
  assert_int_equal(datapath_read_runs(chunk, 5, 4, offsets, lengths, 0, runs, results), -1);
  assert_int_equal(datapath_read_runs(chunk, 0, 8, offsets, lengths, -1, runs, results), -1);
  assert_int_equal(datapath_read_runs(chunk, 0, 8, offsets, (datapath_ints){lengths.data, 3}, 0, runs, results), -1);
  free(chunk.data), free(offsets.data), free(lengths.data), free(runs.data);
}

static void send_rows_stay_within_their_array(void **state) {
  (void)state;
  const datapath_send send = {.socket = 1};
  datapath_ints rows = ints_of(2 * DATAPATH_SEND_ROW_INTS), offsets = ints_of(3), lengths = ints_of(3);
  assert_int_equal(datapath_add_send_rows(rows, 0, &send, offsets, lengths, 0, 2), 0);
  assert_int_equal(datapath_add_send_rows(rows, 1, &send, offsets, lengths, 0, 2), -1);
  assert_int_equal(datapath_add_send_rows(rows, -1, &send, offsets, lengths, 0, 1), -1);
  assert_int_equal(datapath_add_send_rows(rows, 0, &send, offsets, lengths, 0, 4), -1);
  assert_int_equal(datapath_add_send_rows(rows, INT32_MAX, &send, offsets, lengths, 0, 3), -1);
  free(rows.data), free(offsets.data), free(lengths.data);
}

typedef struct queue_memory {
  uint8_t blocks[2 * DATAPATH_BLOCK_BYTES];
  int32_t block_next[2], entry_next[3], entry_block[3], entry_length[3], entry_context[3], heads[DATAPATH_HEADS];
  double entry_time[3];
} queue_memory;

static datapath_queue queue_of(queue_memory *memory) {
  memset(memory, 0, sizeof *memory);
  memory->heads[DATAPATH_FREE_BLOCK] = memory->heads[DATAPATH_FREE_ENTRY] = -1;
  return (datapath_queue){{memory->blocks, sizeof memory->blocks},
                          {memory->block_next, 2},
                          {memory->entry_next, 3},
                          {memory->entry_block, 3},
                          {memory->entry_length, 3},
                          {memory->entry_context, 3},
                          memory->entry_time,
                          3,
                          {memory->heads, DATAPATH_HEADS}};
}

static void a_queue_ends_where_its_memory_does(void **state) {
  (void)state;
  int32_t results[DATAPATH_RESULTS];
  queue_memory *memory = malloc(sizeof *memory);
  datapath_queue queue = queue_of(memory);
  datapath_ints rows = rows_of(4, 10);
  datapath_bytes data = bytes_of(40), out = bytes_of(100);
  assert_int_equal(datapath_queue_rows(&queue, 1, 2, rows, 0, 4, data, -1, 10000, results), 2 * 74);
  assert_int_equal(results[0], 2);
  assert_int_equal(datapath_take_entries(&queue, 0, results[1], 1000, out, 0, results), 26);
  assert_int_equal(results[0], -1);
  assert_int_equal(results[1], 2);
  assert_int_equal(datapath_queue_rows(&queue, 1, 2, rows, 0, 4, data, -1, 2 * 74 - 1, results), 74);
  free(rows.data), free(data.data), free(out.data), free(memory);
}

static void links_that_lead_out_of_a_queue_are_refused(void **state) {
  (void)state;
  int32_t results[DATAPATH_RESULTS];
  queue_memory *memory = malloc(sizeof *memory);
  datapath_ints rows = rows_of(1, 10);
  datapath_bytes data = bytes_of(10), out = bytes_of(5000);
  static const int32_t BAD[] = {-2, 3, INT32_MAX, INT32_MIN};
  for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
    for (size_t head = 0; head < DATAPATH_HEADS; head++) {
      datapath_queue queue = queue_of(memory);
      memory->heads[head] = head == DATAPATH_ENTRIES_USED && BAD[i] == 3 ? 4 : BAD[i];
      assert_int_equal(datapath_queue_rows(&queue, 1, 2, rows, 0, 1, data, -1, 10000, results), -1);
    }
    datapath_queue queue = queue_of(memory);
    assert_int_equal(datapath_queue_rows(&queue, 1, 2, rows, 0, 1, data, BAD[i], 10000, results), -1);
    assert_int_equal(datapath_take_entries(&queue, 0, BAD[i], 1000, out, 0, results), -1);
    assert_int_equal(datapath_drop_entries(&queue, 0, BAD[i], 1000, 1, results), -1);
    // Lists of free items, of the blocks of an entry, and of entries.
    memory->heads[DATAPATH_FREE_BLOCK] = 0;
    memory->block_next[0] = BAD[i];
    assert_int_equal(datapath_queue_rows(&queue, 1, 2, rows, 0, 1, data, -1, 10000, results), -1);
    queue = queue_of(memory);
    memory->entry_length[0] = 10;
    memory->entry_block[0] = BAD[i];
    assert_int_equal(datapath_take_entries(&queue, 0, 0, 1000, out, 0, results), -1);
    assert_int_equal(datapath_drop_entries(&queue, 0, 0, 1000, 1, results), -1);
    queue = queue_of(memory);
    memory->entry_block[0] = -1;
    memory->entry_next[0] = BAD[i];
    assert_int_equal(datapath_take_entries(&queue, 0, 0, 1000, out, 0, results), -1);
    assert_int_equal(datapath_drop_entries(&queue, 0, 0, 1000, 1, results), -1);
  }
  free(rows.data), free(data.data), free(out.data), free(memory);
}

static void entries_and_their_blocks_have_the_same_length(void **state) {
  (void)state;
  int32_t results[DATAPATH_RESULTS];
  queue_memory *memory = malloc(sizeof *memory);
  datapath_bytes out = bytes_of(5000);
  datapath_queue queue = queue_of(memory);
  // A ring of blocks, too few blocks, and impossible lengths.
  memory->entry_length[0] = 10;
  assert_int_equal(datapath_take_entries(&queue, 0, 0, 1000, out, 0, results), -1);
  queue = queue_of(memory);
  memory->entry_length[0] = DATAPATH_BLOCK_BYTES + 1;
  memory->block_next[0] = -1;
  assert_int_equal(datapath_take_entries(&queue, 0, 0, 5000, out, 0, results), -1);
  static const int32_t LENGTHS[] = {-1, INT32_MIN, INT32_MAX, 65528};
  for (size_t i = 0; i < sizeof LENGTHS / sizeof *LENGTHS; i++) {
    queue = queue_of(memory);
    memory->entry_length[0] = LENGTHS[i];
    assert_int_equal(datapath_take_entries(&queue, 0, 0, INT32_MAX, out, 0, results), -1);
    assert_int_equal(datapath_drop_entries(&queue, 0, 0, INT32_MAX, INT32_MAX, results), -1);
  }
  // More blocks than the datagram needs.
  queue = queue_of(memory);
  memory->entry_length[0] = 10;
  memory->block_next[0] = 1;
  assert_int_equal(datapath_drop_entries(&queue, 0, 0, 1000, 1, results), -1);
  free(out.data), free(memory);
}

static void dropping_from_a_ring_of_entries_ends(void **state) {
  (void)state;
  int32_t results[DATAPATH_RESULTS];
  queue_memory *memory = malloc(sizeof *memory);
  datapath_queue queue = queue_of(memory);
  for (size_t i = 0; i < 3; i++) {
    memory->entry_block[i] = -1;
    memory->entry_length[i] = 10;
    memory->entry_next[i] = (int32_t)(i + 1) % 3;
  }
  assert_true(datapath_drop_entries(&queue, 0, 0, INT32_MAX, INT32_MAX, results) > 0);
  assert_true(results[1] <= 3);
  free(memory);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rows_beyond_their_array_are_refused),
      cmocka_unit_test(payloads_beyond_their_array_are_refused),
      cmocka_unit_test(rows_that_do_not_fit_are_left),
      cmocka_unit_test(capsules_are_read_within_the_chunk_alone),
      cmocka_unit_test(send_rows_stay_within_their_array),
      cmocka_unit_test(a_queue_ends_where_its_memory_does),
      cmocka_unit_test(links_that_lead_out_of_a_queue_are_refused),
      cmocka_unit_test(entries_and_their_blocks_have_the_same_length),
      cmocka_unit_test(dropping_from_a_ring_of_entries_ends),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
