// The messages between a service and its manager in systemd's protocol (sd_notify(3)), and memory that one process leaves for the
// next. They need no context. These calls block, for a bounded time. Linux only, otherwise UV_ENOTSUP.
#ifndef UNDERPASS_IO_SERVICE_H
#define UNDERPASS_IO_SERVICE_H

#include <stddef.h>
#include <stdint.h>

// Limit of descriptors in one message (SCM_MAX_FD on Linux).
#define IO_SERVICE_MAX_DESCRIPTORS 253

// Sends a message with descriptors, which stay open here. `socket`: a path, or the name of an abstract socket after "@", as in
// NOTIFY_SOCKET. Returns 0 or a system error.
int io_service_notify(const char *socket, const char *message, const int *descriptors, size_t count, int timeout_ms);

// Waits until the manager has handled all messages before this one. Returns 0, UV_ETIMEDOUT, or a system error.
int io_service_barrier(const char *socket, int timeout_ms);

// Returns a descriptor of memory with these bytes, which nobody can change any more, or a system error.
int io_sealed_memory(const uint8_t *bytes, size_t count);

#endif
