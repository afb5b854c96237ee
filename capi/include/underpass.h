/*
 * Underpass: UDP over TCP. Each instance is one end of a tunnel: a udp-local, which takes datagrams from applications; a tun2socks,
 * which takes IP packets from a device; or a udp-server, which sends datagrams to their targets. docs/c-library.md has a tour.
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
typedef struct underpass_tun2socks underpass_tun2socks;

typedef enum underpass_log_level {
  UNDERPASS_LOG_DEBUG,
  UNDERPASS_LOG_INFO,
  UNDERPASS_LOG_WARN,
  UNDERPASS_LOG_ERROR
} underpass_log_level;

/* Where an instance listens; a port 0 that was asked for is a real one here. */
typedef struct underpass_addresses {
  size_t size;
  /* udp-local: IP:PORT of each forward, in the order of the options. udp-server: of each listener. tun2socks: its device. */
  const char *const *listen;
  size_t listen_count;
  /* IP:PORT of udp-local's SOCKS5 server; NULL if it has none. */
  const char *socks5;
  /* Of udp-local: the target of each forward, and the servers with what leads to them, for a person; else NULL. */
  const char *const *targets;
  const char *server;
} underpass_addresses;

/* An IP packet of either version, without anything before it. */
typedef struct underpass_packet {
  const void *data;
  size_t bytes;
} underpass_packet;

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
  /*
   * Of tun2socks: packets for the applications, at least one. If it is set, there is no device, and theirs come by
   * underpass_tun2socks_packets.
   */
  void (*packets)(void *user_data, const underpass_packet *packets, size_t count);
} underpass_callbacks;

/*
 * A stream of yours that carries a connection to the server, over a network library of yours: bytes both ways, in order. There may be
 * several at once. The functions of underpass_carrier are called on the instance's thread, those of underpass_stream by you, from
 * any thread and within callbacks.
 *
 * Back-pressure: `write` takes less than it was given when it can take no more, and underpass_stream_writable has it called again.
 * The other way round underpass_stream_received takes less, and `drained` says that it takes more.
 *
 * The end: the library calls `close` exactly once for what `open` has opened, whatever happens, and you call
 * underpass_stream_closed exactly once; in any order. The first is its last word, the second yours.
 */
typedef struct underpass_stream underpass_stream;

typedef struct underpass_carrier {
  /* sizeof(underpass_carrier) */
  size_t size;
  /*
   * A connection to the server is wanted: opens it, or begins to, sets `*connection` to what the functions below get, and returns 0.
   * Any other number: there is none, and neither of the two is used again. `stream` may be used from now on; the first
   * underpass_stream_writable means that it is connected, which has to be within 10 s. `user_data`: of the instance.
   */
  int (*open)(void *user_data, underpass_stream *stream, void **connection);
  /* Sends up to `count` bytes. Returns how many it has taken. After less than all it is called only once you report that it is writable. */
  size_t (*write)(void *connection, const void *bytes, size_t count);
  /* underpass_stream_received takes more, after it has not taken all. May be NULL if you ask again by yourself. */
  void (*drained)(void *connection);
  /* The connection is not wanted any more: send what was taken, and close it. The last call for it. */
  void (*close)(void *connection);
} underpass_carrier;

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
  /* IP:PORT of a SOCKS5 server for applications; "" for none. Default: none if there are forwards. */
  const char *listen;
  /* Further options as JSON: an object as in udp-local's config file, without comments. None may be given in both. */
  const char *config;
  /* A uv_loop_t to run on instead of a thread of its own; only in a library that was built with the system's libuv. */
  void *loop;
  /* What it may allocate for its state, in bytes. Past it, it fails. Default 256 MiB. */
  size_t memory_bytes;
  /* Makes the connections to the server, in the place of `server` and carriers by URL. Copied. */
  const underpass_carrier *carrier;
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

/* As of underpass_local_options. */
typedef struct underpass_tun2socks_options {
  /* sizeof(underpass_tun2socks_options) */
  size_t size;
  /* Where UDP goes unless `config` has "udp-via": as of udp-local. TCP goes where "tcp-via" says, and is refused by default. */
  const char *server;
  const void *psk;
  size_t psk_bytes;
  /*
   * tun:NAME; fd:N, a descriptor with one packet per read, which is the instance's from now on; unix:/path, where consecutive packets
   * come. To be NULL with the callback `packets`, else by default tun:underpass0.
   */
  const char *device;
  /* As in the config file of tun2socks. */
  const char *config;
  void *loop;
  size_t memory_bytes;
  const underpass_carrier *carrier;
} underpass_tun2socks_options;

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
 * All counters, by reason where they have reasons, as the JSON object that docs/metrics.md explains; `*json` is to be freed by
 * underpass_text_free. Waits and fails as underpass_local_stats does.
 */
UNDERPASS_API int underpass_local_report(underpass_local *local, char **json);

/*
 * Frees it, stopped before or not: waits until it has stopped. Within one of its own callbacks, or for an instance on a loop of yours, it does not wait:
 * nothing is called back any more, but `close` of connections and `closed` of associations, and it goes as soon as it has closed
 * everything. NULL is allowed. Not to be used after it.
 */
UNDERPASS_API void underpass_local_free(underpass_local *local);

/*
 * Bytes that came from the server. Returns how many it has taken, which it copies: less than all when 256 KiB wait, and then `drained`
 * follows. Errors: UNDERPASS_ERR_OPTION; UNDERPASS_ERR_STATE after `close`.
 */
