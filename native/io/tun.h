// TUN devices, and descriptors that carry one IP packet per read in the same way. The packets that a device has in one turn of the
// loop are reported in one call, as offsets and lengths over one arena; packets to write are passed the same way. Not on Windows:
// UV_ENOTSUP. For threads, callbacks and `released` see loop.h.
#ifndef UNDERPASS_IO_TUN_H
#define UNDERPASS_IO_TUN_H

#include "address.h"
#include "loop.h"

// Minimum size of an arena: the largest packet fits.
#define IO_TUN_SLOT_BYTES 65600

typedef struct io_tun_device {
  int descriptor;
  char name[IO_INTERFACE_NAME_BYTES];
  // 4 bytes with the family precede each packet.
  bool has_family;
  // Packets have virtio-net headers, of 10 bytes, and may be longer than the MTU.
  bool has_virtio;
  // The system accepts USO packets.
  bool has_uso;
} io_tun_device;

// Creates or opens a TUN device: Linux, and utun on macOS ("utun", "utun5"), otherwise UV_ENOTSUP. The caller owns the descriptor,
// and watches or closes it. May be called from any thread. `offload`: requests virtio-net headers, if the system supports them.
int io_tun_open(const char *name, bool offload, io_tun_device *result);

typedef struct io_tun_callbacks {
  // `count` packets have been read, or, once at the end, a system error reports that the device is gone. The memory's contents are
  // valid until the call returns.
  void (*packets)(void *user_data, int count);
  void (*released)(void *user_data);
} io_tun_callbacks;

// Lent until `released`; devices of one context may share it.
typedef struct io_tun_memory {
  // At least IO_TUN_SLOT_BYTES, at most INT32_MAX.
  uint8_t *arena;
  size_t arena_bytes;
  // `capacity` each, at least 1: the places of packets, after the family if there is one.
  int32_t *offsets;
  int32_t *lengths;
  size_t capacity;
} io_tun_memory;

// Reads a non-blocking descriptor, which the context owns until io_tun_close.
int io_tun_watch(io_loop *loop, int descriptor, bool has_family, const io_tun_memory *memory,
                 const io_tun_callbacks *callbacks, void *user_data);

// Packets to write: packet i is `memory[is_input[i] == 1]`, from offsets[i] on, lengths[i] long. Only read during the call.
typedef struct io_tun_batch {
  const uint8_t *memory[2];
  size_t memory_bytes[2];
  const uint8_t *is_input;
  const int32_t *offsets;
  const int32_t *lengths;
  size_t count;
} io_tun_batch;

// Returns how many were dropped: rows that are not valid, and packets that the device did not accept, including packets that
// shortcuts have written since the last call.
size_t io_tun_write(io_loop *loop, int device, const io_tun_batch *batch);

typedef struct io_tun_format {
  // Of written packets, without the virtio-net header.
  int mtu;
  // As in io_tun_device.
  bool has_virtio, has_uso;
} io_tun_format;

// Permits shortcuts for a device (shortcut.h). Returns UV_EINVAL if there is no such device, or the MTU is not positive.
int io_tun_shortcuts(io_loop *loop, int device, const io_tun_format *format);

// Sets the class of a device (IO_LATENCY_…). Linux only, else UV_ENOTSUP.
int io_tun_latency(io_loop *loop, int device, int latency);

// Stops watching the descriptor and closes it.
void io_tun_close(io_loop *loop, int device);

#endif
