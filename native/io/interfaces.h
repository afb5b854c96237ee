// Addresses and routes of interfaces, by ioctl and netlink without other programs, and the TCP connections of an address. Linux
// only, otherwise UV_ENOTSUP. Synchronous, without a context; may be called from any thread. Addresses have 4 or 16 bytes, in
// network order; others return UV_EINVAL.
#ifndef UNDERPASS_IO_INTERFACES_H
#define UNDERPASS_IO_INTERFACES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

// Adds an address; one that the interface already has is not an error.
int io_interface_address(const char *name, const uint8_t *address, size_t address_bytes, int prefix_length);

// Routes a network to the interface.
int io_interface_route(const char *name, const uint8_t *address, size_t address_bytes, int prefix_length);

// The first IPv4 address of an interface, which need not be up.
int io_interface_ipv4(const char *name, uint8_t address[4]);

// Sets the MTU and a queue long enough for floods, and brings the interface up.
int io_interface_up(const char *name, int mtu);

// True if the system has that address or treats it as its own.
bool io_address_is_local(const uint8_t *address, size_t address_bytes);

// Ends the TCP connections from an address in this network namespace: their applications get ECONNABORTED, and their peers a RST.
// Returns how many, or a system error: UV_EPERM; UV_ENOTSUP if the kernel does not support that.
int64_t io_tcp_destroy_from(const uint8_t *address, size_t address_bytes);

#endif
