#include "../io/tcp-stack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "binding.h"

// References of its callee, which has no functions: the lent memory.
enum { PACKETS, OFFSETS, LENGTHS, RECEIVED, EVENTS, REFERENCES };

struct tcp_stacks {
  struct tcp_stacks *next;
  int32_t number;
  io_tcp_stack *stack;
  callee *callee;
};

static io_tcp_stack *stack_of(napi_env env, napi_value value) {
  int32_t number = get_int(env, value);
  for (tcp_stacks *at = environment_of(env)->tcp_stacks; at != NULL; at = at->next) {
    if (at->number == number) return at->stack;
  }
  return NULL;
}

// tcpStackOpen(MTU, hasVirtio, maxFlows, memoryBytes, secret, packets, offsets, lengths, received, events): number of the stack
static napi_value tcp_stack_open(napi_env env, napi_callback_info info) {
  napi_value values[5 + REFERENCES];
  if (!get_arguments(env, info, 5 + REFERENCES, values)) return NULL;
  bytes_view secret = get_bytes(env, values[4]), lent[REFERENCES];
  for (int i = 0; i < REFERENCES; i++) lent[i] = get_bytes(env, values[5 + i]);
  io_tcp_stack_options options = {.mtu = get_int(env, values[0]),
                                  .has_virtio = get_bool(env, values[1]),
                                  .max_flows = (uint32_t)get_number(env, values[2]),
                                  .memory_bytes = (size_t)get_number(env, values[3])};
  if (secret.bytes != sizeof options.secret || lent[OFFSETS].bytes != lent[LENGTHS].bytes)
    return throw_system_error(env, UV_EINVAL, "tcpStackOpen");
  memcpy(options.secret, secret.data, sizeof options.secret);
  io_tcp_stack_memory memory = {.packets = lent[PACKETS].data,
                                .packet_bytes = lent[PACKETS].bytes,
                                .offsets = ints_of(lent[OFFSETS]),
                                .lengths = ints_of(lent[LENGTHS]),
                                .capacity = lent[OFFSETS].bytes / sizeof(int32_t),
                                .received = lent[RECEIVED].data,
                                .received_bytes = lent[RECEIVED].bytes,
                                .events = ints_of(lent[EVENTS]),
                                .event_capacity = lent[EVENTS].bytes / sizeof(int32_t) / IO_TCP_STACK_EVENT_INTS};
  tcp_stacks *made = calloc(1, sizeof *made);
  if (made == NULL) return throw_system_error(env, UV_ENOMEM, "tcpStackOpen");
  int error = io_tcp_stack_create(&options, &memory, &made->stack);
  if (error != 0) {
    free(made);
    return throw_system_error(env, error, "tcpStackOpen");
  }
  made->callee = callee_new(env, "underpass:tcp-stack", values + 5, REFERENCES);
  if (made->callee == NULL) {
    io_tcp_stack_free(made->stack);
    free(made);
    return NULL;
  }
  environment *environment = environment_of(env);
  made->number = ++environment->last_tcp_stack;
  made->next = environment->tcp_stacks;
  environment->tcp_stacks = made;
  return make_int(env, made->number);
}

static void free_stack(tcp_stacks *stack) {
  io_tcp_stack_free(stack->stack);
  callee_free(stack->callee);
  free(stack);
}

// tcpStackFree(stack)
static napi_value tcp_stack_free(napi_env env, napi_callback_info info) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  int32_t number = get_int(env, value);
  for (tcp_stacks **at = &environment_of(env)->tcp_stacks; *at != NULL; at = &(*at)->next) {
    tcp_stacks *found = *at;
    if (found->number != number) continue;
    *at = found->next;
    free_stack(found);
    break;
  }
  return NULL;
}

void tcp_stacks_end(environment *environment) {
  while (environment->tcp_stacks != NULL) {
    tcp_stacks *first = environment->tcp_stacks;
    environment->tcp_stacks = first->next;
    free_stack(first);
  }
}

// tcpStackSegments(stack, now, data, rows, count)
static napi_value tcp_stack_segments(napi_env env, napi_callback_info info) {
  napi_value values[5];
  if (!get_arguments(env, info, 5, values)) return NULL;
  io_tcp_stack *stack = stack_of(env, values[0]);
  bytes_view data = get_bytes(env, values[2]), rows = get_bytes(env, values[3]);
  int32_t count = get_int(env, values[4]);
  bool is_within = count > 0 && (size_t)count <= rows.bytes / (IO_TCP_STACK_SEGMENT_INTS * sizeof(int32_t));
  if (stack != NULL && is_within)
    io_tcp_stack_handle_segments(stack, get_number(env, values[1]), data.data, data.bytes, ints_of(rows), (size_t)count);
  return NULL;
}

// tcpStackWrite(stack, now, flow, bytes, length): how many were accepted, or a system error
static napi_value tcp_stack_write(napi_env env, napi_callback_info info) {
  napi_value values[5];
  if (!get_arguments(env, info, 5, values)) return NULL;
  io_tcp_stack *stack = stack_of(env, values[0]);
  bytes_view bytes = get_bytes(env, values[3]);
  int64_t length = get_int(env, values[4]);
  if (stack == NULL || length < 0 || (size_t)length > bytes.bytes) return make_int(env, UV_EINVAL);
  uint32_t flow = (uint32_t)get_int(env, values[2]);
  return make_int(env, io_tcp_stack_write(stack, get_number(env, values[1]), flow, bytes.data, (size_t)length));
}

