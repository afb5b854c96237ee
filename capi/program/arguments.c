#include "arguments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

static const char *const LEVELS[] = {"debug", "info", "warn", "error", "silent"};

static char problem[256];

static const char *complain(const char *what, size_t length, const char *how) {
  snprintf(problem, sizeof problem, "--%.*s: %s", (int)length, what, how);
  return problem;
}

static bool is_flag(const char *word) { return word[0] == '-' && word[1] == '-' && word[2] != 0; }

static bool is_named(const char *name, size_t length, const char *other) {
  return strlen(other) == length && memcmp(name, other, length) == 0;
}

// Takes those of the program. Returns false for any other.
static bool take_own(const char *name, size_t length, const char *value, program_options *options, const char **error) {
  if (is_named(name, length, "help")) options->wants_help = true;
  else if (is_named(name, length, "version")) options->wants_version = true;
  else if (is_named(name, length, "log-format")) {
    bool is_json = value != NULL && strcmp(value, "json") == 0;
    if (!is_json && (value == NULL || strcmp(value, "pretty") != 0)) *error = complain(name, length, "expected pretty or json");
    options->is_json = is_json;
  } else if (is_named(name, length, "log-level")) {
    int level = 0;
    while (level < 5 && (value == NULL || strcmp(value, LEVELS[level]) != 0)) level++;
    if (level == 5) *error = complain(name, length, "expected debug, info, warn, error or silent");
    options->log_level = level;
  } else if (is_named(name, length, "device") && value != NULL && strcmp(value, "pipe:") == 0) {
    options->has_pipe = true;
  } else if (is_named(name, length, "ready-fd")) {
    options->ready_fd = value == NULL ? -1 : atoi(value);
    if (options->ready_fd < 1) *error = complain(name, length, "expected the number of an open descriptor");
  } else return false;
  return true;
}

// Flags of the library, in the order of the command line; the value of a switch is NULL.
typedef struct flags {
  const char **names;
  size_t *lengths;
  const char **values;
  int count;
} flags;

static bool is_same(const flags *all, int a, int b) {
  return all->lengths[a] == all->lengths[b] && memcmp(all->names[a], all->names[b], all->lengths[a]) == 0;
}

// One member for each name; of a name that is repeated, a list.
static void write_config(const flags *all, text *config) {
  text_add(config, "{");
  for (int i = 0; i < all->count; i++) {
    int first = 0, times = 0;
    while (!is_same(all, first, i)) first++;
    if (first < i) continue;
    for (int other = i; other < all->count; other++) times += is_same(all, other, i);
    text_add(config, i == 0 ? "" : ",");
    text_add_json(config, all->names[i], all->lengths[i]);
    text_add(config, times > 1 ? ":[" : ":");
    for (int other = i; other < all->count; other++) {
      if (!is_same(all, other, i)) continue;
      text_add(config, other == i ? "" : ",");
      const char *value = all->values[other];
      if (value == NULL) text_add(config, "true");
      else text_add_json(config, value, strlen(value));
    }
    if (times > 1) text_add(config, "]");
  }
  text_add(config, "}");
}

const char *arguments_read(int count, char **words, program_options *options, char **config) {
  *options = (program_options){.log_level = 1, .ready_fd = -1};
  *config = NULL;
  size_t room = (size_t)count + 1;
  flags all = {calloc(room, sizeof *all.names), calloc(room, sizeof *all.lengths), calloc(room, sizeof *all.values), 0};
  const char *error = all.names == NULL || all.values == NULL || all.lengths == NULL ? "no memory" : NULL;
  for (int i = 0; i < count && error == NULL; i++) {
    const char *word = strcmp(words[i], "-h") == 0 ? "--help" : words[i];
    if (!is_flag(word)) {
      // It may be a secret.
      error = "expected --NAME VALUE";
      break;
    }
    const char *name = word + 2;
    const char *equals = strchr(name, '=');
    size_t length = equals == NULL ? strlen(name) : (size_t)(equals - name);
    const char *value = equals == NULL ? NULL : equals + 1;
    if (value == NULL && i + 1 < count && !is_flag(words[i + 1])) value = words[++i];
    if (take_own(name, length, value, options, &error)) continue;
    all.names[all.count] = name;
    all.lengths[all.count] = length;
    all.values[all.count++] = value;
  }
  if (error == NULL) {
    text text = {0};
    write_config(&all, &text);
    *config = text.data;
    if (text.data == NULL) error = "no memory";
  }
  free(all.names);
  free(all.lengths);
  free(all.values);
  return error;
}
