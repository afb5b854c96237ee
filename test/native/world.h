// One loop and one context for a test. At its end, nothing may be open or left over.
#ifndef UNDERPASS_TEST_WORLD_H
#define UNDERPASS_TEST_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
// After the headers that it needs.
#include <cmocka.h>

#include "../../native/io/address.h"
#include "../../native/io/loop.h"

typedef struct world {
  uv_loop_t loop;
  io_loop *io;
  int ended;
  int descriptors_before;
  uv_timer_t deadline;
  bool is_late;
} world;

void world_begin(world *world, const io_loop_options *options);

// Ends the context, unless a callback has, and checks that the loop has nothing left, and the process no more descriptors than
// before.
void world_finish(world *world);

// Ends the context, which may be done inside a callback.
void world_end_context(world *world);

void world_start_clock(world *world);

// Runs the loop until the condition holds; fails after ten seconds.
#define RUN_UNTIL(world, condition)              \
  do {                                           \
    world_start_clock(world);                    \
    while (!(condition)) {                       \
      uv_run(&(world)->loop, UV_RUN_ONCE);       \
      assert_false((world)->is_late);            \
    }                                            \
  } while (0)

// Runs the loop as far as possible without waiting.
void world_settle(world *world);

// 127.0.0.1 and a port.
typedef struct address {
  uint8_t bytes[IO_ADDRESS_IPV4_BYTES];
} address;
address loopback(int port);

int port_of(int descriptor);

// Reports an error condition to every poll handle of the loop, as libuv does: it stops watching first. Nothing explains the condition.
void report_conditions(world *world);
int count_descriptors(void);

#ifdef __linux__
// Makes the kernel record when it sends bytes (SOF_… of linux/net_tstamp.h; 0 to stop). It reports an error condition as long as such
// records wait to be read.
void set_timestamps(int descriptor, int flags);
bool has_error_condition(int descriptor);

// Tells the kernel by ICMP that the host at the other end of a TCP connection over 127.0.0.1 is unreachable. Returns false without
// the permission to do so.
bool report_unreachable(int descriptor);
#endif

int udp_tests(void);
int stream_tests(void);
int connection_tests(void);
int device_tests(void);
int context_tests(void);
int tcp_stack_opening_tests(void);
int tcp_stack_data_tests(void);
int tcp_stack_ending_tests(void);
int tcp_stack_limits_tests(void);
int shortcut_carrying_tests(void);
int shortcut_ending_tests(void);
int shortcut_random_tests(void);
int packet_shortcut_tests(void);

#endif
