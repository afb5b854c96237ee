// TCP for packets that no kernel receives, as src/host/io/native-module.ts declares it, over native/io/tcp-stack.h.
#include "io/tcp-stack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../host.h"

// Values of the binding: the lent memory; it has no functions.
enum { PACKETS, OFFSETS, LENGTHS, RECEIVED, EVENTS, LENT };

typedef struct tcp_stack {
  struct tcp_stack *next;
  int32_t number;
  io_tcp_stack *stack;
  binding *binding;
} tcp_stack;

static io_tcp_stack *stack_of(JSContext *context, JSValueConst value) {
  int32_t number = get_int(context, value);
  for (tcp_stack *at = instance_of(context)->tcp_stacks; at != NULL; at = at->next)
    if (at->number == number) return at->stack;
  return NULL;
}

// tcpStackOpen(MTU, hasVirtio, maxFlows, memoryBytes, secret, packets, offsets, lengths, received, events): number of the stack
static JSValue stack_open(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  instance *instance = instance_of(context);
  bytes_view secret = get_bytes(context, values[4]), lent[LENT];
  for (int i = 0; i < LENT; i++) lent[i] = get_bytes(context, values[5 + i]);
  io_tcp_stack_options options = {.mtu = get_int(context, values[0]),
                                  .has_virtio = JS_ToBool(context, values[1]) == 1,
                                  .max_flows = (uint32_t)get_number(context, values[2]),
                                  .memory_bytes = (size_t)get_number(context, values[3])};
  if (secret.bytes != sizeof options.secret || lent[OFFSETS].bytes != lent[LENGTHS].bytes)
    return throw_system_error(context, UV_EINVAL, "tcpStackOpen");
  memcpy(options.secret, secret.data, sizeof options.secret);
  const io_tcp_stack_memory memory = {.packets = lent[PACKETS].data,
                                      .packet_bytes = lent[PACKETS].bytes,
                                      .offsets = (int32_t *)lent[OFFSETS].data,
                                      .lengths = (int32_t *)lent[LENGTHS].data,
                                      .capacity = lent[OFFSETS].bytes / sizeof(int32_t),
                                      .received = lent[RECEIVED].data,
                                      .received_bytes = lent[RECEIVED].bytes,
                                      .events = (int32_t *)lent[EVENTS].data,
                                      .event_capacity = lent[EVENTS].bytes / sizeof(int32_t) / IO_TCP_STACK_EVENT_INTS};
  tcp_stack *made = calloc(1, sizeof *made);
  if (made == NULL) return JS_ThrowOutOfMemory(context);
  made->binding = binding_create(context, values + 5, LENT);
  if (made->binding == NULL) {
    free(made);
    return JS_EXCEPTION;
  }
  int error = io_tcp_stack_create(&options, &memory, &made->stack);
  if (error != 0) {
    binding_free(made->binding);
    free(made);
    return throw_system_error(context, error, "tcpStackOpen");
  }
  made->number = ++instance->last_tcp_stack;
  made->next = instance->tcp_stacks;
  instance->tcp_stacks = made;
  return JS_NewInt32(context, made->number);
}

static void free_stack(tcp_stack *stack) {
  io_tcp_stack_free(stack->stack);
  binding_free(stack->binding);
  free(stack);
}

static JSValue stack_free(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  int32_t number = get_int(context, values[0]);
  for (tcp_stack **at = &instance_of(context)->tcp_stacks; *at != NULL; at = &(*at)->next) {
    tcp_stack *found = *at;
    if (found->number != number) continue;
    *at = found->next;
    free_stack(found);
    break;
  }
  return JS_UNDEFINED;
}

// tcpStackSegments(stack, now, data, rows, count)
static JSValue stack_segments(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_tcp_stack *stack = stack_of(context, values[0]);
  bytes_view data = get_bytes(context, values[2]), rows = get_bytes(context, values[3]);
  int32_t segments = get_int(context, values[4]);
  bool is_within = segments > 0 && (size_t)segments <= rows.bytes / (IO_TCP_STACK_SEGMENT_INTS * sizeof(int32_t));
  if (stack != NULL && is_within)
    io_tcp_stack_handle_segments(stack, get_number(context, values[1]), data.data, data.bytes, (int32_t *)rows.data,
                                 (size_t)segments);
  return JS_UNDEFINED;
}

// tcpStackWrite(stack, now, flow, bytes, length): how many were accepted, or a system error
static JSValue stack_write(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_tcp_stack *stack = stack_of(context, values[0]);
  bytes_view bytes = get_bytes(context, values[3]);
  int32_t length = get_int(context, values[4]);
  if (stack == NULL || length < 0 || (size_t)length > bytes.bytes) return JS_NewInt32(context, UV_EINVAL);
  return JS_NewInt64(context, io_tcp_stack_write(stack, get_number(context, values[1]), (uint32_t)get_int(context, values[2]),
                                                 bytes.data, (size_t)length));
}

