/*
 * Underpass: UDP over TCP. Each instance is one end of a tunnel: a udp-local, which takes datagrams from applications; a tun2socks,
 * which takes IP packets from a device; or a udp-server, which sends datagrams to their targets. docs/embed/c-library.md has a tour.
 *
 * Threads: unless stated otherwise, an instance runs on a thread of its own and makes its callbacks there. Functions that take an
 * instance may be called from any thread and from callbacks. The exception is an instance on a loop of yours, whose functions may
 * only be called on that loop's thread. Instances share nothing but mbedTLS's store of keys, which has locks. A callback must not
 * block, because it stops its whole instance.
 *
 * Memory: arguments are read or copied during the call. What a callback receives is valid until it returns. Strings are UTF-8.
 *
 * Errors: functions return 0, or the negative number of an error (underpass-errors.h). underpass_error_name() returns its name, which
 * never changes, and underpass_error_text() a description for people.
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

/* The addresses on which an instance listens, with the port that the system chose instead of port 0. */
typedef struct underpass_addresses {
  size_t size;
  /* udp-local: IP:PORT of each forward, in the order of the options. udp-server: of each listener. tun2socks: its device. */
  const char *const *listen;
  size_t listen_count;
  /* IP:PORT of udp-local's SOCKS5 server; NULL if it has none. */
  const char *socks5;
  /* udp-local: the target of each forward, and the servers with the carriers to them, as text for people. Otherwise NULL. */
  const char *const *targets;
  const char *server;
} underpass_addresses;

/* An IP packet of either version, without anything before it. */
typedef struct underpass_packet {
  const void *data;
  size_t bytes;
} underpass_packet;

/* Any of these may be NULL. `user_data` is the argument given at the start. */
typedef struct underpass_callbacks {
  /* sizeof(underpass_callbacks) */
  size_t size;
  /* The instance listens. Called at most once. */
  void (*ready)(void *user_data, const underpass_addresses *addresses);
  /* A session with the server is up; for udp-server, with a client. */
  void (*session_up)(void *user_data);
  /*
   * The session has lost its last connection and tries to resume; for udp-server, it may also have ended. `status` and `text` give
   * the reason. Without an error, `status` is 0, and the text of udp-server is the session's number.
   */
  void (*session_down)(void *user_data, int status, const char *text);
  void (*session_resumed)(void *user_data);
  /* udp-local: a connection to the server failed or could not be made. The library tries again by itself. */
  void (*unreachable)(void *user_data, int status, const char *text);
  /* The error that ends the instance. `stopped` follows with the same status. */
  void (*error)(void *user_data, int status, const char *text);
  /* One line of the log. `fields` has its data as a JSON object, without secrets. */
  void (*log)(void *user_data, underpass_log_level level, const char *message, const char *fields);
  /* The last call. `status` is 0 after a stop, otherwise the error's. */
  void (*stopped)(void *user_data, int status);
  /*
   * Receives each socket before it is bound or connected, for Android's VpnService.protect, for marks and similar purposes. Return 0, or
   * any other number to close the socket. `socket` is a descriptor, or a SOCKET on Windows. Must not call functions of this library.
   */
  int (*protect)(void *user_data, intptr_t socket);
  /*
   * tun2socks: packets for the applications, at least one. If this is set, the instance has no device, and you pass the packets that
   * come from the applications to underpass_tun2socks_packets.
   */
  void (*packets)(void *user_data, const underpass_packet *packets, size_t count);
  /* A listener accepts no more connections. The instance otherwise continues; only a restart makes it listen again. */
  void (*listener_failed)(void *user_data, int status, const char *text);
} underpass_callbacks;

/*
 * A stream of your own network library that carries a connection to the server: bytes both ways, in order. Several may exist at once.
 * The library calls the functions of underpass_carrier on the instance's thread. You call those of underpass_stream, from any thread
 * and from callbacks.
 *
 * Back-pressure: `write` accepts fewer bytes than it is given when it can take no more, and underpass_stream_writable makes the library
 * call it again. In the other direction, underpass_stream_received accepts fewer bytes, and `drained` reports that it accepts more.
 *
 * The end: for each connection that `open` opened, the library calls `close` exactly once, whatever happens, and you call
 * underpass_stream_closed exactly once, in either order. After its own call, neither side makes another call for that connection.
 */
