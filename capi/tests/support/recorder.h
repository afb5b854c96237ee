// Callbacks that record events, so that another thread can wait for them.
#ifndef RECORDER_H
#define RECORDER_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
// cmocka requires the four headers above first.
#include <cmocka.h>

#include "underpass.h"

typedef struct recorder {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int ready, session_up, session_down, session_resumed, unreachable, errors, stopped, protected_sockets;
  int listener_failed;
  int error_status, stopped_status, unreachable_status, listener_status;
  char error_text[256];
  // The first address, and that of SOCKS5.
  char listen[64], socks5[64];
  size_t listen_count;
  // The return value of `protect`.
  int protect_answer;
  // Called within `ready` and `stopped`.
  void (*on_ready)(struct recorder *recorder);
  void (*on_stopped)(struct recorder *recorder);
  // For those two callbacks.
  underpass_local *local;
} recorder;

void recorder_init(recorder *recorder);
void recorder_destroy(recorder *recorder);
underpass_callbacks recorder_callbacks(void);
// Waits until a count has reached a number. Fails the test after 20 s.
void recorder_wait(recorder *recorder, const int *count, int number);
// Reads a count.
int recorder_get(recorder *recorder, const int *count);

#endif
