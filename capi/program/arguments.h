// The command line as the JSON of a config.
#ifndef ARGUMENTS_H
#define ARGUMENTS_H

#include <stdbool.h>

// What the program itself takes.
typedef struct program_options {
  bool wants_help, wants_version;
  // --dry-run
  bool wants_plan;
  bool is_json;
  // Of underpass_log_level, or one more for nothing.
  int log_level;
  // -1 for none.
  int ready_fd;
  // --device pipe:
  bool has_pipe;
} program_options;

// Reads `--name value`, `--name=value` and switches; those of the library become members of `*config`, which is to be freed.
// Returns NULL, or what is wrong.
const char *arguments_read(int count, char **words, program_options *options, char **config);

#endif
