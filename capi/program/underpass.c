// underpass local|server|tun2socks: all ends as one small program. Exits with 0 after a signal, 1 on failure, 2 for bad options.
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef _WIN32
#include <windows.h>
#else
#include <pthread.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>
#endif

#include "arguments.h"
#include "pipe.h"
#include "text.h"
#include "underpass.h"

enum { EXIT_USAGE = 2 };

static const char USAGE[] =
    "usage: underpass local|server|tun2socks [--config FILE.json] [--NAME VALUE]...\n"
    "\n"
    "  local    takes UDP from applications and sends it over TCP to a server\n"
    "           --server HOST:PORT  --psk-file FILE  --forward LISTEN=TARGET  --listen IP:PORT (SOCKS5)\n"
    "  server   accepts tunnels over TCP and sends their UDP to its targets\n"
    "           --listen IP:PORT  --psk-file FILE  --allow CIDR[:PORTS]\n"
    "  tun2socks  takes IP packets from a device, and sends UDP over TCP to a server and TCP to a SOCKS5 server\n"
    "           --server HOST:PORT  --psk-file FILE  --device tun:NAME  --tcp-via socks5://IP:PORT  --route CIDR\n"
    "\n"
    "  tun2socks --dry-run prints what tun2socks would do, and exits.\n"
    "\n"
    "Further options are those of udp-local, udp-server and tun2socks, under the same names. All three also take:\n"
    "  --log-level debug|info|warn|error|silent, --log-format pretty|json, --ready-fd N, --version, --help\n"
    "\n"
    "Examples:\n"
    "  underpass server --psk-file psk --listen 0.0.0.0:3456\n"
    "  underpass local --psk-file psk --server 192.0.2.1:3456 --forward 127.0.0.1:5353=9.9.9.9:53\n"
    "  underpass tun2socks --psk-file psk --server 192.0.2.1:3456 --tcp-via socks5://127.0.0.1:1080 --route 198.51.100.0/24\n";

typedef struct program {
  const char *name;
  program_options options;
  underpass_local *local;
  underpass_server *server;
  underpass_tun2socks *tun2socks;
  // The status that `stopped` reported.
  int status;
  atomic_bool has_stopped;
  // A failure outside the instance.
  atomic_bool has_failed;
} program;

// Output on standard error, in the format of the programs on Node.

static long long unix_ms(void) {
#ifdef _WIN32
  // In units of 100 ns, since 1601.
  FILETIME now;
  GetSystemTimeAsFileTime(&now);
  return (long long)(((unsigned long long)now.dwHighDateTime << 32 | now.dwLowDateTime) / 10000) - 11644473600000;
#else
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
#endif
}

static void write_time(FILE *out, bool is_json) {
  long long now = unix_ms();
  if (is_json) {
    fprintf(out, "%lld", now);
    return;
  }
  char text[16];
  time_t seconds = (time_t)(now / 1000);
  strftime(text, sizeof text, "%H:%M:%S", localtime(&seconds));
  fprintf(out, "[%s.%03d]", text, (int)(now % 1000));
}

static void on_log(void *data, underpass_log_level level, const char *message, const char *fields) {
  static const char *const NAMES[] = {"DEBUG", "INFO", "WARN", "ERROR"};
  program *program = data;
  if ((int)level < program->options.log_level) return;
  bool is_json = program->options.is_json;
  // The text of the statistics line contains all its fields.
  bool is_stats = !is_json && strncmp(fields, "{\"stats\":", 9) == 0;
  bool has_fields = !is_stats && strcmp(fields, "{}") != 0;
  if (is_json) {
    text quoted = {0};
    text_add_json(&quoted, message, strlen(message));
    fprintf(stderr, "{\"level\":%d,\"time\":", 20 + 10 * (int)level);
    write_time(stderr, true);
    fprintf(stderr, ",%.*s%s\"msg\":%s}\n", has_fields ? (int)strlen(fields) - 2 : 0, fields + 1, has_fields ? "," : "",
            quoted.data == NULL ? "\"\"" : quoted.data);
    free(quoted.data);
    return;
  }
  write_time(stderr, false);
  fprintf(stderr, " %s: %s%s%s\n", NAMES[level], message, has_fields ? " " : "", has_fields ? fields : "");
}

static void on_error(void *data, int status, const char *message) {
  (void)status;
  fprintf(stderr, "%s: %s\n", ((program *)data)->name, message);
}

static const char *device_name(const program *program, const underpass_addresses *addresses) {
  return program->options.has_pipe ? "pipe:" : addresses->listen[0];
}

