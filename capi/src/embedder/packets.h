// IP packets by callback, both ways.
#ifndef UNDERPASS_PACKETS_H
#define UNDERPASS_PACKETS_H

#include "../instance.h"

void packets_add(JSContext *context, JSValueConst host);

// Opens the packet queue of an instance that has `callbacks.packets`. Returns false if there is no memory.
bool packets_open(instance *instance);
// Returns how many were accepted, or an error. May be called from any thread.
ptrdiff_t packets_send(instance *instance, const underpass_packet *packets, size_t count);
// Frees the memory of the instance's packets.
void packets_free(instance *instance);

#endif
