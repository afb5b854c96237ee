// Datagrams of capsules → packets of devices. As in the script, consecutive datagrams of one flow, of one size except for the last,
// form one packet if the system splits it (USO).
#ifndef UNDERPASS_IO_PACKETS_IN_H
#define UNDERPASS_IO_PACKETS_IN_H

#include "packet.h"
#include "table.h"

#ifndef _WIN32
#include <sys/uio.h>
#endif

// Datagrams of one flow that have not been written yet.
typedef struct packet_run {
  int segments;
  // Bytes of all payloads, of the first one, and of the last one.
  size_t bytes, segment_bytes, last_bytes;
  struct tun *tun;
  shortcut *shortcut;
#ifndef _WIN32
  // One for the bytes that precede a packet on the device, one for headers, and one for each payload.
  struct iovec parts[2 + PACKET_MAX_RUN_SEGMENTS];
#endif
} packet_run;

static inline void io_packets_begin(packet_run *run) {
  run->segments = 0;
  run->bytes = 0;
}

// Takes a datagram, whose memory must not change before io_packets_flush. Returns false if it is left to the caller.
bool io_packets_add(io_loop *loop, packet_run *run, shortcut *shortcut, const uint8_t *payload, size_t bytes);

// Writes the taken datagrams. Packets that the device does not accept are reported with the caller's next packets.
void io_packets_flush(io_loop *loop, packet_run *run);

#endif
