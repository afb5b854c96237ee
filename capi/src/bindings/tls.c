// TLS clients from mbedTLS, without I/O: the script passes in the bytes that arrived, and takes the bytes to send.
#include <stdlib.h>
#include <string.h>

#include "../host.h"
#include "mbedtls/error.h"
#include "mbedtls/ssl.h"
#include "mbedtls/threading.h"
#include "psa/crypto.h"

#define MAX_PROTOCOLS 8

// Waiting bytes, from `at` on.
typedef struct queue {
  uint8_t *data;
  size_t at, length, capacity;
} queue;

typedef struct tls {
  mbedtls_ssl_context ssl;
  mbedtls_ssl_config config;
  mbedtls_x509_crt ca, certificate;
  mbedtls_pk_context key;
  char *protocols[MAX_PROTOCOLS + 1];
  // The name that the certificate must have. An IP is checked, but never sent as a name (RFC 6066 §3).
  char *name;
  bool checks_ip;
  queue input, output;
} tls;

#if defined(MBEDTLS_USE_PSA_CRYPTO) && !defined(MBEDTLS_THREADING_C)
#error "instances on several threads would share the keys of this mbedTLS without locks"
#endif
// With TLS 1.3, keys are in a store that instances share. In an unmodified mbedTLS 3.6.6, a TLS 1.3 client cannot reach many TLS
// 1.2 servers (mbedtls/tls12-client.c).
#if defined(UNDERPASS_OWN_MBEDTLS) || \
    (defined(MBEDTLS_SSL_PROTO_TLS1_3) && defined(MBEDTLS_THREADING_C) && MBEDTLS_VERSION_NUMBER != 0x03060600)
#define HAS_TLS_1_3 true
#else
#define HAS_TLS_1_3 false
#endif

static JSClassID tls_class;
static uv_once_t process_once = UV_ONCE_INIT;

#ifdef MBEDTLS_PSA_CRYPTO_C
static uv_once_t psa_once = UV_ONCE_INIT;
static psa_status_t psa_status;

// The store stays, because nothing shows whether others still use it. Called once, because a system's mbedTLS may not lock here.
static void start_psa(void) { psa_status = psa_crypto_init(); }
#endif

#ifdef UNDERPASS_OWN_MBEDTLS
// A failure is fatal, as with libuv's locks, because later calls could not report it.
static void create_mutex(mbedtls_threading_mutex_t *mutex) {
  if (uv_mutex_init(mutex) != 0) abort();
}

static int lock_mutex(mbedtls_threading_mutex_t *mutex) {
  uv_mutex_lock(mutex);
  return 0;
}

static int unlock_mutex(mbedtls_threading_mutex_t *mutex) {
  uv_mutex_unlock(mutex);
  return 0;
}
#endif

#ifdef MBEDTLS_PSA_CRYPTO_EXTERNAL_RNG
psa_status_t mbedtls_psa_external_get_random(mbedtls_psa_external_random_context_t *context, uint8_t *output, size_t size,
                                             size_t *length) {
  (void)context;
  if (uv_random(NULL, NULL, output, size, 0, NULL) != 0) return PSA_ERROR_INSUFFICIENT_ENTROPY;
  *length = size;
  return PSA_SUCCESS;
}
#endif

static void prepare_process(void) {
  JS_NewClassID(&tls_class);
#ifdef UNDERPASS_OWN_MBEDTLS
  mbedtls_threading_set_alt(create_mutex, uv_mutex_destroy, lock_mutex, unlock_mutex);
#endif
}

static void free_tls(JSRuntime *runtime, JSValue value) {
  (void)runtime;
  tls *tls = JS_GetOpaque(value, tls_class);
  if (tls == NULL) return;
  mbedtls_ssl_free(&tls->ssl);
  mbedtls_ssl_config_free(&tls->config);
  mbedtls_x509_crt_free(&tls->ca);
  mbedtls_x509_crt_free(&tls->certificate);
  mbedtls_pk_free(&tls->key);
  for (int i = 0; i < MAX_PROTOCOLS; i++) free(tls->protocols[i]);
  free(tls->name);
  free(tls->input.data);
  free(tls->output.data);
  free(tls);
}

static const JSClassDef TLS_CLASS = {"Tls", .finalizer = free_tls};

static bool queue_add(queue *queue, const uint8_t *bytes, size_t length) {
  if (queue->at == queue->length) queue->at = queue->length = 0;
  if (queue->length + length > queue->capacity) {
    size_t capacity = 2 * (queue->length + length);
    uint8_t *data = realloc(queue->data, capacity);
    if (data == NULL) return false;
    queue->data = data;
    queue->capacity = capacity;
  }
  if (length > 0) memcpy(queue->data + queue->length, bytes, length);
  queue->length += length;
  return true;
}

