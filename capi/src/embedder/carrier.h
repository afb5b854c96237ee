// Streams of the embedder that carry lanes.
#ifndef UNDERPASS_CARRIER_H
#define UNDERPASS_CARRIER_H

#include "../instance.h"

void carrier_add(JSContext *context, JSValueConst host);

#endif
