// The loops over datagrams, for a script.
#ifndef UNDERPASS_DATAPATH_H
#define UNDERPASS_DATAPATH_H

#include "quickjs.h"

// An object with what src/core/datapath/datapath.ts declares, or an exception.
JSValue datapath_create(JSContext *context);

#endif
