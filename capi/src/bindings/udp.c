// UDP in batches, as src/host/io/native-module.ts declares it, over native/io/udp.h.
#include "io/udp.h"

#include "../host.h"
#include "io/address.h"

// Values of the binding.
enum { ARENA, ROWS, ADDRESSES, ON_BATCH, ERRORS, ON_ERRORS };

static void on_received(void *data, int32_t count) {
  binding *binding = data;
  engine_run_number(binding->engine, binding->values[ON_BATCH], count);
}

static void on_errors(void *data, int32_t count) {
  binding *binding = data;
  engine_run_number(binding->engine, binding->values[ON_ERRORS], count);
}

static const io_udp_callbacks CALLBACKS = {on_received, on_errors, binding_free};

// zoneScope(zone): the number of the interface
static JSValue zone_scope(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  const char *zone = JS_ToCString(context, values[0]);
  if (zone == NULL) return JS_EXCEPTION;
  int64_t scope = io_zone_scope(zone);
  JS_FreeCString(context, zone);
  return number_or_throw(context, scope, "zone");
}

static JSValue udp_sizes(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count, (void)values;
  static const int32_t SIZES[] = {IO_UDP_ARENA_BYTES, IO_UDP_RECEIVE_ROWS, IO_UDP_ADDRESSES_BYTES,
                                  IO_UDP_MAX_SEND_ROWS, IO_UDP_ERROR_ROWS};
  JSValue list = JS_NewArray(context);
  for (uint32_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++)
    JS_SetPropertyUint32(context, list, i, JS_NewInt32(context, SIZES[i]));
  return list;
}

// udpSetup(arena, rows, addresses, onBatch, errors, onErrors)
static JSValue udp_setup(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view arena = get_bytes(context, values[ARENA]);
  bytes_view rows = get_bytes(context, values[ROWS]);
  bytes_view addresses = get_bytes(context, values[ADDRESSES]);
  bytes_view errors = get_bytes(context, values[ERRORS]);
  if (arena.bytes < IO_UDP_ARENA_BYTES || addresses.bytes < IO_UDP_ADDRESSES_BYTES ||
      rows.bytes < IO_UDP_RECEIVE_ROWS * IO_UDP_RECEIVE_ROW_INTS * sizeof(int32_t) ||
      errors.bytes < IO_UDP_ERROR_ROWS * IO_UDP_ERROR_ROW_INTS * sizeof(int32_t))
    return throw_system_error(context, UV_EINVAL, "udpSetup");
  binding *binding = binding_create(context, values, 6);
  if (binding == NULL) return JS_EXCEPTION;
  const io_udp_memory memory = {arena.data, (int32_t *)rows.data, addresses.data, (int32_t *)errors.data};
  int error = io_udp_setup(instance_of(context)->io, &memory, &CALLBACKS, binding);
  if (error == 0) return JS_UNDEFINED;
  binding_free(binding);
  return throw_system_error(context, error, "udpSetup");
}

// udpOpen(address, reusePort, receiveBytes, sendBytes, tellLocals): the socket's number
static JSValue udp_open(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view address = get_bytes(context, values[0]);
  const io_udp_options options = {
      .address = address.data,
      .address_bytes = address.bytes,
      .reuse_port = JS_ToBool(context, values[1]) == 1,
      .receive_bytes = get_int(context, values[2]),
      .send_bytes = get_int(context, values[3]),
      .tells_locals = JS_ToBool(context, values[4]) == 1,
  };
  return number_or_throw(context, io_udp_open(instance_of(context)->io, &options), "bind");
}

static JSValue udp_close(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_udp_close(instance_of(context)->io, get_int(context, values[0]));
  return JS_UNDEFINED;
}

static JSValue udp_tell_errors(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_udp_tell_errors(instance_of(context)->io, get_int(context, values[0]));
  return JS_UNDEFINED;
}

static JSValue udp_forbid_fragments(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_udp_forbid_fragments(instance_of(context)->io, get_int(context, values[0]));
  return JS_UNDEFINED;
}

