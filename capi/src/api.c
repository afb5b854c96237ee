// Implements underpass.h with instances.
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "embedder/packets.h"
#include "error-names.h"
#include "instance.h"

#define LEAST_MEMORY_BYTES (4 * 1024 * 1024)

// Copies a struct of the caller, whose version may be older or newer. Fields that this library does not know must be 0.
static bool take_struct(void *copy, size_t known, const void *given, size_t given_size, size_t least) {
  if (given_size < least) return false;
  for (size_t i = known; i < given_size; i++)
    if (((const uint8_t *)given)[i] != 0) return false;
  memcpy(copy, given, given_size < known ? given_size : known);
  return true;
}

static int wrong(const char *text) { return set_error(UNDERPASS_ERR_OPTION, text); }

static bool has_null(const char *const *list, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (list[i] == NULL) return true;
  return false;
}

static int check(const start_options *options) {
  if (options->psk == NULL && options->psk_bytes != 0) return wrong("psk: NULL with a length");
  if (options->listen == NULL && options->listen_count != 0) return wrong("listen: NULL with a count");
  if (options->forwards == NULL && options->forward_count != 0) return wrong("forwards: NULL with a count");
  if (has_null(options->listen, options->listen_count)) return wrong("listen: one is NULL");
  if (has_null(options->forwards, options->forward_count)) return wrong("forwards: one is NULL");
  if (options->memory_bytes != 0 && options->memory_bytes < LEAST_MEMORY_BYTES)
    return wrong("memory_bytes: at least 4 MiB");
#ifndef UNDERPASS_SYSTEM_LIBUV
  // Another libuv's loop may have another layout.
  if (options->loop != NULL) return wrong("loop: this library was not built with the system's libuv");
#endif
  return 0;
}

static int take_callbacks(const underpass_callbacks *given, underpass_callbacks *callbacks) {
  bool is_good = given == NULL || take_struct(callbacks, sizeof *callbacks, given, given->size, sizeof given->size);
  return is_good ? 0 : wrong("callbacks: size is wrong");
}

static int start(const start_options *options, place place, const underpass_callbacks *given, void *user_data,
                 instance **result) {
  *result = NULL;
  underpass_callbacks callbacks = {0};
  int status = take_callbacks(given, &callbacks);
  if (status == 0) status = check(options);
  if (status != 0) return status;
  if (options->loop != NULL) {
    if (place == PLACE_CALLING_THREAD) return wrong("loop: there is none to run on the calling thread");
    place = PLACE_CALLERS_LOOP;
  }
  return instance_start(options, place, given == NULL ? NULL : &callbacks, user_data, result);
}

static int get_stats(instance *instance, underpass_stats *stats) {
  if (instance == NULL || stats == NULL) return wrong("NULL");
  if (stats->size < sizeof stats->size) return wrong("stats: size is wrong");
  double values[STATS];
  int status = instance_stats(instance, values);
  if (status != 0) return status;
  const underpass_stats all = {
      .size = stats->size,
      .sessions = (uint64_t)values[STAT_SESSIONS],
      .lanes = (uint64_t)values[STAT_LANES],
      .associations = (uint64_t)values[STAT_ASSOCIATIONS],
      .contexts = (uint64_t)values[STAT_CONTEXTS],
      .datagrams_in = (uint64_t)values[STAT_DATAGRAMS_IN],
      .datagrams_out = (uint64_t)values[STAT_DATAGRAMS_OUT],
      .bytes_in = (uint64_t)values[STAT_BYTES_IN],
      .bytes_out = (uint64_t)values[STAT_BYTES_OUT],
      .resumed = (uint64_t)values[STAT_RESUMED],
      .dropped = (uint64_t)values[STAT_DROPPED],
      .refused = (uint64_t)values[STAT_REFUSED],
      .rtt_ms = values[STAT_RTT_MS],
  };
  size_t size = stats->size;
  memcpy(stats, &all, size < sizeof all ? size : sizeof all);
  return 0;
}

static int take_carrier(const underpass_carrier *given, underpass_carrier *carrier) {
  if (!take_struct(carrier, sizeof *carrier, given, given->size, offsetof(underpass_carrier, drained)))
    return wrong("carrier: size is wrong");
  return carrier->open == NULL || carrier->write == NULL ? wrong("carrier: open and write are needed") : 0;
}

