// Hashes, ciphers and random bytes, from mbedTLS and the system.
#include <stdlib.h>
#include <string.h>

#include "../host.h"
#include "mbedtls/chachapoly.h"
#include "mbedtls/gcm.h"
#include "mbedtls/hkdf.h"
#include "mbedtls/md.h"
#include "mbedtls/md5.h"

#define MAX_RANDOM_BYTES 65536
#define NONCE_BYTES 12
#define TAG_BYTES 16

// hmac(key, data): HMAC-SHA-256
static JSValue hmac(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view key = get_bytes(context, values[0]);
  bytes_view data = get_bytes(context, values[1]);
  uint8_t mac[32];
  const mbedtls_md_info_t *sha256 = mbedtls_md_info_from_type(MBEDTLS_MD_SHA256);
  if (mbedtls_md_hmac(sha256, key.data, key.bytes, data.data, data.bytes, mac) != 0)
    return JS_ThrowInternalError(context, "hmac");
  return make_bytes(context, mac, sizeof mac);
}

// md5(data)
static JSValue md5(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view data = get_bytes(context, values[0]);
  uint8_t digest[16];
  if (mbedtls_md5(data.data, data.bytes, digest) != 0) return JS_ThrowInternalError(context, "md5");
  return make_bytes(context, digest, sizeof digest);
}

// hkdfSha1(key, salt, info, length)
static JSValue hkdf_sha1(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view key = get_bytes(context, values[0]);
  bytes_view salt = get_bytes(context, values[1]);
  bytes_view info = get_bytes(context, values[2]);
  int32_t length = get_int(context, values[3]);
  uint8_t derived[256];
  if (length < 0 || (size_t)length > sizeof derived) return JS_ThrowRangeError(context, "hkdfSha1");
  const mbedtls_md_info_t *sha1 = mbedtls_md_info_from_type(MBEDTLS_MD_SHA1);
  if (mbedtls_hkdf(sha1, salt.data, salt.bytes, key.data, key.bytes, info.data, info.bytes, derived, (size_t)length) != 0)
    return JS_ThrowInternalError(context, "hkdfSha1");
  return make_bytes(context, derived, (size_t)length);
}

// random(length)
static JSValue random_bytes(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  int32_t length = get_int(context, values[0]);
  if (length < 0 || length > MAX_RANDOM_BYTES) return JS_ThrowRangeError(context, "random");
  uint8_t small[256];
  uint8_t *bytes = (size_t)length <= sizeof small ? small : js_malloc(context, (size_t)length);
  if (bytes == NULL) return JS_EXCEPTION;
  int error = length == 0 ? 0 : uv_random(NULL, NULL, bytes, (size_t)length, 0, NULL);
  JSValue result =
      error == 0 ? make_bytes(context, bytes, (size_t)length) : throw_system_error(context, error, "random");
  if (bytes != small) js_free(context, bytes);
  return result;
}

// An AEAD cipher with its key: an object of the script.

typedef struct cipher {
  bool is_gcm;
  mbedtls_gcm_context gcm;
  mbedtls_chachapoly_context chachapoly;
} cipher;

static JSClassID cipher_class;
static uv_once_t class_once = UV_ONCE_INIT;

static void make_class_id(void) { JS_NewClassID(&cipher_class); }

static void free_cipher(JSRuntime *runtime, JSValue value) {
  cipher *cipher = JS_GetOpaque(value, cipher_class);
  if (cipher == NULL) return;
  mbedtls_gcm_free(&cipher->gcm);
  mbedtls_chachapoly_free(&cipher->chachapoly);
  js_free_rt(runtime, cipher);
}

static const JSClassDef CIPHER_CLASS = {"Cipher", .finalizer = free_cipher};

// aead("aes-128-gcm" | "aes-256-gcm" | "chacha20-poly1305", key)
static JSValue aead(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view key = get_bytes(context, values[1]);
  const char *name = JS_ToCString(context, values[0]);
  if (name == NULL) return JS_EXCEPTION;
  bool is_gcm = strncmp(name, "aes-", 4) == 0;
  JS_FreeCString(context, name);
  JSValue object = JS_NewObjectClass(context, (int)cipher_class);
  if (JS_IsException(object)) return object;
  cipher *cipher = js_mallocz(context, sizeof *cipher);
  if (cipher == NULL) {
    JS_FreeValue(context, object);
    return JS_EXCEPTION;
  }
  cipher->is_gcm = is_gcm;
  mbedtls_gcm_init(&cipher->gcm);
  mbedtls_chachapoly_init(&cipher->chachapoly);
  JS_SetOpaque(object, cipher);
  int error = is_gcm                 ? mbedtls_gcm_setkey(&cipher->gcm, MBEDTLS_CIPHER_ID_AES, key.data, (unsigned)key.bytes * 8)
              : key.bytes == 32 ? mbedtls_chachapoly_setkey(&cipher->chachapoly, key.data)
                                     : -1;
  if (error == 0) return object;
  JS_FreeValue(context, object);
  return JS_ThrowRangeError(context, "aead: a key of the wrong length");
}