// tcpStackIsFull(stack, flow): whether a STACK_WRITABLE follows
static napi_value tcp_stack_is_full(napi_env env, napi_callback_info info) {
  napi_value values[2];
  if (!get_arguments(env, info, 2, values)) return NULL;
  io_tcp_stack *stack = stack_of(env, values[0]);
  return make_bool(env, stack != NULL && io_tcp_stack_is_full(stack, (uint32_t)get_int(env, values[1])));
}

// tcpStackEnd(stack, now, flow); tcpStackClose(stack, now, flow)
static napi_value end_by(napi_env env, napi_callback_info info, void (*how)(io_tcp_stack *, double, uint32_t)) {
  napi_value values[3];
  if (!get_arguments(env, info, 3, values)) return NULL;
  io_tcp_stack *stack = stack_of(env, values[0]);
  if (stack != NULL) how(stack, get_number(env, values[1]), (uint32_t)get_int(env, values[2]));
  return NULL;
}

static napi_value tcp_stack_end(napi_env env, napi_callback_info info) {
  return end_by(env, info, io_tcp_stack_end);
}

static napi_value tcp_stack_close(napi_env env, napi_callback_info info) {
  return end_by(env, info, io_tcp_stack_close);
}

// tcpStackPause(stack, flow, whether to pause); tcpStackDrop(stack, flow, whether with a RST)
static napi_value call(napi_env env, napi_callback_info info, void (*what)(io_tcp_stack *, uint32_t, bool)) {
  napi_value values[3];
  if (!get_arguments(env, info, 3, values)) return NULL;
  io_tcp_stack *stack = stack_of(env, values[0]);
  if (stack != NULL) what(stack, (uint32_t)get_int(env, values[1]), get_bool(env, values[2]));
  return NULL;
}

static napi_value tcp_stack_pause(napi_env env, napi_callback_info info) {
  return call(env, info, io_tcp_stack_pause);
}

static napi_value tcp_stack_drop(napi_env env, napi_callback_info info) {
  return call(env, info, io_tcp_stack_drop);
}

// tcpStackTimeout(stack, now)
static napi_value tcp_stack_timeout(napi_env env, napi_callback_info info) {
  napi_value values[2];
  if (!get_arguments(env, info, 2, values)) return NULL;
  io_tcp_stack *stack = stack_of(env, values[0]);
  if (stack != NULL) io_tcp_stack_handle_timeout(stack, get_number(env, values[1]));
  return NULL;
}

// tcpStackNextTimeout(stack): Infinity for never
static napi_value tcp_stack_next_timeout(napi_env env, napi_callback_info info) {
  napi_value value, result;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  io_tcp_stack *stack = stack_of(env, value);
  napi_create_double(env, stack == NULL ? HUGE_VAL : io_tcp_stack_next_timeout(stack), &result);
  return result;
}

static napi_value poll_by(napi_env env, napi_callback_info info, int32_t (*how)(io_tcp_stack *)) {
  napi_value value;
  if (!get_arguments(env, info, 1, &value)) return NULL;
  io_tcp_stack *stack = stack_of(env, value);
  return make_int(env, stack == NULL ? 0 : how(stack));
}

// tcpStackPollPackets(stack), tcpStackPollEvents(stack): their number
static napi_value tcp_stack_poll_packets(napi_env env, napi_callback_info info) {
  return poll_by(env, info, io_tcp_stack_poll_packets);
}

static napi_value tcp_stack_poll_events(napi_env env, napi_callback_info info) {
  return poll_by(env, info, io_tcp_stack_poll_events);
}

// tcpStackCounts(stack, Float64Array)
static napi_value tcp_stack_counts(napi_env env, napi_callback_info info) {
  napi_value values[2];
  if (!get_arguments(env, info, 2, values)) return NULL;
  io_tcp_stack *stack = stack_of(env, values[0]);
  bytes_view out = get_bytes(env, values[1]);
  double counts[IO_TCP_STACK_COUNTS];
  if (stack == NULL || out.bytes < sizeof counts) return NULL;
  io_tcp_stack_counts(stack, counts);
  memcpy(out.data, counts, sizeof counts);
  return NULL;
}

void tcp_stack_init(napi_env env, napi_value exports) {
  if (!io_tcp_stack_is_there()) return;
  set_function(env, exports, "tcpStackOpen", tcp_stack_open);
  set_function(env, exports, "tcpStackFree", tcp_stack_free);
  set_function(env, exports, "tcpStackSegments", tcp_stack_segments);
  set_function(env, exports, "tcpStackWrite", tcp_stack_write);
  set_function(env, exports, "tcpStackIsFull", tcp_stack_is_full);
  set_function(env, exports, "tcpStackEnd", tcp_stack_end);
  set_function(env, exports, "tcpStackClose", tcp_stack_close);
  set_function(env, exports, "tcpStackPause", tcp_stack_pause);
  set_function(env, exports, "tcpStackDrop", tcp_stack_drop);
  set_function(env, exports, "tcpStackTimeout", tcp_stack_timeout);
  set_function(env, exports, "tcpStackNextTimeout", tcp_stack_next_timeout);
  set_function(env, exports, "tcpStackPollPackets", tcp_stack_poll_packets);
  set_function(env, exports, "tcpStackPollEvents", tcp_stack_poll_events);
  set_function(env, exports, "tcpStackCounts", tcp_stack_counts);
}
