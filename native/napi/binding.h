// Shared by the bindings: native/io for one Node environment, of the main thread or a worker, as src/host/io/native-module.ts
// declares it.
#ifndef UNDERPASS_BINDING_H
#define UNDERPASS_BINDING_H

#include <node_api.h>
#include <stdbool.h>
#include <stdint.h>

#include "../io/loop.h"

// Defined in tcp-stack.c; the first of a list.
typedef struct tcp_stacks tcp_stacks;

typedef struct environment {
  napi_env env;
  io_loop *loop;
  tcp_stacks *tcp_stacks;
  int32_t last_tcp_stack;
  napi_async_cleanup_hook_handle cleanup;
} environment;

environment *environment_of(napi_env env);
io_loop *loop_of(napi_env env);

// Throws an Error whose `code` is the name of a system error, and returns NULL.
napi_value throw_system_error(napi_env env, int error, const char *call);

// Gets the arguments of a call. Returns false, with an exception pending, if there are fewer than `count`.
bool get_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *values);
int32_t get_int(napi_env env, napi_value value);
double get_number(napi_env env, napi_value value);
bool get_bool(napi_env env, napi_value value);

// Reads the name of an interface, or any other text of up to `bytes` with its terminator. Returns false, with an exception pending,
// if it is invalid.
bool get_name(napi_env env, napi_value value, char *name, size_t bytes, const char *what);

typedef struct {
  uint8_t *data;
  size_t bytes;
} bytes_view;

// The memory of a typed array; {NULL, 0} for anything else.
bytes_view get_bytes(napi_env env, napi_value value);
int32_t *ints_of(bytes_view view);

napi_value make_int(napi_env env, int64_t value);
napi_value make_bool(napi_env env, bool value);
// Returns a copy.
napi_value make_bytes(napi_env env, const uint8_t *bytes, size_t count);

void set_function(napi_env env, napi_value exports, const char *name, napi_callback function);

#define CALLEE_REFERENCES 6

// The `user_data` of callbacks of a native/io handle.
typedef struct callee {
  napi_env env;
  napi_async_context context;
  // Functions, and arrays whose memory is lent, in the order in which callee_new got them.
  napi_ref references[CALLEE_REFERENCES];
} callee;

// Returns NULL, with an exception pending, if there is no memory.
callee *callee_new(napi_env env, const char *name, const napi_value *values, size_t count);

// Calls one of the functions with a number, or without arguments if argc is 0. Anything that it throws becomes an uncaught
// exception.
void callee_call(callee *callee, int function, size_t argc, int64_t number);

// A `released` callback.
void callee_free(void *callee);

void udp_init(napi_env env, napi_value exports);
void tcp_init(napi_env env, napi_value exports);
void stream_init(napi_env env, napi_value exports);
void shortcut_init(napi_env env, napi_value exports);
void tcp_stack_init(napi_env env, napi_value exports);
void tcp_stacks_end(environment *environment);
void tun_init(napi_env env, napi_value exports);
void service_init(napi_env env, napi_value exports);
void interfaces_init(napi_env env, napi_value exports);

#endif
