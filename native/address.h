// Socket addresses in the form of the program: `1 | 4 bytes | port` or `4 | 16 bytes | port`, port big-endian (the form
// of RFC 1928 §5).
#ifndef UNDERPASS_ADDRESS_H
#define UNDERPASS_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <netinet/in.h>
#include <sys/socket.h>
#endif

#define ADDRESS_IPV4 1
#define ADDRESS_IPV6 4
#define ADDRESS_IPV4_BYTES 7
#define ADDRESS_IPV6_BYTES 19
#define ADDRESS_MAX_BYTES 19
#define SCOPED_IPV6_BYTES (ADDRESS_IPV6_BYTES + 4)

// Returns the bytes written to `out` (at least ADDRESS_MAX_BYTES), or 0 for a family that is neither.
size_t address_from_sockaddr(const struct sockaddr_storage *from, uint8_t *out);

// Reads `length` bytes. Returns the length of the sockaddr, or 0 unless they are an IPv4 or IPv6 address.
socklen_t address_to_sockaddr(const uint8_t *bytes, size_t length, struct sockaddr_storage *to);

// The same for an address to bind or to connect to: an IPv6 address may have the number of the interface of its zone behind
// it, in 4 bytes, big-endian.
socklen_t scoped_address_to_sockaddr(const uint8_t *bytes, size_t length, struct sockaddr_storage *to);

#endif
