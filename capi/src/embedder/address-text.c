#include "address-text.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { ATYP_IPV4 = 1, ATYP_DOMAIN = 3, ATYP_IPV6 = 4 };

static int port_of(const char *text) {
  int port = 0;
  if (*text == 0) return 0;
  for (; *text != 0; text++) {
    if (*text < '0' || *text > '9') return 0;
    port = port * 10 + (*text - '0');
    if (port > 65535) return 0;
  }
  return port;
}

size_t address_parse(const char *text, uint8_t bytes[ADDRESS_MAX_BYTES]) {
  const char *colon = strrchr(text, ':');
  if (colon == NULL) return 0;
  int port = port_of(colon + 1);
  bool is_bracketed = text[0] == '[' && colon > text + 1 && colon[-1] == ']';
  size_t length = (size_t)(colon - text) - (is_bracketed ? 2 : 0);
  if (port == 0 || length == 0 || length > 255) return 0;
  char host[256];
  memcpy(host, text + (is_bracketed ? 1 : 0), length);
  host[length] = 0;
  size_t end;
  if (is_bracketed) {
    if (uv_inet_pton(AF_INET6, host, bytes + 1) != 0 || strchr(host, '%') != NULL) return 0;
    bytes[0] = ATYP_IPV6;
    end = 17;
    static const uint8_t MAPPED[12] = {[10] = 0xff, [11] = 0xff};
    if (memcmp(bytes + 1, MAPPED, sizeof MAPPED) == 0) {
      // Each address has one form, so an IPv4-mapped one becomes IPv4.
      memmove(bytes + 1, bytes + 13, 4);
      bytes[0] = ATYP_IPV4;
      end = 5;
    }
  } else if (uv_inet_pton(AF_INET, host, bytes + 1) == 0) {
    bytes[0] = ATYP_IPV4;
    end = 5;
  } else {
    for (size_t i = 0; i < length; i++)
      if (host[i] <= ' ' || host[i] >= 0x7f || strchr(":/[]%", host[i]) != NULL) return 0;
    bytes[0] = ATYP_DOMAIN;
    bytes[1] = (uint8_t)length;
    memcpy(bytes + 2, host, length);
    end = 2 + length;
  }
  bytes[end] = (uint8_t)(port >> 8);
  bytes[end + 1] = (uint8_t)port;
  return end + 2;
}

void address_format(const uint8_t *bytes, size_t length, char text[ADDRESS_TEXT_BYTES]) {
  text[0] = 0;
  if (length < 4) return;
  unsigned port = (unsigned)bytes[length - 2] << 8 | bytes[length - 1];
  char ip[INET6_ADDRSTRLEN];
  if (bytes[0] == ATYP_IPV4 && length == 7 && uv_inet_ntop(AF_INET, bytes + 1, ip, sizeof ip) == 0)
    snprintf(text, ADDRESS_TEXT_BYTES, "%s:%u", ip, port);
  else if (bytes[0] == ATYP_IPV6 && length == 19 && uv_inet_ntop(AF_INET6, bytes + 1, ip, sizeof ip) == 0)
    snprintf(text, ADDRESS_TEXT_BYTES, "[%s]:%u", ip, port);
  else if (bytes[0] == ATYP_DOMAIN) snprintf(text, ADDRESS_TEXT_BYTES, "%.*s:%u", bytes[1], (const char *)bytes + 2, port);
}
