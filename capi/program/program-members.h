// Members of a config file that belong to the program, not to the library.
#ifndef PROGRAM_MEMBERS_H
#define PROGRAM_MEMBERS_H

// Calls `take` for each member of the object in a file (JSON with comments) whose value is a text without escapes. The library,
// which reads all of the file, reports the file's errors. Returns the first problem that `take` finds, or NULL.
const char *program_members_read(const char *path, const char *(*take)(const char *name, const char *value, void *data),
                                 void *data);

#endif