static JSValue udp_latency(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_udp_latency(instance_of(context)->io, get_int(context, values[0]), get_int(context, values[1]));
  return JS_UNDEFINED;
}

static JSValue udp_dscp(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_udp_dscp(instance_of(context)->io, get_int(context, values[0]), get_int(context, values[1]));
  return JS_UNDEFINED;
}

// udpRestrict(socket, interface, mark)
static JSValue udp_restrict(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  const char *name = JS_ToCString(context, values[1]);
  if (name == NULL) return JS_EXCEPTION;
  uint32_t mark = (uint32_t)get_number(context, values[2]);
  int error = io_udp_restrict(instance_of(context)->io, get_int(context, values[0]), name, mark);
  JS_FreeCString(context, name);
  return error == 0 ? JS_UNDEFINED : throw_system_error(context, error, "setsockopt");
}

static JSValue udp_errors(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count, (void)values;
  return JS_NewInt32(context, io_udp_errors(instance_of(context)->io));
}

static JSValue udp_port(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  return JS_NewInt32(context, io_udp_port(instance_of(context)->io, get_int(context, values[0])));
}

static JSValue udp_receive_buffer(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  return JS_NewInt32(context, io_udp_receive_buffer(instance_of(context)->io, get_int(context, values[0])));
}

// udpSend(data, rows, count, addresses, headers): how many datagrams were dropped
static JSValue udp_send(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view data = get_bytes(context, values[0]);
  bytes_view rows = get_bytes(context, values[1]);
  bytes_view addresses = get_bytes(context, values[3]);
  bytes_view headers = get_bytes(context, values[4]);
  int32_t row_count = get_int(context, values[2]);
  if (row_count < 0 || rows.bytes / (IO_UDP_SEND_ROW_INTS * sizeof(int32_t)) < (size_t)row_count)
    return throw_system_error(context, UV_EINVAL, "udpSend");
  const io_udp_batch batch = {.rows = (const int32_t *)rows.data,
                              .count = row_count,
                              .data = data.data,
                              .data_bytes = data.bytes,
                              .headers = headers.data,
                              .header_bytes = headers.bytes,
                              .addresses = addresses.data,
                              .address_bytes = addresses.bytes};
  return number_or_throw(context, io_udp_send(instance_of(context)->io, &batch), "udpSend");
}

static JSValue udp_counts(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view counts = get_bytes(context, values[0]);
  if (counts.bytes < IO_UDP_COUNTS * sizeof(double)) return throw_system_error(context, UV_EINVAL, "udpCounts");
  io_udp_counts(instance_of(context)->io, (double *)counts.data);
  return JS_UNDEFINED;
}

static const JSCFunctionListEntry FUNCTIONS[] = {
    FUNCTION("zoneScope", 1, zone_scope),
    FUNCTION("udpSizes", 0, udp_sizes),
    FUNCTION("udpSetup", 6, udp_setup),
    FUNCTION("udpOpen", 5, udp_open),
    FUNCTION("udpClose", 1, udp_close),
    FUNCTION("udpErrors", 0, udp_errors),
    FUNCTION("udpPort", 1, udp_port),
    FUNCTION("udpReceiveBuffer", 1, udp_receive_buffer),
    FUNCTION("udpSend", 5, udp_send),
    FUNCTION("udpCounts", 1, udp_counts),
#ifdef __linux__
    FUNCTION("udpTellErrors", 1, udp_tell_errors),
    FUNCTION("udpForbidFragments", 1, udp_forbid_fragments),
    FUNCTION("udpLatency", 2, udp_latency),
#endif
#ifndef _WIN32
    FUNCTION("udpDscp", 2, udp_dscp),
    FUNCTION("udpRestrict", 3, udp_restrict),
#endif
};

void udp_add(JSContext *context, JSValueConst host) { ADD_FUNCTIONS(context, host, FUNCTIONS); }
