#include "arguments.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program-members.h"
#include "text.h"
#ifndef _WIN32
#include <unistd.h>
#endif

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

// Reads the program's own options. Returns false for any other.
static bool take_own(const char *name, size_t length, const char *value, program_options *options, const char **error) {
  if (is_named(name, length, "help")) options->wants_help = true;
  else if (is_named(name, length, "version")) options->wants_version = true;
  else if (is_named(name, length, "dry-run")) options->wants_plan = true;
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

// The library's flags, in the order of the command line; a switch has the value NULL.
typedef struct flags {
  const char **names;
  size_t *lengths;
  const char **values;
  int count;
} flags;

static bool is_same(const flags *all, int a, int b) {
  return all->lengths[a] == all->lengths[b] && memcmp(all->names[a], all->names[b], all->lengths[a]) == 0;
}

// Writes the value of --listen, with fd:NAME as the descriptors that systemd passed under that name (sd_listen_fds(3)). Returns the
// number of values; 0 if there are none of that name.
static int write_listen(text *config, const char *value) {
  int written = 0;
#ifndef _WIN32
  const char *name = strncmp(value, "fd:", 3) == 0 ? value + 3 : "";
  if (name[strspn(name, "0123456789")] != 0) {
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS"), *names = getenv("LISTEN_FDNAMES");
    // They may have been meant for a parent of this process.
    int count = pid != NULL && fds != NULL && atoi(pid) == getpid() ? atoi(fds) : 0;
    for (int i = 0; i < count; i++) {
      size_t length = names == NULL ? 0 : strcspn(names, ":");
      bool is_it = length == 0 ? strcmp(name, "unknown") == 0 : is_named(names, length, name);
      char number[24];
      snprintf(number, sizeof number, "fd:%d", 3 + i);
      if (is_it) text_add(config, written++ == 0 ? "" : ",");
      if (is_it) text_add_json(config, number, strlen(number));
      if (names != NULL) names += length + (names[length] == ':');
    }
    return written;
  }
#endif
  text_add_json(config, value, strlen(value));
  return 1;
}

// Writes one member for each name, in the form of a flag so that errors name it that way; a repeated name becomes a list. Returns
// the problem, or NULL.
static const char *write_config(const flags *all, text *config) {
  const char *error = NULL;
  text_add(config, "{");
  for (int i = 0; i < all->count; i++) {
    int first = 0, times = 0;
    while (!is_same(all, first, i)) first++;
    if (first < i) continue;
    for (int other = i; other < all->count; other++) times += is_same(all, other, i);
    text_add(config, i == 0 ? "" : ",");
    // `names` point behind the dashes.
    text_add_json(config, all->names[i] - 2, all->lengths[i] + 2);
    bool is_listen = is_named(all->names[i], all->lengths[i], "listen");
    bool is_list = times > 1 || (is_listen && all->values[i] != NULL && strncmp(all->values[i], "fd:", 3) == 0);
    text_add(config, is_list ? ":[" : ":");
    for (int other = i; other < all->count; other++) {
      if (!is_same(all, other, i)) continue;
      text_add(config, other == i ? "" : ",");
      const char *value = all->values[other];
      if (value == NULL) text_add(config, "true");
      else if (!is_listen) text_add_json(config, value, strlen(value));
      else if (write_listen(config, value) == 0) error = complain("listen", 6, "systemd passed no socket of this name");
    }
    if (is_list) text_add(config, "]");
  }
  text_add(config, "}");
  return error;
}

// Reads a member of the config file. Returns the problem with it.
static const char *take_member(const char *name, const char *value, void *data) {
  const char *error = NULL;
  // Only the command line has `ready-fd`, because its descriptor belongs to the parent process.
  if (strcmp(name, "log-format") == 0 || strcmp(name, "log-level") == 0)
    take_own(name, strlen(name), value, data, &error);
  return error;
}

const char *arguments_read(int count, char **words, program_options *options, char **config) {
  *options = (program_options){.log_level = 1, .ready_fd = -1};
  // The file's options come first, so that flags override them.
  for (int i = 0; i < count; i++) {
    bool is_next = strcmp(words[i], "--config") == 0 && i + 1 < count;
    const char *path = is_next ? words[i + 1] : strncmp(words[i], "--config=", 9) == 0 ? words[i] + 9 : NULL;
    const char *wrong = path == NULL ? NULL : program_members_read(path, take_member, options);
    if (wrong != NULL) return wrong;
  }
  *config = NULL;
  size_t room = (size_t)count + 1;
  flags all = {calloc(room, sizeof *all.names), calloc(room, sizeof *all.lengths), calloc(room, sizeof *all.values), 0};
  const char *error = all.names == NULL || all.values == NULL || all.lengths == NULL ? "no memory" : NULL;
  for (int i = 0; i < count && error == NULL; i++) {
    const char *word = strcmp(words[i], "-h") == 0 ? "--help" : words[i];
    if (!is_flag(word)) {
      // The value may be a secret.
      int others = 0;
      for (int j = i; j < count; j++) others += !is_flag(words[j]);
      snprintf(problem, sizeof problem, "too many arguments. Expected 0 arguments but got %d", others);
      error = problem;
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
    error = write_config(&all, &text);
    *config = text.data;
    if (text.data == NULL && error == NULL) error = "no memory";
  }
  free(all.names);
  free(all.lengths);
  free(all.values);
  return error;
}
