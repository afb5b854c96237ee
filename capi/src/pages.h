// Memory from the system in whole pages: zeros, of which only what is used takes room.
#ifndef UNDERPASS_PAGES_H
#define UNDERPASS_PAGES_H

#include <stddef.h>

// Returns NULL if there is none.
void *pages_map(size_t bytes);
void pages_unmap(void *pages, size_t bytes);

#endif
