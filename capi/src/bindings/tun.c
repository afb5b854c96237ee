// TUN devices and the addresses of interfaces, as src/host/io/native-module.ts declares them, over native/io/tun.h and interfaces.h.
#include "io/tun.h"

#include <string.h>

#include "../host.h"
#include "io/interfaces.h"

#ifndef _WIN32

// Values of the binding.
enum { ARENA, OFFSETS, LENGTHS, ON_PACKETS };

static void on_packets(void *data, int count) {
  binding *binding = data;
  engine_run_number(binding->engine, binding->values[ON_PACKETS], count);
}

static const io_tun_callbacks CALLBACKS = {on_packets, binding_free};

// Reads the name of an interface. Returns false with an exception pending.
static bool get_name(JSContext *context, JSValueConst value, char name[IO_INTERFACE_NAME_BYTES]) {
  size_t length;
  const char *text = JS_ToCStringLen(context, &length, value);
  if (text == NULL) return false;
  bool fits = length < IO_INTERFACE_NAME_BYTES && strlen(text) == length;
  if (fits) memcpy(name, text, length + 1);
  JS_FreeCString(context, text);
  if (!fits) throw_system_error(context, UV_EINVAL, "name of the interface");
  return fits;
}

#if defined(__linux__) || defined(__APPLE__)
// tunOpen(name, offload): [descriptor, name, packets are preceded by their family, packets have virtio-net headers, USO is
// accepted]
static JSValue tun_open(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  char name[IO_INTERFACE_NAME_BYTES];
  io_tun_device device;
  if (!get_name(context, values[0], name)) return JS_EXCEPTION;
  int error = io_tun_open(name, JS_ToBool(context, values[1]) == 1, &device);
  if (error != 0) return throw_system_error(context, error, "tun");
  JSValue list = JS_NewArray(context);
  JS_SetPropertyUint32(context, list, 0, JS_NewInt32(context, device.descriptor));
  JS_SetPropertyUint32(context, list, 1, JS_NewString(context, device.name));
  JS_SetPropertyUint32(context, list, 2, JS_NewBool(context, device.has_family));
  JS_SetPropertyUint32(context, list, 3, JS_NewBool(context, device.has_virtio));
  JS_SetPropertyUint32(context, list, 4, JS_NewBool(context, device.has_uso));
  return list;
}
#endif

// tunWatch(descriptor, hasFamily, arena, offsets, lengths, onPackets(count, or a negative system error at the end))
static JSValue tun_watch(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view arena = get_bytes(context, values[2]), offsets = get_bytes(context, values[3]),
             lengths = get_bytes(context, values[4]);
  if (offsets.bytes != lengths.bytes) return throw_system_error(context, UV_EINVAL, "tunWatch");
  const io_tun_memory memory = {arena.data, arena.bytes, (int32_t *)offsets.data, (int32_t *)lengths.data,
                                offsets.bytes / sizeof(int32_t)};
  binding *binding = binding_create(context, values + 2, 4);
  if (binding == NULL) return JS_EXCEPTION;
  int error = io_tun_watch(instance_of(context)->io, get_int(context, values[0]), JS_ToBool(context, values[1]) == 1,
                           &memory, &CALLBACKS, binding);
  if (error == 0) return JS_UNDEFINED;
  binding_free(binding);
  return throw_system_error(context, error, "tunWatch");
}

// tunWrite(descriptor, input, arena, isInput, offsets, lengths, count): number of packets dropped
static JSValue tun_write(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view input = get_bytes(context, values[1]), arena = get_bytes(context, values[2]);
  bytes_view is_input = get_bytes(context, values[3]), offsets = get_bytes(context, values[4]),
             lengths = get_bytes(context, values[5]);
  int32_t packets = get_int(context, values[6]);
  size_t rows = packets < 0 ? 0 : (size_t)packets;
  if (is_input.bytes < rows || offsets.bytes / sizeof(int32_t) < rows || lengths.bytes / sizeof(int32_t) < rows)
    return JS_NewInt32(context, packets);
  const io_tun_batch batch = {.memory = {arena.data, input.data},
                              .memory_bytes = {arena.bytes, input.bytes},
                              .is_input = is_input.data,
                              .offsets = (int32_t *)offsets.data,
                              .lengths = (int32_t *)lengths.data,
                              .count = rows};
  return JS_NewInt64(context, (int64_t)io_tun_write(instance_of(context)->io, get_int(context, values[0]), &batch));
}

