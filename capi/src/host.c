#include "host.h"

#include <stdlib.h>
#include <string.h>
#ifndef _WIN32
#include <sys/resource.h>
#endif

#include "datapath/datapath.h"
#include "embedder/associations.h"
#include "embedder/carrier.h"
#include "embedder/packets.h"

static JSValue now(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count, (void)values;
  return JS_NewFloat64(context, (double)uv_hrtime() / 1e6);
}

static JSValue unix_ms(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count, (void)values;
  uv_timeval64_t time;
  if (uv_gettimeofday(&time) != 0) return JS_ThrowInternalError(context, "there is no clock");
  return JS_NewFloat64(context, (double)time.tv_sec * 1e3 + (double)time.tv_usec / 1e3);
}

// requestTurn(): calls onTurn in the next turn of the loop
static JSValue request_turn(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count, (void)values;
  instance_request_turn(instance_of(context));
  return JS_UNDEFINED;
}

// setTurn(onTurn)
static JSValue set_turn(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  instance *instance = instance_of(context);
  JS_FreeValue(context, instance->on_turn);
  instance->on_turn = JS_DupValue(context, values[0]);
  return JS_UNDEFINED;
}

// lazyMemory(bytes): zeroed memory; only used pages take memory
static JSValue lazy_memory(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  double bytes = get_number(context, values[0]);
  if (!(bytes > 0 && bytes <= INT32_MAX)) return JS_ThrowRangeError(context, "lazyMemory");
  return map_bytes(context, (size_t)bytes);
}

// readFile(path): its bytes
static JSValue read_file(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  const char *path = JS_ToCString(context, values[0]);
  if (path == NULL) return JS_EXCEPTION;
  uv_fs_t request;
  uv_file file = uv_fs_open(NULL, &request, path, UV_FS_O_RDONLY, 0, NULL);
  uv_fs_req_cleanup(&request);
  JS_FreeCString(context, path);
  if (file < 0) return throw_system_error(context, file, "open");
  size_t length = 0, capacity = 4096;
  uint8_t *data = malloc(capacity);
  int result = data == NULL ? UV_ENOMEM : 1;
  while (result > 0) {
    if (length == capacity) {
      uint8_t *larger = realloc(data, capacity *= 2);
      if (larger == NULL) {
        result = UV_ENOMEM;
        break;
      }
      data = larger;
    }
    uv_buf_t part = uv_buf_init((char *)data + length, (unsigned)(capacity - length));
    result = (int)uv_fs_read(NULL, &request, file, &part, 1, -1, NULL);
    uv_fs_req_cleanup(&request);
    if (result > 0) length += (size_t)result;
  }
  uv_fs_close(NULL, &request, file, NULL);
  uv_fs_req_cleanup(&request);
  JSValue bytes = result < 0 ? throw_system_error(context, result, "read") : make_bytes(context, data, length);
  free(data);
  return bytes;
}

// descriptorLimit(): how many descriptors the process may have open; 0 if unknown
static JSValue descriptor_limit(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count, (void)values;
#ifndef _WIN32
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
    return JS_NewFloat64(context, (double)limit.rlim_cur);
#endif
  return JS_NewInt32(context, 0);
}

// systemErrorName(error): such as "EPIPE"
static JSValue system_error_name(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  char name[32];
  return JS_NewString(context, uv_err_name_r(get_int(context, values[0]), name, sizeof name));
}

// systemErrorText(error): such as "broken pipe"
static JSValue system_error_text(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  char text[128];
  return JS_NewString(context, uv_strerror_r(get_int(context, values[0]), text, sizeof text));
}

// log(level, message, fields as JSON)
static JSValue write_log(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  instance *instance = instance_of(context);
  if (instance->callbacks.log == NULL) return JS_UNDEFINED;
  const char *message = JS_ToCString(context, values[1]);
  const char *fields = message == NULL ? NULL : JS_ToCString(context, values[2]);
  if (fields != NULL)
    instance->callbacks.log(instance->user_data, (underpass_log_level)get_int(context, values[0]), message, fields);
  if (fields != NULL) JS_FreeCString(context, fields);
  if (message != NULL) JS_FreeCString(context, message);
  return fields == NULL ? JS_EXCEPTION : JS_UNDEFINED;
}

// Returns the texts of a list, to be freed by free_texts; NULL if there is no memory, with or without a pending exception.
static const char **get_texts(JSContext *context, JSValueConst list, size_t *count) {
  *count = 0;
  JSValue length_value = JS_GetPropertyStr(context, list, "length");
  size_t length = (size_t)get_int(context, length_value);
  JS_FreeValue(context, length_value);
  const char **texts = calloc(length + 1, sizeof *texts);
  for (size_t i = 0; i < length && texts != NULL; i++) {
    JSValue text = JS_GetPropertyUint32(context, list, (uint32_t)i);
    texts[i] = JS_ToCString(context, text);
    JS_FreeValue(context, text);
    if (texts[i] == NULL) break;
    *count = i + 1;
  }
  return texts;
}

static void free_texts(JSContext *context, const char **texts, size_t count) {
  for (size_t i = 0; i < count; i++) JS_FreeCString(context, texts[i]);
  free(texts);
}

