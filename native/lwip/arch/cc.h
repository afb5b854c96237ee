// What lwIP needs to know about the compiler.
#ifndef UNDERPASS_LWIP_CC_H
#define UNDERPASS_LWIP_CC_H

#include <stddef.h>
#include <stdlib.h>

// Without checks, the program continues past a failed one; with checks, in tests, it aborts.
#define LWIP_PLATFORM_ASSERT(message) abort()
#define LWIP_PLATFORM_DIAG(message)

void *heap_malloc(size_t bytes);
void *heap_calloc(size_t count, size_t bytes);
void heap_free(void *memory);

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define BYTE_ORDER BIG_ENDIAN
#endif

#endif
