/*
 * Underpass: UDP over TCP. Each instance is one end of a tunnel: a udp-local, which takes datagrams from applications, or a
 * udp-server, which sends them to their targets. docs/c-library.md has a tour.
 *
 * Threads: an instance runs on a thread of its own unless it is said otherwise, and calls back on that thread. Functions
 * that take an instance may be called from any thread and from within callbacks, but for an instance on a loop of yours: there only
 * on that loop's thread. Instances share nothing. A callback must not block: while it runs, nothing else of its instance does.
 *
 * Memory: what you pass is read or copied during the call. What callbacks get is valid until they return. Strings are UTF-8.
 *
 * Errors: functions return 0, or the negative number of an error (underpass-errors.h). underpass_error_name() has its name, which
 * never changes, and underpass_error_text() what was wrong, for a person.
 */
#ifndef UNDERPASS_H
#define UNDERPASS_H

#include <stddef.h>
#include <stdint.h>

#include "underpass-errors.h"

#ifndef UNDERPASS_API
#if defined(_WIN32) && defined(UNDERPASS_BUILDS_DLL)
#define UNDERPASS_API __declspec(dllexport)
#elif defined(_WIN32) && defined(UNDERPASS_USES_DLL)
#define UNDERPASS_API __declspec(dllimport)
#elif defined(__GNUC__)
#define UNDERPASS_API __attribute__((visibility("default")))
#else
#define UNDERPASS_API
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct underpass_local underpass_local;
typedef struct underpass_server underpass_server;

typedef enum underpass_log_level {
  UNDERPASS_LOG_DEBUG,
  UNDERPASS_LOG_INFO,
  UNDERPASS_LOG_WARN,
  UNDERPASS_LOG_ERROR
} underpass_log_level;

/* Where an instance listens; a port 0 that was asked for is a real one here. */
typedef struct underpass_addresses {
  size_t size;
  /* udp-local: IP:PORT of each forward, in the order of the options. udp-server: of each listener. */
  const char *const *listen;
  size_t listen_count;
  /* IP:PORT of udp-local's SOCKS5 server; NULL if it has none. */
  const char *socks5;
} underpass_addresses;

/* Each may be NULL. `user_data` is what was given at the start. */
typedef struct underpass_callbacks {
  /* sizeof(underpass_callbacks) */
  size_t size;
  /* It listens. Once at most. */
  void (*ready)(void *user_data, const underpass_addresses *addresses);
  /* There is a session with the server; of udp-server: with a client. */
  void (*session_up)(void *user_data);
  /*
   * The session has lost its last connection, and tries to resume; of udp-server: or it has ended. `status` and `text`: why;
   * 0 where no error is the reason, and then the text of udp-server is the session's number.
   */
  void (*session_down)(void *user_data, int status, const char *text);
  void (*session_resumed)(void *user_data);
  /* Of udp-local: a connection to the server failed or was not made; another attempt follows by itself. */
  void (*unreachable)(void *user_data, int status, const char *text);
  /* What ends the instance: `stopped` follows, with the same status. */
  void (*error)(void *user_data, int status, const char *text);
  /* One line. `fields`: its data as a JSON object, without secrets. */
  void (*log)(void *user_data, underpass_log_level level, const char *message, const char *fields);
  /* The last call. `status`: 0 after a stop, else that of the error. */
  void (*stopped)(void *user_data, int status);
  /*
   * A socket, before it is bound or connected: for Android's VpnService.protect, marks and the like. Returns 0, or another
   * number to have it closed. `socket`: a descriptor; on Windows a SOCKET. It must not call any function of this library.
   */
  int (*protect)(void *user_data, intptr_t socket);
} underpass_callbacks;

/* Fields that are 0 or NULL have the defaults of the program udp-local; those of `config` are documented with it. */
typedef struct underpass_local_options {
  /* sizeof(underpass_local_options) */
  size_t size;
  /* HOST:PORT of udp-server, as the last carrier reaches it; carriers are `via` in `config`. */
  const char *server;
  /* The pre-shared key, at least 16 bytes; NULL for none. */
  const void *psk;
  size_t psk_bytes;
  /* LISTEN=TARGET each, such as 127.0.0.1:5353=9.9.9.9:53. */
  const char *const *forwards;
  size_t forward_count;
  /* IP:PORT of a SOCKS5 server for applications. Default: none if there are forwards. */
  const char *listen;
  /* Further options as JSON: an object as in udp-local's config file, without comments. None may be given in both. */
  const char *config;
  /* A uv_loop_t to run on instead of a thread of its own; only in a library that was built with the system's libuv. */
  void *loop;
  /* What it may allocate for its state, in bytes. Past it, it fails. Default 256 MiB. */
  size_t memory_bytes;
} underpass_local_options;

