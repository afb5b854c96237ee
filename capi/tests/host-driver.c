// Runs one instance for the tests of the programs on Node: host-driver local|server CONFIG. Events are lines of JSON on standard
// output. Commands are lines on standard input: "stop", or "report", which is answered on descriptor 3; its end stops, too.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../program/text.h"
#include "underpass.h"

enum { REPLIES = 3, EXIT_USAGE = 2 };

static void write_all(int fd, const char *data, size_t length) {
  for (size_t at = 0; at < length;) {
    ssize_t written = write(fd, data + at, length - at);
    if (written <= 0) exit(1);
    at += (size_t)written;
  }
}

static void add_text(text *line, const char *name, const char *value) {
  text_add(line, name);
  text_add_json(line, value, strlen(value));
}

static void emit(text *line) {
  text_add(line, "}\n");
  write_all(STDOUT_FILENO, line->data, line->length);
  free(line->data);
}

static void report_event(const char *event, int status, const char *why) {
  text line = {0};
  char number[32];
  add_text(&line, "{\"event\":", event);
  snprintf(number, sizeof number, ",\"status\":%d", status);
  text_add(&line, number);
  const char *code = underpass_error_name(status);
  if (code != NULL) add_text(&line, ",\"code\":", code);
  add_text(&line, ",\"text\":", why);
  emit(&line);
}

static void on_ready(void *data, const underpass_addresses *addresses) {
  (void)data;
  text line = {0};
  text_add(&line, "{\"event\":\"ready\",\"listen\":[");
  for (size_t i = 0; i < addresses->listen_count; i++) add_text(&line, i == 0 ? "" : ",", addresses->listen[i]);
  text_add(&line, "]");
  if (addresses->socks5 != NULL) add_text(&line, ",\"socks5\":", addresses->socks5);
  emit(&line);
}

static void on_session_up(void *data) { report_event(data, 0, ""); }
static void on_up(void *data) { (void)data, on_session_up("session-up"); }
static void on_resumed(void *data) { (void)data, on_session_up("session-resumed"); }
static void on_down(void *data, int status, const char *why) { (void)data, report_event("session-down", status, why); }
static void on_unreachable(void *data, int status, const char *why) { (void)data, report_event("error", status, why); }
static void on_listener_failed(void *data, int status, const char *why) {
  (void)data, report_event("listener-failed", status, why);
}
static void on_error(void *data, int status, const char *why) { (void)data, report_event("failed", status, why); }

static void on_log(void *data, underpass_log_level level, const char *message, const char *fields) {
  (void)data;
  text line = {0};
  char number[32];
  snprintf(number, sizeof number, ",\"level\":%d", (int)level);
  add_text(&line, "{\"event\":\"log\",\"text\":", message);
  text_add(&line, number);
  text_add(&line, ",\"fields\":");
  text_add(&line, fields);
  emit(&line);
}

static void on_stopped(void *data, int status) {
  (void)data;
  report_event("stopped", status, "");
}

int main(int argc, char **argv) {
  if (argc != 3) return EXIT_USAGE;
  int is_local = strcmp(argv[1], "local") == 0;
  const underpass_callbacks callbacks = {.size = sizeof callbacks,
                                         .ready = on_ready,
                                         .session_up = on_up,
                                         .session_down = on_down,
                                         .session_resumed = on_resumed,
                                         .unreachable = on_unreachable,
                                         .error = on_error,
                                         .log = on_log,
                                         .stopped = on_stopped,
                                         .listener_failed = on_listener_failed};
  underpass_local *local = NULL;
  underpass_server *server = NULL;
  int status;
  if (is_local) {
    const underpass_local_options options = {.size = sizeof options, .config = argv[2]};
    status = underpass_local_start(&options, &callbacks, NULL, &local);
  } else {
    const underpass_server_options options = {.size = sizeof options, .config = argv[2]};
    status = underpass_server_start(&options, &callbacks, NULL, &server);
  }
  if (status != 0) {
    report_event("failed", status, underpass_error_text());
    return EXIT_USAGE;
  }
  char command[32];
  while (fgets(command, sizeof command, stdin) != NULL && strcmp(command, "stop\n") != 0) {
    char *json = NULL;
    status = is_local ? underpass_local_report(local, &json) : underpass_server_report(server, &json);
    text reply = {0};
    text_add(&reply, status == 0 ? json : "null");
    text_add(&reply, "\n");
    write_all(REPLIES, reply.data, reply.length);
    free(reply.data);
    underpass_text_free(json);
  }
  underpass_local_free(local);
  underpass_server_free(server);
  return 0;
}
