#include "../io/tun.h"

#include "binding.h"

#ifdef _WIN32

void tun_init(napi_env env, napi_value exports) {
  (void)env, (void)exports;
}

#else

// References of its callee.
enum { ARENA, OFFSETS, LENGTHS, ON_PACKETS, REFERENCES };

static void on_packets(void *user_data, int count) {
  callee_call(user_data, ON_PACKETS, 1, count);
}

static const io_tun_callbacks callbacks = {on_packets, callee_free};

#if defined(__linux__) || defined(__APPLE__)
// tunOpen(name, offload): [descriptor, name, packets are preceded by their family, packets have virtio-net headers, USO is
// accepted]
static napi_value tun_open(napi_env env, napi_callback_info info) {
  napi_value values[2], result, text;
  char name[IO_INTERFACE_NAME_BYTES];
  io_tun_device device;
  if (!get_arguments(env, info, 2, values) || !get_name(env, values[0], name, sizeof name, "name of the interface"))
    return NULL;
  int error = io_tun_open(name, get_bool(env, values[1]), &device);
  if (error != 0) return throw_system_error(env, error, "tun");
  napi_create_array_with_length(env, 5, &result);
  napi_create_string_utf8(env, device.name, NAPI_AUTO_LENGTH, &text);
  napi_set_element(env, result, 0, make_int(env, device.descriptor));
  napi_set_element(env, result, 1, text);
  napi_set_element(env, result, 2, make_bool(env, device.has_family));
  napi_set_element(env, result, 3, make_bool(env, device.has_virtio));
  napi_set_element(env, result, 4, make_bool(env, device.has_uso));
  return result;
}
#endif

// tunWatch(descriptor, hasFamily, arena, offsets, lengths, onPackets(count, or a negative system error at the end))
static napi_value tun_watch(napi_env env, napi_callback_info info) {
  napi_value values[2 + REFERENCES];
  if (!get_arguments(env, info, 2 + REFERENCES, values)) return NULL;
  bytes_view arena = get_bytes(env, values[2]), offsets = get_bytes(env, values[3]), lengths = get_bytes(env, values[4]);
  if (offsets.bytes != lengths.bytes) return throw_system_error(env, UV_EINVAL, "tunWatch");
  io_tun_memory memory = {arena.data, arena.bytes, ints_of(offsets), ints_of(lengths), offsets.bytes / sizeof(int32_t)};
  callee *callee = callee_new(env, "underpass:tun", values + 2, REFERENCES);
  if (callee == NULL) return NULL;
  int error = io_tun_watch(loop_of(env), get_int(env, values[0]), get_bool(env, values[1]), &memory, &callbacks, callee);
  if (error == 0) return NULL;
  callee_free(callee);
  return throw_system_error(env, error, "tunWatch");
}

// tunWrite(descriptor, input, arena, isInput, offsets, lengths, count): number of packets dropped. Packet i is in `input` if
// isInput[i] is 1, else in `arena`.
static napi_value tun_write(napi_env env, napi_callback_info info) {
  napi_value values[7];
  if (!get_arguments(env, info, 7, values)) return NULL;
  bytes_view input = get_bytes(env, values[1]), arena = get_bytes(env, values[2]);
  bytes_view is_input = get_bytes(env, values[3]), offsets = get_bytes(env, values[4]), lengths = get_bytes(env, values[5]);
  int32_t count = get_int(env, values[6]);
  size_t rows = count < 0 ? 0 : (size_t)count;
  if (is_input.bytes < rows || offsets.bytes / sizeof(int32_t) < rows || lengths.bytes / sizeof(int32_t) < rows)
    return make_int(env, count);
  io_tun_batch batch = {.memory = {arena.data, input.data},
                        .memory_bytes = {arena.bytes, input.bytes},
                        .is_input = is_input.data,
                        .offsets = ints_of(offsets),
                        .lengths = ints_of(lengths),
                        .count = rows};
  return make_int(env, (int64_t)io_tun_write(loop_of(env), get_int(env, values[0]), &batch));
}

// tunShortcuts(descriptor, mtu, hasVirtio, hasUso): permits shortcuts
static napi_value tun_shortcuts(napi_env env, napi_callback_info info) {
  napi_value values[4];
  if (!get_arguments(env, info, 4, values)) return NULL;
  io_tun_format format = {get_int(env, values[1]), get_bool(env, values[2]), get_bool(env, values[3])};
  io_tun_shortcuts(loop_of(env), get_int(env, values[0]), &format);
  return NULL;
}

#ifdef __linux__
// tunLatency(descriptor, class)
static napi_value tun_latency(napi_env env, napi_callback_info info) {
  napi_value values[2];
  if (get_arguments(env, info, 2, values)) io_tun_latency(loop_of(env), get_int(env, values[0]), get_int(env, values[1]));
  return NULL;
}
#endif

// tunClose(descriptor): stops watching it and closes it
static napi_value tun_close(napi_env env, napi_callback_info info) {
  napi_value value;
  if (get_arguments(env, info, 1, &value)) io_tun_close(loop_of(env), get_int(env, value));
  return NULL;
}

void tun_init(napi_env env, napi_value exports) {
#if defined(__linux__) || defined(__APPLE__)
  set_function(env, exports, "tunOpen", tun_open);
#endif
  set_function(env, exports, "tunWatch", tun_watch);
  set_function(env, exports, "tunWrite", tun_write);
  set_function(env, exports, "tunShortcuts", tun_shortcuts);
  set_function(env, exports, "tunClose", tun_close);
#ifdef __linux__
  set_function(env, exports, "tunLatency", tun_latency);
#endif
}

#endif
