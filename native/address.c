#include "address.h"

#include <string.h>

size_t address_from_sockaddr(const struct sockaddr_storage *from, uint8_t *out) {
  if (from->ss_family == AF_INET) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)from;
    out[0] = ADDRESS_IPV4;
    memcpy(out + 1, &in->sin_addr, 4);
    memcpy(out + 5, &in->sin_port, 2);
    return ADDRESS_IPV4_BYTES;
  }
  if (from->ss_family == AF_INET6) {
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
    out[0] = ADDRESS_IPV6;
    memcpy(out + 1, &in6->sin6_addr, 16);
    memcpy(out + 17, &in6->sin6_port, 2);
    return ADDRESS_IPV6_BYTES;
  }
  return 0;
}

socklen_t address_to_sockaddr(const uint8_t *bytes, size_t length, struct sockaddr_storage *to) {
  if (length >= ADDRESS_IPV4_BYTES && bytes[0] == ADDRESS_IPV4) {
    struct sockaddr_in *in = (struct sockaddr_in *)to;
    memset(in, 0, sizeof *in);
    in->sin_family = AF_INET;
    memcpy(&in->sin_addr, bytes + 1, 4);
    memcpy(&in->sin_port, bytes + 5, 2);
    return sizeof *in;
  }
  if (length >= ADDRESS_IPV6_BYTES && bytes[0] == ADDRESS_IPV6) {
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)to;
    memset(in6, 0, sizeof *in6);
    in6->sin6_family = AF_INET6;
    memcpy(&in6->sin6_addr, bytes + 1, 16);
    memcpy(&in6->sin6_port, bytes + 17, 2);
    return sizeof *in6;
  }
  return 0;
}

socklen_t scoped_address_to_sockaddr(const uint8_t *bytes, size_t length, struct sockaddr_storage *to) {
  socklen_t sockaddr_length = address_to_sockaddr(bytes, length, to);
  if (sockaddr_length > 0 && to->ss_family == AF_INET6 && length == SCOPED_IPV6_BYTES) {
    const uint8_t *scope = bytes + ADDRESS_IPV6_BYTES;
    ((struct sockaddr_in6 *)to)->sin6_scope_id =
        (uint32_t)scope[0] << 24 | (uint32_t)scope[1] << 16 | (uint32_t)scope[2] << 8 | scope[3];
  }
  return sockaddr_length;
}
