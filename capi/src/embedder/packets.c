#include "packets.h"

#include <stdlib.h>

#include "../host.h"
#include "guest.h"
#include "queue.h"

// Limit of packets that wait for the instance's thread.
#define MAX_WAITING_BYTES (4 * 1024 * 1024)
#define MAX_WAITING 4096
#define MAX_PACKET_BYTES 65535
#define MAX_WRITTEN 256

struct packets {
  guest guest;
  // Memory of the script, and the function to call for it.
  JSValue arena, offsets, lengths, on_packets;
  JSContext *context;
  // Guarded by the guest's mutex.
  queue queue;
};

static int32_t take(packets *packets) {
  bytes_view arena = get_bytes(packets->context, packets->arena);
  bytes_view offsets = get_bytes(packets->context, packets->offsets);
  bytes_view lengths = get_bytes(packets->context, packets->lengths);
  size_t max = offsets.bytes / sizeof(int32_t), at = 0, length, tail;
  int32_t count = 0;
  uv_mutex_lock(&packets->guest.mutex);
  for (; (size_t)count < max; count++) {
    const uint8_t *packet = queue_first(&packets->queue, &length, &tail);
    if (packet == NULL || at + length > arena.bytes) break;
    memcpy(arena.data + at, packet, length);
    ((int32_t *)offsets.data)[count] = (int32_t)at;
    ((int32_t *)lengths.data)[count] = (int32_t)length;
    at += length;
    queue_pop(&packets->queue);
  }
  // The rest waits for the next turn.
  if (queue_count(&packets->queue) > 0) guest_stir(&packets->guest);
  uv_mutex_unlock(&packets->guest.mutex);
  return count;
}

static void handle(guest *guest) {
  packets *packets = (struct packets *)guest;
  // Packets wait until the script provides its memory.
  if (JS_IsUndefined(packets->on_packets)) return;
  int32_t count = take(packets);
  if (count > 0) engine_run_number(engine_of(packets->context), packets->on_packets, count);
}

static void leave(guest *guest) {
  packets *packets = (struct packets *)guest;
  JS_FreeValue(packets->context, packets->arena);
  JS_FreeValue(packets->context, packets->offsets);
  JS_FreeValue(packets->context, packets->lengths);
  JS_FreeValue(packets->context, packets->on_packets);
}

static void destroy(guest *guest) {
  packets *packets = (struct packets *)guest;
  queue_free(&packets->queue);
  free(packets);
}

static const guest_kind PACKETS = {handle, leave, destroy};

bool packets_open(instance *instance) {
  packets *packets = calloc(1, sizeof *packets);
  if (packets == NULL) return false;
  packets->context = instance->engine.context;
  packets->arena = packets->offsets = packets->lengths = packets->on_packets = JS_UNDEFINED;
  if (guest_join(&packets->guest, &PACKETS, instance)) {
    instance->packets = packets;
    return true;
  }
  free(packets);
  return false;
}

void packets_free(instance *instance) {
  if (instance->packets != NULL) guest_release(&instance->packets->guest);
}

// packetsSetup(arena, offsets, lengths, onPackets(count))
static JSValue packets_setup(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  packets *packets = instance_of(context)->packets;
  if (packets == NULL) return throw_system_error(context, UV_ENODEV, "packets");
  packets->arena = JS_DupValue(context, values[0]);
  packets->offsets = JS_DupValue(context, values[1]);
  packets->lengths = JS_DupValue(context, values[2]);
  packets->on_packets = JS_DupValue(context, values[3]);
  uv_mutex_lock(&packets->guest.mutex);
  guest_stir(&packets->guest);
  uv_mutex_unlock(&packets->guest.mutex);
  return JS_UNDEFINED;
}

// packetsWrite(input, arena, isInput, offsets, lengths, count): number of packets dropped
static JSValue packets_write(JSContext *context, JSValueConst self, int count, JSValueConst *values) {
  (void)self, (void)count;
  instance *instance = instance_of(context);
  bytes_view memory[2] = {get_bytes(context, values[1]), get_bytes(context, values[0])};
  bytes_view is_input = get_bytes(context, values[2]), offsets = get_bytes(context, values[3]),
             lengths = get_bytes(context, values[4]);
  int32_t rows = get_int(context, values[5]), written = 0;
  if (rows <= 0) return JS_NewInt32(context, 0);
  if (is_input.bytes < (size_t)rows || offsets.bytes / sizeof(int32_t) < (size_t)rows ||
      lengths.bytes / sizeof(int32_t) < (size_t)rows)
    return JS_NewInt32(context, rows);
  underpass_packet batch[MAX_WRITTEN];
  size_t batch_count = 0;
  for (int32_t row = 0; row < rows; row++) {
    bytes_view from = memory[is_input.data[row] == 1];
    int32_t offset = ((int32_t *)offsets.data)[row], length = ((int32_t *)lengths.data)[row];
    bool is_valid = offset >= 0 && length > 0 && (size_t)offset + (size_t)length <= from.bytes;
    if (is_valid) batch[batch_count++] = (underpass_packet){from.data + offset, (size_t)length};
    if (batch_count == 0 || (batch_count < MAX_WRITTEN && row + 1 < rows)) continue;
    if (instance->callbacks.packets != NULL) {
      instance->callbacks.packets(instance->user_data, batch, batch_count);
      written += (int32_t)batch_count;
    }
    batch_count = 0;
  }
  return JS_NewInt32(context, rows - written);
}

static const JSCFunctionListEntry FUNCTIONS[] = {
    FUNCTION("packetsSetup", 4, packets_setup),
    FUNCTION("packetsWrite", 6, packets_write),
};

void packets_add(JSContext *context, JSValueConst host) { ADD_FUNCTIONS(context, host, FUNCTIONS); }

// From any thread

ptrdiff_t packets_send(instance *instance, const underpass_packet *batch, size_t count) {
  packets *packets = instance->packets;
  if (packets == NULL) return set_error(UNDERPASS_ERR_STATE, "its device is not that of the caller");
  size_t sent = 0;
  const char *problem = NULL;
  uv_mutex_lock(&packets->guest.mutex);
  bool is_open = packets->guest.instance != NULL;
  for (; is_open && sent < count; sent++) {
    const underpass_packet *packet = &batch[sent];
    if (packet->data == NULL || packet->bytes == 0 || packet->bytes > MAX_PACKET_BYTES)
      problem = "packets: expected 1 to 65535 bytes each";
    if (problem != NULL ||
        !queue_push(&packets->queue, MAX_WAITING, MAX_WAITING_BYTES, packet->data, packet->bytes, NULL, 0))
      break;
  }
  if (sent > 0) guest_stir(&packets->guest);
  uv_mutex_unlock(&packets->guest.mutex);
  if (!is_open) return set_error(UNDERPASS_ERR_STATE, "it has stopped");
  return problem != NULL && sent == 0 ? set_error(UNDERPASS_ERR_OPTION, problem) : (ptrdiff_t)sent;
}
