// Makes the loops over datagrams available to a script.
#ifndef UNDERPASS_DATAPATH_H
#define UNDERPASS_DATAPATH_H

#include "quickjs.h"

// Returns an object with the functions that src/core/datapath/datapath.ts declares, or an exception.
JSValue datapath_create(JSContext *context);

#endif
