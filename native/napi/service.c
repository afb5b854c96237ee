#include "../io/service.h"

#include "binding.h"

#ifdef __linux__
#define PATH_BYTES 128
#define MESSAGE_BYTES 256

// serviceNotify(socket, message, Int32Array of up to 253 descriptors, timeoutMs)
static napi_value service_notify(napi_env env, napi_callback_info info) {
  napi_value values[4];
  char path[PATH_BYTES], message[MESSAGE_BYTES];
  if (!get_arguments(env, info, 4, values) || !get_name(env, values[0], path, sizeof path, "serviceNotify: socket") ||
      !get_name(env, values[1], message, sizeof message, "serviceNotify: message"))
    return NULL;
  bytes_view descriptors = get_bytes(env, values[2]);
  int error = io_service_notify(path, message, ints_of(descriptors), descriptors.bytes / sizeof(int32_t),
                                get_int(env, values[3]));
  return error == 0 ? NULL : throw_system_error(env, error, "notify");
}

// serviceBarrier(socket, timeoutMs)
static napi_value service_barrier(napi_env env, napi_callback_info info) {
  napi_value values[2];
  char path[PATH_BYTES];
  if (!get_arguments(env, info, 2, values) || !get_name(env, values[0], path, sizeof path, "serviceBarrier: socket"))
    return NULL;
  int error = io_service_barrier(path, get_int(env, values[1]));
  return error == 0 ? NULL : throw_system_error(env, error, "barrier");
}

// sealedMemory(bytes): descriptor
static napi_value sealed_memory(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  bytes_view bytes = get_bytes(env, value);
  int fd = io_sealed_memory(bytes.data, bytes.bytes);
  return fd < 0 ? throw_system_error(env, fd, "memfd_create") : make_int(env, fd);
}
#endif

void service_init(napi_env env, napi_value exports) {
#ifdef __linux__
  set_function(env, exports, "serviceNotify", service_notify);
  set_function(env, exports, "serviceBarrier", service_barrier);
  set_function(env, exports, "sealedMemory", sealed_memory);
#else
  (void)env, (void)exports;
#endif
}
