// What a service and its manager say to each other by systemd's protocol (sd_notify(3)), and memory that one process leaves for the
// next. No context is needed: these calls block, for a bounded time. Linux only, else UV_ENOTSUP.
#ifndef UNDERPASS_IO_SERVICE_H
#define UNDERPASS_IO_SERVICE_H

#include <stddef.h>
#include <stdint.h>

// Most descriptors of one message (SCM_MAX_FD of Linux).
#define IO_SERVICE_MAX_DESCRIPTORS 253

// Sends a message with descriptors, which stay open here.
// `socket`: a path, or the name of an abstract socket behind "@", as in NOTIFY_SOCKET. Returns 0 or a system error.
int io_service_notify(const char *socket, const char *message, const int *descriptors, size_t count, int timeout_ms);

// Waits until the manager has handled all messages before this one. Returns 0, UV_ETIMEDOUT, or a system error.
int io_service_barrier(const char *socket, int timeout_ms);

// A descriptor of memory with these bytes, which nobody can change any more, or a system error.
int io_sealed_memory(const uint8_t *bytes, size_t count);

#endif