static int get_report(instance *instance, char **json) {
  if (json == NULL) return wrong("NULL");
  *json = NULL;
  return instance == NULL ? wrong("NULL") : instance_report(instance, json);
}

static int local_start(const underpass_local_options *given, place place, const underpass_callbacks *callbacks,
                       void *user_data, underpass_local **local) {
  if (local == NULL) return wrong("local: NULL");
  *local = NULL;
  if (given == NULL) return wrong("options: NULL");
  underpass_local_options options = {0};
  if (!take_struct(&options, sizeof options, given, given->size, sizeof given->size))
    return wrong("options: size is wrong");
  underpass_carrier carrier = {0};
  int status = options.carrier == NULL ? 0 : take_carrier(options.carrier, &carrier);
  if (status != 0) return status;
  const start_options start_with = {
      .program = "local",
      .carrier = options.carrier == NULL ? NULL : &carrier,
      .config = options.config,
      .server = options.server,
      .psk = options.psk,
      .psk_bytes = options.psk_bytes,
      .listen = &options.listen,
      .listen_count = options.listen == NULL ? 0 : 1,
      .forwards = options.forwards,
      .forward_count = options.forward_count,
      .memory_bytes = options.memory_bytes,
      .loop = options.loop,
  };
  return start(&start_with, place, callbacks, user_data, (instance **)local);
}

static int server_start(const underpass_server_options *given, place place, const underpass_callbacks *callbacks,
                        void *user_data, underpass_server **server) {
  if (server == NULL) return wrong("server: NULL");
  *server = NULL;
  if (given == NULL) return wrong("options: NULL");
  underpass_server_options options = {0};
  if (!take_struct(&options, sizeof options, given, given->size, sizeof given->size))
    return wrong("options: size is wrong");
  const start_options start_with = {
      .program = "server",
      .config = options.config,
      .psk = options.psk,
      .psk_bytes = options.psk_bytes,
      .listen = options.listen,
      .listen_count = options.listen_count,
      .memory_bytes = options.memory_bytes,
      .loop = options.loop,
  };
  return start(&start_with, place, callbacks, user_data, (instance **)server);
}

int underpass_local_start(const underpass_local_options *options, const underpass_callbacks *callbacks, void *user_data,
                          underpass_local **local) {
  return local_start(options, PLACE_OWN_THREAD, callbacks, user_data, local);
}

int underpass_local_run(const underpass_local_options *options, const underpass_callbacks *callbacks, void *user_data,
                        underpass_local **local) {
  int status = local_start(options, PLACE_CALLING_THREAD, callbacks, user_data, local);
  return status != 0 ? status : instance_run((instance *)*local);
}

int underpass_local_stop(underpass_local *local) {
  return local == NULL ? wrong("local: NULL") : instance_stop((instance *)local);
}

int underpass_local_network_changed(underpass_local *local) {
  return local == NULL ? wrong("local: NULL") : instance_reconnect((instance *)local);
}

int underpass_local_stats(underpass_local *local, underpass_stats *stats) {
  return get_stats((instance *)local, stats);
}

int underpass_local_report(underpass_local *local, char **json) {
  return get_report((instance *)local, json);
}

void underpass_local_free(underpass_local *local) {
  if (local != NULL) instance_free((instance *)local);
}

// `carrier` provides the memory for the carrier of the options.
static int take_tun2socks(const underpass_tun2socks_options *given, underpass_carrier *carrier, start_options *result) {
  if (given == NULL) return wrong("options: NULL");
  underpass_tun2socks_options options = {0};
  if (!take_struct(&options, sizeof options, given, given->size, sizeof given->size))
    return wrong("options: size is wrong");
  int status = options.carrier == NULL ? 0 : take_carrier(options.carrier, carrier);
  if (status != 0) return status;
  *result = (start_options){
      .program = "tun2socks",
      .carrier = options.carrier == NULL ? NULL : carrier,
      .config = options.config,
      .server = options.server,
      .psk = options.psk,
      .psk_bytes = options.psk_bytes,
      .device = options.device,
      .memory_bytes = options.memory_bytes,
      .loop = options.loop,
  };
  return 0;
}

static int tun2socks_start(const underpass_tun2socks_options *given, place place, const underpass_callbacks *callbacks,
                           void *user_data, underpass_tun2socks **tun2socks) {
  if (tun2socks == NULL) return wrong("tun2socks: NULL");
  *tun2socks = NULL;
  underpass_carrier carrier = {0};
  start_options options;
  int status = take_tun2socks(given, &carrier, &options);
  return status != 0 ? status : start(&options, place, callbacks, user_data, (instance **)tun2socks);
}

