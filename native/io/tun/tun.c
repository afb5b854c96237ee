#include "../tun.h"

#ifdef _WIN32

int io_tun_watch(io_loop *loop, int descriptor, bool has_family, const io_tun_memory *memory,
                 const io_tun_callbacks *callbacks, void *user_data) {
  (void)loop, (void)descriptor, (void)has_family, (void)memory, (void)callbacks, (void)user_data;
  return UV_ENOTSUP;
}

size_t io_tun_write(io_loop *loop, int device, const io_tun_batch *batch) {
  (void)loop, (void)device;
  return batch->count;
}

int io_tun_shortcuts(io_loop *loop, int device, const io_tun_format *format) {
  (void)loop, (void)device, (void)format;
  return UV_EINVAL;
}

int io_tun_latency(io_loop *loop, int device, int latency) {
  (void)loop, (void)device, (void)latency;
  return UV_ENOTSUP;
}

void io_tun_close(io_loop *loop, int device) {
  (void)loop, (void)device;
}

void io_tuns_end(io_loop *loop) {
  (void)loop;
}

#else

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../shortcut/table.h"
#include "tun-state.h"

#define ALIGNMENT 16
#define FAMILY_BYTES 4

tun *io_tun_of(io_loop *loop, int descriptor) {
  tun *found = loop->tuns;
  while (found != NULL && found->watcher.fd != descriptor) found = found->next;
  return found;
}

static void on_readable(uv_poll_t *poll, int status, int events);

// Reads what the device has. In bulk, a device that had something, but not more than can be read at once, is then held.
static void read_all(tun *tun, int status) {
  const io_tun_memory *memory = &tun->memory;
  uv_poll_t *poll = &tun->watcher.poll;
  size_t header = tun->has_family ? FAMILY_BYTES : 0;
  size_t at = 0, count = 0;
  int error = 0;
  while (error == 0 && count < memory->capacity && at + IO_TUN_SLOT_BYTES <= memory->arena_bytes) {
    ssize_t length = read(tun->watcher.fd, memory->arena + at, IO_TUN_SLOT_BYTES);
    if (length < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) break;
      error = -errno;
      break;
    }
    if (length == 0) {
      error = UV_EOF;
      break;
    }
    if ((size_t)length <= header) continue;
    memory->offsets[count] = (int32_t)(at + header);
    memory->lengths[count] = (int32_t)((size_t)length - header);
    count++;
    at += ((size_t)length + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
  }
  if (status < 0 && error == 0) {
    // libuv has stopped watching, and its status says only that there is an error condition, which reading has not found.
    if (count == 0) error = status;
    else uv_poll_start(poll, UV_READABLE, on_readable);
  }
  // The device is gone, or down for good; reported once, after its last packets.
  if (error != 0) uv_poll_stop(poll);
  else if (count > 0 && tun->latency == IO_LATENCY_INTERACTIVE) io_latency_spin(tun->watcher.loop);
  else if (count > 0 && count < memory->capacity && tun->latency == IO_LATENCY_BULK &&
           io_latency_hold(tun->watcher.loop, &tun->held, count)) {
    uv_poll_stop(poll);
  }
  size_t left = io_shortcut_carry_packets(tun->watcher.loop, tun, count);
  if (left > 0) tun->callbacks->packets(tun->watcher.user_data, (int)left);
  if (error != 0 && tun->watcher.fd >= 0) tun->callbacks->packets(tun->watcher.user_data, error);
}

static void on_readable(uv_poll_t *poll, int status, int events) {
  (void)events;
  read_all(poll->data, status);
}

// The device's hold is over. It is watched again in any case, because reading may close it; holding it again stops the watching.
static void resume(held *held) {
  tun *tun = (struct tun *)((char *)held - offsetof(struct tun, held));
  uv_poll_start(&tun->watcher.poll, UV_READABLE, on_readable);
  read_all(tun, 0);
}

