#include "../address.h"

#include <string.h>

#include "socket.h"

size_t io_address_from_sockaddr(const struct sockaddr_storage *from, uint8_t *out) {
  if (from->ss_family == AF_INET) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)from;
    out[0] = IO_ADDRESS_IPV4;
    memcpy(out + 1, &in->sin_addr, 4);
    memcpy(out + 5, &in->sin_port, 2);
    return IO_ADDRESS_IPV4_BYTES;
  }
  if (from->ss_family == AF_INET6) {
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
    out[0] = IO_ADDRESS_IPV6;
    memcpy(out + 1, &in6->sin6_addr, 16);
    memcpy(out + 17, &in6->sin6_port, 2);
    return IO_ADDRESS_IPV6_BYTES;
  }
  return 0;
}

socklen_t io_address_to_sockaddr(const uint8_t *bytes, size_t length, struct sockaddr_storage *to) {
  if (length >= IO_ADDRESS_IPV4_BYTES && bytes[0] == IO_ADDRESS_IPV4) {
    struct sockaddr_in *in = (struct sockaddr_in *)to;
    memset(in, 0, sizeof *in);
    in->sin_family = AF_INET;
    memcpy(&in->sin_addr, bytes + 1, 4);
    memcpy(&in->sin_port, bytes + 5, 2);
    return sizeof *in;
  }
  if (length >= IO_ADDRESS_IPV6_BYTES && bytes[0] == IO_ADDRESS_IPV6) {
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)to;
    memset(in6, 0, sizeof *in6);
    in6->sin6_family = AF_INET6;
    memcpy(&in6->sin6_addr, bytes + 1, 16);
    memcpy(&in6->sin6_port, bytes + 17, 2);
    return sizeof *in6;
  }
  return 0;
}

socklen_t io_scoped_address_to_sockaddr(const uint8_t *bytes, size_t length, struct sockaddr_storage *to) {
  socklen_t sockaddr_length = io_address_to_sockaddr(bytes, length, to);
  if (sockaddr_length > 0 && to->ss_family == AF_INET6 && length == IO_SCOPED_IPV6_BYTES) {
    const uint8_t *scope = bytes + IO_ADDRESS_IPV6_BYTES;
    ((struct sockaddr_in6 *)to)->sin6_scope_id =
        (uint32_t)scope[0] << 24 | (uint32_t)scope[1] << 16 | (uint32_t)scope[2] << 8 | scope[3];
  }
  return sockaddr_length;
}

int64_t io_zone_scope(const char *zone) {
  static const char prefix[] = "fe80::%";
  char text[sizeof prefix + 64];
  struct sockaddr_in6 address;
  size_t length = strlen(zone);
  if (length >= sizeof text - sizeof prefix) return UV_ENODEV;
  memcpy(text, prefix, sizeof prefix - 1);
  memcpy(text + sizeof prefix - 1, zone, length + 1);
  bool is_known = uv_ip6_addr(text, 0, &address) == 0 && address.sin6_scope_id != 0;
  return is_known ? (int64_t)address.sin6_scope_id : UV_ENODEV;
}

static int get_name(uv_os_sock_t socket, bool is_peer, struct sockaddr_storage *name) {
  socklen_t length = sizeof *name;
  int result = is_peer ? getpeername(socket, (struct sockaddr *)name, &length)
                       : getsockname(socket, (struct sockaddr *)name, &length);
  return result == 0 ? 0 : io_socket_error();
}

size_t io_socket_address(uv_os_sock_t socket, uint8_t *out) {
  struct sockaddr_storage name;
  return get_name(socket, false, &name) == 0 ? io_address_from_sockaddr(&name, out) : 0;
}

int io_socket_name(uv_os_sock_t socket, bool is_peer, char ip[IO_IP_TEXT_BYTES]) {
  struct sockaddr_storage name;
  int error = get_name(socket, is_peer, &name);
  if (error != 0) return error;
  if (name.ss_family == AF_INET) {
    const struct sockaddr_in *in = (const struct sockaddr_in *)&name;
    error = uv_ip4_name(in, ip, IO_IP_TEXT_BYTES);
    return error == 0 ? ntohs(in->sin_port) : error;
  }
  if (name.ss_family != AF_INET6) return UV_EINVAL;
  const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&name;
  error = uv_ip6_name(in6, ip, IO_IP_TEXT_BYTES);
  if (error == 0 && IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr) && in6->sin6_scope_id != 0) {
    size_t length = strlen(ip), room = IO_IP_TEXT_BYTES - length - 1;
    ip[length] = '%';
    error = uv_if_indextoiid(in6->sin6_scope_id, ip + length + 1, &room);
  }
  return error == 0 ? ntohs(in6->sin6_port) : error;
}