static JSValue queue_take(JSContext *context, queue *queue) {
  JSValue bytes = make_bytes(context, queue->data + queue->at, queue->length - queue->at);
  queue->at = queue->length = 0;
  return bytes;
}

static int send_bytes(void *data, const unsigned char *bytes, size_t length) {
  return queue_add(&((tls *)data)->output, bytes, length) ? (int)length : MBEDTLS_ERR_SSL_ALLOC_FAILED;
}

static int receive_bytes(void *data, unsigned char *buffer, size_t length) {
  queue *input = &((tls *)data)->input;
  size_t count = input->length - input->at;
  if (count == 0) return MBEDTLS_ERR_SSL_WANT_READ;
  if (count > length) count = length;
  memcpy(buffer, input->data + input->at, count);
  input->at += count;
  return (int)count;
}

static int random_for_tls(void *data, unsigned char *bytes, size_t length) {
  (void)data;
  return uv_random(NULL, NULL, bytes, length, 0, NULL) == 0 ? 0 : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
}

static JSValue throw_tls(JSContext *context, const char *what, int error) {
  char text[160];
  mbedtls_strerror(error, text, sizeof text);
  return JS_ThrowInternalError(context, "%s%s", what, text);
}

// Copies PEM bytes of the script, with the terminating 0 that the parsers require; to be freed. NULL for none.
static char *pem_of(JSContext *context, JSValueConst value, size_t *length) {
  bytes_view bytes = get_bytes(context, value);
  char *pem = bytes.data == NULL ? NULL : malloc(bytes.bytes + 1);
  if (pem == NULL) return NULL;
  memcpy(pem, bytes.data, bytes.bytes);
  pem[bytes.bytes] = 0;
  *length = bytes.bytes + 1;
  return pem;
}

// Reads a client's files. Returns 0, or an mbedTLS error and the file that caused it.
static int read_files(JSContext *context, tls *tls, JSValueConst ca, JSValueConst certificate, JSValueConst key,
                      const char **which) {
#ifdef MBEDTLS_PSA_CRYPTO_C
  // Before keys are read, because those may go into the store.
  uv_once(&psa_once, start_psa);
  *which = "";
  if (psa_status != PSA_SUCCESS) return MBEDTLS_ERR_SSL_ALLOC_FAILED;
#endif
  size_t length;
  char *pem = pem_of(context, ca, &length);
  *which = "ca: ";
  // A positive result counts certificates of a system's store that mbedTLS does not support.
  int error = pem == NULL ? 0 : mbedtls_x509_crt_parse(&tls->ca, (uint8_t *)pem, length);
  free(pem);
  if (error < 0) return error;
  pem = pem_of(context, certificate, &length);
  *which = "cert: ";
  error = pem == NULL ? 0 : mbedtls_x509_crt_parse(&tls->certificate, (uint8_t *)pem, length);
  free(pem);
  if (error != 0) return error < 0 ? error : MBEDTLS_ERR_X509_INVALID_FORMAT;
  pem = pem_of(context, key, &length);
  *which = "key: ";
  if (pem == NULL) return 0;
  error = mbedtls_pk_parse_key(&tls->key, (uint8_t *)pem, length, NULL, 0, random_for_tls, NULL);
  mbedtls_platform_zeroize(pem, length);
  free(pem);
  if (error != 0) return error;
  *which = "key: is not the certificate's: ";
  return mbedtls_pk_check_pair(&tls->certificate.pk, &tls->key, random_for_tls, NULL);
}

static tls *make_tls(JSContext *context, JSValue *object) {
  *object = JS_NewObjectClass(context, (int)tls_class);
  if (JS_IsException(*object)) return NULL;
  tls *tls = calloc(1, sizeof *tls);
  if (tls == NULL) {
    JS_FreeValue(context, *object);
    *object = JS_ThrowOutOfMemory(context);
    return NULL;
  }
  mbedtls_ssl_init(&tls->ssl);
  mbedtls_ssl_config_init(&tls->config);
  mbedtls_x509_crt_init(&tls->ca);
  mbedtls_x509_crt_init(&tls->certificate);
  mbedtls_pk_init(&tls->key);
  JS_SetOpaque(*object, tls);
  return tls;
}