static const char *text_or_null(JSContext *context, JSValueConst value) {
  return JS_IsString(value) ? JS_ToCString(context, value) : NULL;
}

// ready(listen addresses, SOCKS5 address, targets of forwards, description of the server)
static JSValue ready(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  instance *instance = instance_of(context);
  if (instance->callbacks.ready == NULL) return JS_UNDEFINED;
  size_t listen_count, target_count = 0;
  const char **listen = get_texts(context, values[0], &listen_count);
  const char **targets = JS_IsObject(values[2]) ? get_texts(context, values[2], &target_count) : NULL;
  const char *socks5 = text_or_null(context, values[1]), *server = text_or_null(context, values[3]);
  const underpass_addresses addresses = {.size = sizeof addresses,
                                         .listen = listen,
                                         .listen_count = listen_count,
                                         .socks5 = socks5,
                                         .targets = target_count == listen_count ? targets : NULL,
                                         .server = server};
  instance->callbacks.ready(instance->user_data, &addresses);
  free_texts(context, listen, listen_count);
  free_texts(context, targets, target_count);
  if (socks5 != NULL) JS_FreeCString(context, socks5);
  if (server != NULL) JS_FreeCString(context, server);
  return JS_UNDEFINED;
}

// event(kind, status, text)
static JSValue event(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  instance *instance = instance_of(context);
  const underpass_callbacks *callbacks = &instance->callbacks;
  void *user_data = instance->user_data;
  int status = get_int(context, values[1]);
  const char *text = JS_ToCString(context, values[2]);
  if (text == NULL) return JS_EXCEPTION;
  const char *kind = JS_ToCString(context, values[0]);
  if (kind != NULL) {
    if (strcmp(kind, "session-up") == 0 && callbacks->session_up != NULL) callbacks->session_up(user_data);
    else if (strcmp(kind, "session-resumed") == 0 && callbacks->session_resumed != NULL)
      callbacks->session_resumed(user_data);
    else if (strcmp(kind, "session-down") == 0 && callbacks->session_down != NULL)
      callbacks->session_down(user_data, status, text);
    else if (strcmp(kind, "unreachable") == 0 && callbacks->unreachable != NULL)
      callbacks->unreachable(user_data, status, text);
    else if (strcmp(kind, "listener-failed") == 0 && callbacks->listener_failed != NULL)
      callbacks->listener_failed(user_data, status, text);
    else if (strcmp(kind, "error") == 0 && callbacks->error != NULL) callbacks->error(user_data, status, text);
    JS_FreeCString(context, kind);
  }
  JS_FreeCString(context, text);
  return kind == NULL ? JS_EXCEPTION : JS_UNDEFINED;
}

static const JSCFunctionListEntry FUNCTIONS[] = {
    FUNCTION("now", 0, now),
    FUNCTION("unixMs", 0, unix_ms),
    FUNCTION("requestTurn", 0, request_turn),
    FUNCTION("setTurn", 1, set_turn),
    FUNCTION("lazyMemory", 1, lazy_memory),
    FUNCTION("descriptorLimit", 0, descriptor_limit),
    FUNCTION("systemErrorName", 1, system_error_name),
    FUNCTION("systemErrorText", 1, system_error_text),
    FUNCTION("log", 3, write_log),
    FUNCTION("ready", 4, ready),
    FUNCTION("event", 3, event),
};

static const JSCFunctionListEntry FILE_FUNCTIONS[] = {FUNCTION("readFile", 1, read_file)};

JSValue file_host_create(JSContext *context) {
  JSValue host = JS_NewObject(context);
  if (JS_IsException(host)) return host;
  ADD_FUNCTIONS(context, host, FILE_FUNCTIONS);
  tls_add_check(context, host);
  tun_add_check(context, host);
  return host;
}

JSValue host_create(instance *instance) {
  JSContext *context = instance->engine.context;
  JSValue host = file_host_create(context);
  if (JS_IsException(host)) return host;
  ADD_FUNCTIONS(context, host, FUNCTIONS);
  JS_SetPropertyStr(context, host, "datapath", datapath_create(context));
  timers_add(context, host);
  resolver_add(context, host);
  cryptography_add(context, host);
  udp_add(context, host);
  stream_add(context, host);
  shortcut_add(context, host);
  tcp_add(context, host);
  tls_add(context, host);
  carrier_add(context, host);
  associations_add(context, host);
  packets_add(context, host);
  tun_add(context, host);
  process_add(context, host);
  tcp_stack_add(context, host);
  JS_SetPropertyStr(context, host, "hasLog", JS_NewBool(context, instance->callbacks.log != NULL));
  return host;
}

binding *binding_create(JSContext *context, const JSValueConst *values, int count) {
  binding *binding = calloc(1, sizeof *binding);
  if (binding == NULL) {
    JS_ThrowOutOfMemory(context);
    return NULL;
  }
  binding->engine = engine_of(context);
  for (int i = 0; i < BINDING_VALUES; i++)
    binding->values[i] = i < count ? JS_DupValue(context, values[i]) : JS_UNDEFINED;
  return binding;
}

void binding_free(void *data) {
  binding *binding = data;
  for (int i = 0; i < BINDING_VALUES; i++) JS_FreeValue(binding->engine->context, binding->values[i]);
  free(binding);
}
