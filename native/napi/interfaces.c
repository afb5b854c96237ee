#include "../io/interfaces.h"

#include "../io/address.h"
#include "binding.h"

#ifndef __linux__

void interfaces_init(napi_env env, napi_value exports) {
  (void)env, (void)exports;
}

#else

static bool get_interface(napi_env env, napi_value value, char name[IO_INTERFACE_NAME_BYTES]) {
  return get_name(env, value, name, IO_INTERFACE_NAME_BYTES, "name of the interface");
}

static napi_value add(napi_env env, napi_callback_info info, int (*how)(const char *, const uint8_t *, size_t, int),
                      const char *what) {
  napi_value values[3];
  char name[IO_INTERFACE_NAME_BYTES];
  if (!get_arguments(env, info, 3, values) || !get_interface(env, values[0], name)) return NULL;
  bytes_view address = get_bytes(env, values[1]);
  int error = how(name, address.data, address.bytes, get_int(env, values[2]));
  return error == 0 ? NULL : throw_system_error(env, error, what);
}

// interfaceAddress(name, 4 or 16 bytes, prefix length); an address that the interface already has is not an error
static napi_value interface_address(napi_env env, napi_callback_info info) {
  return add(env, info, io_interface_address, "address");
}

// interfaceRoute(name, 4 or 16 bytes, prefix length): routes a network to the interface
static napi_value interface_route(napi_env env, napi_callback_info info) {
  return add(env, info, io_interface_route, "route");
}

// interfaceIpv4(name): its first address, 4 bytes, or undefined
static napi_value interface_ipv4(napi_env env, napi_callback_info info) {
  napi_value value;
  char name[IO_INTERFACE_NAME_BYTES];
  uint8_t address[4];
  if (!get_arguments(env, info, 1, &value) || !get_interface(env, value, name)) return NULL;
  return io_interface_ipv4(name, address) == 0 ? make_bytes(env, address, sizeof address) : NULL;
}

// interfaceUp(name, MTU)
static napi_value interface_up(napi_env env, napi_callback_info info) {
  napi_value values[2];
  char name[IO_INTERFACE_NAME_BYTES];
  if (!get_arguments(env, info, 2, values) || !get_interface(env, values[0], name)) return NULL;
  int error = io_interface_up(name, get_int(env, values[1]));
  return error == 0 ? NULL : throw_system_error(env, error, "interface");
}

// tcpDestroyFrom(4 or 16 bytes): how many connections from that address were ended; their applications get ECONNABORTED
static napi_value tcp_destroy_from(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  bytes_view address = get_bytes(env, value);
  int64_t ended = io_tcp_destroy_from(address.data, address.bytes);
  return ended < 0 ? throw_system_error(env, (int)ended, "tcpDestroyFrom") : make_int(env, ended);
}

// addressIsLocal(4 or 16 bytes): true if the system has that address or treats it as its own
static napi_value address_is_local(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  bytes_view address = get_bytes(env, value);
  if (address.bytes != 4 && address.bytes != 16) return throw_system_error(env, UV_EINVAL, "addressIsLocal");
  return make_bool(env, io_address_is_local(address.data, address.bytes));
}

void interfaces_init(napi_env env, napi_value exports) {
  set_function(env, exports, "interfaceAddress", interface_address);
  set_function(env, exports, "interfaceRoute", interface_route);
  set_function(env, exports, "interfaceIpv4", interface_ipv4);
  set_function(env, exports, "interfaceUp", interface_up);
  set_function(env, exports, "tcpDestroyFrom", tcp_destroy_from);
  set_function(env, exports, "addressIsLocal", address_is_local);
}

#endif
