// Whole pages of zeroed memory from the system; only used pages take memory.
#ifndef UNDERPASS_PAGES_H
#define UNDERPASS_PAGES_H

#include <stddef.h>

// Returns NULL if there is no memory.
void *pages_map(size_t bytes);
void pages_unmap(void *pages, size_t bytes);

#endif
