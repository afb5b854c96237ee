// On Windows, Node's sockets have no descriptors that this could exchange with node:net.
#include "../io/tcp.h"

#include "../io/address.h"
#include "binding.h"

#ifdef _WIN32

void tcp_init(napi_env env, napi_value exports) {
  (void)env, (void)exports;
}

#else

// Including the terminator; longer than a Unix socket's path may be.
#define PATH_BYTES 256

static void on_result(void *user_data, int result) {
  callee_call(user_data, 0, 1, result);
}

static const io_listener_callbacks listener_callbacks = {on_result, callee_free};
static const io_connect_callbacks connect_callbacks = {on_result, callee_free};

// The result of a call that takes a callee: a number, or a system error.
static napi_value opened(napi_env env, int result, callee *callee, const char *call) {
  if (result >= 0) return make_int(env, result);
  callee_free(callee);
  return throw_system_error(env, result, call);
}

// tcpListen(address, reusePort, backlog, onAccept(descriptor, or a system error)): descriptor of the listener
static napi_value tcp_listen(napi_env env, napi_callback_info info) {
  napi_value values[4];
  if (!get_arguments(env, info, 4, values)) return NULL;
  bytes_view address = get_bytes(env, values[0]);
  callee *callee = callee_new(env, "underpass:listener", values + 3, 1);
  if (callee == NULL) return NULL;
  int result = io_tcp_listen(loop_of(env), address.data, address.bytes, get_bool(env, values[1]), get_int(env, values[2]),
                             &listener_callbacks, callee);
  return opened(env, result, callee, "listen");
}

// unixListen(path, mode, backlog, onAccept(descriptor, or a system error)): descriptor of the listener
static napi_value unix_listen(napi_env env, napi_callback_info info) {
  napi_value values[4];
  char path[PATH_BYTES];
  if (!get_arguments(env, info, 4, values) || !get_name(env, values[0], path, sizeof path, "listen")) return NULL;
  callee *callee = callee_new(env, "underpass:listener", values + 3, 1);
  if (callee == NULL) return NULL;
  int result = io_unix_listen(loop_of(env), path, get_int(env, values[1]), get_int(env, values[2]), &listener_callbacks,
                              callee);
  return opened(env, result, callee, "listen");
}

// listenOn(descriptor, backlog, onAccept(descriptor, or a system error)): descriptor of the listener, which is the same
static napi_value listen_on(napi_env env, napi_callback_info info) {
  napi_value values[3];
  if (!get_arguments(env, info, 3, values)) return NULL;
  callee *callee = callee_new(env, "underpass:listener", values + 2, 1);
  if (callee == NULL) return NULL;
  int result = io_listen_on(loop_of(env), get_int(env, values[0]), get_int(env, values[1]), &listener_callbacks, callee);
  return opened(env, result, callee, "listen");
}

// tcpUnlisten(descriptor of a listener)
static napi_value tcp_unlisten(napi_env env, napi_callback_info info) {
  napi_value value;
  if (get_arguments(env, info, 1, &value)) io_unlisten(loop_of(env), get_int(env, value));
  return NULL;
}

// tcpConnect(address, interface or "", mark or 0, onDone(descriptor, or a system error)): number of the attempt
static napi_value tcp_connect(napi_env env, napi_callback_info info) {
  napi_value values[4];
  char name[IO_INTERFACE_NAME_BYTES];
  if (!get_arguments(env, info, 4, values) || !get_name(env, values[1], name, sizeof name, "name of the interface"))
    return NULL;
  bytes_view address = get_bytes(env, values[0]);
  callee *callee = callee_new(env, "underpass:connect", values + 3, 1);
  if (callee == NULL) return NULL;
  int result = io_tcp_connect(loop_of(env), address.data, address.bytes, name, (uint32_t)get_number(env, values[2]),
                              &connect_callbacks, callee);
  return opened(env, result, callee, "connect");
}