static text ready_line(const program *program, const underpass_addresses *addresses) {
  bool is_local = strcmp(program->name, "udp-local") == 0;
  text line = {0};
  text_add(&line, "{\"ready\":");
  text_add_json(&line, program->name, strlen(program->name));
  if (addresses->socks5 != NULL) {
    text_add(&line, ",\"socks5\":");
    text_add_json(&line, addresses->socks5, strlen(addresses->socks5));
  }
  if (strcmp(program->name, "tun2socks") == 0) {
    text_add(&line, ",\"device\":");
    text_add_json(&line, device_name(program, addresses), strlen(device_name(program, addresses)));
    text_add(&line, "}\n");
    return line;
  }
  text_add(&line, is_local ? ",\"forwards\":[" : ",\"listen\":[");
  for (size_t i = 0; i < addresses->listen_count; i++) {
    text_add(&line, i == 0 ? "" : ",");
    text_add(&line, is_local ? "{\"listen\":" : "");
    text_add_json(&line, addresses->listen[i], strlen(addresses->listen[i]));
    if (is_local && addresses->targets != NULL) {
      text_add(&line, ",\"target\":");
      text_add_json(&line, addresses->targets[i], strlen(addresses->targets[i]));
    }
    text_add(&line, is_local ? "}" : "");
  }
  text_add(&line, "]");
  if (addresses->server != NULL) {
    text_add(&line, ",\"server\":");
    text_add_json(&line, addresses->server, strlen(addresses->server));
  }
  text_add(&line, "}\n");
  return line;
}

static void write_pretty(const program *program, const underpass_addresses *addresses) {
  fprintf(stderr, "%s ready:", program->name);
  if (strcmp(program->name, "tun2socks") == 0) {
    fprintf(stderr, " device %s\n", device_name(program, addresses));
    return;
  }
  const char *separator = " ";
  if (addresses->socks5 != NULL) {
    fprintf(stderr, " socks5 %s", addresses->socks5);
    separator = ", ";
  }
  bool is_local = strcmp(program->name, "udp-local") == 0;
  for (size_t i = 0; i < addresses->listen_count; i++) {
    fprintf(stderr, "%s%s %s", separator, is_local ? "forward" : "listen", addresses->listen[i]);
    if (addresses->targets != NULL) fprintf(stderr, " -> %s", addresses->targets[i]);
    separator = ", ";
  }
  if (addresses->server != NULL) fprintf(stderr, "%sserver %s", separator, addresses->server);
  fprintf(stderr, "\n");
}

#ifndef _WIN32
static void write_ready_fd(int fd, const text *line) {
  for (size_t at = 0; at < line->length;) {
    ssize_t written = write(fd, line->data + at, line->length - at);
    if (written <= 0) break;
    at += (size_t)written;
  }
  // The standard streams stay open: otherwise their numbers could be reused, and later output would go to the wrong file.
  if (fd > 2) close(fd);
}

static void notify_systemd(const char *state) {
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (path == NULL || strlen(path) >= sizeof address.sun_path) return;
  strcpy(address.sun_path, path);
  socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
  // An abstract name begins with a zero.
  if (path[0] == '@') address.sun_path[0] = 0;
  int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  if (fd < 0) return;
  sendto(fd, state, strlen(state), 0, (struct sockaddr *)&address, length);
  close(fd);
}
#endif

static void on_ready(void *data, const underpass_addresses *addresses) {
  program *program = data;
  text line = ready_line(program, addresses);
  if (line.data == NULL) return;
  if (program->options.is_json) fputs(line.data, stderr);
  else write_pretty(program, addresses);
#ifndef _WIN32
  if (program->options.ready_fd >= 0) write_ready_fd(program->options.ready_fd, &line);
  notify_systemd("READY=1");
#endif
  free(line.data);
}

// The end of the instance, or of the user's patience.

#ifdef _WIN32
static HANDLE wake;
static volatile LONG interrupts;

static BOOL WINAPI on_console_event(DWORD event) {
  (void)event;
  if (InterlockedIncrement(&interrupts) > 1) return FALSE;
  SetEvent(wake);
  return TRUE;
}

static void handle_signals(void) {
  wake = CreateEventA(NULL, FALSE, FALSE, NULL);
  SetConsoleCtrlHandler(on_console_event, TRUE);
}

static void wake_main(void) { SetEvent(wake); }

// Returns 0 when it was woken, otherwise the number of a signal.
static int wait_for_event(void) {
  WaitForSingleObject(wake, INFINITE);
  return interrupts > 0 ? SIGINT : 0;
}
#else
static sigset_t signals;