// tunShortcuts(descriptor, mtu, hasVirtio, hasUso): permits shortcuts
static JSValue tun_shortcuts(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  const io_tun_format format = {get_int(context, values[1]), JS_ToBool(context, values[2]) == 1,
                                JS_ToBool(context, values[3]) == 1};
  io_tun_shortcuts(instance_of(context)->io, get_int(context, values[0]), &format);
  return JS_UNDEFINED;
}

static JSValue tun_close(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_tun_close(instance_of(context)->io, get_int(context, values[0]));
  return JS_UNDEFINED;
}

#ifdef __linux__
// tunLatency(descriptor, class)
static JSValue tun_latency(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_tun_latency(instance_of(context)->io, get_int(context, values[0]), get_int(context, values[1]));
  return JS_UNDEFINED;
}

static JSValue add(JSContext *context, JSValueConst *values, int (*how)(const char *, const uint8_t *, size_t, int),
                   const char *what) {
  char name[IO_INTERFACE_NAME_BYTES];
  if (!get_name(context, values[0], name)) return JS_EXCEPTION;
  bytes_view address = get_bytes(context, values[1]);
  int error = how(name, address.data, address.bytes, get_int(context, values[2]));
  return error == 0 ? JS_UNDEFINED : throw_system_error(context, error, what);
}

// interfaceAddress(name, 4 or 16 bytes, prefix length)
static JSValue interface_address(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  return add(context, values, io_interface_address, "address");
}

// interfaceRoute(name, 4 or 16 bytes, prefix length)
static JSValue interface_route(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  return add(context, values, io_interface_route, "route");
}

// interfaceIpv4(name): its first address, 4 bytes, or undefined
static JSValue interface_ipv4(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  char name[IO_INTERFACE_NAME_BYTES];
  uint8_t address[4];
  if (!get_name(context, values[0], name)) return JS_EXCEPTION;
  return io_interface_ipv4(name, address) == 0 ? make_bytes(context, address, sizeof address) : JS_UNDEFINED;
}

// interfaceUp(name, MTU)
static JSValue interface_up(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  char name[IO_INTERFACE_NAME_BYTES];
  if (!get_name(context, values[0], name)) return JS_EXCEPTION;
  int error = io_interface_up(name, get_int(context, values[1]));
  return error == 0 ? JS_UNDEFINED : throw_system_error(context, error, "interface");
}

// tcpDestroyFrom(4 or 16 bytes): how many connections from that address were ended
static JSValue tcp_destroy_from(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view address = get_bytes(context, values[0]);
  return number_or_throw(context, io_tcp_destroy_from(address.data, address.bytes), "tcpDestroyFrom");
}

// addressIsLocal(4 or 16 bytes)
static JSValue address_is_local(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view address = get_bytes(context, values[0]);
  if (address.bytes != 4 && address.bytes != 16) return throw_system_error(context, UV_EINVAL, "addressIsLocal");
  return JS_NewBool(context, io_address_is_local(address.data, address.bytes));
}
#endif

static const JSCFunctionListEntry FUNCTIONS[] = {
#if defined(__linux__) || defined(__APPLE__)
    FUNCTION("tunOpen", 2, tun_open),
#endif
    FUNCTION("tunWatch", 6, tun_watch),
    FUNCTION("tunWrite", 7, tun_write),
    FUNCTION("tunShortcuts", 4, tun_shortcuts),
    FUNCTION("tunClose", 1, tun_close),
#ifdef __linux__
    FUNCTION("tunLatency", 2, tun_latency),
    FUNCTION("interfaceAddress", 3, interface_address),
    FUNCTION("interfaceRoute", 3, interface_route),
    FUNCTION("interfaceUp", 2, interface_up),
    FUNCTION("tcpDestroyFrom", 1, tcp_destroy_from),
    FUNCTION("addressIsLocal", 1, address_is_local),
#endif
};

void tun_add(JSContext *context, JSValueConst host) { ADD_FUNCTIONS(context, host, FUNCTIONS); }

#else

void tun_add(JSContext *context, JSValueConst host) { (void)context, (void)host; }

#endif

#ifdef __linux__
static const JSCFunctionListEntry CHECKS[] = {FUNCTION("interfaceIpv4", 1, interface_ipv4)};
#endif

void tun_add_check(JSContext *context, JSValueConst host) {
#ifdef __linux__
  ADD_FUNCTIONS(context, host, CHECKS);
#else
  (void)context, (void)host;
#endif
}
