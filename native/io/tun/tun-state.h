// A TUN device, as it and shortcuts see it. Not on Windows.
#ifndef UNDERPASS_IO_TUN_STATE_H
#define UNDERPASS_IO_TUN_STATE_H

#include <sys/uio.h>

#include "../loop/latency.h"
#include "../loop/watcher.h"
#include "../tun.h"

typedef struct tun {
  watcher watcher;
  struct tun *next;
  const io_tun_callbacks *callbacks;
  io_tun_memory memory;
  // True if each packet is preceded by its family.
  bool has_family;
  int latency;
  // Set while it is held in bulk.
  held held;
  // What shortcuts need to know; an MTU of 0 permits none.
  io_tun_format format;
  // The number of its shortcuts in both directions, and of those from it.
  int32_t shortcuts, shortcuts_out;
  // Packets of shortcuts that it did not accept, which the next io_tun_write reports.
  size_t late_drops;
} tun;

// NULL if there is none.
tun *io_tun_of(io_loop *loop, int descriptor);

// Writes one packet: parts[1] to parts[count - 1]; parts[0] is for this function to use. Returns 0, or a negative system error.
int io_tun_write_parts(const tun *tun, bool is_ipv6, struct iovec *parts, int count);

#endif
