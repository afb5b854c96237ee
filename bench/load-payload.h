/*
 * The payload of the load's datagrams, and what has arrived of it: magic 4, flow 4, sequence 8, send time 8 (ns), checksum 8, then a
 * pattern from the sequence.
 */
#ifndef BENCH_LOAD_PAYLOAD_H
#define BENCH_LOAD_PAYLOAD_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_FLOWS 65536
#define MAGIC 0x55504c44u
#define TRAILER_MAGIC 0x5550544cu
#define HEADER 32

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

/* Cheap, and different for each sequence and flow, so that it reveals a datagram that was put together wrongly. */
static uint64_t checksum(const uint8_t *bytes, size_t size) {
  uint64_t sum = 0x9e3779b97f4a7c15u ^ size;
  size_t i = HEADER;
  for (; i + 8 <= size; i += 8) {
    uint64_t word;
    memcpy(&word, bytes + i, 8);
    sum = (sum ^ word) * 0x100000001b3u;
  }
  for (; i < size; i++) sum = (sum ^ bytes[i]) * 0x100000001b3u;
  uint64_t head[2];
  memcpy(head, bytes, 16);
  return sum ^ head[0] ^ (head[1] * 31);
}

static void fill(uint8_t *bytes, size_t size, uint32_t flow, uint64_t sequence) {
  uint32_t magic = MAGIC;
  uint64_t time = now_ns();
  memcpy(bytes, &magic, 4);
  memcpy(bytes + 4, &flow, 4);
  memcpy(bytes + 8, &sequence, 8);
  memcpy(bytes + 16, &time, 8);
  if (size > HEADER) memset(bytes + HEADER, (int)(sequence & 0xff), size - HEADER);
  uint64_t sum = checksum(bytes, size);
  memcpy(bytes + 24, &sum, 8);
}

/* The highest sequence of each flow so far, and a window of 4,096 below it, which distinguishes late datagrams from duplicates. */
static uint64_t highest[MAX_FLOWS];
static uint64_t (*window)[64];

static uint64_t count, total_bytes, corrupt, duplicate, reordered;
/* Datagrams sent before this belong to an earlier load. */
static uint64_t counted_since;

/* Times are counted in steps of a thirty-second of their power of two. */
#define STEP_BITS 5
static uint64_t histogram[64 << STEP_BITS], longest;

static void add_time(uint64_t ns) {
  if (ns > longest) longest = ns;
  if (ns < 1 << STEP_BITS) ns = 1 << STEP_BITS;
  int exponent = 63 - __builtin_clzll(ns);
  histogram[(exponent << STEP_BITS) + (int)((ns >> (exponent - STEP_BITS)) & ((1 << STEP_BITS) - 1))]++;
}

/* The number of microseconds that a share of the times does not exceed. */
static double percentile(double share) {
  uint64_t total = 0, passed = 0;
  for (int i = 0; i < 64 << STEP_BITS; i++) total += histogram[i];
  for (int i = 0; i < 64 << STEP_BITS; i++) {
    passed += histogram[i];
    if (passed == 0 || (double)passed < share * (double)total) continue;
    double low = (double)(1ull << (i >> STEP_BITS));
    return low * (1 + ((i & ((1 << STEP_BITS) - 1)) + 0.5) / (1 << STEP_BITS)) / 1e3;
  }
  return 0;
}

static void check(const uint8_t *data, size_t size, uint64_t now) {
  uint32_t magic = 0, flow;
  uint64_t sequence, time, sum;
  if (size >= 4) memcpy(&magic, data, 4);
  if (magic == TRAILER_MAGIC) return;
  if (size < HEADER) {
    count++;
    corrupt++;
    return;
  }
  memcpy(&flow, data + 4, 4);
  memcpy(&sequence, data + 8, 8);
  memcpy(&time, data + 16, 8);
  memcpy(&sum, data + 24, 8);
  int is_corrupt = magic != MAGIC || sum != checksum(data, size) || flow >= MAX_FLOWS;
  if (!is_corrupt && time < counted_since) return;
  count++;
  total_bytes += size;
  if (is_corrupt) {
    corrupt++;
    return;
  }
  add_time(now - time);
  sequence++;
  uint64_t *bits = window[flow];
  if (sequence > highest[flow]) {
    for (uint64_t s = highest[flow] + 1; s < sequence && s < highest[flow] + 4097; s++)
      bits[(s / 64) % 64] &= ~(1ull << (s % 64));
    if (sequence - highest[flow] > 4096) memset(bits, 0, sizeof window[flow]);
    highest[flow] = sequence;
    bits[(sequence / 64) % 64] |= 1ull << (sequence % 64);
  } else if (highest[flow] - sequence < 4096) {
    uint64_t bit = 1ull << (sequence % 64);
    if (bits[(sequence / 64) % 64] & bit) duplicate++;
    else reordered++;
    bits[(sequence / 64) % 64] |= bit;
  } else reordered++;
}

static void prepare_checks(void) {
  window = calloc(MAX_FLOWS, sizeof *window);
  if (!window) die("calloc");
}

/* Prints what arrived since the last report, without the closing brace. */
static void print_checked(uint64_t first, uint64_t last) {
  printf("{\"count\":%llu,\"bytes\":%llu,\"seconds\":%.6f,\"corrupt\":%llu,\"duplicate\":%llu,\"reordered\":%llu,"
         "\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f",
         (unsigned long long)count, (unsigned long long)total_bytes, (double)(last - first) / 1e9,
         (unsigned long long)corrupt, (unsigned long long)duplicate, (unsigned long long)reordered, percentile(0.5),
         percentile(0.9), percentile(0.99), percentile(0.999), (double)longest / 1e3);
}

static void reset_checks(void) {
  count = total_bytes = corrupt = duplicate = reordered = longest = 0;
  counted_since = now_ns();
  memset(histogram, 0, sizeof histogram);
  for (int i = 0; i < MAX_FLOWS; i++) {
    if (highest[i] == 0) continue;
    highest[i] = 0;
    memset(window[i], 0, sizeof *window);
  }
}

#endif
