// Socket addresses in the program's form: `1 | 4 bytes | port` or `4 | 16 bytes | port`, with the port big-endian (the form of RFC
// 1928 §5). These functions may be called from any thread.
#ifndef UNDERPASS_IO_ADDRESS_H
#define UNDERPASS_IO_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define IO_ADDRESS_IPV4 1
#define IO_ADDRESS_IPV6 4
#define IO_ADDRESS_IPV4_BYTES 7
#define IO_ADDRESS_IPV6_BYTES 19
#define IO_ADDRESS_MAX_BYTES 19
#define IO_SCOPED_IPV6_BYTES (IO_ADDRESS_IPV6_BYTES + 4)
// Size of an interface name, including its terminator.
#define IO_INTERFACE_NAME_BYTES 16

// Returns the bytes written to `out` (at least IO_ADDRESS_MAX_BYTES), or 0 for a family that is neither.
size_t io_address_from_sockaddr(const struct sockaddr_storage *from, uint8_t *out);

// Reads `length` bytes. Returns the length of the sockaddr, or 0 unless they are an IPv4 or IPv6 address.
socklen_t io_address_to_sockaddr(const uint8_t *bytes, size_t length, struct sockaddr_storage *to);

// The same for an address to bind or to connect to: after an IPv6 address, 4 bytes may give the number of its zone's interface,
// big-endian.
socklen_t io_scoped_address_to_sockaddr(const uint8_t *bytes, size_t length, struct sockaddr_storage *to);

// The number of the interface that an IPv6 zone names ("eth0"), or UV_ENODEV.
int64_t io_zone_scope(const char *zone);

// The local address of an IP socket: the bytes written to `out` (at least IO_ADDRESS_MAX_BYTES), or 0.
size_t io_socket_address(uv_os_sock_t socket, uint8_t *out);

// Size of an IP text with its zone.
#define IO_IP_TEXT_BYTES 96

// Either address as text, with its zone if it is link-local. Returns the port, or a system error; UV_EINVAL unless it is an IP
// socket.
int io_socket_name(uv_os_sock_t socket, bool is_peer, char ip[IO_IP_TEXT_BYTES]);

#endif