// tcpStackIsFull(stack, flow): whether a STACK_WRITABLE follows
static JSValue stack_is_full(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  const io_tcp_stack *stack = stack_of(context, values[0]);
  return JS_NewBool(context, stack != NULL && io_tcp_stack_is_full(stack, (uint32_t)get_int(context, values[1])));
}

// tcpStackEnd(stack, now, flow); tcpStackClose(stack, now, flow)
static JSValue end_by(JSContext *context, JSValueConst *values, void (*how)(io_tcp_stack *, double, uint32_t)) {
  io_tcp_stack *stack = stack_of(context, values[0]);
  if (stack != NULL) how(stack, get_number(context, values[1]), (uint32_t)get_int(context, values[2]));
  return JS_UNDEFINED;
}

static JSValue stack_end(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  return end_by(context, values, io_tcp_stack_end);
}

static JSValue stack_close(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  return end_by(context, values, io_tcp_stack_close);
}

// tcpStackPause(stack, flow, whether to pause); tcpStackDrop(stack, flow, whether with a RST)
static JSValue call_with(JSContext *context, JSValueConst *values, void (*what)(io_tcp_stack *, uint32_t, bool)) {
  io_tcp_stack *stack = stack_of(context, values[0]);
  if (stack != NULL) what(stack, (uint32_t)get_int(context, values[1]), JS_ToBool(context, values[2]) == 1);
  return JS_UNDEFINED;
}

static JSValue stack_pause(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  return call_with(context, values, io_tcp_stack_pause);
}

static JSValue stack_drop(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  return call_with(context, values, io_tcp_stack_drop);
}

// tcpStackTimeout(stack, now)
static JSValue stack_timeout(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_tcp_stack *stack = stack_of(context, values[0]);
  if (stack != NULL) io_tcp_stack_handle_timeout(stack, get_number(context, values[1]));
  return JS_UNDEFINED;
}

// tcpStackNextTimeout(stack): Infinity for never
static JSValue stack_next_timeout(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_tcp_stack *stack = stack_of(context, values[0]);
  return JS_NewFloat64(context, stack == NULL ? HUGE_VAL : io_tcp_stack_next_timeout(stack));
}

// tcpStackPollPackets(stack): their number
static JSValue stack_poll_packets(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_tcp_stack *stack = stack_of(context, values[0]);
  return JS_NewInt32(context, stack == NULL ? 0 : io_tcp_stack_poll_packets(stack));
}

// tcpStackPollEvents(stack): their number
static JSValue stack_poll_events(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_tcp_stack *stack = stack_of(context, values[0]);
  return JS_NewInt32(context, stack == NULL ? 0 : io_tcp_stack_poll_events(stack));
}

// tcpStackCounts(stack, Float64Array)
static JSValue stack_counts(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_tcp_stack *stack = stack_of(context, values[0]);
  bytes_view counts = get_bytes(context, values[1]);
  if (stack != NULL && counts.bytes >= IO_TCP_STACK_COUNTS * sizeof(double))
    io_tcp_stack_counts(stack, (double *)counts.data);
  return JS_UNDEFINED;
}

static const JSCFunctionListEntry FUNCTIONS[] = {
    FUNCTION("tcpStackOpen", 10, stack_open),
    FUNCTION("tcpStackFree", 1, stack_free),
    FUNCTION("tcpStackSegments", 5, stack_segments),
    FUNCTION("tcpStackWrite", 5, stack_write),
    FUNCTION("tcpStackIsFull", 2, stack_is_full),
    FUNCTION("tcpStackEnd", 3, stack_end),
    FUNCTION("tcpStackClose", 3, stack_close),
    FUNCTION("tcpStackPause", 3, stack_pause),
    FUNCTION("tcpStackDrop", 3, stack_drop),
    FUNCTION("tcpStackTimeout", 2, stack_timeout),
    FUNCTION("tcpStackNextTimeout", 1, stack_next_timeout),
    FUNCTION("tcpStackPollPackets", 1, stack_poll_packets),
    FUNCTION("tcpStackPollEvents", 1, stack_poll_events),
    FUNCTION("tcpStackCounts", 2, stack_counts),
};

void tcp_stack_add(JSContext *context, JSValueConst host) {
  if (io_tcp_stack_is_there()) ADD_FUNCTIONS(context, host, FUNCTIONS);
}

void tcp_stacks_end(instance *instance) {
  while (instance->tcp_stacks != NULL) {
    tcp_stack *first = instance->tcp_stacks;
    instance->tcp_stacks = first->next;
    free_stack(first);
  }
}
