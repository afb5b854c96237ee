// Members of a config file that are the program's, and not the library's.
#ifndef PROGRAM_MEMBERS_H
#define PROGRAM_MEMBERS_H

// Gives `take` each member of the object in a file (JSON with comments) whose value is a text without escapes. What is wrong with the
// file is left to the library, which reads all of it. Returns the first thing that `take` finds wrong, or NULL.
const char *program_members_read(const char *path, const char *(*take)(const char *name, const char *value, void *data),
                                 void *data);

#endif