// unixConnect(path, onDone(descriptor, or a system error)): number of the attempt
static napi_value unix_connect(napi_env env, napi_callback_info info) {
  napi_value values[2];
  char path[PATH_BYTES];
  if (!get_arguments(env, info, 2, values) || !get_name(env, values[0], path, sizeof path, "connect")) return NULL;
  callee *callee = callee_new(env, "underpass:connect", values + 1, 1);
  if (callee == NULL) return NULL;
  return opened(env, io_unix_connect(loop_of(env), path, &connect_callbacks, callee), callee, "connect");
}

// tcpConnectCancel(number of an attempt): aborts it, unless it has ended
static napi_value tcp_connect_cancel(napi_env env, napi_callback_info info) {
  napi_value value;
  if (get_arguments(env, info, 1, &value)) io_connect_cancel(loop_of(env), get_int(env, value));
  return NULL;
}

// socketAddress(descriptor): the local address in bytes; undefined unless it is an IP socket
static napi_value socket_address(napi_env env, napi_callback_info info) {
  napi_value value;
  uint8_t address[IO_ADDRESS_MAX_BYTES];
  if (!get_arguments(env, info, 1, &value)) return NULL;
  size_t bytes = io_socket_address(get_int(env, value), address);
  return bytes == 0 ? NULL : make_bytes(env, address, bytes);
}

// socketName(descriptor, whether the peer's): [IP text, port]; undefined unless it is an IP socket
static napi_value socket_name(napi_env env, napi_callback_info info) {
  napi_value values[2], result, text;
  char ip[IO_IP_TEXT_BYTES];
  if (!get_arguments(env, info, 2, values)) return NULL;
  int port = io_socket_name(get_int(env, values[0]), get_bool(env, values[1]), ip);
  if (port < 0) return NULL;
  napi_create_array_with_length(env, 2, &result);
  napi_create_string_utf8(env, ip, NAPI_AUTO_LENGTH, &text);
  napi_set_element(env, result, 0, text);
  napi_set_element(env, result, 1, make_int(env, port));
  return result;
}

// tcpKeepAlive(descriptor, idle seconds or 0)
static napi_value tcp_keep_alive(napi_env env, napi_callback_info info) {
  napi_value values[2];
  if (get_arguments(env, info, 2, values)) io_tcp_keep_alive(get_int(env, values[0]), get_int(env, values[1]));
  return NULL;
}

// tcpTune(descriptor, not-sent low-water mark in bytes, user timeout in ms): sets both, TCP_NODELAY and keepalive; false if the
// system lacks one of the two
static napi_value tcp_tune(napi_env env, napi_callback_info info) {
  napi_value values[3];
  if (!get_arguments(env, info, 3, values)) return NULL;
  return make_bool(env, io_tcp_tune(get_int(env, values[0]), get_int(env, values[1]), get_int(env, values[2])) == 0);
}

// descriptorDuplicate(descriptor): another descriptor of the same connection, which outlives the first
static napi_value descriptor_duplicate(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  int copy = io_descriptor_duplicate(get_int(env, value));
  return copy < 0 ? throw_system_error(env, copy, "dup") : make_int(env, copy);
}

static napi_value descriptor_close(napi_env env, napi_callback_info info) {
  napi_value value;
  if (get_arguments(env, info, 1, &value)) io_descriptor_close(get_int(env, value));
  return NULL;
}

void tcp_init(napi_env env, napi_value exports) {
  set_function(env, exports, "tcpListen", tcp_listen);
  set_function(env, exports, "unixListen", unix_listen);
  set_function(env, exports, "listenOn", listen_on);
  set_function(env, exports, "tcpUnlisten", tcp_unlisten);
  set_function(env, exports, "tcpConnect", tcp_connect);
  set_function(env, exports, "unixConnect", unix_connect);
  set_function(env, exports, "tcpConnectCancel", tcp_connect_cancel);
  set_function(env, exports, "socketAddress", socket_address);
  set_function(env, exports, "socketName", socket_name);
  set_function(env, exports, "tcpTune", tcp_tune);
  set_function(env, exports, "tcpKeepAlive", tcp_keep_alive);
  set_function(env, exports, "descriptorDuplicate", descriptor_duplicate);
  set_function(env, exports, "descriptorClose", descriptor_close);
}

#endif
