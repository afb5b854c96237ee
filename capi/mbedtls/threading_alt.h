// Mutexes of libuv for mbedTLS, whose own support does not cover Windows. mbedTLS includes this file by this name.
#ifndef UNDERPASS_MBEDTLS_THREADING_ALT_H
#define UNDERPASS_MBEDTLS_THREADING_ALT_H

#include <uv.h>

typedef uv_mutex_t mbedtls_threading_mutex_t;

#endif
