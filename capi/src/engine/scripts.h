// The linked scripts: modules in bytecode, which scripts/bundle/capi.mjs makes from src/capi/ and its imports.
#ifndef UNDERPASS_SCRIPTS_H
#define UNDERPASS_SCRIPTS_H

#include <stddef.h>
#include <stdint.h>

#include "quickjs.h"

typedef struct script {
  // The name by which others import it, without "./".
  const char *name;
  // Position in script_bytecode.
  size_t offset, bytes;
} script;

// Written by capi/tools/compile-script.c, in alphabetical order.
extern const script SCRIPTS[];
extern const size_t SCRIPT_COUNT;
extern const uint8_t script_bytecode[];

// Makes a context find imports among them, and adds the global function underpassPart(name), which returns the namespace of one.
void scripts_add(JSContext *context);
// Loads a script with everything that it imports, and runs it. Returns a promise, which is settled because no script waits, or an
// exception; `*module` is valid unless it is an exception.
JSValue scripts_run(JSContext *context, const char *name, JSModuleDef **module);
// Releases the process's pages of the bytecode until they are read again, because each engine has its own form of it. Any thread may read
// them meanwhile.
void scripts_drop_pages(void);

#endif