typedef struct underpass_stream underpass_stream;

typedef struct underpass_carrier {
  /* sizeof(underpass_carrier) */
  size_t size;
  /*
   * Opens a connection to the server, or begins to, sets `*connection` to the argument for the functions below, and returns 0. Any
   * other number reports a failure; then neither `stream` nor `*connection` is used again. You may use `stream` from now on. Your first
   * underpass_stream_writable, which has to come within 10 s, reports that it is connected. `user_data` is that of the instance.
   */
  int (*open)(void *user_data, underpass_stream *stream, void **connection);
  /* Sends up to `count` bytes and returns how many it accepted. If not all, the next call follows your underpass_stream_writable. */
  size_t (*write)(void *connection, const void *bytes, size_t count);
  /* underpass_stream_received accepts more, after it did not accept all. May be NULL if you try again by yourself. */
  void (*drained)(void *connection);
  /* The connection is no longer needed: send what was accepted, and close it. The last call for it. */
  void (*close)(void *connection);
} underpass_carrier;

/* Fields that are 0 or NULL have the defaults of udp-local, which also documents the members of `config`. */
typedef struct underpass_local_options {
  /* sizeof(underpass_local_options) */
  size_t size;
  /* HOST:PORT of udp-server, as seen from the last carrier; carriers are `via` in `config`. */
  const char *server;
  /* The pre-shared key, at least 16 bytes; NULL for none. */
  const void *psk;
  size_t psk_bytes;
  /* LISTEN=TARGET each, such as 127.0.0.1:5353=9.9.9.9:53. */
  const char *const *forwards;
  size_t forward_count;
  /* IP:PORT of a SOCKS5 server for applications; "" for none. Default: none if there are forwards. */
  const char *listen;
  /* Further options: a JSON object as in udp-local's config file, without comments. No option may be given in both places. */
  const char *config;
  /* A uv_loop_t to run on instead of its own thread; only in a library built with the system's libuv. */
  void *loop;
  /* Limit in bytes for the memory of its state. Past this, the instance fails. Default 256 MiB. */
  size_t memory_bytes;
  /* Makes the connections to the server, instead of `server` and carriers by URL. Copied. */
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
  /* Further options: a JSON object as in udp-server's config file. */
  const char *config;
  void *loop;
  size_t memory_bytes;
} underpass_server_options;

/* Fields without a comment are as in underpass_local_options. */
typedef struct underpass_tun2socks_options {
  /* sizeof(underpass_tun2socks_options) */
  size_t size;
  /* The udp-server for UDP, unless `config` has "udp-via". TCP goes to the "tcp-via" of `config`, and is refused by default. */
  const char *server;
  const void *psk;
  size_t psk_bytes;
  /*
   * tun:NAME; fd:N, a descriptor with one packet per read, which the instance owns from now on; or unix:/path, which receives
   * consecutive packets. Must be NULL with the callback `packets`. Default tun:underpass0.
   */
  const char *device;
  /* Further options: a JSON object as in tun2socks' config file. */
  const char *config;
  void *loop;
  size_t memory_bytes;
  const underpass_carrier *carrier;
} underpass_tun2socks_options;

/* in: from a tunnel; out: into a tunnel. Counts are since the start; bytes are UDP payload. */
typedef struct underpass_stats {
  /* Set by the caller: sizeof(underpass_stats). */
  size_t size;
  /* Current numbers of sessions, connections that carry them, sources of datagrams, and addresses that they talk to. */
  uint64_t sessions, lanes, associations, contexts;
  uint64_t datagrams_in, datagrams_out, bytes_in, bytes_out;
  /* Sessions that a new connection resumed. */
  uint64_t resumed;
  /* Datagrams dropped, and refusals and evictions, for any reason. */
  uint64_t dropped, refused;
  /* Smoothed round-trip time of the tunnel in milliseconds; negative if unknown. */
  double rtt_ms;
} underpass_stats;