int underpass_tun2socks_plan(const underpass_tun2socks_options *given, const underpass_callbacks *given_callbacks, char **plan) {
  if (plan == NULL) return wrong("plan: NULL");
  *plan = NULL;
  underpass_carrier carrier = {0};
  underpass_callbacks callbacks = {0};
  start_options options;
  int status = take_tun2socks(given, &carrier, &options);
  if (status == 0) status = take_callbacks(given_callbacks, &callbacks);
  if (status == 0) status = check(&options);
  return status != 0 ? status : instance_plan(&options, &callbacks, plan);
}

int underpass_tun2socks_start(const underpass_tun2socks_options *options, const underpass_callbacks *callbacks,
                              void *user_data, underpass_tun2socks **tun2socks) {
  return tun2socks_start(options, PLACE_OWN_THREAD, callbacks, user_data, tun2socks);
}

int underpass_tun2socks_run(const underpass_tun2socks_options *options, const underpass_callbacks *callbacks,
                            void *user_data, underpass_tun2socks **tun2socks) {
  int status = tun2socks_start(options, PLACE_CALLING_THREAD, callbacks, user_data, tun2socks);
  return status != 0 ? status : instance_run((instance *)*tun2socks);
}

ptrdiff_t underpass_tun2socks_packets(underpass_tun2socks *tun2socks, const underpass_packet *packets, size_t count) {
  if (tun2socks == NULL) return wrong("tun2socks: NULL");
  if (packets == NULL && count > 0) return wrong("packets: NULL with a count");
  return packets_send((instance *)tun2socks, packets, count);
}

int underpass_tun2socks_stop(underpass_tun2socks *tun2socks) {
  return tun2socks == NULL ? wrong("tun2socks: NULL") : instance_stop((instance *)tun2socks);
}

int underpass_tun2socks_network_changed(underpass_tun2socks *tun2socks) {
  return tun2socks == NULL ? wrong("tun2socks: NULL") : instance_reconnect((instance *)tun2socks);
}

int underpass_tun2socks_stats(underpass_tun2socks *tun2socks, underpass_stats *stats) {
  return get_stats((instance *)tun2socks, stats);
}

void underpass_tun2socks_free(underpass_tun2socks *tun2socks) {
  if (tun2socks != NULL) instance_free((instance *)tun2socks);
}

int underpass_association_open(underpass_local *local, const underpass_association_callbacks *given, void *user_data,
                               underpass_association **association) {
  if (association == NULL) return wrong("association: NULL");
  *association = NULL;
  if (local == NULL) return wrong("local: NULL");
  underpass_association_callbacks callbacks = {0};
  if (given != NULL && !take_struct(&callbacks, sizeof callbacks, given, given->size, sizeof given->size))
    return wrong("callbacks: size is wrong");
  return association_open((instance *)local, &callbacks, user_data, association);
}

int underpass_server_start(const underpass_server_options *options, const underpass_callbacks *callbacks,
                           void *user_data, underpass_server **server) {
  return server_start(options, PLACE_OWN_THREAD, callbacks, user_data, server);
}

int underpass_server_run(const underpass_server_options *options, const underpass_callbacks *callbacks, void *user_data,
                         underpass_server **server) {
  int status = server_start(options, PLACE_CALLING_THREAD, callbacks, user_data, server);
  return status != 0 ? status : instance_run((instance *)*server);
}

int underpass_server_stop(underpass_server *server) {
  return server == NULL ? wrong("server: NULL") : instance_stop((instance *)server);
}

int underpass_server_stats(underpass_server *server, underpass_stats *stats) {
  return get_stats((instance *)server, stats);
}

int underpass_server_report(underpass_server *server, char **json) {
  return get_report((instance *)server, json);
}

void underpass_server_free(underpass_server *server) {
  if (server != NULL) instance_free((instance *)server);
}

void underpass_text_free(char *text) { free(text); }

const char *underpass_version(void) { return UNDERPASS_VERSION; }

const char *underpass_error_name(int status) {
  for (size_t i = 0; i < sizeof ERROR_NAMES / sizeof *ERROR_NAMES; i++)
    if (ERROR_NAMES[i].status == status) return ERROR_NAMES[i].name;
  return NULL;
}

const char *underpass_error_text(void) { return error_text(); }