UNDERPASS_API ptrdiff_t underpass_stream_received(underpass_stream *stream, const void *bytes, size_t count);

/* It is connected; or it takes more bytes, after `write` has not taken all. Errors: as above. */
UNDERPASS_API int underpass_stream_writable(underpass_stream *stream);

/*
 * It is closed, or could not be connected. What was received before is still read. `reason`: why, for logs and `unreachable`; NULL
 * when the other end has closed it in an orderly way. `stream` may not be used after it.
 */
UNDERPASS_API void underpass_stream_closed(underpass_stream *stream, const char *reason);

/*
 * An association of a udp-local without a socket: datagrams by function and by callback. Its functions may be called from any thread and
 * within callbacks; it calls back on the instance's thread.
 */
typedef struct underpass_association underpass_association;

typedef struct underpass_datagram {
  /* At most 65,507 bytes. */
  const void *data;
  size_t bytes;
  /* The target, or the source: 192.0.2.1:53, [2001:db8::1]:53, or of a target a name that the server resolves, example.com:53. */
  const char *address;
} underpass_datagram;

/* Why a datagram did not get through. */
typedef enum underpass_unreachable_reason {
  UNDERPASS_UNREACHABLE_PORT,
  UNDERPASS_UNREACHABLE_HOST,
  UNDERPASS_UNREACHABLE_PROHIBITED,
  UNDERPASS_UNREACHABLE_TOO_BIG
} underpass_unreachable_reason;

typedef struct underpass_association_callbacks {
  /* sizeof(underpass_association_callbacks) */
  size_t size;
  /* Datagrams that came, from any of its targets; at least one. */
  void (*received)(void *user_data, const underpass_datagram *datagrams, size_t count);
  /* A datagram to `address` did not get through. `mtu`: what does, of UNDERPASS_UNREACHABLE_TOO_BIG; else 0. */
  void (*unreachable)(void *user_data, const char *address, underpass_unreachable_reason reason, unsigned mtu);
  /* The last call: it was closed, or its instance has stopped; before `stopped`. */
  void (*closed)(void *user_data);
} underpass_association_callbacks;

/*
 * Opens one. A udp-local of which there is nothing else has `listen` "". `callbacks` is copied; NULL for none.
 * `*association` is to be closed by underpass_association_close, also when the instance has stopped.
 * Errors: UNDERPASS_ERR_OPTION, UNDERPASS_ERR_RESOURCE; UNDERPASS_ERR_STATE once the instance has stopped.
 */
UNDERPASS_API int underpass_association_open(underpass_local *local, const underpass_association_callbacks *callbacks,
                                             void *user_data, underpass_association **association);

/*
 * Sends datagrams, which it copies, to any targets. Returns how many it has taken: less than all when 512 KiB or 4,096 of them wait for
 * the instance's thread. Datagrams may be lost, as with UDP.
 * Errors: UNDERPASS_ERR_OPTION for the first of them; UNDERPASS_ERR_STATE when it or its instance has ended.
 */
UNDERPASS_API ptrdiff_t underpass_association_send(underpass_association *association, const underpass_datagram *datagrams,
                                                   size_t count);

/*
 * Closes it: what was taken is sent. Nothing is received any more unless a callback is under way in another thread; `closed` follows. NULL is allowed.
 * Not to be used after it.
 */
UNDERPASS_API void underpass_association_close(underpass_association *association);

/* The same for a tun2socks. */
UNDERPASS_API int underpass_tun2socks_start(const underpass_tun2socks_options *options, const underpass_callbacks *callbacks,
                                            void *user_data, underpass_tun2socks **tun2socks);
UNDERPASS_API int underpass_tun2socks_run(const underpass_tun2socks_options *options, const underpass_callbacks *callbacks,
                                          void *user_data, underpass_tun2socks **tun2socks);
UNDERPASS_API int underpass_tun2socks_stop(underpass_tun2socks *tun2socks);
UNDERPASS_API int underpass_tun2socks_network_changed(underpass_tun2socks *tun2socks);
UNDERPASS_API int underpass_tun2socks_stats(underpass_tun2socks *tun2socks, underpass_stats *stats);
UNDERPASS_API void underpass_tun2socks_free(underpass_tun2socks *tun2socks);

/*
 * Packets of applications, which it copies, for a tun2socks with the callback `packets`. Returns how many it has taken: less than all
 * when 4 MiB or 4,096 of them wait for the instance's thread. From any thread and within callbacks.
 * Errors: UNDERPASS_ERR_OPTION for the first of them; UNDERPASS_ERR_STATE when it has stopped, or has a device.
 */
UNDERPASS_API ptrdiff_t underpass_tun2socks_packets(underpass_tun2socks *tun2socks, const underpass_packet *packets,
                                                    size_t count);

/* The same for a udp-server. */
UNDERPASS_API int underpass_server_start(const underpass_server_options *options, const underpass_callbacks *callbacks,
                                         void *user_data, underpass_server **server);
UNDERPASS_API int underpass_server_run(const underpass_server_options *options, const underpass_callbacks *callbacks,
                                       void *user_data, underpass_server **server);
UNDERPASS_API int underpass_server_stop(underpass_server *server);
UNDERPASS_API int underpass_server_stats(underpass_server *server, underpass_stats *stats);
UNDERPASS_API int underpass_server_report(underpass_server *server, char **json);
UNDERPASS_API void underpass_server_free(underpass_server *server);

/* Frees what a function of this library has said is to be freed so. NULL is allowed. */
UNDERPASS_API void underpass_text_free(char *text);

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