/*
 * Starts a udp-local. Returns when its options have been checked; `ready` follows when it listens, or `error` and `stopped`.
 * `callbacks` is copied; NULL for none. `*local` is set before the first callback; free it with underpass_local_free.
 * Errors: UNDERPASS_ERR_OPTION, UNDERPASS_ERR_FILE, UNDERPASS_ERR_RESOURCE; then nothing has started, `*local` is NULL, and no
 * callback is made.
 */
UNDERPASS_API int underpass_local_start(const underpass_local_options *options, const underpass_callbacks *callbacks,
                                        void *user_data, underpass_local **local);

/*
 * The same on the calling thread. Returns the status that `stopped` reported once the instance has stopped. `*local` is set before
 * the first callback and must still be freed. `options->loop` must be NULL.
 */
UNDERPASS_API int underpass_local_run(const underpass_local_options *options, const underpass_callbacks *callbacks,
                                      void *user_data, underpass_local **local);

/*
 * Ends the session in an orderly way and closes everything; `stopped` follows when that is done, within about a second.
 * Returns at once. May be called at any time and more than once.
 */
UNDERPASS_API int underpass_local_stop(underpass_local *local);

/*
 * Call this when the network or address of the machine has changed: ends all connections and connects again at once, instead of
 * waiting until they prove dead. The session resumes. Errors: UNDERPASS_ERR_OPTION, UNDERPASS_ERR_STATE.
 */
UNDERPASS_API int underpass_local_network_changed(underpass_local *local);

/* Fills in `*stats`. Waits for the instance's thread. Errors: UNDERPASS_ERR_OPTION, UNDERPASS_ERR_STATE once it has stopped. */
UNDERPASS_API int underpass_local_stats(underpass_local *local, underpass_stats *stats);

/*
 * All counters, by reason where they have reasons, as the JSON object that docs/reference/metrics.md explains. Free `*json` with
 * underpass_text_free. Waits and fails as underpass_local_stats does.
 */
UNDERPASS_API int underpass_local_report(underpass_local *local, char **json);

/*
 * Frees the instance, stopping it first if necessary, and waits until it has stopped. Within one of its own callbacks, or for an
 * instance on a loop of yours, it does not wait. The only callbacks after that are `close` of connections and `closed` of
 * associations, and the instance is freed once it has closed everything. NULL is allowed. Do not use the instance afterwards.
 */
UNDERPASS_API void underpass_local_free(underpass_local *local);

/*
 * Passes in bytes from the server, which are copied. Returns how many were accepted: fewer than all when 256 KiB wait, and then
 * `drained` follows. Errors: UNDERPASS_ERR_OPTION; UNDERPASS_ERR_STATE after `close`.
 */
UNDERPASS_API ptrdiff_t underpass_stream_received(underpass_stream *stream, const void *bytes, size_t count);

/* The stream is connected, or accepts more bytes after `write` did not accept all. Errors as above. */
UNDERPASS_API int underpass_stream_writable(underpass_stream *stream);

/*
 * The stream has closed, or could not connect. Bytes received before are still read. `reason` explains why, for logs and
 * `unreachable`; NULL if the other end closed it in an orderly way. Do not use `stream` afterwards.
 */
UNDERPASS_API void underpass_stream_closed(underpass_stream *stream, const char *reason);

/*
 * An association of a udp-local without a socket: datagrams go in by function and come out by callback. Its functions may be called
 * from any thread and from callbacks; its callbacks run on the instance's thread.
 */
typedef struct underpass_association underpass_association;

typedef struct underpass_datagram {
  /* At most 65,507 bytes. */
  const void *data;
  size_t bytes;
  /* The target or the source: 192.0.2.1:53, [2001:db8::1]:53, or for a target a name that the server resolves, example.com:53. */
  const char *address;
} underpass_datagram;

/* Why a datagram did not reach its target. */
typedef enum underpass_unreachable_reason {
  UNDERPASS_UNREACHABLE_PORT,
  UNDERPASS_UNREACHABLE_HOST,
  UNDERPASS_UNREACHABLE_PROHIBITED,
  UNDERPASS_UNREACHABLE_TOO_BIG
} underpass_unreachable_reason;

