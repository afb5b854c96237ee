// The tests of native/io by itself: no JavaScript engine, no Node. scripts/test-native.mjs builds and runs them.
#include "world.h"

int main(void) {
  // libuv opens a few descriptors with a process's first loop.
  uv_loop_t first;
  if (uv_loop_init(&first) != 0 || uv_loop_close(&first) != 0) return 1;
  int failed = udp_tests() + stream_tests() + shortcut_carrying_tests() + shortcut_ending_tests() + shortcut_random_tests() +
               packet_shortcut_tests() + connection_tests() + device_tests() + context_tests() + tcp_stack_opening_tests() +
               tcp_stack_data_tests() + tcp_stack_ending_tests() + tcp_stack_limits_tests();
  return failed == 0 ? 0 : 1;
}
