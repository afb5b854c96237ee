// Converts JavaScript values to C and back.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "binding.h"

napi_value throw_system_error(napi_env env, int error, const char *call) {
  char text[160];
  snprintf(text, sizeof text, "%s: %s", call, uv_strerror(error));
  napi_throw_error(env, uv_err_name(error), text);
  return NULL;
}

bool get_arguments(napi_env env, napi_callback_info info, size_t count, napi_value *values) {
  size_t given = count;
  napi_get_cb_info(env, info, &given, values, NULL, NULL);
  if (given >= count) return true;
  napi_throw_type_error(env, "ERR_MISSING_ARGS", "too few arguments");
  return false;
}

int32_t get_int(napi_env env, napi_value value) {
  int32_t number = -1;
  napi_get_value_int32(env, value, &number);
  return number;
}

double get_number(napi_env env, napi_value value) {
  double number = 0;
  napi_get_value_double(env, value, &number);
  return number;
}

bool get_bool(napi_env env, napi_value value) {
  bool result = false;
  napi_get_value_bool(env, value, &result);
  return result;
}

bool get_name(napi_env env, napi_value value, char *name, size_t bytes, const char *what) {
  size_t length = 0;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) == napi_ok && length < bytes)
    return napi_get_value_string_utf8(env, value, name, bytes, &length) == napi_ok;
  throw_system_error(env, UV_EINVAL, what);
  return false;
}

bytes_view get_bytes(napi_env env, napi_value value) {
  static const size_t element_bytes[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};
  bytes_view view = {NULL, 0};
  bool is_typed = false;
  napi_is_typedarray(env, value, &is_typed);
  if (!is_typed) return view;
  napi_typedarray_type type;
  size_t length;
  void *data;
  napi_get_typedarray_info(env, value, &type, &length, &data, NULL, NULL);
  view.data = data;
  view.bytes = length * element_bytes[type];
  return view;
}

int32_t *ints_of(bytes_view view) {
  return (int32_t *)(void *)view.data;
}

napi_value make_int(napi_env env, int64_t value) {
  napi_value result;
  napi_create_int64(env, value, &result);
  return result;
}

napi_value make_bool(napi_env env, bool value) {
  napi_value result;
  napi_get_boolean(env, value, &result);
  return result;
}

napi_value make_bytes(napi_env env, const uint8_t *bytes, size_t count) {
  void *data;
  napi_value buffer, result;
  napi_create_arraybuffer(env, count, &data, &buffer);
  memcpy(data, bytes, count);
  napi_create_typedarray(env, napi_uint8_array, count, buffer, 0, &result);
  return result;
}

void set_function(napi_env env, napi_value exports, const char *name, napi_callback function) {
  napi_value value;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, function, NULL, &value);
  napi_set_named_property(env, exports, name, value);
}

callee *callee_new(napi_env env, const char *name, const napi_value *values, size_t count) {
  callee *made = calloc(1, sizeof *made);
  if (made == NULL) {
    throw_system_error(env, UV_ENOMEM, name);
    return NULL;
  }
  napi_value text, resource;
  made->env = env;
  napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &text);
  napi_create_object(env, &resource);
  napi_async_init(env, resource, text, &made->context);
  for (size_t i = 0; i < count; i++) napi_create_reference(env, values[i], 1, &made->references[i]);
  return made;
}

static void call(callee *callee, int function, size_t argc, int64_t number) {
  napi_env env = callee->env;
  napi_value argument = make_int(env, number), target, global;
  if (napi_get_reference_value(env, callee->references[function], &target) != napi_ok || target == NULL) return;
  napi_get_global(env, &global);
  if (napi_make_callback(env, callee->context, global, target, argc, &argument, NULL) == napi_ok) return;
  bool is_pending = false;
  napi_is_exception_pending(env, &is_pending);
  if (!is_pending) return;
  napi_value error;
  napi_get_and_clear_last_exception(env, &error);
  napi_fatal_exception(env, error);
}

void callee_call(callee *callee, int function, size_t argc, int64_t number) {
  // The callee may be gone after the call.
  napi_env env = callee->env;
  napi_handle_scope scope;
  napi_open_handle_scope(env, &scope);
  call(callee, function, argc, number);
  napi_close_handle_scope(env, scope);
}

void callee_free(void *data) {
  callee *callee = data;
  napi_async_destroy(callee->env, callee->context);
  for (size_t i = 0; i < CALLEE_REFERENCES; i++) {
    if (callee->references[i] != NULL) napi_delete_reference(callee->env, callee->references[i]);
  }
  free(callee);
}
