// The scripts that are linked in: modules in bytecode, which scripts/bundle-capi.mjs makes of src/capi/ and what it imports.
#ifndef UNDERPASS_SCRIPTS_H
#define UNDERPASS_SCRIPTS_H

#include <stddef.h>
#include <stdint.h>

#include "quickjs.h"

typedef struct script {
  // As others import it, without "./".
  const char *name;
  // In script_bytecode.
  size_t offset, bytes;
} script;

// Written by capi/tools/compile-script.c, in the order of the alphabet.
extern const script SCRIPTS[];
extern const size_t SCRIPT_COUNT;
extern const uint8_t script_bytecode[];

// Has a context find imports among them, and the global function underpassPart(name), which returns the namespace of one.
void scripts_add(JSContext *context);
// Loads one with all that it imports, and runs it. Returns a promise, which is settled as no script waits, or an exception;
// `*module` is valid unless that is one.
JSValue scripts_run(JSContext *context, const char *name, JSModuleDef **module);
// Has the process not hold the pages of the bytecode, of which each engine has made its own form, until they are read again. Any thread
// may read them meanwhile.
void scripts_drop_pages(void);

#endif