static void take_protocols(JSContext *context, tls *tls, JSValueConst list) {
  for (uint32_t i = 0; i < MAX_PROTOCOLS; i++) {
    JSValue value = JS_IsObject(list) ? JS_GetPropertyUint32(context, list, i) : JS_UNDEFINED;
    const char *text = JS_IsString(value) ? JS_ToCString(context, value) : NULL;
    JS_FreeValue(context, value);
    if (text == NULL) return;
    tls->protocols[i] = strdup(text);
    JS_FreeCString(context, text);
  }
}

// tlsOpen(name, isIp, ca, cert, key, isInsecure, protocols): a client; bytes in PEM or undefined
static JSValue tls_open(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  JSValue object;
  tls *tls = make_tls(context, &object);
  if (tls == NULL) return object;
  const char *name = JS_ToCString(context, values[0]);
  if (name == NULL) {
    JS_FreeValue(context, object);
    return JS_EXCEPTION;
  }
  bool is_ip = JS_ToBool(context, values[1]) == 1;
  tls->name = strdup(name);
  const char *which = "";
  int error = read_files(context, tls, values[2], values[3], values[4], &which);
  if (error >= 0) {
    which = "";
    error = mbedtls_ssl_config_defaults(&tls->config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM,
                                        MBEDTLS_SSL_PRESET_DEFAULT);
  }
  if (error == 0) {
    bool is_insecure = JS_ToBool(context, values[5]) == 1;
    mbedtls_ssl_conf_authmode(&tls->config, is_insecure ? MBEDTLS_SSL_VERIFY_NONE : MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_ca_chain(&tls->config, &tls->ca, NULL);
    mbedtls_ssl_conf_rng(&tls->config, random_for_tls, NULL);
    if (!HAS_TLS_1_3) mbedtls_ssl_conf_max_tls_version(&tls->config, MBEDTLS_SSL_VERSION_TLS1_2);
    take_protocols(context, tls, values[6]);
    if (tls->protocols[0] != NULL) mbedtls_ssl_conf_alpn_protocols(&tls->config, (const char **)tls->protocols);
    if (mbedtls_pk_get_type(&tls->key) != MBEDTLS_PK_NONE)
      error = mbedtls_ssl_conf_own_cert(&tls->config, &tls->certificate, &tls->key);
    tls->checks_ip = is_ip && !is_insecure;
  }
  if (error == 0) error = mbedtls_ssl_setup(&tls->ssl, &tls->config);
  if (error == 0) error = mbedtls_ssl_set_hostname(&tls->ssl, is_ip ? NULL : name);
  mbedtls_ssl_set_bio(&tls->ssl, tls, send_bytes, receive_bytes, NULL);
  JS_FreeCString(context, name);
  if (error == 0) return object;
  JS_FreeValue(context, object);
  return throw_tls(context, which, error);
}

// tlsCheck(ca, cert, key): throws for a file that is not PEM, and for a key that belongs to another certificate
static JSValue tls_check(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  JSValue object;
  tls *tls = make_tls(context, &object);
  if (tls == NULL) return object;
  const char *which;
  int error = read_files(context, tls, values[0], values[1], values[2], &which);
  JS_FreeValue(context, object);
  return error >= 0 ? JS_UNDEFINED : throw_tls(context, which, error);
}

static tls *tls_of(JSContext *context, JSValueConst value) { return JS_GetOpaque2(context, value, tls_class); }

// tlsReceive(tls, bytes, offset, end): passes in bytes from the peer
static JSValue tls_receive(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  tls *tls = tls_of(context, values[0]);
  if (tls == NULL) return JS_EXCEPTION;
  bytes_view bytes = get_bytes(context, values[1]);
  int32_t offset = get_int(context, values[2]), end = get_int(context, values[3]);
  if (offset < 0 || end < offset || (size_t)end > bytes.bytes) return JS_ThrowRangeError(context, "tlsReceive");
  return queue_add(&tls->input, bytes.data + offset, (size_t)(end - offset)) ? JS_UNDEFINED : JS_ThrowOutOfMemory(context);
}

// Checks the certificate of a peer that is known by its IP.
static bool is_for_ip(tls *tls) {
  const mbedtls_x509_crt *peer = mbedtls_ssl_get_peer_cert(&tls->ssl);
  uint32_t flags = 0;
  return peer != NULL && mbedtls_x509_crt_verify((mbedtls_x509_crt *)peer, &tls->ca, NULL, tls->name, &flags, NULL, NULL) == 0;
}

// tlsHandshake(tls): true when it is complete, false if more has to arrive
static JSValue tls_handshake(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  tls *tls = tls_of(context, values[0]);
  if (tls == NULL) return JS_EXCEPTION;
  int error = mbedtls_ssl_handshake(&tls->ssl);
  if (error == MBEDTLS_ERR_SSL_WANT_READ) return JS_FALSE;
  uint32_t flags = error == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED ? mbedtls_ssl_get_verify_result(&tls->ssl) : 0;
  if ((error == 0 && tls->checks_ip && !is_for_ip(tls)) || flags == MBEDTLS_X509_BADCERT_CN_MISMATCH)
    return JS_ThrowInternalError(context, "the certificate is not for %s", tls->name);
  if (error == 0) return JS_TRUE;
  if (error == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED) {
    char text[256];
    mbedtls_x509_crt_verify_info(text, sizeof text, "", flags);
    size_t length = strcspn(text, "\n");
    return JS_ThrowInternalError(context, "%.*s", (int)length, text);
  }
  if (error == MBEDTLS_ERR_SSL_INVALID_RECORD) return throw_tls(context, "no TLS comes from there: ", error);
  return throw_tls(context, "", error);
}

// tlsRead(tls, buffer): decrypted bytes; 0 if more has to arrive, -1 when the peer has ended
static JSValue tls_read(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  tls *tls = tls_of(context, values[0]);
  if (tls == NULL) return JS_EXCEPTION;
  bytes_view buffer = get_bytes(context, values[1]);
  int result;
  // After messages without data, such as tickets and warnings, data may follow that arrived with them.
  do result = mbedtls_ssl_read(&tls->ssl, buffer.data, buffer.bytes);
  while (result == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET ||
         (result == MBEDTLS_ERR_SSL_WANT_READ && tls->input.at < tls->input.length));
  if (result == MBEDTLS_ERR_SSL_WANT_READ) return JS_NewInt32(context, 0);
  if (result == 0 || result == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY) return JS_NewInt32(context, -1);
  return result > 0 ? JS_NewInt32(context, result) : throw_tls(context, "", result);
}

// tlsWrite(tls, bytes): encrypts all of them
static JSValue tls_write(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  tls *tls = tls_of(context, values[0]);
  if (tls == NULL) return JS_EXCEPTION;
  bytes_view bytes = get_bytes(context, values[1]);
  for (size_t at = 0; at < bytes.bytes;) {
    int written = mbedtls_ssl_write(&tls->ssl, bytes.data + at, bytes.bytes - at);
    if (written < 0) return throw_tls(context, "", written);
    at += (size_t)written;
  }
  return JS_UNDEFINED;
}

// tlsOutput(tls): the bytes to send
static JSValue tls_output(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  tls *tls = tls_of(context, values[0]);
  return tls == NULL ? JS_EXCEPTION : queue_take(context, &tls->output);
}

// tlsSurplus(tls): bytes that arrived after the handshake, and are not read yet
static JSValue tls_surplus(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  tls *tls = tls_of(context, values[0]);
  return tls == NULL ? JS_EXCEPTION : queue_take(context, &tls->input);
}

// tlsProtocol(tls): the protocol that ALPN selected, or undefined
static JSValue tls_protocol(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  tls *tls = tls_of(context, values[0]);
  if (tls == NULL) return JS_EXCEPTION;
  const char *protocol = mbedtls_ssl_get_alpn_protocol(&tls->ssl);
  return protocol == NULL ? JS_UNDEFINED : JS_NewString(context, protocol);
}

static const JSCFunctionListEntry FUNCTIONS[] = {
    FUNCTION("tlsOpen", 7, tls_open),       FUNCTION("tlsReceive", 4, tls_receive),
    FUNCTION("tlsRead", 2, tls_read),       FUNCTION("tlsHandshake", 1, tls_handshake),
    FUNCTION("tlsWrite", 2, tls_write),     FUNCTION("tlsOutput", 1, tls_output),
    FUNCTION("tlsSurplus", 1, tls_surplus), FUNCTION("tlsProtocol", 1, tls_protocol),
};

static const JSCFunctionListEntry CHECKS[] = {FUNCTION("tlsCheck", 3, tls_check)};

static void add_class(JSContext *context) {
  // Class numbers belong to the process, and QuickJS assigns them without a lock. No mutex is used before this.
  uv_once(&process_once, prepare_process);
  JS_NewClass(JS_GetRuntime(context), tls_class, &TLS_CLASS);
}

void tls_add(JSContext *context, JSValueConst host) { ADD_FUNCTIONS(context, host, FUNCTIONS); }

void tls_add_check(JSContext *context, JSValueConst host) {
  add_class(context);
  ADD_FUNCTIONS(context, host, CHECKS);
}
