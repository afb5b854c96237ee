// The system's resolver, and the addresses of this machine.
#include <stdlib.h>
#include <string.h>

#include "../embedder/guest.h"
#include "../host.h"

// Limit of concurrent look-ups; the others wait.
#define MAX_RUNNING 8

// A look-up blocks its thread until the resolver has answered, which may take long and cannot be cancelled. It therefore has a
// thread of its own, for which nothing waits.
typedef struct lookup {
  guest guest;
  JSContext *context;
  JSValue callback;
  char *name;
  // Used by the instance's thread: the next one that waits, and whether it has a thread.
  struct lookup *next;
  bool is_running;

  // Used by its own thread until `is_done`, which the guest's mutex guards.
  struct addrinfo *first;
  int error;
  bool is_done;
} lookup;

static void run(void *data) {
  lookup *lookup = data;
  const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  uv_getaddrinfo_t request = {0};
  uv_loop_t loop;
  int error = uv_loop_init(&loop);
  if (error == 0) {
    // Without a callback, the call completes in this thread.
    error = uv_getaddrinfo(&loop, &request, NULL, lookup->name, NULL, &hints);
    uv_loop_close(&loop);
  }
  uv_mutex_lock(&lookup->guest.mutex);
  lookup->error = error;
  lookup->first = error == 0 ? request.addrinfo : NULL;
  lookup->is_done = true;
  guest_stir(&lookup->guest);
  uv_mutex_unlock(&lookup->guest.mutex);
  guest_release(&lookup->guest);
}

static bool start(lookup *lookup) {
  uv_thread_t thread;
  if (uv_thread_create(&thread, run, lookup) != 0) return false;
  lookup->is_running = true;
  instance_detach(&thread);
  lookup->guest.instance->lookups.running++;
  return true;
}

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

static void answer(lookup *lookup, int error, const struct addrinfo *first) {
  JSContext *context = lookup->context;
  JSValue values[2] = {JS_NewInt32(context, error), list_of(context, first)};
  engine_run(engine_of(context), lookup->callback, 2, values);
}

// Starts waiting look-ups, as far as the limit allows.
static void start_waiting(instance *instance) {
  while (instance->lookups.first != NULL && instance->lookups.running < MAX_RUNNING) {
    lookup *lookup = instance->lookups.first;
    instance->lookups.first = lookup->next;
    if (start(lookup)) continue;
    answer(lookup, UV_EAGAIN, NULL);
    guest_leave(&lookup->guest);
  }
}

static void handle(guest *guest) {
  lookup *lookup = (struct lookup *)guest;
  instance *instance = guest->instance;
  uv_mutex_lock(&guest->mutex);
  bool is_done = lookup->is_done;
  uv_mutex_unlock(&guest->mutex);
  if (!is_done) return;
  instance->lookups.running--;
  answer(lookup, lookup->error, lookup->first);
  guest_leave(guest);
  start_waiting(instance);
}

static void leave(guest *guest) {
  lookup *lookup = (struct lookup *)guest;
  JS_FreeValue(lookup->context, lookup->callback);
  // Without a thread, nothing else releases it.
  if (!lookup->is_running) guest_release(guest);
}

static void destroy(guest *guest) {
  lookup *lookup = (struct lookup *)guest;
  if (lookup->first != NULL) uv_freeaddrinfo(lookup->first);
  free(lookup->name);
  free(lookup);
}

static const guest_kind LOOKUP = {handle, leave, destroy};

// lookUp(name, callback(error, list of IP texts))
static JSValue look_up(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  instance *instance = instance_of(context);
  const char *name = JS_ToCString(context, values[0]);
  if (name == NULL) return JS_EXCEPTION;
  lookup *lookup = calloc(1, sizeof *lookup);
  if (lookup != NULL) lookup->name = strdup(name);
  JS_FreeCString(context, name);
  if (lookup == NULL || lookup->name == NULL) {
    free(lookup);
    return throw_system_error(context, UV_ENOMEM, "getaddrinfo");
  }
  lookup->context = context;
  if (!guest_join(&lookup->guest, &LOOKUP, instance)) {
    free(lookup->name);
    free(lookup);
    return throw_system_error(context, UV_ECANCELED, "getaddrinfo");
  }
  lookup->callback = JS_DupValue(context, values[1]);
  struct lookup **last = &instance->lookups.first;
  while (*last != NULL) last = &(*last)->next;
  *last = lookup;
  // Not within this call, because a failure calls back.
  if (instance->lookups.running < MAX_RUNNING) {
    *last = NULL;
    if (!start(lookup)) {
      guest_leave(&lookup->guest);
      return throw_system_error(context, UV_EAGAIN, "getaddrinfo");
    }
  }
  return JS_UNDEFINED;
}

// interfaceAddresses(): list of [name of the interface, IP text, whether it is loopback]
static JSValue interface_addresses(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count, (void)values;
  uv_interface_address_t *addresses;
  int found = 0;
  JSValue list = JS_NewArray(context);
  // Some systems forbid this, such as some Androids; then there are none.
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
