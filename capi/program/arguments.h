// Converts the command line to the JSON of a config.
#ifndef ARGUMENTS_H
#define ARGUMENTS_H

#include <stdbool.h>

// The program's own options.
typedef struct program_options {
  bool wants_help, wants_version;
  // --dry-run
  bool wants_plan;
  bool is_json;
  // A value of underpass_log_level, or one more for no log.
  int log_level;
  // -1 for none.
  int ready_fd;
  // --device pipe:
  bool has_pipe;
} program_options;

// Reads `--name value`, `--name=value` and switches. The library's options become members of `*config`, which the caller frees.
// Returns NULL, or the problem.
const char *arguments_read(int count, char **words, program_options *options, char **config);

#endif