typedef struct underpass_association_callbacks {
  /* sizeof(underpass_association_callbacks) */
  size_t size;
  /* Datagrams that arrived from any of its targets; at least one. */
  void (*received)(void *user_data, const underpass_datagram *datagrams, size_t count);
  /* A datagram did not reach `address`. `mtu` is the largest packet that would, for UNDERPASS_UNREACHABLE_TOO_BIG; otherwise 0. */
  void (*unreachable)(void *user_data, const char *address, underpass_unreachable_reason reason, unsigned mtu);
  /* The last call: the association was closed, or its instance is stopping; it comes before `stopped`. */
  void (*closed)(void *user_data);
} underpass_association_callbacks;

/*
 * Opens an association. Set `listen` to "" for a udp-local that serves nothing else. `callbacks` is copied; NULL for none.
 * Close `*association` with underpass_association_close, even if the instance has stopped.
 * Errors: UNDERPASS_ERR_OPTION, UNDERPASS_ERR_RESOURCE; UNDERPASS_ERR_STATE once the instance has stopped.
 */
UNDERPASS_API int underpass_association_open(underpass_local *local, const underpass_association_callbacks *callbacks,
                                             void *user_data, underpass_association **association);

/*
 * Sends datagrams, which are copied, to any targets. Returns how many were accepted: fewer than all when 512 KiB or 4,096 datagrams wait
 * for the instance's thread. Datagrams may be lost, as with UDP.
 * Errors: UNDERPASS_ERR_OPTION if the first datagram is not valid; UNDERPASS_ERR_STATE if the association or its instance has ended.
 */
UNDERPASS_API ptrdiff_t underpass_association_send(underpass_association *association, const underpass_datagram *datagrams,
                                                   size_t count);

/*
 * Closes an association after sending what was accepted. No datagram is received afterwards, except by a callback that already runs in
 * another thread; `closed` follows. NULL is allowed. Do not use the association afterwards.
 */
UNDERPASS_API void underpass_association_close(underpass_association *association);

/* The same for a tun2socks. */
UNDERPASS_API int underpass_tun2socks_start(const underpass_tun2socks_options *options, const underpass_callbacks *callbacks,
                                            void *user_data, underpass_tun2socks **tun2socks);
UNDERPASS_API int underpass_tun2socks_run(const underpass_tun2socks_options *options, const underpass_callbacks *callbacks,
                                          void *user_data, underpass_tun2socks **tun2socks);
/*
 * Checks the options and describes in lines of text, without secrets, what a tun2socks with them would do: its device, addresses and
 * routes, its rules and ways. Opens nothing. Only `packets` of the callbacks matters. Free `*plan` with underpass_text_free.
 */
UNDERPASS_API int underpass_tun2socks_plan(const underpass_tun2socks_options *options, const underpass_callbacks *callbacks,
                                           char **plan);
UNDERPASS_API int underpass_tun2socks_stop(underpass_tun2socks *tun2socks);
UNDERPASS_API int underpass_tun2socks_network_changed(underpass_tun2socks *tun2socks);
UNDERPASS_API int underpass_tun2socks_stats(underpass_tun2socks *tun2socks, underpass_stats *stats);
UNDERPASS_API void underpass_tun2socks_free(underpass_tun2socks *tun2socks);

/*
 * Passes in packets of applications, which are copied, for a tun2socks with the callback `packets`. Returns how many were accepted:
 * fewer than all when 4 MiB or 4,096 packets wait for the instance's thread. May be called from any thread and from callbacks.
 * Errors: UNDERPASS_ERR_OPTION if the first packet is not valid; UNDERPASS_ERR_STATE if the instance has stopped, or has a device.
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

/* Frees text that a function of this library returned for this purpose. NULL is allowed. */
UNDERPASS_API void underpass_text_free(char *text);

/* Such as "0.1.0". */
UNDERPASS_API const char *underpass_version(void);

/* The name, such as "ERR_OPTION" for UNDERPASS_ERR_OPTION; NULL for an unknown number. From any thread. */
UNDERPASS_API const char *underpass_error_name(int status);

/* Describes the error that this thread's last failing call returned; valid until its next call. Never NULL. */
UNDERPASS_API const char *underpass_error_text(void);

#ifdef __cplusplus
}
#endif

#endif
