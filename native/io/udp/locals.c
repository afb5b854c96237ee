#include <string.h>

#include "udp-state.h"

int32_t io_udp_number_local(local_table *locals, const uint8_t *bytes, size_t length, uint32_t interface_index) {
  local_address met = {.interface_index = interface_index};
  memcpy(met.bytes, bytes, length);
  int32_t number = locals->last;
  for (int32_t tried = 0; tried <= locals->count; tried++) {
    // First the most recent, then all.
    if (tried > 0) number = tried;
    if (number == 0) continue;
    local_address *known = &locals->addresses[number - 1];
    if (known->interface_index != interface_index || memcmp(known->bytes, met.bytes, sizeof met.bytes) != 0) continue;
    known->is_gone = false;
    locals->last = number;
    return number;
  }
  if (locals->count == MAX_LOCALS) return 0;
  locals->addresses[locals->count++] = met;
  locals->last = locals->count;
  return locals->count;
}

local_address *io_udp_local_of(const udp_socket *socket, int32_t number) {
  local_table *locals = socket->locals;
  if (locals == NULL || number <= 0 || number > locals->count) return NULL;
  local_address *local = &locals->addresses[number - 1];
  return local->is_gone ? NULL : local;
}
