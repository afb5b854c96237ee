#include "../io/udp.h"

#include <string.h>

#include "../io/address.h"
#include "binding.h"

// References of its callee.
enum { ARENA, ROWS, ADDRESSES, ON_BATCH, ERRORS, ON_ERRORS, REFERENCES };

static void on_received(void *user_data, int32_t count) {
  callee_call(user_data, ON_BATCH, 1, count);
}

static void on_errors(void *user_data, int32_t count) {
  callee_call(user_data, ON_ERRORS, 1, count);
}

static const io_udp_callbacks callbacks = {on_received, on_errors, callee_free};

// udpSizes(): [arena bytes, receive rows, address bytes, most rows of one udpSend, rows of errors]
static napi_value udp_sizes(napi_env env, napi_callback_info info) {
  (void)info;
  static const int64_t sizes[] = {IO_UDP_ARENA_BYTES, IO_UDP_RECEIVE_ROWS, IO_UDP_ADDRESSES_BYTES, IO_UDP_MAX_SEND_ROWS,
                                  IO_UDP_ERROR_ROWS};
  napi_value result;
  napi_create_array_with_length(env, 5, &result);
  for (uint32_t i = 0; i < 5; i++) napi_set_element(env, result, i, make_int(env, sizes[i]));
  return result;
}

// udpSetup(arena, rows, addresses, onBatch, errors, onErrors): once per environment; the arrays have the sizes that udpSizes
// returns
static napi_value udp_setup(napi_env env, napi_callback_info info) {
  napi_value values[REFERENCES];
  if (!get_arguments(env, info, REFERENCES, values)) return NULL;
  bytes_view arena = get_bytes(env, values[ARENA]), rows = get_bytes(env, values[ROWS]);
  bytes_view addresses = get_bytes(env, values[ADDRESSES]), errors = get_bytes(env, values[ERRORS]);
  if (arena.bytes < IO_UDP_ARENA_BYTES || addresses.bytes < IO_UDP_ADDRESSES_BYTES ||
      rows.bytes < (size_t)IO_UDP_RECEIVE_ROWS * IO_UDP_RECEIVE_ROW_INTS * sizeof(int32_t) ||
      errors.bytes < (size_t)IO_UDP_ERROR_ROWS * IO_UDP_ERROR_ROW_INTS * sizeof(int32_t))
    return throw_system_error(env, UV_EINVAL, "udpSetup");
  io_udp_memory memory = {arena.data, ints_of(rows), addresses.data, ints_of(errors)};
  callee *callee = callee_new(env, "underpass:udp", values, REFERENCES);
  if (callee == NULL) return NULL;
  int error = io_udp_setup(loop_of(env), &memory, &callbacks, callee);
  if (error == 0) return NULL;
  callee_free(callee);
  return throw_system_error(env, error, "udpSetup");
}

// udpOpen(address, reusePort, receiveBytes, sendBytes, tellLocals): id
static napi_value udp_open(napi_env env, napi_callback_info info) {
  napi_value values[5];
  if (!get_arguments(env, info, 5, values)) return NULL;
  bytes_view address = get_bytes(env, values[0]);
  io_udp_options options = {.address = address.data,
                            .address_bytes = address.bytes,
                            .reuse_port = get_bool(env, values[1]),
                            .tells_locals = get_bool(env, values[4]),
                            .receive_bytes = get_int(env, values[2]),
                            .send_bytes = get_int(env, values[3])};
  int32_t id = io_udp_open(loop_of(env), &options);
  return id < 0 ? throw_system_error(env, id, "bind") : make_int(env, id);
}

#ifndef _WIN32
// udpAdopt(descriptor, receiveBytes, sendBytes): id
static napi_value udp_adopt(napi_env env, napi_callback_info info) {
  napi_value values[3];
  if (!get_arguments(env, info, 3, values)) return NULL;
  io_udp_options options = {.receive_bytes = get_int(env, values[1]), .send_bytes = get_int(env, values[2])};
  int32_t id = io_udp_adopt(loop_of(env), get_int(env, values[0]), &options);
  return id < 0 ? throw_system_error(env, id, "udpAdopt") : make_int(env, id);
}

// udpDescriptor(id): another descriptor of the socket
static napi_value udp_descriptor(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  int fd = io_udp_descriptor(loop_of(env), get_int(env, value));
  return fd < 0 ? throw_system_error(env, fd, "udpDescriptor") : make_int(env, fd);
}
#endif

// udpClose(id)
static napi_value udp_close(napi_env env, napi_callback_info info) {
  napi_value value;
  if (get_arguments(env, info, 1, &value)) io_udp_close(loop_of(env), get_int(env, value));
  return NULL;
}

#ifdef __linux__
// udpTellErrors(id): enables reports of ICMP errors for its datagrams
static napi_value udp_tell_errors(napi_env env, napi_callback_info info) {
  napi_value value;
  if (get_arguments(env, info, 1, &value)) io_udp_tell_errors(loop_of(env), get_int(env, value));
  return NULL;
}

