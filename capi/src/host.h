// The functions for the script, as src/capi/c-host.ts declares them.
#ifndef UNDERPASS_HOST_H
#define UNDERPASS_HOST_H

#include "instance.h"

// Returns an object with all of them, or an exception.
JSValue host_create(instance *instance);

// Returns an object with only those that checking the options needs, in an engine without an instance.
JSValue file_host_create(JSContext *context);

void timers_add(JSContext *context, JSValueConst host);
void timers_end(instance *instance);
void resolver_add(JSContext *context, JSValueConst host);
void cryptography_add(JSContext *context, JSValueConst host);
void udp_add(JSContext *context, JSValueConst host);
void stream_add(JSContext *context, JSValueConst host);
void shortcut_add(JSContext *context, JSValueConst host);
void tls_add(JSContext *context, JSValueConst host);
// Adds the functions that check files; call it first.
void tls_add_check(JSContext *context, JSValueConst host);
void tcp_add(JSContext *context, JSValueConst host);
// Adds TCP for packets that no kernel receives.
void tcp_stack_add(JSContext *context, JSValueConst host);
void tcp_stacks_end(instance *instance);
// Adds functions that start programs; not on Windows.
void process_add(JSContext *context, JSValueConst host);
void process_end(instance *instance);
void tun_add(JSContext *context, JSValueConst host);
// Adds the functions that know interfaces; call it first.
void tun_add_check(JSContext *context, JSValueConst host);

#define FUNCTION(name, arguments, function) JS_CFUNC_DEF(name, arguments, function)
#define ADD_FUNCTIONS(context, host, list) \
  JS_SetPropertyFunctionList(context, host, list, sizeof(list) / sizeof *(list))

// Functions of the script, and lent memory, for a handle of io/. binding_free frees them when the handle is released.
#define BINDING_VALUES 6
typedef struct binding {
  engine *engine;
  JSValue values[BINDING_VALUES];
} binding;

// Holds `count` values. NULL, with an exception pending, if there is no memory.
binding *binding_create(JSContext *context, const JSValueConst *values, int count);
// A `released` callback of io/.
void binding_free(void *binding);

#endif
