// The options that a start accepts.
#include <stdio.h>
#include <string.h>

#include "recorder.h"

static const char *const FORWARDS[] = {"127.0.0.1:0=127.0.0.1:9"};
static const char KEY[] = "sixteen bytes!!!";

static underpass_local_options good_options(void) {
  return (underpass_local_options){.size = sizeof(underpass_local_options),
                                   .server = "127.0.0.1:1",
                                   .psk = KEY,
                                   .psk_bytes = 16,
                                   .forwards = FORWARDS,
                                   .forward_count = 1};
}

static void assert_refused(const underpass_local_options *options, int status, const char *names) {
  recorder recorder;
  recorder_init(&recorder);
  underpass_callbacks callbacks = recorder_callbacks();
  underpass_local *local = (underpass_local *)&recorder;
  assert_int_equal(underpass_local_start(options, &callbacks, &recorder, &local), status);
  assert_null(local);
  if (strstr(underpass_error_text(), names) == NULL) fail_msg("%s: no %s in it", underpass_error_text(), names);
  assert_int_equal(recorder_get(&recorder, &recorder.stopped), 0);
  assert_int_equal(recorder_get(&recorder, &recorder.errors), 0);
  recorder_destroy(&recorder);
}

static void refuses_null_and_wrong_sizes(void **state) {
  (void)state;
  underpass_local_options options = good_options();
  assert_int_equal(underpass_local_start(&options, NULL, NULL, NULL), UNDERPASS_ERR_OPTION);
  assert_refused(NULL, UNDERPASS_ERR_OPTION, "options");
  options.size = 0;
  assert_refused(&options, UNDERPASS_ERR_OPTION, "size");
  options = good_options();
  underpass_callbacks callbacks = recorder_callbacks();
  callbacks.size = 1;
  underpass_local *local;
  assert_int_equal(underpass_local_start(&options, &callbacks, NULL, &local), UNDERPASS_ERR_OPTION);
  assert_non_null(strstr(underpass_error_text(), "callbacks"));
}

static void reads_structs_of_other_versions(void **state) {
  (void)state;
  // An older struct ends before later fields.
  underpass_local_options older = good_options();
  older.size = offsetof(underpass_local_options, config);
  older.config = (const char *)1;
  underpass_local *local;
  assert_int_equal(underpass_local_start(&older, NULL, NULL, &local), 0);
  underpass_local_free(local);
  // A newer struct may have more fields, as long as they are not used.
  struct {
    underpass_local_options options;
    void *later;
  } newer = {good_options(), NULL};
  newer.options.size = sizeof newer;
  assert_int_equal(underpass_local_start(&newer.options, NULL, NULL, &local), 0);
  underpass_local_free(local);
  newer.later = &newer;
  assert_refused(&newer.options, UNDERPASS_ERR_OPTION, "size");
}

static void refuses_fields_that_do_not_fit_together(void **state) {
  (void)state;
  underpass_local_options options = good_options();
  options.psk = NULL;
  assert_refused(&options, UNDERPASS_ERR_OPTION, "psk");
  options = good_options();
  options.forwards = NULL;
  assert_refused(&options, UNDERPASS_ERR_OPTION, "forwards");
  const char *const with_null[] = {FORWARDS[0], NULL};
  options.forwards = with_null;
  options.forward_count = 2;
  assert_refused(&options, UNDERPASS_ERR_OPTION, "forwards");
  options = good_options();
  options.memory_bytes = 1000;
  assert_refused(&options, UNDERPASS_ERR_OPTION, "memory_bytes");
  options = good_options();
  options.loop = &options;
  assert_refused(&options, UNDERPASS_ERR_OPTION, "loop");
}

static void names_what_is_wrong_in_an_option(void **state) {
  (void)state;
  underpass_local_options options = good_options();
  options.psk_bytes = 15;
  assert_refused(&options, UNDERPASS_ERR_OPTION, "psk");
  options = good_options();
  options.server = "nowhere";
  assert_refused(&options, UNDERPASS_ERR_OPTION, "nowhere");
  const char *const bad_forward[] = {"127.0.0.1:1"};
  options = good_options();
  options.forwards = bad_forward;
  assert_refused(&options, UNDERPASS_ERR_OPTION, "127.0.0.1:1");
  options = good_options();
  options.config = "{\"no-such-option\": 1}";
  assert_refused(&options, UNDERPASS_ERR_OPTION, "no-such-option");
  options.config = "{";
  assert_refused(&options, UNDERPASS_ERR_OPTION, "config");
  options.config = "[]";
  assert_refused(&options, UNDERPASS_ERR_OPTION, "config");
  options.config = "{\"heartbeat-ms\": 5}";
  assert_refused(&options, UNDERPASS_ERR_OPTION, "heartbeat-ms");
  options.config = "{\"server\": \"127.0.0.1:2\"}";
  assert_refused(&options, UNDERPASS_ERR_OPTION, "server");
  options.config = "{\"psk-file\": \"/nowhere/psk\"}";
  options.psk = NULL;
  options.psk_bytes = 0;
  assert_refused(&options, UNDERPASS_ERR_FILE, "/nowhere/psk");
}

static void names_errors_and_its_version(void **state) {
  (void)state;
  assert_string_equal(underpass_error_name(UNDERPASS_ERR_OPTION), "ERR_OPTION");
  assert_string_equal(underpass_error_name(-60), "ERR_LISTEN");
  assert_null(underpass_error_name(0));
  assert_null(underpass_error_name(1));
  assert_non_null(strchr(underpass_version(), '.'));
}

static void survives_null_where_an_instance_belongs(void **state) {
  (void)state;
  underpass_stats stats = {.size = sizeof stats};
  assert_int_equal(underpass_local_stop(NULL), UNDERPASS_ERR_OPTION);
  assert_int_equal(underpass_local_stats(NULL, &stats), UNDERPASS_ERR_OPTION);
  assert_int_equal(underpass_server_stop(NULL), UNDERPASS_ERR_OPTION);
  underpass_local_free(NULL);
  underpass_server_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(refuses_null_and_wrong_sizes),
      cmocka_unit_test(reads_structs_of_other_versions),
      cmocka_unit_test(refuses_fields_that_do_not_fit_together),
      cmocka_unit_test(names_what_is_wrong_in_an_option),
      cmocka_unit_test(names_errors_and_its_version),
      cmocka_unit_test(survives_null_where_an_instance_belongs),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
