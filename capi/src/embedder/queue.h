// Bounded records of bytes that wait for another thread. The owner guards them.
#ifndef UNDERPASS_QUEUE_H
#define UNDERPASS_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct queue {
  uint8_t *data;
  // Waiting records are from `first` to `end`, with their bytes in one piece.
  struct queue_record {
    size_t offset;
    uint32_t length, tail;
  } *records;
  size_t first, end, capacity;
  size_t bytes_end, bytes_capacity;
} queue;

// Adds a record of two parts. Returns false if that would exceed `max_records` or `max_bytes`, or there is no memory.
bool queue_push(queue *queue, size_t max_records, size_t max_bytes, const void *data, size_t length, const void *tail,
                size_t tail_length);

// Returns the first record, its parts one after the other; NULL if there is none.
const uint8_t *queue_first(const queue *queue, size_t *length, size_t *tail_length);
void queue_pop(queue *queue);
size_t queue_count(const queue *queue);
void queue_free(queue *queue);

#endif
