// IP packets by callback, both ways.
#ifndef UNDERPASS_PACKETS_H
#define UNDERPASS_PACKETS_H

#include "../instance.h"

void packets_add(JSContext *context, JSValueConst host);

// Opens the way for packets of an instance that has `callbacks.packets`. Returns false if there is no memory.
bool packets_open(instance *instance);
// From any thread: how many were taken, or an error.
ptrdiff_t packets_send(instance *instance, const underpass_packet *packets, size_t count);
// The instance's memory goes.
void packets_free(instance *instance);

#endif