// udpForbidFragments(id): a datagram that would have to be fragmented is dropped, here or on its way
static napi_value udp_forbid_fragments(napi_env env, napi_callback_info info) {
  napi_value value;
  if (get_arguments(env, info, 1, &value)) io_udp_forbid_fragments(loop_of(env), get_int(env, value));
  return NULL;
}

// udpLatency(id, class)
static napi_value udp_latency(napi_env env, napi_callback_info info) {
  napi_value values[2];
  if (get_arguments(env, info, 2, values)) io_udp_latency(loop_of(env), get_int(env, values[0]), get_int(env, values[1]));
  return NULL;
}
#endif

#ifndef _WIN32
// udpDscp(id, dscp): sets the DSCP of what it sends from now on, with ECN 0
static napi_value udp_dscp(napi_env env, napi_callback_info info) {
  napi_value values[2];
  if (get_arguments(env, info, 2, values)) io_udp_dscp(loop_of(env), get_int(env, values[0]), get_int(env, values[1]));
  return NULL;
}

// udpRestrict(id, interface or "", mark or 0)
static napi_value udp_restrict(napi_env env, napi_callback_info info) {
  napi_value values[3];
  char name[IO_INTERFACE_NAME_BYTES];
  if (!get_arguments(env, info, 3, values) || !get_name(env, values[1], name, sizeof name, "name of the interface"))
    return NULL;
  int error = io_udp_restrict(loop_of(env), get_int(env, values[0]), name, (uint32_t)get_number(env, values[2]));
  return error == 0 ? NULL : throw_system_error(env, error, name);
}
#endif

// udpErrors(): number of rows of errors that have not been reported; the caller then reports them
static napi_value udp_errors(napi_env env, napi_callback_info info) {
  (void)info;
  return make_int(env, io_udp_errors(loop_of(env)));
}

// udpPort(id): number; udpReceiveBuffer(id): bytes that the system granted
static napi_value udp_port(napi_env env, napi_callback_info info) {
  napi_value value;
  return get_arguments(env, info, 1, &value) ? make_int(env, io_udp_port(loop_of(env), get_int(env, value))) : NULL;
}

static napi_value udp_receive_buffer(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  return make_int(env, io_udp_receive_buffer(loop_of(env), get_int(env, value)));
}

// udpSend(data, rows, count, addresses, headers): how many datagrams were dropped, now or since the last call
static napi_value udp_send(napi_env env, napi_callback_info info) {
  napi_value values[5];
  if (!get_arguments(env, info, 5, values)) return NULL;
  bytes_view data = get_bytes(env, values[0]), rows = get_bytes(env, values[1]);
  bytes_view addresses = get_bytes(env, values[3]), headers = get_bytes(env, values[4]);
  io_udp_batch batch = {.rows = ints_of(rows),
                        .count = get_int(env, values[2]),
                        .data = data.data,
                        .data_bytes = data.bytes,
                        .headers = headers.data,
                        .header_bytes = headers.bytes,
                        .addresses = addresses.data,
                        .address_bytes = addresses.bytes};
  bool is_within = batch.count >= 0 && (size_t)batch.count <= rows.bytes / (IO_UDP_SEND_ROW_INTS * sizeof(int32_t));
  int64_t dropped = is_within ? io_udp_send(loop_of(env), &batch) : UV_EINVAL;
  if (dropped >= 0) return make_int(env, dropped);
  napi_throw_range_error(env, "ERR_OUT_OF_RANGE", "udpSend: rows");
  return NULL;
}

// udpCounts(Float64Array): fills it with the counts by reason since the start
static napi_value udp_counts(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  bytes_view out = get_bytes(env, value);
  double counts[IO_UDP_COUNTS];
  io_udp_counts(loop_of(env), counts);
  if (out.bytes >= sizeof counts) memcpy(out.data, counts, sizeof counts);
  return NULL;
}

void udp_init(napi_env env, napi_value exports) {
  set_function(env, exports, "udpSizes", udp_sizes);
  set_function(env, exports, "udpSetup", udp_setup);
  set_function(env, exports, "udpOpen", udp_open);
  set_function(env, exports, "udpClose", udp_close);
  set_function(env, exports, "udpErrors", udp_errors);
#ifdef __linux__
  set_function(env, exports, "udpTellErrors", udp_tell_errors);
  set_function(env, exports, "udpForbidFragments", udp_forbid_fragments);
  set_function(env, exports, "udpLatency", udp_latency);
#endif
#ifndef _WIN32
  set_function(env, exports, "udpAdopt", udp_adopt);
  set_function(env, exports, "udpDescriptor", udp_descriptor);
  set_function(env, exports, "udpRestrict", udp_restrict);
  set_function(env, exports, "udpDscp", udp_dscp);
#endif
  set_function(env, exports, "udpPort", udp_port);
  set_function(env, exports, "udpReceiveBuffer", udp_receive_buffer);
  set_function(env, exports, "udpSend", udp_send);
  set_function(env, exports, "udpCounts", udp_counts);
}
