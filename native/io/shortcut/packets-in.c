#include "packets-in.h"

#ifdef _WIN32

bool io_packets_add(io_loop *loop, packet_run *run, shortcut *shortcut, const uint8_t *payload, size_t bytes) {
  (void)loop, (void)run, (void)shortcut, (void)payload, (void)bytes;
  return false;
}

void io_packets_flush(io_loop *loop, packet_run *run) { (void)loop, (void)run; }

#else

#include "../tun/tun-state.h"

static bool is_ipv4(const shortcut *shortcut) { return shortcut->header[0] == IO_ADDRESS_IPV4; }

static size_t header_bytes(const shortcut *shortcut) {
  return (is_ipv4(shortcut) ? PACKET_IPV4_BYTES : PACKET_IPV6_BYTES) + PACKET_UDP_BYTES;
}

static bool may_join(const packet_run *run, const shortcut *shortcut, size_t bytes) {
  const io_tun_format *format = &run->tun->format;
  if (run->shortcut != shortcut || !format->has_uso || run->segments == PACKET_MAX_RUN_SEGMENTS) return false;
  if (bytes == 0 || run->last_bytes < run->segment_bytes || bytes > run->segment_bytes) return false;
  return PACKET_VIRTIO_BYTES + header_bytes(shortcut) + run->bytes + bytes <= PACKET_MAX_BYTES;
}

bool io_packets_add(io_loop *loop, packet_run *run, shortcut *shortcut, const uint8_t *payload, size_t bytes) {
  if (run->segments == 0 || !may_join(run, shortcut, bytes)) {
    io_packets_flush(loop, run);
    run->tun = io_tun_of(loop, shortcut->socket);
    // The packet would have to be fragmented.
    if (run->tun == NULL || header_bytes(shortcut) + bytes > (size_t)run->tun->format.mtu) return false;
    run->shortcut = shortcut;
    run->segment_bytes = bytes;
  }
  run->parts[2 + run->segments++] = (struct iovec){(void *)payload, bytes};
  run->last_bytes = bytes;
  run->bytes += bytes;
  return true;
}

void io_packets_flush(io_loop *loop, packet_run *run) {
  if (run->segments == 0) return;
  uint8_t headers[PACKET_MAX_HEADER_BYTES];
  tun *tun = run->tun;
  shortcut *shortcut = run->shortcut;
  bool has_virtio = tun->format.has_virtio;
  size_t length = packet_write_headers(headers, shortcut->header, shortcut->address, has_virtio, run->bytes, run->segment_bytes);
  if (!has_virtio) packet_write_checksum(headers, is_ipv4(shortcut), run->parts[2].iov_base, run->bytes);
  run->parts[1] = (struct iovec){headers, length};
  if (io_tun_write_parts(tun, !is_ipv4(shortcut), run->parts, 2 + run->segments) != 0) tun->late_drops++;
  const carried carried = {0, (uint16_t)run->segments, (uint32_t)run->bytes, (uint32_t)run->last_bytes};
  shortcut->packets++;
  io_shortcut_count(loop->shortcuts, shortcut, uv_now(loop->uv), &carried);
  // The answer is expected soon.
  if (tun->latency == IO_LATENCY_INTERACTIVE) io_latency_spin(loop);
  run->segments = 0;
  run->bytes = 0;
}

#endif
