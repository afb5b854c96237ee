// mbedTLS's ssl_tls12_client.c. Release 3.6.6 offers RSA-PSS for TLS 1.3, but rejects it when the server then chooses TLS 1.2 and
// signs with it (RFC 8446 §4.2.3); later releases accept it.
#include "ssl_misc.h"

#if MBEDTLS_VERSION_NUMBER == 0x03060600
static int is_accepted(const mbedtls_ssl_context *ssl, uint16_t algorithm) {
  switch (algorithm) {
    case MBEDTLS_TLS1_3_SIG_RSA_PSS_RSAE_SHA256:
    case MBEDTLS_TLS1_3_SIG_RSA_PSS_RSAE_SHA384:
    case MBEDTLS_TLS1_3_SIG_RSA_PSS_RSAE_SHA512:
      return 1;
    default:
      return mbedtls_ssl_sig_alg_is_supported(ssl, algorithm);
  }
}
// Its one use is for the algorithm of a ServerKeyExchange, which has to have been offered as well.
#define mbedtls_ssl_sig_alg_is_supported is_accepted
#endif

#include "ssl_tls12_client.c"