static void handle_signals(void) {
  signal(SIGPIPE, SIG_IGN);
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  // Closing a terminal also sends this signal, which is no reason to exit.
  sigaddset(&signals, SIGHUP);
  sigaddset(&signals, SIGUSR2);
  // Threads that start later inherit the mask.
  pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

static void wake_main(void) { kill(getpid(), SIGUSR2); }

static int wait_for_event(void) {
  int number;
  sigwait(&signals, &number);
  return number == SIGUSR2 ? 0 : number;
}
#endif

static void on_stopped(void *data, int status) {
  ((program *)data)->status = status;
  atomic_store(&((program *)data)->has_stopped, true);
  wake_main();
}

static void stop(program *program) {
  if (program->local != NULL) underpass_local_stop(program->local);
  else if (program->server != NULL) underpass_server_stop(program->server);
  else underpass_tun2socks_stop(program->tun2socks);
}

// Standard input has ended. Called on the pipe's thread.
static void on_pipe_ended(void *data, const char *problem) {
  program *program = data;
  if (problem != NULL) {
    fprintf(stderr, "%s: %s\n", program->name, problem);
    atomic_store(&program->has_failed, true);
  }
  stop(program);
}

// The first signal drains; the second ends the program at once.
static void run(program *program) {
  bool is_stopping = false;
  while (!atomic_load(&program->has_stopped)) {
    int number = wait_for_event();
    if (number == 0) continue;
#ifndef _WIN32
    if (number == SIGHUP) {
      on_log(program, UNDERPASS_LOG_INFO, "nothing to reload on SIGHUP", "{}");
      continue;
    }
#endif
    if (is_stopping) _exit(128 + number);
    is_stopping = true;
    on_log(program, UNDERPASS_LOG_INFO, "closing", number == SIGTERM ? "{\"signal\":\"SIGTERM\"}" : "{\"signal\":\"SIGINT\"}");
#ifndef _WIN32
    notify_systemd("STOPPING=1");
#endif
    stop(program);
  }
}

static int usage(const char *problem) {
  if (problem == NULL) {
    fputs(USAGE, stdout);
    return 0;
  }
  fprintf(stderr, "underpass: %s; see --help\n", problem);
  return EXIT_USAGE;
}

static int show_plan(const program *program, const underpass_tun2socks_options *options, const underpass_callbacks *callbacks) {
  char *plan;
  if (underpass_tun2socks_plan(options, callbacks, &plan) != 0) {
    fprintf(stderr, "%s: %s\n", program->name, underpass_error_text());
    return EXIT_USAGE;
  }
  printf("%s\n", plan);
  underpass_text_free(plan);
  return 0;
}

int main(int argc, char **argv) {
  const char *command = argc > 1 ? argv[1] : "";
  bool is_local = strcmp(command, "local") == 0;
  bool is_server = strcmp(command, "server") == 0;
  bool is_tun2socks = strcmp(command, "tun2socks") == 0;
  program program = {0};
  char *config;
  int skipped = is_local || is_server || is_tun2socks ? 2 : 1;
  const char *problem = arguments_read(argc - skipped, argv + skipped, &program.options, &config);
  if (problem == NULL && program.options.wants_help) return usage(NULL);
  if (problem == NULL && program.options.wants_version) {
    printf("%s\n", underpass_version());
    return 0;
  }
  if (skipped == 1) problem = "expected local, server or tun2socks";
  if (problem == NULL && program.options.has_pipe && !is_tun2socks) problem = "unknown option '--device'";
  if (problem == NULL && program.options.wants_plan && !is_tun2socks) problem = "unknown option '--dry-run'";
  if (problem != NULL) return usage(problem);
  program.name = is_local ? "udp-local" : is_server ? "udp-server" : "tun2socks";

  handle_signals();
  underpass_callbacks callbacks = {
      .size = sizeof callbacks, .ready = on_ready, .error = on_error, .log = on_log, .stopped = on_stopped};
  int status;
  if (is_local) {
    const underpass_local_options options = {.size = sizeof options, .config = config};
    status = underpass_local_start(&options, &callbacks, &program, &program.local);
  } else if (is_tun2socks) {
#ifndef _WIN32
    if (program.options.has_pipe) callbacks.packets = pipe_packets;
#endif
    const underpass_tun2socks_options options = {.size = sizeof options, .config = config};
    if (program.options.wants_plan) {
      int shown = show_plan(&program, &options, &callbacks);
      free(config);
      return shown;
    }
    status = underpass_tun2socks_start(&options, &callbacks, &program, &program.tun2socks);
#ifndef _WIN32
    if (status == 0 && program.options.has_pipe && !pipe_start(program.tun2socks, on_pipe_ended, &program)) stop(&program);
#endif
  } else {
    const underpass_server_options options = {.size = sizeof options, .config = config};
    status = underpass_server_start(&options, &callbacks, &program, &program.server);
  }
  free(config);
  if (status != 0) {
    fprintf(stderr, "%s: %s\n", program.name, underpass_error_text());
    return EXIT_USAGE;
  }
  run(&program);
  underpass_local_free(program.local);
  underpass_server_free(program.server);
  // Threads of the pipe may still use the instance.
  if (!program.options.has_pipe) underpass_tun2socks_free(program.tun2socks);
  return program.status == 0 && !atomic_load(&program.has_failed) ? 0 : 1;
}
