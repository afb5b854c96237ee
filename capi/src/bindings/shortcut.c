// Shortcuts, as src/host/io/native-module.ts declares them, over native/io/shortcut.h.
#include "io/shortcut.h"

#include "../host.h"

// The arguments of shortcutOut and shortcutIn: socket, address, local, header, stream, context. Returns the shortcut's number, or
// -1.
static JSValue give(JSContext *context, JSValueConst *values, int32_t (*how)(io_loop *, const io_shortcut_flow *)) {
  bytes_view address = get_bytes(context, values[1]), header = get_bytes(context, values[3]);
  const io_shortcut_flow flow = {.socket = get_int(context, values[0]),
                                 .address = address.data,
                                 .address_bytes = address.bytes,
                                 .local = get_int(context, values[2]),
                                 .header = header.data,
                                 .header_bytes = header.bytes,
                                 .stream = get_int(context, values[4]),
                                 .context = get_int(context, values[5])};
  return JS_NewInt32(context, how(instance_of(context)->io, &flow));
}

static JSValue shortcut_out(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  return give(context, values, io_shortcut_out);
}

static JSValue shortcut_in(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  return give(context, values, io_shortcut_in);
}

// The arguments of shortcutPacketsOut and shortcutPacketsIn: device, source, remote, dscp, stream, context. Returns the
// shortcut's number, or -1.
static JSValue give_packets(JSContext *context, JSValueConst *values,
                            int32_t (*how)(io_loop *, const io_shortcut_packets *)) {
  bytes_view source = get_bytes(context, values[1]), remote = get_bytes(context, values[2]);
  const io_shortcut_packets flow = {.device = get_int(context, values[0]),
                                    .source = source.data,
                                    .remote = remote.data,
                                    .address_bytes = source.bytes == remote.bytes ? source.bytes : 0,
                                    .dscp = get_int(context, values[3]),
                                    .stream = get_int(context, values[4]),
                                    .context = get_int(context, values[5])};
  return JS_NewInt32(context, how(instance_of(context)->io, &flow));
}

static JSValue shortcut_packets_out(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  return give_packets(context, values, io_shortcut_packets_out);
}

static JSValue shortcut_packets_in(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  return give_packets(context, values, io_shortcut_packets_in);
}

// shortcutEnd(stream): ends all shortcuts of the stream
static JSValue shortcut_end(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_shortcut_end(instance_of(context)->io, get_int(context, values[0]));
  return JS_UNDEFINED;
}

// shortcutResume(stream): its shortcuts may read on
static JSValue shortcut_resume(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  io_shortcut_resume(instance_of(context)->io, get_int(context, values[0]));
  return JS_UNDEFINED;
}

// shortcutCounts(Float64Array): rows written
static JSValue shortcut_counts(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  bytes_view rows = get_bytes(context, values[0]);
  int32_t capacity = (int32_t)(rows.bytes / (IO_SHORTCUT_COUNT_NUMBERS * sizeof(double)));
  return JS_NewInt32(context, io_shortcut_counts(instance_of(context)->io, (double *)(void *)rows.data, capacity));
}

static const JSCFunctionListEntry FUNCTIONS[] = {
    FUNCTION("shortcutOut", 6, shortcut_out), FUNCTION("shortcutIn", 6, shortcut_in),
    FUNCTION("shortcutPacketsOut", 6, shortcut_packets_out), FUNCTION("shortcutPacketsIn", 6, shortcut_packets_in),
    FUNCTION("shortcutEnd", 1, shortcut_end), FUNCTION("shortcutResume", 1, shortcut_resume),
    FUNCTION("shortcutCounts", 1, shortcut_counts),
};

void shortcut_add(JSContext *context, JSValueConst host) { ADD_FUNCTIONS(context, host, FUNCTIONS); }
