#include "queue.h"

#include <stdlib.h>
#include <string.h>

typedef struct queue_record queue_record;

size_t queue_count(const queue *queue) { return queue->end - queue->first; }

static size_t bytes_start(const queue *queue) { return queue->records[queue->first].offset; }

// Moves the waiting records to the front.
static void compact(queue *queue) {
  size_t start = queue_count(queue) == 0 ? queue->bytes_end : bytes_start(queue);
  if (start > 0) memmove(queue->data, queue->data + start, queue->bytes_end - start);
  queue->bytes_end -= start;
  for (size_t i = queue->first; i < queue->end; i++) {
    queue->records[i - queue->first] = queue->records[i];
    queue->records[i - queue->first].offset -= start;
  }
  queue->end -= queue->first;
  queue->first = 0;
}

bool queue_push(queue *queue, size_t max_records, size_t max_bytes, const void *data, size_t length, const void *tail,
                size_t tail_length) {
  size_t size = length + tail_length;
  size_t count = queue_count(queue);
  size_t waiting = count == 0 ? 0 : queue->bytes_end - bytes_start(queue);
  if (count >= max_records || waiting + size > max_bytes) return false;
  if (queue->end == queue->capacity || queue->bytes_end + size > queue->bytes_capacity) {
    // After this, at least half of the memory is free, or it grows, so each record is moved about once.
    compact(queue);
    if (queue->end * 2 >= queue->capacity) {
      size_t capacity = queue->capacity == 0 ? 16 : queue->capacity * 2;
      queue_record *records = realloc(queue->records, capacity * sizeof *records);
      if (records == NULL) return false;
      queue->records = records;
      queue->capacity = capacity;
    }
    if ((queue->bytes_end + size) * 2 > queue->bytes_capacity) {
      size_t capacity = queue->bytes_capacity == 0 ? 4096 : queue->bytes_capacity;
      while (capacity < (queue->bytes_end + size) * 2) capacity *= 2;
      uint8_t *bytes = realloc(queue->data, capacity);
      if (bytes == NULL) return false;
      queue->data = bytes;
      queue->bytes_capacity = capacity;
    }
  }
  queue->records[queue->end++] =
      (queue_record){.offset = queue->bytes_end, .length = (uint32_t)length, .tail = (uint32_t)tail_length};
  if (length > 0) memcpy(queue->data + queue->bytes_end, data, length);
  if (tail_length > 0) memcpy(queue->data + queue->bytes_end + length, tail, tail_length);
  queue->bytes_end += size;
  return true;
}

const uint8_t *queue_first(const queue *queue, size_t *length, size_t *tail_length) {
  if (queue_count(queue) == 0) return NULL;
  const queue_record *record = &queue->records[queue->first];
  *length = record->length;
  *tail_length = record->tail;
  return queue->data + record->offset;
}

void queue_pop(queue *queue) {
  if (++queue->first < queue->end) return;
  queue->first = queue->end = 0;
  queue->bytes_end = 0;
}

void queue_free(queue *queue) {
  free(queue->data);
  free(queue->records);
}
