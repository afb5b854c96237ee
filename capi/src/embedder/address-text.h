// HOST:PORT in the script's form of addresses: ATYP ADDR PORT (RFC 1928 §5).
#ifndef UNDERPASS_ADDRESS_TEXT_H
#define UNDERPASS_ADDRESS_TEXT_H

#include <stddef.h>
#include <stdint.h>

#define ADDRESS_MAX_BYTES (4 + 255)
// Including brackets, port and terminator.
#define ADDRESS_TEXT_BYTES (255 + 9)

// Reads 192.0.2.1:53, [2001:db8::1]:53 or a name and a port. Returns the length; 0 if it is none of these.
size_t address_parse(const char *text, uint8_t bytes[ADDRESS_MAX_BYTES]);
void address_format(const uint8_t *bytes, size_t length, char text[ADDRESS_TEXT_BYTES]);

#endif
