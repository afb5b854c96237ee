// Associations without a socket.
#ifndef UNDERPASS_ASSOCIATIONS_H
#define UNDERPASS_ASSOCIATIONS_H

#include "../instance.h"

void associations_add(JSContext *context, JSValueConst host);
// Hands over the datagrams that the script delivered during the last call.
void associations_flush(instance *instance);
void associations_end(instance *instance);

#endif