int io_tun_watch(io_loop *loop, int descriptor, bool has_family, const io_tun_memory *memory,
                 const io_tun_callbacks *callbacks, void *user_data) {
  if (memory->arena_bytes < IO_TUN_SLOT_BYTES || memory->arena_bytes > INT32_MAX || memory->capacity == 0) return UV_EINVAL;
  tun *tun = calloc(1, sizeof *tun);
  if (tun == NULL) return UV_ENOMEM;
  tun->callbacks = callbacks;
  tun->memory = *memory;
  tun->has_family = has_family;
  tun->latency = IO_LATENCY_BALANCED;
  tun->held.resume = resume;
  int error = io_watcher_begin(&tun->watcher, loop, descriptor, UV_READABLE, on_readable, callbacks->released, user_data);
  if (error != 0) {
    free(tun);
    return error;
  }
  tun->next = loop->tuns;
  loop->tuns = tun;
  return 0;
}

int io_tun_write_parts(const tun *tun, bool is_ipv6, struct iovec *parts, int count) {
  uint8_t family[FAMILY_BYTES] = {0};
#ifdef __linux__
  // The Ethernet protocol of struct tun_pi.
  family[2] = is_ipv6 ? 0x86 : 0x08;
  family[3] = is_ipv6 ? 0xdd : 0x00;
#else
  family[3] = is_ipv6 ? AF_INET6 : AF_INET;
#endif
  parts[0] = (struct iovec){family, sizeof family};
  int first = tun->has_family ? 0 : 1;
  ssize_t written;
  do written = writev(tun->watcher.fd, parts + first, count - first);
  while (written < 0 && errno == EINTR);
  return written < 0 ? -errno : 0;
}

// Returns 0, or a negative system error.
static int write_packet(const tun *tun, const uint8_t *packet, size_t length) {
  struct iovec parts[2] = {{NULL, 0}, {(void *)packet, length}};
  return io_tun_write_parts(tun, length > 0 && packet[0] >> 4 == 6, parts, 2);
}

size_t io_tun_write(io_loop *loop, int device, const io_tun_batch *batch) {
  tun *tun = io_tun_of(loop, device);
  if (tun == NULL) return batch->count;
  size_t dropped = tun->late_drops;
  tun->late_drops = 0;
  for (size_t i = 0; i < batch->count; i++) {
    bool is_input = batch->is_input[i] == 1;
    int32_t offset = batch->offsets[i], length = batch->lengths[i];
    bool is_within =
        offset >= 0 && length >= 0 && (size_t)offset + (size_t)length <= batch->memory_bytes[is_input];
    if (!is_within || write_packet(tun, batch->memory[is_input] + offset, (size_t)length) != 0) dropped++;
  }
  // The answer is expected soon.
  if (batch->count > 0 && tun->latency == IO_LATENCY_INTERACTIVE) io_latency_spin(loop);
  return dropped;
}

int io_tun_shortcuts(io_loop *loop, int device, const io_tun_format *format) {
  tun *tun = io_tun_of(loop, device);
  if (tun == NULL || format->mtu <= 0) return UV_EINVAL;
  tun->format = *format;
  return 0;
}

int io_tun_latency(io_loop *loop, int device, int latency) {
#ifdef __linux__
  tun *tun = io_tun_of(loop, device);
  if (tun == NULL) return UV_EINVAL;
  tun->latency = latency;
  return 0;
#else
  (void)loop, (void)device, (void)latency;
  return UV_ENOTSUP;
#endif
}

static void close_tun(tun *tun) {
  int fd = tun->watcher.fd;
  io_shortcut_end_device(tun->watcher.loop, tun);
  io_latency_release(&tun->held);
  io_watcher_stop(&tun->watcher);
  close(fd);
  io_watcher_release(&tun->watcher);
}

void io_tun_close(io_loop *loop, int device) {
  for (tun **at = &loop->tuns; *at != NULL; at = &(*at)->next) {
    tun *found = *at;
    if (found->watcher.fd != device) continue;
    *at = found->next;
    close_tun(found);
    return;
  }
}

void io_tuns_end(io_loop *loop) {
  while (loop->tuns != NULL) {
    tun *tun = loop->tuns;
    loop->tuns = tun->next;
    close_tun(tun);
  }
}

#endif
