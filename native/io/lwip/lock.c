// In a file of its own, because the headers of libuv and lwIP conflict.
#include "lock.h"

#include <uv.h>

static uv_once_t once = UV_ONCE_INIT;
static uv_mutex_t mutex;

static void open_lock(void) {
  uv_mutex_init(&mutex);
}

void stack_lock(void) {
  uv_once(&once, open_lock);
  uv_mutex_lock(&mutex);
}

void stack_unlock(void) {
  uv_mutex_unlock(&mutex);
}