// aeadSeal(cipher, nonce, plain, from, end, to, at): encrypts plain[from..end), appends the tag; returns the offset in `to` after
// it
static JSValue aead_seal(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  cipher *cipher = JS_GetOpaque2(context, values[0], cipher_class);
  if (cipher == NULL) return JS_EXCEPTION;
  bytes_view nonce = get_bytes(context, values[1]);
  bytes_view plain = get_bytes(context, values[2]);
  bytes_view to = get_bytes(context, values[5]);
  int32_t from = get_int(context, values[3]), end = get_int(context, values[4]), at = get_int(context, values[6]);
  if (nonce.bytes != NONCE_BYTES || from < 0 || end < from || (size_t)end > plain.bytes || at < 0 ||
      (size_t)at + (size_t)(end - from) + TAG_BYTES > to.bytes)
    return JS_ThrowRangeError(context, "aeadSeal");
  size_t length = (size_t)(end - from);
  uint8_t *output = to.data + at;
  int error = cipher->is_gcm ? mbedtls_gcm_crypt_and_tag(&cipher->gcm, MBEDTLS_GCM_ENCRYPT, length, nonce.data, NONCE_BYTES,
                                                         NULL, 0, plain.data + from, output, TAG_BYTES, output + length)
                             : mbedtls_chachapoly_encrypt_and_tag(&cipher->chachapoly, length, nonce.data, NULL, 0,
                                                                  plain.data + from, output, output + length);
  if (error != 0) return JS_ThrowInternalError(context, "aeadSeal");
  return JS_NewInt64(context, at + (int64_t)length + TAG_BYTES);
}

// aeadOpen(cipher, nonce, sealed, from, end): the plaintext of sealed[from..end); undefined if the tag is wrong
static JSValue aead_open(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  cipher *cipher = JS_GetOpaque2(context, values[0], cipher_class);
  if (cipher == NULL) return JS_EXCEPTION;
  bytes_view nonce = get_bytes(context, values[1]);
  bytes_view sealed = get_bytes(context, values[2]);
  int32_t from = get_int(context, values[3]), end = get_int(context, values[4]);
  if (nonce.bytes != NONCE_BYTES || from < 0 || end < from + TAG_BYTES || (size_t)end > sealed.bytes)
    return JS_ThrowRangeError(context, "aeadOpen");
  size_t length = (size_t)(end - from) - TAG_BYTES;
  uint8_t *plain = malloc(length == 0 ? 1 : length);
  if (plain == NULL) return JS_ThrowOutOfMemory(context);
  const uint8_t *input = sealed.data + from;
  int error = cipher->is_gcm ? mbedtls_gcm_auth_decrypt(&cipher->gcm, length, nonce.data, NONCE_BYTES, NULL, 0,
                                                        input + length, TAG_BYTES, input, plain)
                             : mbedtls_chachapoly_auth_decrypt(&cipher->chachapoly, length, nonce.data, NULL, 0,
                                                               input + length, input, plain);
  if (error == 0) return adopt_bytes(context, plain, length);
  free(plain);
  return JS_UNDEFINED;
}

// maskBytes(from, start, end, to, at, mask, phase): as in src/wire/http/websocket-frame.ts
static JSValue mask_bytes(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view from = get_bytes(context, values[0]), to = get_bytes(context, values[3]), mask = get_bytes(context, values[5]);
  int64_t start = get_int(context, values[1]), end = get_int(context, values[2]), at = get_int(context, values[4]);
  uint32_t phase = (uint32_t)get_int(context, values[6]);
  bool is_good = start >= 0 && start <= end && (size_t)end <= from.bytes && at >= 0 && mask.bytes == 4 &&
                 (size_t)(at + (end - start)) <= to.bytes;
  if (!is_good) return JS_ThrowRangeError(context, "maskBytes");
  // In the same memory, `to` is never ahead of `from`.
  for (int64_t i = start; i < end; i++) to.data[at++] = from.data[i] ^ mask.data[phase++ & 3];
  return JS_UNDEFINED;
}

static const JSCFunctionListEntry FUNCTIONS[] = {
    FUNCTION("hmac", 2, hmac),          FUNCTION("md5", 1, md5),
    FUNCTION("hkdfSha1", 4, hkdf_sha1), FUNCTION("random", 1, random_bytes),
    FUNCTION("aead", 2, aead),          FUNCTION("aeadSeal", 7, aead_seal),
    FUNCTION("aeadOpen", 5, aead_open), FUNCTION("maskBytes", 7, mask_bytes),
};

void cryptography_add(JSContext *context, JSValueConst host) {
  // Class numbers belong to the process, and QuickJS assigns them without a lock.
  uv_once(&class_once, make_class_id);
  JS_NewClass(JS_GetRuntime(context), cipher_class, &CIPHER_CLASS);
  ADD_FUNCTIONS(context, host, FUNCTIONS);
}
