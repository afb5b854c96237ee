// Listeners and connection attempts, as src/host/io/native-module.ts declares them, over native/io/tcp.h.
#include "io/tcp.h"

#include "../host.h"
#include "io/address.h"

static void on_number(void *data, int number) {
  binding *binding = data;
  engine_run_number(binding->engine, binding->values[0], number);
}

static const io_listener_callbacks LISTENER = {on_number, binding_free};
static const io_connect_callbacks CONNECT = {on_number, binding_free};

// The result of a call that got a binding.
static JSValue result_of(JSContext *context, binding *binding, int result, const char *call) {
  if (result < 0) binding_free(binding);
  return number_or_throw(context, result, call);
}

// tcpListen(address, reusePort, backlog, onAccept(descriptor, or a system error)): the listener's descriptor
static JSValue tcp_listen(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view address = get_bytes(context, values[0]);
  binding *binding = binding_create(context, values + 3, 1);
  if (binding == NULL) return JS_EXCEPTION;
  int result = io_tcp_listen(instance_of(context)->io, address.data, address.bytes, JS_ToBool(context, values[1]) == 1,
                             get_int(context, values[2]), &LISTENER, binding);
  return result_of(context, binding, result, "listen");
}

// unixListen(path, mode, backlog, onAccept(descriptor, or a system error)): the listener's descriptor
static JSValue unix_listen(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  const char *path = JS_ToCString(context, values[0]);
  binding *binding = path == NULL ? NULL : binding_create(context, values + 3, 1);
  if (binding == NULL) {
    if (path != NULL) JS_FreeCString(context, path);
    return JS_EXCEPTION;
  }
  int result = io_unix_listen(instance_of(context)->io, path, get_int(context, values[1]), get_int(context, values[2]),
                              &LISTENER, binding);
  JS_FreeCString(context, path);
  return result_of(context, binding, result, "listen");
}

// listenOn(descriptor, backlog, onAccept(descriptor, or a system error)): the descriptor
static JSValue listen_on(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  binding *binding = binding_create(context, values + 2, 1);
  if (binding == NULL) return JS_EXCEPTION;
  int result = io_listen_on(instance_of(context)->io, get_int(context, values[0]), get_int(context, values[1]), &LISTENER,
                            binding);
  return result_of(context, binding, result, "listen");
}

static JSValue tcp_unlisten(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_unlisten(instance_of(context)->io, get_int(context, values[0]));
  return JS_UNDEFINED;
}

// tcpConnect(address, interface, mark, onDone(descriptor, or a system error)): the attempt's number
static JSValue tcp_connect(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view address = get_bytes(context, values[0]);
  const char *name = JS_ToCString(context, values[1]);
  binding *binding = name == NULL ? NULL : binding_create(context, values + 3, 1);
  if (binding == NULL) {
    if (name != NULL) JS_FreeCString(context, name);
    return JS_EXCEPTION;
  }
  int result = io_tcp_connect(instance_of(context)->io, address.data, address.bytes, name,
                              (uint32_t)get_number(context, values[2]), &CONNECT, binding);
  JS_FreeCString(context, name);
  return result_of(context, binding, result, "connect");
}

// unixConnect(path, onDone(descriptor, or a system error)): the attempt's number
static JSValue unix_connect(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  const char *path = JS_ToCString(context, values[0]);
  binding *binding = path == NULL ? NULL : binding_create(context, values + 1, 1);
  if (binding == NULL) {
    if (path != NULL) JS_FreeCString(context, path);
    return JS_EXCEPTION;
  }
  int result = io_unix_connect(instance_of(context)->io, path, &CONNECT, binding);
  JS_FreeCString(context, path);
  return result_of(context, binding, result, "connect");
}

static JSValue connect_cancel(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_connect_cancel(instance_of(context)->io, get_int(context, values[0]));
  return JS_UNDEFINED;
}

static JSValue address_or_undefined(JSContext *context, const uint8_t *bytes, size_t length) {
  return length == 0 ? JS_UNDEFINED : make_bytes(context, bytes, length);
}

static JSValue socket_address(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  uint8_t bytes[IO_ADDRESS_MAX_BYTES];
  return address_or_undefined(context, bytes, io_socket_address(get_int(context, values[0]), bytes));
}

// socketName(descriptor, whether the peer's): [IP text, port]; undefined unless it is an IP socket
static JSValue socket_name(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  char ip[IO_IP_TEXT_BYTES];
  int port = io_socket_name(get_int(context, values[0]), JS_ToBool(context, values[1]) == 1, ip);
  if (port < 0) return JS_UNDEFINED;
  JSValue pair = JS_NewArray(context);
  JS_SetPropertyUint32(context, pair, 0, JS_NewString(context, ip));
  JS_SetPropertyUint32(context, pair, 1, JS_NewInt32(context, port));
  return pair;
}

// tcpKeepAlive(descriptor, seconds)
static JSValue tcp_keep_alive(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_tcp_keep_alive(get_int(context, values[0]), get_int(context, values[1]));
  return JS_UNDEFINED;
}

// tcpTune(descriptor, notSentLowWaterBytes, userTimeoutMs): false if the system lacks one of the two
static JSValue tcp_tune(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  int error =
      io_tcp_tune(get_int(context, values[0]), get_int(context, values[1]), get_int(context, values[2]));
  return JS_NewBool(context, error == 0);
}

static JSValue descriptor_duplicate(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  return number_or_throw(context, io_descriptor_duplicate(get_int(context, values[0])), "dup");
}

static JSValue descriptor_close(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_descriptor_close(get_int(context, values[0]));
  return JS_UNDEFINED;
}

static const JSCFunctionListEntry FUNCTIONS[] = {
    FUNCTION("tcpListen", 4, tcp_listen),
    FUNCTION("listenOn", 3, listen_on),
    FUNCTION("tcpUnlisten", 1, tcp_unlisten),
    FUNCTION("tcpConnect", 4, tcp_connect),
    FUNCTION("tcpConnectCancel", 1, connect_cancel),
    FUNCTION("unixListen", 4, unix_listen),
    FUNCTION("unixConnect", 2, unix_connect),
    FUNCTION("socketAddress", 1, socket_address),
    FUNCTION("socketName", 2, socket_name),
    FUNCTION("tcpKeepAlive", 2, tcp_keep_alive),
    FUNCTION("tcpTune", 3, tcp_tune),
    FUNCTION("descriptorDuplicate", 1, descriptor_duplicate),
    FUNCTION("descriptorClose", 1, descriptor_close),
};

void tcp_add(JSContext *context, JSValueConst host) { ADD_FUNCTIONS(context, host, FUNCTIONS); }