typedef struct underpass_server_options {
  /* sizeof(underpass_server_options) */
  size_t size;
  /* IP:PORT each to listen on. */
  const char *const *listen;
  size_t listen_count;
  const void *psk;
  size_t psk_bytes;
  /* As in udp-server's config file. */
  const char *config;
  void *loop;
  size_t memory_bytes;
} underpass_server_options;

/* in: from a tunnel; out: into a tunnel. Counts are since the start; bytes are UDP payload. */
typedef struct underpass_stats {
  /* To be set by the caller: sizeof(underpass_stats). */
  size_t size;
  /* Now: sessions, connections that carry them, sources of datagrams, and addresses they talk to. */
  uint64_t sessions, lanes, associations, contexts;
  uint64_t datagrams_in, datagrams_out, bytes_in, bytes_out;
  /* Sessions that a new connection resumed. */
  uint64_t resumed;
  /* Datagrams dropped, and what was refused or evicted, for any reason. */
  uint64_t dropped, refused;
  /* Smoothed round-trip time of the tunnel in milliseconds; negative if it is not known. */
  double rtt_ms;
} underpass_stats;

/*
 * Starts a udp-local. Returns when its options have been checked; `ready` follows when it listens, or `error` and `stopped`.
 * `callbacks` is copied; NULL for none. `*local` is set before the first callback, and is to be freed by
 * underpass_local_free.
 * Errors: UNDERPASS_ERR_OPTION, UNDERPASS_ERR_FILE, UNDERPASS_ERR_RESOURCE; then nothing has been started, `*local` is NULL and
 * nothing is called back.
 */
UNDERPASS_API int underpass_local_start(const underpass_local_options *options, const underpass_callbacks *callbacks,
                                        void *user_data, underpass_local **local);

/*
 * The same on the calling thread. Returns when it has been stopped, what `stopped` reported. `*local`, which is set before
 * the first callback, remains to be freed. `options->loop` must be NULL.
 */
UNDERPASS_API int underpass_local_run(const underpass_local_options *options, const underpass_callbacks *callbacks,
                                      void *user_data, underpass_local **local);

/*
 * Ends the session in an orderly way and closes everything; `stopped` is called when that is done, within a second or so.
 * Returns at once. May be called at any time and more than once.
 */
UNDERPASS_API int underpass_local_stop(underpass_local *local);

/*
 * To be called when the machine has another network or address: ends all connections and connects again at once, without
 * waiting until they are found to be dead. The session resumes. Errors: UNDERPASS_ERR_OPTION, UNDERPASS_ERR_STATE.
 */
UNDERPASS_API int underpass_local_network_changed(underpass_local *local);

/* Fills in `*stats`. Waits for the instance's thread. Errors: UNDERPASS_ERR_OPTION, UNDERPASS_ERR_STATE once it has stopped. */
UNDERPASS_API int underpass_local_stats(underpass_local *local, underpass_stats *stats);

/*
 * Frees it, stopped before or not: waits until it has stopped. Within one of its own callbacks, or for an instance on a loop of yours, it does not wait:
 * nothing is called back any more, and it goes as soon as it has closed everything. NULL is allowed. Not to be used after it.
 */
UNDERPASS_API void underpass_local_free(underpass_local *local);

/* The same for a udp-server. */
UNDERPASS_API int underpass_server_start(const underpass_server_options *options, const underpass_callbacks *callbacks,
                                         void *user_data, underpass_server **server);
UNDERPASS_API int underpass_server_run(const underpass_server_options *options, const underpass_callbacks *callbacks,
                                       void *user_data, underpass_server **server);
UNDERPASS_API int underpass_server_stop(underpass_server *server);
UNDERPASS_API int underpass_server_stats(underpass_server *server, underpass_stats *stats);
UNDERPASS_API void underpass_server_free(underpass_server *server);

/* Such as "0.1.0". */
UNDERPASS_API const char *underpass_version(void);

/* Such as "ERR_OPTION" for UNDERPASS_ERR_OPTION; NULL for a number that is none. From any thread. */
UNDERPASS_API const char *underpass_error_name(int status);

/* What was wrong in the last call of this thread that returned an error; valid until its next call. Never NULL. */
UNDERPASS_API const char *underpass_error_text(void);

#ifdef __cplusplus
}
#endif

#endif
