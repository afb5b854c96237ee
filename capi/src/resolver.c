// The system's resolver, on libuv's pool of threads, and the addresses of this machine.
#include <stdlib.h>
#include <string.h>

#include "host.h"

typedef struct lookup {
  uv_getaddrinfo_t request;
  instance *instance;
  // JS_UNDEFINED once nobody waits for it.
  JSValue callback;
  struct lookup *next, **link;
} lookup;

static JSValue list_of(JSContext *context, const struct addrinfo *first) {
  JSValue list = JS_NewArray(context);
  uint32_t count = 0;
  for (const struct addrinfo *info = first; info != NULL && !JS_IsException(list); info = info->ai_next) {
    char text[INET6_ADDRSTRLEN];
    int error = UV_EAFNOSUPPORT;
    if (info->ai_family == AF_INET)
      error = uv_ip4_name((const struct sockaddr_in *)info->ai_addr, text, sizeof text);
    else if (info->ai_family == AF_INET6)
      error = uv_ip6_name((const struct sockaddr_in6 *)info->ai_addr, text, sizeof text);
    if (error == 0) JS_SetPropertyUint32(context, list, count++, JS_NewString(context, text));
  }
  return list;
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *first) {
  lookup *lookup = request->data;
  instance *instance = lookup->instance;
  JSContext *context = instance->engine.context;
  *lookup->link = lookup->next;
  if (lookup->next != NULL) lookup->next->link = lookup->link;
  if (!JS_IsUndefined(lookup->callback)) {
    JSValue values[2] = {JS_NewInt32(context, status), list_of(context, status == 0 ? first : NULL)};
    engine_run(&instance->engine, lookup->callback, 2, values);
    JS_FreeValue(context, lookup->callback);
  }
  uv_freeaddrinfo(first);
  free(lookup);
  instance_handle_closed(instance);
}

// lookUp(name, callback(error, list of IP texts))
static JSValue look_up(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  instance *instance = instance_of(context);
  if (instance->is_ending) return throw_system_error(context, UV_ECANCELED, "getaddrinfo");
  const char *name = JS_ToCString(context, values[0]);
  if (name == NULL) return JS_EXCEPTION;
  lookup *lookup = calloc(1, sizeof *lookup);
  int error = UV_ENOMEM;
  if (lookup != NULL) {
    lookup->request.data = lookup;
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    error = uv_getaddrinfo(instance->loop, &lookup->request, on_resolved, name, NULL, &hints);
  }
  JS_FreeCString(context, name);
  if (error != 0) {
    free(lookup);
    return throw_system_error(context, error, "getaddrinfo");
  }
  lookup->instance = instance;
  lookup->callback = JS_DupValue(context, values[1]);
  lookup->next = instance->lookups;
  lookup->link = &instance->lookups;
  if (lookup->next != NULL) lookup->next->link = &lookup->next;
  instance->lookups = lookup;
  instance->open_handles++;
  return JS_UNDEFINED;
}

// interfaceAddresses(): list of [name of the interface, IP text, whether it is of loopback]
static JSValue interface_addresses(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count, (void)values;
  uv_interface_address_t *addresses;
  int found = 0;
  JSValue list = JS_NewArray(context);
  // Where the system forbids that, as on some Androids, there are none.
  if (uv_interface_addresses(&addresses, &found) != 0) return list;
  for (int i = 0; i < found; i++) {
    const uv_interface_address_t *address = &addresses[i];
    char text[INET6_ADDRSTRLEN];
    if (address->address.address4.sin_family == AF_INET6) uv_ip6_name(&address->address.address6, text, sizeof text);
    else uv_ip4_name(&address->address.address4, text, sizeof text);
    JSValue entry = JS_NewArray(context);
    JS_SetPropertyUint32(context, entry, 0, JS_NewString(context, address->name));
    JS_SetPropertyUint32(context, entry, 1, JS_NewString(context, text));
    JS_SetPropertyUint32(context, entry, 2, JS_NewBool(context, address->is_internal));
    JS_SetPropertyUint32(context, list, (uint32_t)i, entry);
  }
  uv_free_interface_addresses(addresses, found);
  return list;
}

static const JSCFunctionListEntry FUNCTIONS[] = {
    FUNCTION("lookUp", 2, look_up),
    FUNCTION("interfaceAddresses", 0, interface_addresses),
};

void resolver_add(JSContext *context, JSValueConst host) { ADD_FUNCTIONS(context, host, FUNCTIONS); }

void resolver_end(instance *instance) {
  for (lookup *lookup = instance->lookups; lookup != NULL; lookup = lookup->next) {
    JS_FreeValue(instance->engine.context, lookup->callback);
    lookup->callback = JS_UNDEFINED;
    // Fails for one that a thread is at; it ends by itself.
    uv_cancel((uv_req_t *)&lookup->request);
  }
}
